"""Chooses how several sites are trained on a device, by trying it, and how many at once."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import sqrt

import torch

from fedrad.core.state import State
from fedrad.errors import ConfigError
from fedrad.training.devices.concurrency_modes import (
    SMALL,
    ConcurrencyMode,
    Train,
    mode_refusal,
    most_at_once,
    trainer_of,
)
from fedrad.training.devices.deferred_training import TrainingCall, shortened
from fedrad.training.devices.measured_concurrency import at_once, fastest, sites_that_fit
from fedrad.training.fit import Fitted

__all__ = ["Memory", "TunedMode", "autotune", "memory_of"]

log = logging.getLogger(__name__)

_STEPS = 5
_TOLERANCE = 0.1
"""Of the way that weights went in a few steps; rounding is far below, another batch far above."""
_ON_A_CPU = 16
"""Sites stacked at once where no peak can be measured; images and small weights, some megabytes."""


Tried = tuple[list[Fitted], int]


@dataclass(frozen=True)
class TunedMode:
    """A way, how many sites it trains at once, and a sentence of why."""

    way: ConcurrencyMode
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


def autotune(
    asked: Sequence[TrainingCall],
    *,
    sites: int,
    forced: ConcurrencyMode | None = None,
    memory: Memory | None = None,
    trainers: Callable[[ConcurrencyMode], Train] = trainer_of,
    where: str = "this training",
) -> TunedMode:
    """Choose a way for all trainings that are like some, by a few steps of these in each way.

    Args:
        asked: the first ones; at least one has steps to take.
        sites: how many may be trained in a round.
        forced: take this way, whether or not it is the fastest.
        memory: of the device; None where it cannot be measured.
        trainers: makes what trains in a way.
        where: what is trained, for messages.

    Raises:
        ConfigError: the forced way cannot do it.
        TrainingDivergedError: one of them did within a few steps.
        torch.OutOfMemoryError: one site alone does not fit.
    """
    if forced is not None and (why := mode_refusal(forced, asked)):
        raise ConfigError(f"--concurrency {forced}: {where}: {why}; say auto or eager")
    short = shortened(asked, _STEPS)
    fit, told = _sites_at_once(short, sites, memory)
    if forced is not None:
        return _choice(forced, fit, "as asked for" + told)
    tries, refused = _tries(short, fit, trainers)
    told += "".join(f"; no {way}: {reason}" for way, reason in refused.items())
    if len(tries) == 1:
        return _choice(ConcurrencyMode.EAGER, fit, "the only way" + told)
    name, why = fastest(tries)
    return _choice(ConcurrencyMode(name), fit, f"{why.partition(': ')[2]} for {_STEPS} steps{told}")


def _sites_at_once(
    asked: Sequence[TrainingCall], sites: int, memory: Memory | None
) -> tuple[int, str]:
    """Return how many sites fit the device, and half a sentence of how that is known."""
    if memory is None:
        return min(sites, _ON_A_CPU), ""
    peak = memory.peak_of(max(asked, key=lambda one: one.task.examples).fit)
    free = memory.free()
    told = f"; one site takes {peak / 1e6:.0f} MB of {free / 1e6:.0f} MB that are free"
    return sites_that_fit(free, peak, sites), told


def _choice(way: ConcurrencyMode, fit: int, why: str) -> TunedMode:
    return TunedMode(way, min(fit, most_at_once(way)), why)


def _tries(
    asked: Sequence[TrainingCall], fit: int, trainers: Callable[[ConcurrencyMode], Train]
) -> tuple[dict[str, Callable[[], Tried]], dict[ConcurrencyMode, str]]:
    """Return what trains in each way that is possible, and why the others are not."""
    refused = {way: reason for way in ConcurrencyMode if (reason := _reason(way, asked))}
    tries: dict[str, Callable[[], Tried]] = {
        str(way): partial(at_once, trainers(way), asked, min(fit, most_at_once(way)))
        for way in ConcurrencyMode
        if way not in refused
    }
    if len(tries) > 1:
        expected, _ = tries[ConcurrencyMode.EAGER]()
        for name in [name for name in tries if name != ConcurrencyMode.EAGER]:
            if fault := _fault(tries[name], asked, expected):
                refused[ConcurrencyMode(name)] = fault
                del tries[name]
    return tries, refused


def _reason(way: ConcurrencyMode, asked: Sequence[TrainingCall]) -> str | None:
    """Return why a way is not worth a try."""
    size = sum(p.numel() for p in asked[0].task.model.parameters())
    if way is ConcurrencyMode.STACKED and size > SMALL:
        return f"it is for networks of {SMALL} parameters at most, found {size}"
    return mode_refusal(way, asked)


def _fault(
    play: Callable[[], Tried], asked: Sequence[TrainingCall], expected: Sequence[Fitted]
) -> str | None:
    """Return what is wrong with a way on this device, None if it does what it should.

    Drivers and libraries differ in what they can capture or map; a wrong result would not be seen.
    """
    try:
        found, _ = play()
    except torch.OutOfMemoryError:
        return "not one site fits the device's memory"
    except RuntimeError as error:
        log.warning("%s", error)
        return f"it fails on this device ({type(error).__name__})"
    for one, right, training in zip(found, expected, asked, strict=True):
        moved = _distance(right.state, training.start)
        if _distance(one.state, right.state) > _TOLERANCE * moved:
            return "its weights are not those of one site after the other on this device"
    return None


def _distance(one: State, other: State) -> float:
    squares = [
        (value.double() - other[name].to(value.device).double()).square().sum().item()
        for name, value in one.items()
    ]
    return sqrt(sum(squares))
