"""`python -m bioforge`."""

from bioforge.cli import main

main()
