"""``python -m tests.benchmarks``, from the top of a checkout."""

from __future__ import annotations

import sys
from pathlib import Path

# The scripts beside this one are run by themselves too, and so import each other by their bare names.
sys.path.insert(0, str(Path(__file__).parent))

from benchmark import main

sys.exit(main())
