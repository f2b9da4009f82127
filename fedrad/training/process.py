"""How a process that trains is set up."""

import ctypes
import sys
from contextlib import suppress

import torch

from fedrad.core.gc_tuning import restore_gc_threshold

__all__ = ["set_up_process"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_KEPT = 2**30  # bytes


def set_up_process() -> None:
    """Compute with one thread, and keep memory that is freed for the next step.

    One thread wherever a site trains: the number of threads changes the order of float sums.

    A step allocates the same tensors again and again. glibc gives large ones back to the system
    each time, which then has to clear every page anew: a third of a small net's step at 64 x 64
    pixels (`experiments/benchmarks/memory.py`). Other C libraries are left as they are.
    """
    torch.set_num_threads(1)
    restore_gc_threshold()
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(_MMAP_THRESHOLD, _KEPT)
        mallopt(_TRIM_THRESHOLD, _KEPT)
