"""Every run's record says what share of the workers' time was training."""

import json
import time
from pathlib import Path

import pytest
from made import experiment, federation, play

from fedrad.core.meter import PURPOSES, Meter
from fedrad.federation.spent import Spent
from fedrad.report.profile import profile_table
from fedrad.report.results import results_of
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
    assert 1.2 <= sum(one["training"] for one in found["workers"]) < 2 * found["seconds"]
    for one in found["workers"]:
        assert one["idle"] >= 0 and one.keys() == {*PURPOSES, "idle"}
        assert sum(one.values()) == pytest.approx(found["seconds"])
    assert profile_table(RunFolder(tmp_path)).row_count == (1 if workers == 1 else workers + 1)

    arm = results_of(RunFolder(tmp_path), experiment(), federation(), command="", device="cpu")[
        "arms"
    ][2]
    lines = RunFolder(tmp_path).arm("fedavg", 0).rounds()
    assert all(line["worker_seconds"] > workers * 0.1 for line in lines)
    assert 0.2 < arm["efficiency"] <= 1
    assert arm["efficiency_by_seed"] == {"0": arm["efficiency"]}


def test_the_first_step_of_all_workers_is_the_earliest() -> None:
    spent = Spent([{}, {}], Meter())
    spent.add(0, {"training": 1.0}, 20.0)
    spent.add(1, {"training": 2.0}, 10.0)
    spent.add(1, {"training": 2.0}, None)
    assert spent.first_training == 10.0 and spent.training() == 5.0
