"""The command line: parse, call the library, print."""

from tfprune.cli.main import main

__all__ = ["main"]
