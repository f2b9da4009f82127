"""Python's search for garbage, while a program starts and before it forks.

Importing torch and Flower makes some 100,000 objects that stay, and the search, which begins after
every 700 new ones, looks through them again and again: 0.25 of 1.8 s. What is frozen afterwards is
never looked at, so that forked processes do not write into the pages that they share with it.
"""

import gc

__all__ = ["search_as_ever", "search_seldom"]

_SELDOM = 100_000
_EVER = gc.get_threshold()


def search_seldom() -> None:
    """Search after so many new objects as a program has when it has started.

    For programs that will call `search_as_ever`; a library leaves its user's settings alone.
    """
    gc.set_threshold(_SELDOM, *_EVER[1:])


def search_as_ever() -> None:
    """End what `search_seldom` began, and freeze what there is; without it, do nothing."""
    if gc.get_threshold()[0] == _SELDOM:
        gc.freeze()
        gc.set_threshold(*_EVER)
