"""A worker does not outlive the process that forked it, not even in the middle of a round."""

import ctypes
import os
import signal
import sys

__all__ = ["kill_on_parent_exit"]

_PR_SET_PDEATHSIG = 1  # prctl(2)


def kill_on_parent_exit(parent: int) -> None:
    """Have Linux kill this process when its parent ends, in whatever way.

    Without it a worker trains to the end of its block before it meets the closed pipe. On another
    system nothing is done, and a worker stops there.

    Args:
        parent: process id; if it is gone already, this process ends at once.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have ended before the call, which then waits for the death of another.
    if os.getppid() != parent:
        os._exit(0)
