"""Arms and seeds side by side: the same bits as one after the other, and each its own fate."""

import json
import multiprocessing
import os
import signal
import time
from itertools import product
from pathlib import Path

import pytest
from made import Told, experiment, play
from test_workers import deadly, results

from fedrad.errors import RunError
from fedrad.rounds.arm_rounds import ArmRounds
from fedrad.runs import RunFolder
from fedrad.simulation.arm_scheduler import Phase, plan_phases
from fedrad.training.local import LocalTask

SEEDS = experiment(seeds=[0, 1])
ARMS = ["centralized", "fedavg", "tuned"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    play(folder, SEEDS, arms=ARMS, workers=1)
    return folder


@pytest.mark.parametrize("workers", [2, 3, 12])
def test_arms_and_seeds_side_by_side_give_the_same_files(
    alone: Path, tmp_path: Path, workers: int
) -> None:
    """Six runs: in crews of one worker, and of twelve in crews of two."""
    told = play(tmp_path, SEEDS, arms=ARMS, workers=workers)
    assert results(tmp_path) == results(alone)
    assert sorted(told.rounds) == [
        (arm, seed, number)
        for arm, seed, number in product(ARMS, SEEDS.seeds, range(1, SEEDS.rounds + 1))
    ]
    assert any("at a time" in note for note in told.notes)
    assert multiprocessing.active_children() == []


def test_what_was_finished_before_is_skipped_and_shared_out_no_more(
    alone: Path, tmp_path: Path
) -> None:
    play(tmp_path, SEEDS, arms=["centralized", "fedavg"], workers=2)
    told = play(tmp_path, SEEDS, arms=ARMS, workers=2)
    assert told.skips == ["centralized", "centralized", "fedavg", "fedavg"]
    assert {arm for arm, *_ in told.rounds} == {"tuned"}
    assert results(tmp_path) == results(alone)


def test_a_crew_killed_in_the_middle_goes_on_from_the_last_round(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """kill -9 where tuned's second seed trains ost in round 3; all else is played as it was."""
    parent, plain, mark = os.getpid(), LocalTask.fit, tmp_path / "killed"
    rounds = ArmRounds._round
    playing = []

    def told(arm: ArmRounds, *args: object) -> object:
        playing.append((arm.name, arm.seed))
        return rounds(arm, *args)

    def fit(task: LocalTask, *args: object, **kwargs: object) -> object:
        here = (os.getpid() != parent, task.site, kwargs["round"], *playing[-1:])
        if here == (True, "ost", 3, ("tuned", 1)) and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(task, *args, **kwargs)

    monkeypatch.setattr(ArmRounds, "_round", told)
    monkeypatch.setattr(LocalTask, "fit", fit)
    play(tmp_path / "run", SEEDS, arms=ARMS, workers=2)
    assert mark.exists()
    assert "died (exit code -9) that ran tuned seed 1" in caplog.text
    assert results(tmp_path / "run") == results(alone)


def test_a_site_that_kills_every_process_is_named_and_a_quorum_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first death is the crew's; after it a worker apart says which site it was."""
    deadly(monkeypatch, "ost")
    what = experiment(quorum=2, seeds=[0, 1], rounds=1)
    play(tmp_path, what, arms=["fedavg"], workers=2)
    for seed in what.seeds:
        (line,) = RunFolder(tmp_path).arm("fedavg", seed).rounds()
        assert "3 workers died of it" in line["missing"]["ost"]


def test_an_arm_whose_server_kills_every_process_is_given_up_and_the_others_go_on(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ArmRounds._round

    def dying(arm: ArmRounds, *args: object) -> object:
        if arm.name == "fedavg":
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(arm, *args)

    monkeypatch.setattr(ArmRounds, "_round", dying)
    told = play(tmp_path, SEEDS, arms=ARMS, workers=2)
    why = "3 processes died of it (exit code -9); if memory is short, say fewer --workers"
    assert told.stopped == {"fedavg": why}
    folder = RunFolder(tmp_path)
    assert folder.arm("fedavg", 0).stopped() == folder.arm("fedavg", 1).stopped()
    assert folder.arm("fedavg", 0).stopped() == told.stopped["fedavg"]
    others = {name: held for name, held in results(alone).items() if "fedavg" not in name}
    assert results(tmp_path) == others


@pytest.mark.parametrize(
    "error",
    [
        RunError("rounds.jsonl could not be written"),
        ZeroDivisionError("a mistake"),
        # Not to be taken for the end of a pipe.
        OSError("a disk that is gone"),
    ],
)
def test_an_error_of_the_run_ends_all_of_it_and_the_same_command_goes_on(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    plain = ArmRounds._round

    def failing(arm: ArmRounds, state: object, number: int, *args: object) -> object:
        if (arm.name, arm.seed, number) == ("fedavg", 1, 3):
            raise error
        return plain(arm, state, number, *args)

    with monkeypatch.context() as patch:
        patch.setattr(ArmRounds, "_round", failing)
        with pytest.raises(type(error), match=str(error)):
            play(tmp_path, SEEDS, arms=ARMS, workers=2)
    assert multiprocessing.active_children() == []
    play(tmp_path, SEEDS, arms=ARMS, workers=2)
    assert results(tmp_path) == results(alone)


def test_an_arm_that_stops_leaves_the_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = LocalTask.fit

    def fit(task: LocalTask, *args: object, **kwargs: object) -> object:
        if task.seed == 1:
            raise RuntimeError("/home/patients/Doe, John.png")
        return plain(task, *args, **kwargs)

    monkeypatch.setattr(LocalTask, "fit", fit)
    told = play(tmp_path, SEEDS, arms=["fedavg"], workers=2)
    assert list(told.stopped) == ["fedavg"] and "Doe" not in told.stopped["fedavg"]
    folder = RunFolder(tmp_path)
    assert folder.arm("fedavg", 0).finished and not folder.arm("fedavg", 1).finished


def test_the_profile_is_of_all_crews_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three runs on two workers: two crews, then one run on both; every second is somebody's."""
    # Forked workers have the same clock; it stands still, so nothing depends on the machine's.
    monkeypatch.setattr(time, "time", lambda: 1e9)
    what = experiment(seeds=[0, 1, 2], validate_every=0)
    told = play(tmp_path, what, arms=["fedavg"], workers=2, profile=True)
    found = json.loads((tmp_path / "profile.json").read_text())
    assert len(found["workers"]) == 2
    lines = [line for seed in range(3) for line in RunFolder(tmp_path).arm("fedavg", seed).rounds()]
    inside = sum(line["efficiency"] * line["worker_seconds"] for line in lines)
    training = [worker["training"] for worker in found["workers"]]
    assert all(seconds > 0 for seconds in training)
    # A round's figures are rounded to four places.
    assert sum(training) == pytest.approx(inside, abs=1e-3 + 1e-4 * found["seconds"])
    assert found["efficiency"] == pytest.approx(sum(training) / (2 * found["seconds"]))
    assert all(worker["idle"] >= 0 for worker in found["workers"])
    assert found["first_training"] == 1e9
    for seed, workers in ((0, "1 worker"), (1, "1 worker"), (2, "2 workers")):
        assert told.paces["fedavg", seed, 1].startswith(f"{workers}, ")


def test_each_worker_is_told_its_own_time(tmp_path: Path) -> None:
    """Two crews of one worker: no second of one is counted to the other."""
    play(tmp_path, experiment(seeds=[0, 1]), arms=["fedavg"], workers=2, profile=True)
    found = json.loads((tmp_path / "profile.json").read_text())
    assert all(worker["training"] > 0 for worker in found["workers"])


def test_what_cannot_be_spread_over_workers_is_played_first(tmp_path: Path) -> None:
    """The last run has both workers to itself, which pooled data have no use for."""
    told = play(tmp_path, experiment(), arms=["local", "fedavg", "centralized"], workers=2)
    assert {arm for arm, *_ in told.rounds[-4:]} == {"fedavg"}
    assert "centralized" in {arm for arm, *_ in told.rounds[:8]}


def test_a_site_whose_turn_has_not_come_is_not_late(tmp_path: Path) -> None:
    """Of sites that are called one after the other, none waits because it is slow."""
    told = play(tmp_path, experiment(deadline=1e-6), arms=["fedavg"], workers=1)
    assert told.stopped == {} and len(told.rounds) == experiment().rounds


@pytest.mark.parametrize("sites", [1, 3, 4, 100])
def test_no_sharing_out_is_slower_than_one_run_after_the_other(sites: int) -> None:
    def turns(shared: tuple[Phase, ...]) -> int:
        return sum(-(-one.runs // one.processes) * -(-sites // one.workers) for one in shared)

    for runs, workers in product(range(1, 40), range(1, 20)):
        found = plan_phases(runs, workers=workers, sites=sites)
        assert sum(one.runs for one in found) == runs
        assert all(one.processes * one.workers <= workers for one in found)
        assert all(1 <= one.workers <= sites and one.processes <= one.runs for one in found)
        assert turns(found) <= turns((Phase(runs, 1, min(workers, sites)),))
        if not runs % workers:
            assert found == (Phase(runs, workers, 1),)
    assert plan_phases(0, workers=4, sites=sites) == ()


def test_notes_of_a_crew_reach_whoever_watches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ArmRounds._round

    def noting(arm: ArmRounds, *args: object) -> object:
        arm._say("a word")
        return plain(arm, *args)

    monkeypatch.setattr(ArmRounds, "_round", noting)
    told: Told = play(tmp_path, experiment(seeds=[0, 1], rounds=1), arms=["fedavg"], workers=2)
    assert {"fedavg seed 0: a word", "fedavg seed 1: a word"} < set(told.notes)
