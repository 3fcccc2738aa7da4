"""The command line."""

from __future__ import annotations

import sys


def main() -> None:
    """The `ziggurat` command. All that it needs is loaded in here, where Ctrl-C is no traceback."""
    try:
        from ziggurat.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("ziggurat: interrupted; nothing was half-written\n")
        sys.exit(130)
