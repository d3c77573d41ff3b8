"""triggerctl: where does a triggered habit leak, and which training strategy keeps it where it is wanted?"""

import os

__version__ = "0.1.0"

# OpenMP's threads spin while they wait for each other. On a machine where anything else runs, that made
# training ten times slower; sleeping costs microseconds. It must be said before PyTorch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
