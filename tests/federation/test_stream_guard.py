"""A hospital's guard over streams: to one address only, and nothing in them but what was asked."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from certificates import Certificates, certificates
from flwr.app import Message
from made import Told, federation
from split_arms import split_experiment
from test_guard import POLICY, context, lines, question, reason, site
from test_guard import _runtime as _runtime  # messages need Flower's task

from fedrad.algorithms.base import Frame
from fedrad.assemble import initial_state, site_model_of
from fedrad.core.state import Bundle
from fedrad.deployment.frame_spec import FrameSpec, infer_frame_spec
from fedrad.deployment.reply_spec import ArraySpec
from fedrad.deployment.site.guard import guarded
from fedrad.deployment.site.stream_guard import FrameFilter
from fedrad.deployment.streams import client as play
from fedrad.errors import ConfigError, PolicyError
from fedrad.metrics.site_result import hospital_disclosure
from fedrad.rounds.arm_rounds import RunSpec
from fedrad.rounds.client_app import client_app, site_apps
from fedrad.rounds.server import server_app
from fedrad.rounds.site_tasks import Known
from fedrad.runs import RunFolder
from fedrad.simulation.in_process import InProcessGrid

CPU = torch.device("cpu")
HOSPITAL = hospital_disclosure()
WHAT = split_experiment(rounds=2)
ALLOW = POLICY["allow"] | {
    "algorithms": ["splitfed", "splitnn", "finetune"],
    "actions": [*POLICY["allow"]["actions"], "split-test", "split-tune", "split-validate"],
}
HOME = {"host": "localhost", "port": 9092, "stream_port": 9095}


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("pem"))


def parts(arm: str) -> Bundle:
    own = site_model_of(WHAT.arm(arm)).state_dict()
    whole = initial_state(WHAT.arm(arm), 0)
    return {"model": {name: whole[name] for name in own}}


def invitation(pem: Certificates, **changes: Any) -> dict[str, Any]:
    plain = {
        "address": "localhost:9095",
        "token": "t" * 43,
        "run": "r",
        "round": 1,
        "ca": pem.ca.read_text(encoding="ascii"),
        "largest": 1 << 20,
        "deadline": 5.0,
    }
    return {f"stream-{key}": value for key, value in (plain | changes).items()}


def answered(
    folder: Path, pem: Certificates, message: Message, **changes: Any
) -> tuple[Message, list[str]]:
    """What a guarded site answers, and which of its doors were opened."""
    opened: list[str] = []

    def never(message: Message, context: object) -> Message:
        opened.append("answered")
        raise AssertionError("it was answered")

    own = {"allow": ALLOW, "coordinator": HOME, "certificates": {"ca": str(pem.ca)}} | changes
    answer = guarded(never, site(folder, **own), Known(federation()), gate=FrameFilter())
    return answer(message, context(folder)), opened


@pytest.mark.parametrize(
    ("changes", "policy", "told"),
    [
        (
            {"address": "elsewhere.example.org:9095"},
            {},
            "coordinator.stream_port: limit the address in the site's own file, asked a stream "
            "to another address",
        ),
        (
            {"address": "localhost:443"},
            {},
            "coordinator.stream_port: limit the address in the site's own file, asked a stream "
            "to another address",
        ),
        ({"ca": "another"}, {}, "certificates.ca: limit the kit's own, asked another authority"),
        (
            {},
            {"coordinator": {"host": "localhost", "port": 9092}},
            "coordinator.stream_port: limit none, asked a stream",
        ),
        (
            {},
            {"allow": POLICY["allow"]},
            f"allow.algorithms: limit {', '.join(POLICY['allow']['algorithms'])}, asked splitfed",
        ),
        ({}, {"max_upload_mb": 1e-3}, "max_upload_mb: limit 0.001, asked 0.00"),
    ],
    ids=["another host", "another port", "another authority", "no port", "not allowed", "bytes"],
)
def test_a_stream_that_the_site_did_not_allow_is_refused_before_anything_is_opened(
    tmp_path: Path,
    pem: Certificates,
    changes: dict[str, Any],
    policy: dict[str, Any],
    told: str,
) -> None:
    """No message can send what is computed from images to anybody but the site's coordinator."""
    message = question("fit", "v1", parts("v1"), WHAT, **invitation(pem, **changes))
    reply, opened = answered(tmp_path, pem, message, **policy)
    assert reason(reply).startswith(f"PolicyError: nord: {told}")
    assert opened == []
    (line,) = lines(tmp_path)
    assert (line["decision"], line["sent"]) == ("refused", "")


def test_an_invitation_that_fits_is_let_in(tmp_path: Path, pem: Certificates) -> None:
    """The other tests here would all pass if every stream were refused."""
    message = question("fit", "v1", parts("v1"), WHAT, **invitation(pem))
    assert answered(tmp_path, pem, message)[1] == ["answered"]


def test_an_arm_that_is_not_cut_gets_no_stream(tmp_path: Path, pem: Certificates) -> None:
    allow = ALLOW | {"algorithms": ["fedavg"]}
    whole = {"model": initial_state(WHAT.arm("fedavg"), 0)}
    message = question("fit", "fedavg", whole, WHAT, **invitation(pem))
    reply, opened = answered(tmp_path, pem, message, allow=allow)
    assert "stream: limit an arm whose network is cut, asked fit" in reason(reply)
    assert opened == []


STREAMED = FrameSpec({"forward": {"activations": ArraySpec((4, 3), "float32")}}, 72, 0, "")


def passed(*frames: Frame, streamed: FrameSpec = STREAMED) -> list[Frame]:
    """The frames that come through a gate."""

    def half() -> Generator[Frame, Frame, Any]:
        for frame in frames:  # noqa: UP028 - a tuple cannot be sent to
            yield frame

    gate, opened = FrameFilter(), []
    gate.allow("nord", streamed, lambda: opened.append(True))
    found = []
    watched = gate(half())
    try:
        found.append(next(watched))
        while True:
            assert opened == [True]
            found.append(watched.send(Frame("answer")))
    except StopIteration:
        return found


def activations(rows: int, columns: int = 3, **others: torch.Tensor) -> Frame:
    return Frame("forward", {"activations": torch.zeros(rows, columns), **others})


def test_frames_that_were_asked_for_leave_and_the_last_batch_may_be_smaller() -> None:
    assert len(passed(activations(4), activations(2))) == 2


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        (activations(2, labels=torch.zeros(2, 1)), "an array that nobody asked for"),
        (activations(5), r"activations float32 \[5, 3\], of float32 \[4, 3\]"),
        (activations(2, 4), r"activations float32 \[2, 4\]"),
        (Frame("forward", {"activations": torch.zeros(2, 3).double()}), "float64"),
        (Frame("images", {}), "a frame of another kind"),
        (Frame("forward", {}, {"patients": 7.0}), "a number that nobody asked for"),
    ],
)
def test_a_frame_with_anything_else_in_it_does_not_leave(frame: Frame, told: str) -> None:
    """Labels in a U-shape above all: the words of the experiment are kept frame by frame."""
    with pytest.raises(PolicyError, match=told):
        passed(frame)


def test_more_bytes_than_were_asked_for_do_not_leave() -> None:
    """4 + 2 rows of 3 numbers of 4 bytes are the 72 bytes; one row more is too much."""
    with pytest.raises(PolicyError, match="more than the 72 bytes"):
        passed(activations(4), activations(2), activations(1))


def test_a_stream_without_the_guards_word_is_not_opened() -> None:
    with pytest.raises(ConfigError, match="has not let in"):
        next(FrameFilter()(_ for _ in ()))


@pytest.mark.parametrize("arm", [name for name in WHAT.arm_names if name != "fedavg"])
def test_what_is_foreseen_of_a_stream_is_what_leaves_in_it_to_the_byte(
    tmp_path: Path, arm: str
) -> None:
    """Every stream of a run of every split arm goes through a gate that was told what to expect."""
    app, door = site_apps(Known(federation()), CPU, disclosure=HOSPITAL)
    measured: list[tuple[str, int, int]] = []

    def watched(message: Message, node: Any) -> Any:
        config = message.content.config_records["config"]
        action, name = str(config["action"]), str(node.node_config["site"])
        data = federation().sites[name]
        streamed = infer_frame_spec(WHAT.arm(str(config["arm"])), action, data.images)
        assert streamed is not None
        gate = FrameFilter()
        gate.allow(name, streamed, lambda: None)
        reply = yield from gate(door(message, node))
        left = int(gate.close().split(" frames, ")[1].split(" bytes")[0])
        # What has left is told once: the next message's line must not say it again.
        assert gate.close() == ""
        measured.append((action, left, streamed.bytes))
        return reply

    folders = {name: tmp_path / name for name in federation().sites}
    grid = InProcessGrid(app, folders, door=watched)
    played = RunSpec(WHAT, [arm], WHAT.seeds, (), RunFolder(tmp_path / "run"), Told())
    server_app(played)(grid, context(tmp_path))
    assert "fit" in {action for action, _, _ in measured}
    for action, left, foreseen in measured:
        assert left == foreseen, action


def test_a_stream_is_in_the_log_before_its_first_frame_leaves(
    tmp_path: Path, pem: Certificates
) -> None:
    """Nothing leaves without a line; the line holds the bytes of all the frames."""
    gate, found = FrameFilter(), []
    app = client_app(
        Known(federation()), CPU, invited=play.streams_over_grpc(gate), disclosure=HOSPITAL
    )

    def noted(half: Any, *_: object, **__: object) -> Message:
        frame = next(half)
        found.extend(lines(tmp_path))
        assert set(frame.arrays) == {"activations"}
        half.close()
        raise ConnectionError

    own = {"allow": ALLOW, "coordinator": HOME, "certificates": {"ca": str(pem.ca)}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(play, "run_client_stream", noted)
        answer = guarded(app, site(tmp_path, **own), Known(federation()), gate=gate)
        message = question("fit", "v1", parts("v1"), WHAT, **invitation(pem))
        answer(message, context(tmp_path))
    (opened,) = found
    foreseen = infer_frame_spec(WHAT.arm("v1"), "fit", federation().sites["nord"].images)
    assert foreseen is not None and "no image, no label" in foreseen.told
    assert (opened["decision"], opened["bytes_out"]) == ("opened", foreseen.bytes)
    assert foreseen.told in opened["reason"]
    assert [line["decision"] for line in lines(tmp_path)] == ["opened", "failed"]
