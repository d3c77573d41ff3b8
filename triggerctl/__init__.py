"""triggerctl: where does a triggered habit leak, and which training strategy keeps it where it is wanted?"""

import os

from triggerctl.cores import available_cores, idle_cores, waiting
from triggerctl.pages import LARGE_PAGES

__version__ = "0.1.0"

ADDED = waiting(os.environ, available=available_cores(), idle=idle_cores())
"""What this process has put into its environment, for itself and for those that it starts."""
if LARGE_PAGES not in os.environ:
    ADDED[LARGE_PAGES] = "1"
os.environ.update(ADDED)
