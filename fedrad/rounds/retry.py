"""A round whose streams broke is run again from its start, with the same seeds.

A site that died has lost its place in the conversation, and the network between its two ends is no
good without it. What a round began with is all there still: the server's state, and each site's
memory of the round before. So the repeated round ends with the bits of an undisturbed one.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import TypeVar

from fedrad.rounds.flower_sites import FlowerSites
from fedrad.rounds.metered_streams import StreamBroken
from fedrad.rounds.progress import Notify

__all__ = ["MAX_RETRIES", "run_with_retry"]

MAX_RETRIES = 3
"""A round is repeated so often, at most."""

T = TypeVar("T")


def run_with_retry(make_round: Callable[..., T], *rounds: FlowerSites, say: Notify) -> T:
    """Return what is made of a round, which is run again as long as its streams break.

    Args:
        make_round: is called with the rounds; leaves nothing behind when it raises.
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
            return make_round(*left)
        except StreamBroken as error:
            if attempt == MAX_RETRIES or time.monotonic() - start > min(
                one.deadline for one in rounds
            ):
                raise
            reasons.append(str(error))
            say(f"{error}; it is repeated from its start")
        for one in rounds:
            one.traffic.down = one.traffic.up = one.traffic.steps = 0
            one.missing.clear()
            one.notes.clear()
            one.note("repeated", list(reasons))
    raise AssertionError("count() has no end")
