"""Runs of which a part is finished: every table is drawn, and the exit code answers the call."""

import io
import shutil
from itertools import product
from pathlib import Path

import pytest
from made import experiment, federation, play
from rich.console import Console

from fedrad.deployment.coordinator.remote import left_out
from fedrad.report.outcome import outcome_of
from fedrad.report.page import render
from fedrad.report.results import results_of
from fedrad.report.tables import results_tables
from fedrad.runs import RunFolder

SITES = federation("sued")
ARMS = {name: dict(experiment().arms)[name] for name in ("local", "fedavg", "tuned")}
WHAT = experiment(arms=ARMS, seeds=(0, 1), rounds=2, replicates=0)
STATES = ("both seeds", "seed 0", "seed 1", "stopped", "nothing")
"""What can have come of an arm: sites' own models, a common one, and both kinds in one arm."""
MIXED = [
    *product(STATES, ("both seeds",), ("seed 1", "nothing")),
    ("nothing", "nothing", "nothing"),
    ("stopped", "stopped", "stopped"),
    ("seed 0", "seed 1", "seed 0"),
    ("stopped", "nothing", "seed 1"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    play(folder, WHAT, SITES)
    return folder


def leave(folder: Path, finished: Path, states: dict[str, str]) -> RunFolder:
    """Return a folder in which each arm is in a state."""
    for arm, state in states.items():
        for seed in (0, 1):
            if state in ("both seeds", f"seed {seed}"):
                shutil.copytree(finished / arm / f"seed-{seed}", folder / arm / f"seed-{seed}")
            elif state == "stopped":
                RunFolder(folder).arm(arm, seed).stop("nord: round 1: the loss is no finite number")
    return RunFolder(folder)


@pytest.mark.parametrize("states", MIXED, ids=", ".join)
def test_any_part_of_a_run_with_held_out_sites_has_results_tables_and_a_page(
    finished: Path, tmp_path: Path, states: tuple[str, ...]
) -> None:
    """An arm that is missing or diverged is a cell that says so, whichever arms they are."""
    folder = leave(tmp_path, finished, dict(zip(ARMS, states, strict=True)))
    found = results_of(folder, WHAT, SITES, command="x", device="cpu")
    assert results_tables(found) and render(found)
    for arm, state in zip(found["arms"], states, strict=True):
        outside = arm["external"]["auroc"]["sued"]
        assert outside["value"] is not None or outside["reason"]
        if state == "both seeds":
            assert (arm["status"], arm["reason"]) == ("finished", None)
        elif state in ("seed 0", "seed 1"):
            other = "seed 1" if state == "seed 0" else "seed 0"
            assert (arm["status"], arm["reason"]) == ("incomplete", f"{other} not run yet")
        else:
            assert arm["status"] == {"stopped": "stopped", "nothing": "missing"}[state]
            reason = {"stopped": "no finite number", "nothing": "not run yet"}[state]
            assert outside["value"] is None and reason in outside["reason"]


def test_arms_without_a_seed_in_common_say_which_seeds_they_have(
    finished: Path, tmp_path: Path
) -> None:
    folder = leave(tmp_path, finished, {"local": "seed 0", "fedavg": "seed 1", "tuned": "nothing"})
    found = results_of(folder, WHAT, SITES, command="x", device="cpu")
    reasons = [arm["columns"]["auroc"]["mean"]["reason"] for arm in found["arms"]]
    assert reasons[:2] == [
        "no seed is finished in every arm; of this one seed 0",
        "no seed is finished in every arm; of this one seed 1",
    ]
    assert reasons[2] == "not run yet"


def test_what_was_asked_for_decides_and_what_is_left_is_told(
    finished: Path, tmp_path: Path
) -> None:
    """`--seed 0` that finished has done what it was asked; that seed 1 is left is no failure."""
    states = {"local": "seed 0", "fedavg": "both seeds", "tuned": "stopped"}
    folder = leave(tmp_path, finished, states)

    def asked(arms: list[str], seeds: list[int]) -> tuple[bool, str]:
        outcome = outcome_of(folder, WHAT, arms, seeds)
        return outcome.finished, " ".join(outcome.told)

    well, told = asked(["local", "fedavg"], [0])
    assert well and told.startswith("All that was asked for is finished: local, fedavg with seed 0")
    assert "Left of the experiment: local seed 1, tuned seeds 0, 1; the same command" in told
    well, told = asked(["local"], [0, 1])
    assert not well and told.startswith("Not finished: local seed 1: not run to its end.")
    well, told = asked(["fedavg", "tuned"], [1])
    assert not well
    assert told.startswith("Not finished: tuned seed 1: nord: round 1: the loss is no finite")
    assert outcome_of(RunFolder(finished), WHAT, list(ARMS), [0, 1]).told == []


def test_an_arm_that_hospitals_cannot_play_is_left_out_and_not_stopped(
    finished: Path, tmp_path: Path
) -> None:
    """Nothing went wrong with it: it was never begun, and the reason says where to play it."""
    folder = leave(tmp_path, finished, {"local": "both seeds", "fedavg": "both seeds"})
    reason = left_out(experiment(), ["centralized", "local"])["centralized"]
    for seed in (0, 1):
        folder.arm("tuned", seed).stop(reason)
    found = results_of(folder, WHAT, SITES, command="x", device="cpu")
    tuned = found["arms"][2]
    assert tuned["status"] == "left out" and "run it in a simulation" in tuned["reason"]
    console = Console(width=120, record=True, file=io.StringIO())
    for part in results_tables(found):
        console.print(part)
    shown = console.export_text()
    assert "left out" in shown and "stopped" not in shown
    assert "left out" in render(found)
    folder.arm("tuned", 1).stop("nord: round 1: the loss is no finite number")
    again = results_of(folder, WHAT, SITES, command="x", device="cpu")
    assert again["arms"][2]["status"] == "stopped"
