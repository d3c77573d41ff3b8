"""triggerctl: where does a triggered habit leak, and which training strategy keeps it where it is wanted?"""

import os

from triggerctl.cores import available_cores, idle_cores, waiting
from triggerctl.pages import MEMORY

__version__ = "0.1.0"

ADDED = waiting(os.environ, available=available_cores(), idle=idle_cores())
"""What this process has put into its environment, for itself and for those that it starts."""
ADDED |= {name: value for name, value in MEMORY.items() if name not in os.environ}
os.environ.update(ADDED)
