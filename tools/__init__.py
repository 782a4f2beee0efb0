"""What made the things that ship with the project; no part of what a user imports."""
