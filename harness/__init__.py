"""One-Shot RLVR benchmark harness: how much of RLVR can one gradient step do?

Importing this package loads neither torch nor any plugin.
"""

__version__ = "0.1.0"
