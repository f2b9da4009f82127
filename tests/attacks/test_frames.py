"""A site's frames and packets in split learning: what breaks a rule ends its own stream alone."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random

import pytest
import torch
from flwr.app import Context, Error, Message, RecordDict
from made import Told as Heard
from made import federation
from split_arms import split_experiment

from fedrad.algorithms.base import Frame
from fedrad.deployment.coordinator.plausibility import SiteClaims
from fedrad.deployment.coordinator.reply_checker import ReplyChecker
from fedrad.deployment.streams import split_pb2
from fedrad.deployment.streams.frame_rules import FrameRules
from fedrad.deployment.streams.frames import packet_with
from fedrad.deployment.streams.invitation import Invitation, new_token
from fedrad.deployment.streams.session import ResumableSession
from fedrad.errors import SiteFailedError
from fedrad.rounds.arm_rounds import RunSpec
from fedrad.rounds.client_app import site_apps
from fedrad.rounds.records import config_of
from fedrad.rounds.server import server_app
from fedrad.rounds.site_streams import CalledStreams, ClientCoroutine
from fedrad.rounds.site_tasks import Known
from fedrad.runs import RunFolder
from fedrad.simulation.in_process import InProcessGrid

WHAT = split_experiment(rounds=1)
CUT = [name for name in WHAT.arm_names if name not in ("fedavg", "tuned")]
Seen = list[tuple[str, str, FrameRules, Frame]]


class Watched(InProcessGrid):
    """A grid whose sites' frames are held against the rules on their way."""

    seen: Seen
    faults: list[str]

    @contextmanager
    def streams(
        self, messages: Mapping[str, Message], *, deadline: float
    ) -> Iterator[CalledStreams]:
        """Open streams that are looked at."""
        data = federation().sites
        expected = ReplyChecker(WHAT)
        expected.told = {
            message.metadata.dst_node_id: SiteClaims.of(data[site], private=False)
            for site, message in messages.items()
        }
        halves = {}
        for site, message in messages.items():
            where = (
                str(config_of(message.content)["arm"]),
                str(config_of(message.content)["action"]),
            )
            halves[site] = self._watched(self.half(message), expected.rules(message), where)
        yield CalledStreams(halves)

    def _watched(
        self, half: ClientCoroutine, rules: FrameRules, where: tuple[str, str]
    ) -> ClientCoroutine:
        answer = None
        while True:
            try:
                frame = next(half) if answer is None else half.send(answer)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            self.seen.append((*where, replace(rules), frame))
            fault = rules.fault(frame)
            self.faults += [f"{where}: {fault}"] if fault else []
            answer = yield frame


@cache
def watched() -> tuple[Seen, list[str]]:
    """Every frame of every kind of arm that cuts the network, and what rule it breaks."""
    import tempfile

    folder = Path(tempfile.mkdtemp())
    app, door = site_apps(Known(federation()), torch.device("cpu"))
    grid = Watched(app, {name: folder / name for name in federation().sites}, door=door)
    grid.seen, grid.faults = [], []
    told = Heard()
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    server_app(RunSpec(WHAT, CUT, [0], (), RunFolder(folder / "run"), told))(grid, context)
    assert told.stopped == {}
    return grid.seen, grid.faults


def test_honest_frames_of_every_split_arm_break_no_rule() -> None:
    seen, faults = watched()
    assert faults == []
    assert {arm for arm, _, _, _ in seen} == set(CUT)
    assert {frame.kind for *_, frame in seen} == {
        "forward",
        "backward",
        "settle",
        "ready",
        "hand on",
    }


def _with(frame: Frame, name: str, array: torch.Tensor) -> Frame:
    return replace(frame, arrays={**frame.arrays, name: array})


def _one(turn: Callable[[Random, torch.Tensor], torch.Tensor]) -> Callable[[Random, Frame], Frame]:
    def change(rng: Random, frame: Frame) -> Frame:
        name = rng.choice(sorted(frame.arrays))
        return _with(frame, name, turn(rng, frame.arrays[name].clone()))

    return change


def _poke(value: float) -> Callable[[Random, torch.Tensor], torch.Tensor]:
    def poke(rng: Random, array: torch.Tensor) -> torch.Tensor:
        if not array.is_floating_point():
            return array.double() * value  # Such a value makes another kind of it.
        array.view(-1)[rng.randrange(array.numel())] = value
        return array

    return poke


SPOILT: dict[str, Callable[[Random, Frame], Frame]] = {
    "another kind": lambda rng, f: replace(
        f, kind=rng.choice(["", "end", "backwards", "\x1b[2J", "x" * 9**6])
    ),
    "a number more": lambda rng, f: replace(f, numbers={"loss": rng.random()}),
    "an array more": lambda rng, f: _with(f, rng.choice(["image", "x" * 5000]), torch.zeros(2)),
    "an array less": lambda rng, f: replace(
        f, arrays={k: v for k, v in f.arrays.items() if k != next(iter(f.arrays))}
    ),
    "too many rows": _one(
        lambda rng, a: a.repeat(100, *[1] * (a.dim() - 1)) if a.dim() else a[None]
    ),
    "no rows": _one(lambda rng, a: a[:0] if a.dim() else a.reshape(1, 1)),
    "an axis more": _one(lambda rng, a: a.unsqueeze(rng.randrange(a.dim() + 1))),
    "another type": _one(lambda rng, a: a.to(torch.int16)),
    "not finite": _one(_poke(float("inf"))),
    "beyond sums": _one(_poke(1e30)),
}


@pytest.mark.parametrize("how", sorted(SPOILT))
def test_a_spoilt_frame_is_named_before_anything_is_computed_from_it(how: str) -> None:
    """At least ten of each; the server's half would end the round for all, or learn nonsense."""
    seen, _ = watched()
    rng, tried = Random(how), 0
    for arm, action, rules, frame in rng.sample(seen, 60):
        if not frame.arrays and how not in ("another kind", "a number more", "an array more"):
            continue
        if how == "an array less" and next(iter(frame.arrays)) == "shrink":
            continue
        fault = replace(rules).fault(SPOILT[how](rng, frame))
        assert fault is not None, (arm, action, frame.kind, sorted(frame.arrays))
        assert fault.isprintable() and len(fault) < 300
        tried += 1
    assert tried >= 10


def test_frames_in_another_order_or_without_end_are_named() -> None:
    """A step is forward, then backward, of one batch; as many as the site's images make."""
    seen, _ = watched()
    steps = [(rules, frame) for arm, action, rules, frame in seen if (arm, action) == ("v1", "fit")]
    rules = replace(steps[0][0])
    forward, backward = steps[0][1], steps[1][1]
    assert (forward.kind, backward.kind) == ("forward", "backward")
    assert "does not answer" in str(replace(rules).fault(backward))
    twice = replace(rules)
    assert twice.fault(forward) is None
    assert "not followed by gradients" in str(twice.fault(forward))
    other = replace(rules)
    assert other.fault(forward) is None
    rows = {name: a[:-1] for name, a in backward.arrays.items()}
    assert "does not answer" in str(other.fault(replace(backward, arrays=rows)))
    endless = replace(rules)
    assert rules.steps == 6, "nord has 40 images, in batches of 7"
    for _ in range(rules.steps):
        assert endless.fault(forward) is None and endless.fault(backward) is None
    assert "more than the 6 steps" in str(endless.fault(forward))


def test_labels_that_are_no_labels_are_named() -> None:
    """With labels at the server a class of 10^9 would be an index beyond all memory."""
    seen, _ = watched()
    rules, frame = next(
        (r, f) for arm, _, r, f in seen if arm == "v1_labels" and "labels" in f.arrays
    )
    for value in (2.0, -1.0, 0.5, 1e9):
        labels = frame.arrays["labels"].clone()
        labels[0] = value
        assert "labels are not" in str(replace(rules).fault(_with(frame, "labels", labels)))
    many = replace(rules, classes=3)
    assert many.fault(frame) is None
    labels = torch.full_like(frame.arrays["labels"], 3.0)
    assert "labels are not" in str(replace(rules, classes=3).fault(_with(frame, "labels", labels)))


def test_a_relay_that_announces_more_steps_than_it_has_images_is_named() -> None:
    """The others would wait for its turns."""
    seen, _ = watched()
    rules, frame = next(
        (r, f) for arm, _, r, f in seen if arm == "relay_batch" and f.kind == "ready"
    )
    for steps in (0.0, 7.0, 1e12, -1.0, 1.5, float("nan")):
        assert replace(rules).fault(replace(frame, numbers={"steps": steps})) is not None
    assert replace(rules).fault(frame) is None


PACKET = packet_with(1, 0, Frame("forward", {"z": torch.ones(2, 3)}, {"n": 1.0}))


def head(**fields: object) -> bytes:
    """A packet with a head of one's own and no bytes beside it."""
    made = split_pb2.Head(number=1, acknowledged=0)
    made.frame.kind = "forward"
    made.frame.arrays.add(name="z", **fields)
    text = made.SerializeToString()
    length = (
        bytes([len(text)]) if len(text) < 128 else bytes([len(text) & 127 | 128, len(text) >> 7])
    )
    return b"\x0a" + length + text + b"\x12\x00"


PACKETS: list[Callable[[Random], bytes]] = [
    lambda rng: PACKET[: rng.randrange(len(PACKET))],
    lambda rng: PACKET + rng.randbytes(rng.randrange(1, 50)),
    lambda rng: rng.randbytes(rng.randrange(200)),
    lambda rng: PACKET[:2] + rng.randbytes(rng.randrange(1, 40)) + PACKET[20:],
    lambda rng: b"\x0a\xff\xff\xff\xff\x7f" + PACKET,
    lambda rng: head(dtype="float32", shape=[2**40]),
    lambda rng: head(dtype="float32", shape=[2**62, 2**62]),
    lambda rng: head(dtype="float32", shape=[0, 2**62, 4]),
    lambda rng: head(dtype="float32", shape=[2 ** rng.randrange(20, 31), 2**31]),
    lambda rng: head(dtype="float32", shape=[1] * rng.randrange(17, 1000)),
    lambda rng: head(dtype=rng.choice(["object", "", "float128", "<U8", "\x1b[2J"]), shape=[1]),
    lambda rng: packet_with(rng.choice([0, 2, 2**31]), 0, Frame("forward")),
    lambda rng: packet_with(1, rng.choice([1, 7, 2**31]), Frame("forward")),
]  # fmt: skip


@pytest.mark.parametrize("which", range(len(PACKETS)))
def test_bytes_that_are_no_packet_are_a_value_error_of_their_stream(which: int) -> None:
    """Nothing else may come of them: another exception would leave the stream to its patience."""
    for seed in range(12):
        link = ResumableSession(first=False, largest=1 << 20)
        link.connect(0)
        raw = PACKETS[which](Random(f"{which} {seed}"))
        try:
            link.take(1, raw)
        except ValueError as error:
            assert str(error).isprintable() and len(str(error)) < 2100
        else:
            assert link.pop() is not None or link.ended, "a packet like another"


def test_a_site_whose_last_word_is_a_megabyte_is_quoted_in_short() -> None:
    link = ResumableSession(first=False, largest=1 << 24)
    link.connect(0)
    link.take(1, packet_with(1, 0, split_pb2.End(failure="\x1b[2J" + "x" * 1_000_000)))
    assert link.failure is not None and len(link.failure) < 2100 and link.failure.isprintable()


INVITED = Invitation("host:9094", new_token(), "run", 1, "", 1024, 60.0).config()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("token", None), ("token", 7), ("token", "x" * 200_000), ("address", b"host:1"),
        ("round", "1"), ("round", 1.5), ("round", True), ("largest", 2**40), ("largest", -1),
        ("deadline", float("inf")), ("deadline", float("nan")), ("deadline", 0.0),
        ("deadline", "60"), ("ca", ["x"]), ("run", 3),
    ],
)  # fmt: skip
def test_an_invitation_that_is_none_is_named(key: str, value: object) -> None:
    """The coordinator may be hostile, too: what it sends is looked at before it is used."""
    config = {**INVITED, f"stream-{key}": value}
    with pytest.raises(SiteFailedError, match="the invitation to a stream"):
        Invitation.of(config)
    del config[f"stream-{key}"]
    if key != "token":
        with pytest.raises(SiteFailedError, match=f"lacks {key}"):
            Invitation.of(config)
    assert Invitation.of(INVITED) is not None


def test_an_error_of_a_streams_reply_is_not_taken_for_a_lost_one() -> None:
    """Only a lost stream is played again; a broken rule would be broken again."""
    from fedrad.deployment.streams.grid import _BROKE_A_RULE
    from fedrad.rounds.metered_streams import _LOST

    assert Error(_BROKE_A_RULE, "").code not in _LOST
