"""Split arms through the whole house: messages, streams, records, resume, evaluation."""

import os
import signal
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest
from made import federation, play
from split_arms import ARMS, split_experiment

from fedrad.algorithms.base import Frame
from fedrad.core.store import load_bundle
from fedrad.report.plan import plan_of
from fedrad.rounds.metered_streams import _Counted
from fedrad.runs import ArmFolder, RunFolder
from fedrad.training.local import LocalTask

SPLIT = [name for name in ARMS if name not in ("fedavg", "tuned")]


def files(folder: Path, arm: str) -> dict[str, bytes]:
    """All that an arm leaves behind that is not a time."""
    found = [*(folder / arm).rglob("*.safetensors"), *(folder / arm).rglob("evaluation.json")]
    found += (folder / "sites").glob(f"*/{arm}/**/*.safetensors")
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(found)}


def arm(folder: Path, name: str) -> ArmFolder:
    return RunFolder(folder).arm(name, 0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("split")
    told = play(folder, split_experiment(), federation("sued"))
    assert not told.stopped
    return folder


@pytest.mark.parametrize("name", ["v1", "v1_labels"])
def test_splitfed_1_is_fedavg_in_its_final_weights_and_in_every_test_result(
    finished: Path, name: str
) -> None:
    """Trained and evaluated over streams, the parts apart, the held-out site too."""
    for file in ("state.safetensors", "evaluation.safetensors", "evaluation.json"):
        ours, theirs = (finished / a / "seed-0" / file for a in (name, "fedavg"))
        assert ours.read_bytes() == theirs.read_bytes()
    rounds = zip(arm(finished, name).rounds(), arm(finished, "fedavg").rounds(), strict=True)
    assert all(one["validation"] == other["validation"] for one, other in rounds)


def test_every_other_way_gives_another_model(finished: Path) -> None:
    """Else the equality above would hold because nothing is trained."""
    states = {a: (finished / a / "seed-0" / "state.safetensors").read_bytes() for a in ARMS}
    assert states["v1"] == states["v1_labels"] == states["fedavg"]
    assert len(set(states.values())) == len(ARMS) - 2


@pytest.mark.parametrize("name", SPLIT)
def test_the_measured_bytes_are_those_of_the_arithmetic(finished: Path, name: str) -> None:
    """To the byte, for every round: what `fedrad check` foretells is what the record holds."""
    plan = plan_of(split_experiment(), federation("sued"))
    told = next(one for one in plan["arms"] if one["name"] == name)["split"]["round_bytes"]
    for line in arm(finished, name).rounds():
        assert (line["bytes_up"], line["bytes_down"]) == (told["up"], told["down"])


def test_private_models_are_tested_at_home_and_nowhere_else(finished: Path) -> None:
    """Version 3 has no common model, so nothing is said of one, nor of a held-out site."""
    cells = set(arm(finished, "v3").evaluation().cells)
    assert cells == {
        ("personal:nord", "nord"),
        ("personal:ost", "ost"),
        ("personal:pooled", "pooled"),
    }
    own = [load_bundle(finished / "sites" / s / "v3" / "seed-0" / "round-000003.safetensors")
           for s in ("nord", "ost")]  # fmt: skip
    assert own[0]["personal"].keys() == own[1]["personal"].keys()
    assert all(name.startswith(("layer1.", "head.1.")) for name in own[0]["personal"])


def test_a_site_s_half_of_the_network_is_all_that_it_holds() -> None:
    from fedrad.assemble import site_model_of

    held = site_model_of(split_experiment().arm("v1")).state_dict()
    assert {name.rpartition(".")[0] for name in held} == {"layer1.1", "head.1"}
    held = site_model_of(split_experiment().arm("v1_labels")).state_dict()
    assert {name.rpartition(".")[0] for name in held} == {"layer1.1"}


def test_the_order_of_a_sequential_round_is_in_the_record(finished: Path) -> None:
    for name in ("v2", "relay", "relay_batch"):
        assert all(
            sorted(line["order"]) == ["nord", "ost"] for line in arm(finished, name).rounds()
        )
    assert "order" not in arm(finished, "v1").rounds()[0]


def test_fine_tuning_follows_a_split_arm_as_it_does_a_federated_one(
    finished: Path, tmp_path: Path
) -> None:
    """The last round is each site's own, on the whole network, which it then holds."""
    arms = {"tuned": {**ARMS["tuned"], "algorithm": "fedavg"}}
    whole = split_experiment(arms=arms, primary=None)
    play(tmp_path, whole, federation("sued"))
    assert files(tmp_path, "tuned") == {
        k: v for k, v in files(finished, "tuned").items() if not k.endswith("arm.yaml")
    }


def test_workers_change_nothing(finished: Path, tmp_path: Path) -> None:
    play(tmp_path, split_experiment(), federation("sued"), workers=2)
    for name in ARMS:
        assert files(tmp_path, name) == files(finished, name)


def test_splitfed_1_goes_on_without_a_site_that_fails_while_the_quorum_is_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Round 2 without ost is the mean of the others, as fedavg without ost in round 2."""

    def failing(plain: Callable) -> Callable:
        def batches(task: LocalTask, round: int, steps: int) -> object:
            if task.site == "ost" and round == 2:
                raise OSError("/path/of/a/patient")
            return plain(task, round, steps)

        return batches

    monkeypatch.setattr(LocalTask, "batches", failing(LocalTask.batches))
    what = split_experiment(quorum=2)
    told = play(tmp_path, what, arms=["fedavg", "v1"])
    assert not told.stopped
    first, second = (arm(tmp_path, name).rounds() for name in ("fedavg", "v1"))
    assert [line["missing"] for line in second] == [line["missing"] for line in first]
    assert second[1]["missing"] == {"ost": "OSError"}
    assert (tmp_path / "v1/seed-0/state.safetensors").read_bytes() == (
        tmp_path / "fedavg/seed-0/state.safetensors"
    ).read_bytes()


def test_a_sequential_round_stops_with_a_site_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server part has already learnt from half a visit; the round is repeated, not mended."""

    def batches(task: LocalTask, round: int, steps: int) -> object:
        raise OSError("/path/of/a/patient")

    monkeypatch.setattr(LocalTask, "batches", batches)
    told = play(tmp_path, split_experiment(quorum=2), arms=["v2"])
    assert "OSError" in told.stopped["v2"] and "patient" not in told.stopped["v2"]


def killed_at(folder: Path, name: str, frame: int) -> None:
    """Play an arm in a process that kills itself before it sends so many a frame."""
    count, plain = 0, _Counted.send

    def send(stream: _Counted, sent: Frame) -> None:
        nonlocal count
        count += 1
        if count == frame:
            os.kill(os.getpid(), signal.SIGKILL)
        plain(stream, sent)

    _Counted.send = send
    play(folder, split_experiment(), federation("sued"), arms=[name])


@pytest.mark.parametrize(("name", "frame"), [("v3", 40), ("relay_batch", 50)])
def test_killed_in_the_middle_of_a_batch_and_started_again_nothing_is_different(
    finished: Path, tmp_path: Path, name: str, frame: int
) -> None:
    """kill -9 for real between two frames of a step of round 2; the round is played again."""
    # Forked: a new interpreter would import torch and Flower anew, for seconds.
    killed = get_context("fork").Process(target=killed_at, args=(tmp_path, name, frame))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    # The first round may still have been on its way to the disk.
    assert arm(tmp_path, name).server.rounds() in ([1], [])
    play(tmp_path, split_experiment(), federation("sued"), arms=[name])
    assert files(tmp_path, name) == files(finished, name)
