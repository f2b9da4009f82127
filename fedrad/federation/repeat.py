"""A round whose streams broke is played again from its start, with the same seeds.

A site that died has lost its place in the conversation, and the network between its two ends is no
good without it. What a round began with is all there still: the server's state, and each site's
memory of the round before. So the repeated round ends with the bits of an undisturbed one.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import TypeVar

from fedrad.federation.counted import StreamBroken
from fedrad.federation.exchange import FlowerSites

__all__ = ["TIMES", "repeated"]

TIMES = 3
"""A round is repeated so often, at most."""

T = TypeVar("T")
Say = Callable[[str], None]


def repeated(play: Callable[..., T], *rounds: FlowerSites, say: Say) -> T:
    """Return what is made of a round, which is played again as long as its streams break.

    Args:
        play: is called with the rounds; leaves nothing behind when it raises.
        rounds: of sites. What a broken attempt has counted and noted is taken out of them, and its
            reason noted as `repeated`. Their deadline is for all attempts together.
        say: is told of each attempt that broke.

    Raises:
        StreamBroken: for the fourth time, or the deadline is over.
    """
    start = time.monotonic()
    reasons: list[str] = []
    for attempt in count():
        left = [replace(one, deadline=one.deadline - (time.monotonic() - start)) for one in rounds]
        try:
            return play(*left)
        except StreamBroken as error:
            if attempt == TIMES or time.monotonic() - start > min(one.deadline for one in rounds):
                raise
            reasons.append(str(error))
            say(f"{error}; it is repeated from its start")
        for one in rounds:
            one.traffic.down = one.traffic.up = one.traffic.steps = 0
            one.missing.clear()
            one.notes.clear()
            one.note("repeated", list(reasons))
    raise AssertionError("count() has no end")
