"""The data step: reads image sets and part annotations as users have them, and leaves an index of what is usable."""
