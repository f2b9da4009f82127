"""How many processes to train in; importing this loads nothing heavy."""

import logging
import os

__all__ = ["cores", "worker_count"]

log = logging.getLogger(__name__)


def cores() -> int:
    """Return the processor's cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def worker_count(asked: int | None, sites: int) -> int:
    """Return how many workers to start: as asked, else one a core, never more than sites.

    >>> worker_count(1, sites=20)
    1
    """
    here = cores()
    if asked is not None and asked > here:
        log.warning("%d workers on %d cores: they will wait for one another", asked, here)
    return max(1, min(asked or here, sites))
