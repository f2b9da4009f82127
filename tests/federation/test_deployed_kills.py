"""Across real processes that are killed in the middle: the same weights as in one process."""

from pathlib import Path

import pytest
from deployed import Deployed, same_weights

pytestmark = pytest.mark.deploy

SPLIT_ARMS = ("splitnn", "splitfed")


@pytest.mark.parametrize(
    ("arm", "kills"),
    [
        ("fedprox", {1: "run", 2: "superlink", 3: "nord/worker", 4: "coordinator"}),
        ("finetune", {2: "nord/supernode", 4: "nord"}),
    ],
)
def test_processes_killed_in_the_middle_of_a_run_change_no_bit(
    federation: Deployed, undisturbed: Path, arm: str, kills: dict[int, str]
) -> None:
    """Killed with SIGKILL after a round; what was lost is asked again, memory is on the disk.

    `experiments/faults.py` kills every process by itself, at more moments.
    """
    out = f"killed-{arm}"
    run = federation.run(out, "--arm", arm)
    for number, victim in kills.items():
        federation.wait_for_round(out, arm, number)
        federation.kill(out if victim == "run" else victim)
        if victim == "run":
            run = federation.run(out, "--arm", arm)
        elif victim == "coordinator":
            federation.start_coordinator()
        elif victim == "nord":
            federation.start_site("nord")
    assert run.wait(timeout=280) == 0, federation.log(out)
    assert same_weights(federation.folder / out, undisturbed, arm)


@pytest.fixture(scope="module")
def uncut(federation: Deployed) -> Path:
    """The experiment of split arms in one process: no stream, no network."""
    return federation.local("uncut", file=federation.split)


def test_split_arms_killed_in_the_middle_of_an_epoch_end_with_the_bits_of_one_process(
    federation: Deployed, uncut: Path
) -> None:
    """Over TLS and real streams, with kill -9 while frames are on their way.

    A hospital's death costs its round, which the same process plays again by itself; after the
    death of the run's own process the same command goes on. An uncut arm beside them is played as
    ever, without a stream.
    """
    federation.run("cut", file=federation.split)
    federation.wait_for_stream("nord", "splitfed", 2)
    for role in ("nord/worker", "nord/supernode", "nord"):
        federation.kill(role)
    federation.start_site("nord")
    federation.wait_for_stream("nord", "splitnn", 2)
    federation.kill("cut")
    run = federation.run("cut", file=federation.split)
    assert run.wait(timeout=280) == 0, federation.log("cut")
    for arm in (*SPLIT_ARMS, "fedavg"):
        assert same_weights(federation.folder / "cut", uncut, arm), arm
    assert "it is repeated from its start" in federation.log("cut")
    for arm in SPLIT_ARMS:
        told = federation.streams("nord", arm)
        assert told[:2] == [(1, "opened"), (1, "sent")]
        # Neither kill came after the end of the stream: the round was opened again.
        assert told.count((2, "opened")) > told.count((2, "sent")) == 1
        assert federation.streams("west", arm)[0] == (1, "opened")
    assert federation.streams("nord", "fedavg") == [(1, "sent"), (2, "sent")]
