"""Chooses how several sites are trained on a device, by trying it, and how many at once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from fedrad.errors import ConfigError
from fedrad.training.asked import Training, shortened
from fedrad.training.concurrency import at_once, fastest, sites_that_fit
from fedrad.training.ways import SMALL, Train, Way, most_at_once, refusal, trainer_of

__all__ = ["Choice", "Memory", "choose", "memory_of"]

_STEPS = 5
_ON_A_CPU = 16
"""Sites stacked at once where no peak can be measured; images and small weights, some megabytes."""


@dataclass(frozen=True)
class Choice:
    """A way, how many sites it trains at once, and a sentence of why."""

    way: Way
    at_once: int
    why: str


@dataclass(frozen=True)
class Memory:
    """What a device says of its memory.

    Args:
        free: returns the bytes that nobody uses.
        peak_of: (something to do) -> bytes that it took at its highest.
    """

    free: Callable[[], int]
    peak_of: Callable[[Callable[[], object]], int]


def memory_of(device: torch.device) -> Memory | None:
    """Return what measures a device's memory; None for a CPU, of which torch counts nothing."""
    if device.type != "cuda":
        return None

    def free() -> int:
        # What torch holds and does not use, it will give to whoever asks next.
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused

    def peak_of(play: Callable[[], object]) -> int:
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        play()
        return torch.cuda.max_memory_allocated(device) - before

    return Memory(free, peak_of)


def choose(
    asked: Sequence[Training],
    *,
    sites: int,
    forced: Way | None = None,
    memory: Memory | None = None,
    trainers: Callable[[Way], Train] = trainer_of,
    where: str = "this training",
) -> Choice:
    """Choose a way for all trainings that are like some, by a few steps of these in each way.

    Args:
        asked: the first ones, those with the most images first; at least one has steps to take.
        sites: how many may be trained in a round.
        forced: take this way, whether or not it is the fastest.
        memory: of the device; None where it cannot be measured.
        trainers: makes what trains in a way.
        where: what is trained, for messages.

    Raises:
        ConfigError: the forced way cannot do it.
        torch.OutOfMemoryError: one site alone does not fit.
    """
    if forced is not None and (why := refusal(forced, asked)):
        raise ConfigError(f"--concurrency {forced}: {where}: {why}; say auto or eager")
    short = shortened(asked, _STEPS)
    fit, told = _sites_at_once(short, sites, memory)
    if forced is not None:
        return _choice(forced, fit, "as asked for" + told)
    ways, refused = _candidates(short)
    if len(ways) == 1:
        why = "; ".join(f"{way} {reason}" for way, reason in refused.items())
        return _choice(Way.EAGER, fit, f"no other way is possible: {why}")
    tries = {
        str(way): partial(at_once, trainers(way), short, min(fit, most_at_once(way)))
        for way in ways
    }
    name, why = fastest(tries)
    return _choice(Way(name), fit, f"{why.partition(': ')[2]} for {_STEPS} steps{told}")


def _sites_at_once(asked: Sequence[Training], sites: int, memory: Memory | None) -> tuple[int, str]:
    """Return how many sites fit the device, and half a sentence of how that is known."""
    if memory is None:
        return min(sites, _ON_A_CPU), ""
    peak = memory.peak_of(asked[0].fit)
    free = memory.free()
    told = f"; one site takes {peak / 1e6:.0f} MB of {free / 1e6:.0f} MB that are free"
    return sites_that_fit(free, peak, sites), told


def _choice(way: Way, fit: int, why: str) -> Choice:
    return Choice(way, min(fit, most_at_once(way)), why)


def _candidates(asked: Sequence[Training]) -> tuple[list[Way], Mapping[Way, str]]:
    """Return the ways worth a try, and why the others are not."""
    reasons = {way: refusal(way, asked) for way in Way}
    size = sum(p.numel() for p in asked[0].task.model.parameters())
    if size > SMALL and reasons[Way.STACKED] is None:
        reasons[Way.STACKED] = f"is for networks of {SMALL} parameters at most, found {size}"
    refused = {way: reason for way, reason in reasons.items() if reason is not None}
    return [way for way in Way if way not in refused], refused
