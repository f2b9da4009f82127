"""How many sites at once, and in which way."""

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch

from fedrad.training.devices import measured_concurrency as concurrency
from fedrad.training.devices.measured_concurrency import at_once, fastest, sites_that_fit


def test_a_full_memory_halves_the_sites_at_once_and_goes_on() -> None:
    """Room for 3: groups of 8 and 4 fail, then 2 go at once; nobody is trained twice."""
    tried = []

    def train(group: Sequence[int]) -> list[int]:
        tried.append(len(group))
        if len(group) > 3:
            raise torch.OutOfMemoryError("full")
        return [10 * number for number in group]

    found, most = at_once(train, range(7), 8)
    assert found == [0, 10, 20, 30, 40, 50, 60] and most == 2
    assert tried == [7, 4, 2, 2, 2, 1]


def test_one_site_that_does_not_fit_is_an_error() -> None:
    def train(group: Sequence[int]) -> list[int]:
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        at_once(train, [1, 2], 2)


def test_the_probe_takes_the_fastest_way_that_fits_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first turn, in which libraries warm up, does not count."""
    turns, now = [], [0.0]
    monkeypatch.setattr(concurrency, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def takes(seconds: float) -> None:
        now[0] += seconds

    def slow_at_first() -> None:
        turns.append(1)
        takes(0.2 if len(turns) == 1 else 0.001)

    def too_large() -> None:
        raise torch.OutOfMemoryError("full")

    ways = {"eager": lambda: takes(0.05), "graph": slow_at_first, "stacked": too_large}
    best, why = fastest(ways)
    assert best == "graph" and why == "graph: the fastest of eager 50.0 ms, graph 1.0 ms"
    with pytest.raises(torch.OutOfMemoryError, match="no way"):
        fastest({"stacked": too_large})


def test_one_site_is_trained_however_small_the_memory() -> None:
    assert sites_that_fit(free=10, peak_of_one=1000, sites=5) == 1
    assert sites_that_fit(free=10_000, peak_of_one=1, sites=5) == 5
