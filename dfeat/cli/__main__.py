"""`python -m dfeat.cli`."""

from dfeat.cli import main

main()
