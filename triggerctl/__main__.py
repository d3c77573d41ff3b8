"""``python -m triggerctl``: the same as the command ``triggerctl``."""

from __future__ import annotations

import sys

from triggerctl.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
