"""A round whose streams broke is played again, and ends with the bits of an undisturbed one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, Error, Message, RecordDict
from made import Told, federation
from split_arms import split_experiment

from fedrad.rounds.arm_rounds import RunSpec
from fedrad.rounds.client_app import site_apps
from fedrad.rounds.retry import MAX_RETRIES
from fedrad.rounds.server import server_app
from fedrad.rounds.site_streams import LOST
from fedrad.rounds.site_tasks import Known
from fedrad.runs import RunFolder
from fedrad.simulation.in_process import InProcessGrid

WHAT = split_experiment(rounds=2)
ARMS = ("v1", "v2", "v3", "relay", "relay_batch")
Breaks = Callable[[str, str, int, int], Error | None]
"""(site, action, round, how often it was asked this) -> what its stream breaks with, or None."""


def never(site: str, action: str, number: int, times: int) -> None:
    return None


def play(folder: Path, arm: str, breaks: Breaks = never, **changes: Any) -> tuple[Told, list[str]]:
    """Play an arm whose sites break off in the middle; return also who was asked to train."""
    app, door = site_apps(Known(federation()), torch.device("cpu"))
    asked: dict[tuple[str, str, int], int] = {}
    trained: list[str] = []

    def breaking(message: Message, node: Context) -> Any:
        config = message.content.config_records["config"]
        key = str(node.node_config["site"]), str(config["action"]), int(config["server-round"])
        asked[key] = asked.get(key, 0) + 1
        trained.extend([f"{key[0]} {key[2]}"] if key[1] == "fit" else [])
        error = breaks(*key, asked[key])
        if error is None:
            return (yield from door(message, node))
        half = door(message, node)
        yield next(half)
        half.close()
        return Message(error, reply_to=message)

    folders = {name: folder / "sites" / name for name in federation().sites}
    what = WHAT.model_copy(update=changes)
    told = Told()
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    grid = InProcessGrid(app, folders, door=breaking)
    server_app(RunSpec(what, [arm], what.seeds, (), RunFolder(folder / "run"), told))(grid, context)
    return told, trained


def final(folder: Path, arm: str) -> bytes:
    where = folder / "run" / arm / "seed-0"
    return b"".join((where / f"{n}.safetensors").read_bytes() for n in ("state", "evaluation"))


def rounds(folder: Path, arm: str) -> list[dict[str, Any]]:
    path = folder / "run" / arm / "seed-0" / "rounds.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def lost(site: str, action: str, number: int, times: int) -> Error | None:
    """ost is lost in its second round, twice, and once in an evaluation at the end."""
    broken = (action == "fit" and number == 2 and times < 3) or (
        action == "split-test" and times < 2
    )
    return Error(LOST, "its connection broke") if site == "ost" and broken else None


@pytest.mark.parametrize("arm", ARMS)
def test_a_stream_that_broke_costs_a_repeat_and_no_bit(tmp_path: Path, arm: str) -> None:
    """Bytes and steps of the record are those of the attempt that counts; the repeats are noted."""
    play(tmp_path / "calm", arm)
    told, _ = play(tmp_path / "rough", arm, lost)
    assert told.stopped == {}
    assert final(tmp_path / "rough", arm) == final(tmp_path / "calm", arm)
    calm, rough = rounds(tmp_path / "calm", arm), rounds(tmp_path / "rough", arm)
    for one, other in zip(calm, rough, strict=True):
        for key in ("bytes_up", "bytes_down", "steps", "validation", "missing"):
            assert one[key] == other[key], key
    assert "repeated" not in rough[0]
    assert len(rough[1]["repeated"]) == 2
    assert "ost" in rough[1]["repeated"][0] and "its connection broke" in rough[1]["repeated"][0]


@pytest.mark.parametrize(
    "error",
    [
        Error(100, "PolicyError: ost: allow.algorithms: limit fedavg, asked splitfed"),
        Error(101, "KeyError"),
    ],
    ids=["refused", "failed"],
)
@pytest.mark.parametrize("arm", ["v1", "relay"])
def test_a_site_that_said_no_is_not_asked_again(tmp_path: Path, arm: str, error: Error) -> None:
    """The same question would get the same answer."""
    told, trained = play(tmp_path, arm, lambda site, *_: error if site == "ost" else None)
    assert "ost" in told.stopped[arm] and error.reason in told.stopped[arm]
    assert trained.count("ost 1") == 1


def test_a_site_that_is_lost_each_time_stops_the_arm_and_is_named(tmp_path: Path) -> None:
    error = Error(LOST, "its connection broke")
    told, trained = play(tmp_path, "v1", lambda site, *_: error if site == "ost" else None)
    assert "ost: its connection broke" in told.stopped["v1"]
    assert trained.count("ost 1") == 1 + MAX_RETRIES


def test_the_repeats_of_a_round_end_with_its_deadline(tmp_path: Path) -> None:
    """All attempts together take no longer than one was allowed."""
    error = Error(LOST, "its connection broke")
    told, trained = play(
        tmp_path, "v1", lambda site, *_: error if site == "ost" else None, deadline=1e-6
    )
    assert "ost" in told.stopped["v1"]
    assert trained.count("ost 1") == 1


def test_with_the_quorum_met_nothing_is_repeated(tmp_path: Path) -> None:
    """The round goes on without the site that was lost, as an uncut one does."""
    told, trained = play(tmp_path, "v1", lost, quorum=2)
    assert told.stopped == {}
    assert sorted(rounds(tmp_path, "v1")[1]["missing"]) == ["ost"]
    assert trained.count("ost 2") == 1
