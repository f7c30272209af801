"""A child process with limits of memory and time: decoders and foreign weights run in it.

The parent holds the limits, so nothing inside can lift them; what comes back is JSON and bytes,
never a pickle. On Linux the child is shut in besides: it opens no file but those of the Python it
runs on, writes none, starts no program and reaches no network.
"""

from .parent import Sandbox, StoppedError

__all__ = ["Sandbox", "StoppedError"]
