"""What the workers of a run spent their time on, and what share of it was training."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.serverapp import Grid

from fedrad.core.timing import PhaseTimer

__all__ = ["RoundTiming", "WorkerTime", "worker_time_of"]


@dataclass
class WorkerTime:
    """Seconds of each worker by purpose, since the workers began.

    Args:
        workers: of each worker; what is missing to the time that has passed, it was idle.
        server: of the server's process, which sums up, and runs the server's half of cut networks
            (with forked workers the sites' too). Without workers it is the worker.
        began: on `time.perf_counter`.
        first_training: when the first worker began its first step, in seconds since 1970.
    """

    workers: list[dict[str, float]]
    server: PhaseTimer
    began: float = field(default_factory=time.perf_counter)
    first_training: float | None = None

    def add(self, worker: int, seconds: Mapping[str, float], first: float | None) -> None:
        """Add what a worker says that an answer took, and when its own first step began."""
        # One that came later was not there before.
        self.workers += [{} for _ in range(len(self.workers), worker + 1)]
        known = self.workers[worker]
        for purpose, value in seconds.items():
            known[purpose] = known.get(purpose, 0.0) + value
        times = [one for one in (self.first_training, first) if one is not None]
        self.first_training = min(times, default=None)

    @property
    def alone(self) -> bool:
        """Whether the server's process is the only worker."""
        return any(one is self.server.seconds for one in self.workers)

    def training(self) -> float:
        """Return the seconds in gradient steps of all processes together."""
        own = 0.0 if self.alone else self.server.seconds["training"]
        return own + sum(one.get("training", 0.0) for one in self.workers)

    def profile(self) -> dict[str, Any]:
        """Return the record of a whole run, as plain values."""
        passed = time.perf_counter() - self.began
        first = self.server.first_training or self.first_training
        return {
            "seconds": passed,
            "efficiency": self.training() / (passed * len(self.workers)),
            "first_training": first,
            "workers": [{**one, "idle": passed - sum(one.values())} for one in self.workers],
            "server": dict(self.server.seconds),
        }


def worker_time_of(grid: Grid) -> WorkerTime | None:
    """Return what a grid's workers spent, None for a grid that is not ours."""
    found = getattr(grid, "spent", None)
    return found if isinstance(found, WorkerTime) else None


class RoundTiming:
    """A stretch of a run, from when this is made: what share of the workers' time is training."""

    def __init__(self, spent: WorkerTime | None) -> None:
        self._spent = spent
        self._began = time.perf_counter()
        self._training = spent.training() if spent else 0.0

    def record(self) -> dict[str, float]:
        """Return `efficiency` and the seconds of all workers; nothing for a grid not ours."""
        if self._spent is None:
            return {}
        seconds = (time.perf_counter() - self._began) * len(self._spent.workers)
        training = self._spent.training() - self._training
        return {"efficiency": round(training / seconds, 4), "worker_seconds": round(seconds, 4)}

    def told(self, sites: int, seconds: float) -> str:
        """Return how fast sites were run within so many seconds, for the display."""
        if self._spent is None:
            return ""
        workers = len(self._spent.workers)
        share = self.record()["efficiency"]
        return (
            f"{workers} {'worker' if workers == 1 else 'workers'}, "
            f"{sites / max(seconds, 1e-9):.3g} sites/s, {share:.0%} training"
        )
