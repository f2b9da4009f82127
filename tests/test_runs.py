"""A run's folder after something damaged it: a sentence that says which file, and what to do."""

import json
from pathlib import Path

import pytest
import torch

from fedrad.core.provenance import Provenance
from fedrad.errors import RunError
from fedrad.runs import ArmFolder, Evaluation

LINE = {
    "seconds": 0.1, "bytes_down": 8, "bytes_up": 8, "steps": 2, "missing": {}, "validation": {},
}  # fmt: skip
CLAIM = Provenance("name: made\nrounds: 4\n", {"data": "3fe2"})


def state(number: int) -> dict:
    return {"model": {"w": torch.tensor([float(number)])}}


@pytest.fixture
def folder(tmp_path: Path) -> ArmFolder:
    """Four rounds, of which the server keeps the last two."""
    made = ArmFolder(tmp_path / "fedavg" / "seed-0")
    made.claim(CLAIM)
    for number in range(1, 5):
        made.keep(number, state(number), LINE)
    return made


def write(folder: ArmFolder, number: int, line: bytes) -> None:
    """Put something else in the place of a line of the record."""
    path = folder.path / "rounds.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[number - 1] = line
    path.write_bytes(b"\n".join(lines))


BROKEN = [
    b"\x00\x00\x00", b"not json", b'{"round": 4', b"[]", b"null", b"4", b"{}", b"\xff\xfe",
    b'{"round": 4}', json.dumps({"round": "4", **LINE}).encode(),
    json.dumps({"round": 4, **LINE, "missing": []}).encode(),
]  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
def test_a_damaged_last_line_is_like_one_that_was_cut_off(folder: ArmFolder, broken: bytes) -> None:
    """The state that round 4 began with is kept, so round 4 is played again from it."""
    write(folder, 4, broken)
    last, found = folder.resume()
    assert last == 3 and found["model"]["w"].item() == 3
    assert [line["round"] for line in folder.rounds()] == [1, 2, 3]


@pytest.mark.parametrize("broken", BROKEN)
def test_a_damaged_line_of_a_round_that_cannot_be_played_again_is_named_with_the_cure(
    folder: ArmFolder, broken: bytes
) -> None:
    whole = (folder.path / "rounds.jsonl").read_bytes()
    write(folder, 2, broken)
    told = r"fedavg/seed-0: line 2 of rounds.jsonl is damaged; .* put back a copy .* or remove "
    for read in (folder.rounds, folder.resume):
        with pytest.raises(RunError, match=told):
            read()
    # The cure that the sentence names.
    (folder.path / "rounds.jsonl").write_bytes(whole)
    assert folder.resume()[0] == 4 and len(folder.rounds()) == 4


@pytest.mark.parametrize("kept", [(), (0,), (0, 1), (2, 3), (0, 2, 3)])
def test_a_finished_arm_that_lacks_lines_of_its_record_is_named_with_the_cure(
    folder: ArmFolder, kept: tuple[int, ...]
) -> None:
    """Bytes and steps are sums over the lines: of half of them, they would be wrong in silence."""
    whole = (folder.path / "rounds.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    (folder.path / "rounds.jsonl").write_bytes(b"".join(lines[at] for at in kept))
    assert len(folder.rounds()) == len(kept), "an arm on its way may have any number of rounds"
    folder.finish(state(4), Evaluation({}, {}, {}), CLAIM)
    told = rf"fedavg/seed-0: rounds.jsonl tells of {len(kept)} of the arm's 4 rounds; .* put back a"
    with pytest.raises(RunError, match=told):
        folder.rounds()
    (folder.path / "rounds.jsonl").unlink()
    with pytest.raises(RunError, match=r"tells of 0 of the arm's 4 rounds"):
        folder.rounds()
    (folder.path / "rounds.jsonl").write_bytes(whole)
    assert len(folder.rounds()) == 4


def test_a_record_that_is_empty_or_gone_begins_anew_from_what_is_kept(folder: ArmFolder) -> None:
    (folder.path / "rounds.jsonl").write_bytes(b"")
    assert folder.resume()[0] == 4 and folder.rounds() == []


@pytest.mark.parametrize("broken", [b"", b"\n \n", b"\xff\xfe\x00"])
def test_a_damaged_claim_is_named_with_the_cure(folder: ArmFolder, broken: bytes) -> None:
    (folder.path / "arm.yaml").write_bytes(broken)
    told = r"fedavg/seed-0: arm.yaml is missing or damaged .*; remove this arm's folder, and the"
    with pytest.raises(RunError, match=told):
        folder.check(CLAIM)


@pytest.mark.parametrize(
    "broken", [b"", b"{", b"[]", b"{}", b'{"reasons": [], "counts": {}, "facts": {}}', b"\xff"]
)
def test_a_damaged_evaluation_is_made_again_from_the_final_state(
    folder: ArmFolder, broken: bytes
) -> None:
    """Removing the file is the cure that the sentence names; nothing is trained again."""
    folder.finish(state(4), Evaluation({}, {}, {}), CLAIM)
    (folder.path / "evaluation.json").write_bytes(broken)
    told = r"fedavg/seed-0: evaluation.json is missing or damaged .*; remove that file, and the"
    with pytest.raises(RunError, match=told):
        folder.evaluation()
    (folder.path / "evaluation.json").unlink()
    assert not folder.evaluated(CLAIM) and folder.resume()[0] == 4


def test_damaged_arrays_are_named_with_the_cure(folder: ArmFolder) -> None:
    folder.finish(state(4), Evaluation({}, {}, {}), CLAIM)
    (folder.path / "evaluation.safetensors").write_bytes(b"\x00")
    with pytest.raises(RunError, match=r"remove evaluation.json beside it, and the same command"):
        folder.evaluation()
    (folder.path / "state.safetensors").write_bytes(b"\x00")
    with pytest.raises(RunError, match=r"state.safetensors is .* damaged: .*; remove this arm's"):
        folder.final()


def test_a_damaged_state_of_the_last_round_leaves_the_round_before(folder: ArmFolder) -> None:
    (folder.path / "server" / "round-000004.safetensors").write_bytes(b"\x00")
    told = r"server/round-000004.safetensors is .* damaged: .*; delete that file, and the same"
    with pytest.raises(RunError, match=told):
        folder.resume()
    (folder.path / "server" / "round-000004.safetensors").unlink()
    assert folder.resume()[0] == 3


def test_a_reason_that_cannot_be_read_is_a_sentence(folder: ArmFolder) -> None:
    folder.stop("nord: the loss is no finite number")
    (folder.path / "stopped.json").write_bytes(b"{")
    with pytest.raises(RunError, match=r"stopped.json is missing or damaged .*; remove that file"):
        folder.stopped()
