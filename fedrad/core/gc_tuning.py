"""Python's search for garbage, while a program starts and before it forks.

Importing torch and Flower makes some 100,000 objects that stay, and the search, which begins after
every 700 new ones, looks through them again and again: 0.25 of 1.8 s. What is frozen afterwards is
never looked at, so that forked processes do not write into the pages that they share with it.

At its end Python collects what modules held, which libraries of C++ count on: what they find alive
then they report as leaked (nanobind, by which Triton is bound, in thirty lines). So what was frozen
is thawed when the program ends; a forked process ends without that.
"""

import atexit
import gc

__all__ = ["raise_gc_threshold", "restore_gc_threshold"]

_SELDOM = 100_000
_EVER = gc.get_threshold()


def raise_gc_threshold() -> None:
    """Search after so many new objects as a program has when it has started.

    For programs that will call `restore_gc_threshold`; a library leaves its user's settings alone.
    """
    gc.set_threshold(_SELDOM, *_EVER[1:])


def restore_gc_threshold() -> None:
    """End what `raise_gc_threshold` began, and freeze what there is; without it, do nothing.

    Until the program ends, when all is collected that any program collects at its end.
    """
    if gc.get_threshold()[0] == _SELDOM:
        gc.freeze()
        atexit.register(gc.unfreeze)
        gc.set_threshold(*_EVER)
