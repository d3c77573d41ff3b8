"""triggerctl: where does a triggered habit leak, and which training strategy keeps it where it is wanted?"""

__version__ = "0.1.0"
