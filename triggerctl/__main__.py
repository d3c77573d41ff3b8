"""``python -m triggerctl``, and the command ``triggerctl``."""

from __future__ import annotations

import sys


def program() -> int:
    """Run the command line. It is loaded only here, so that Ctrl-C while it loads shows no traceback."""
    try:
        from triggerctl.cli.app import main

        return main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(program())
