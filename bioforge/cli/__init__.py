"""The command line. Each module registers its commands; `edge.py` is the one place where errors become text."""

from bioforge.cli.app import main

__all__ = ["main"]
