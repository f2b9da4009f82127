"""Every run's record says what share of the workers' time was training."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from made import experiment, federation, play
from split_arms import split_experiment

from fedrad.algorithms.split.server import ServerHalf
from fedrad.algorithms.split.site import SiteHalf
from fedrad.core.timing import PURPOSES, PhaseTimer
from fedrad.report.profile import profile_table
from fedrad.report.results import results_of
from fedrad.rounds.worker_time import WorkerTime
from fedrad.runs import RunFolder


@pytest.mark.parametrize("workers", [1, 2])
def test_time_that_is_slept_in_a_step_is_found_as_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """3 sites x 4 rounds x 0.1 s are 1.2 s of training at least, and the columns add up."""
    from fedrad.training import local

    plain = local.fit

    def fit(*args: object, **kwargs: object) -> object:
        time.sleep(0.1)
        return plain(*args, **kwargs)

    monkeypatch.setattr(local, "fit", fit)
    play(tmp_path, arms=["fedavg"], workers=workers, profile=True)
    found = json.loads((tmp_path / "profile.json").read_text())
    assert len(found["workers"]) == workers
    assert sum(one["training"] for one in found["workers"]) >= 1.2
    for one in found["workers"]:
        assert one["idle"] >= 0 and one.keys() == {*PURPOSES, "idle"}
        assert sum(one.values()) == pytest.approx(found["seconds"])
    assert profile_table(RunFolder(tmp_path)).row_count == (1 if workers == 1 else workers + 1)

    arm = results_of(RunFolder(tmp_path), experiment(), federation(), command="", device="cpu")[
        "arms"
    ][2]
    lines = RunFolder(tmp_path).arm("fedavg", 0).rounds()
    assert all(line["worker_seconds"] > workers * 0.1 for line in lines)
    inside = sum(line["efficiency"] * line["worker_seconds"] for line in lines)
    whole = sum(line["worker_seconds"] for line in lines)
    assert arm["efficiency"] == pytest.approx(inside / whole, abs=1e-3)
    assert 1.2 / whole <= arm["efficiency"] <= 1
    assert arm["efficiency_by_seed"] == {"0": arm["efficiency"]}
    # However many workers: the time by which the report compares arms.
    training = sum(one["training"] for one in found["workers"])
    assert arm["training_seconds"] == pytest.approx(training, rel=0.01)


def test_the_first_step_of_all_workers_is_the_earliest() -> None:
    spent = WorkerTime([{}, {}], PhaseTimer())
    spent.add(0, {"training": 1.0}, 20.0)
    spent.add(1, {"training": 2.0}, 10.0)
    spent.add(1, {"training": 2.0}, None)
    assert spent.first_training == 10.0 and spent.training() == 5.0


@pytest.mark.parametrize("workers", [1, 2])
def test_both_halves_of_a_step_through_a_cut_are_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """0.01 s are slept in each half of each step; a cut network once told 0 % of training."""
    for half in (SiteHalf, ServerHalf):
        name = "_update" if half is SiteHalf else "_backward"
        plain = getattr(half, name)

        def slow(self: object, *args: object, plain: Any = plain) -> object:
            time.sleep(0.01)
            return plain(self, *args)

        monkeypatch.setattr(half, name, slow)
    played = split_experiment(rounds=2)
    play(tmp_path, played, arms=["v1"], workers=workers, profile=True)
    lines = RunFolder(tmp_path).arm("v1", 0).rounds()
    steps = sum(line["steps"] for line in lines)
    found = json.loads((tmp_path / "profile.json").read_text())
    assert 0.02 * steps < found["server"]["training"] < found["seconds"]
    training = sum(line["efficiency"] * line["worker_seconds"] for line in lines)
    assert training == pytest.approx(found["server"]["training"], rel=0.05)
    assert all(line["efficiency"] <= 1 / workers for line in lines)
