"""The command line."""

from ziggurat.cli.app import main

__all__ = ["main"]
