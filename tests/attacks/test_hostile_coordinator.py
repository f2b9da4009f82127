"""A coordinator that sends anything at all: each message ends in a named answer and a line.

Two hundred messages from a seeded generator, each an honest one with something done to it.
"""

import random
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from leaving import context, in_flowers_runtime, question, site_file

from fedrad.deployment.packed_arrays import pack_arrays, unpack_arrays
from fedrad.deployment.site.audit import AuditLog
from fedrad.deployment.site.guard import guarded
from fedrad.deployment.site.stream_guard import FrameFilter
from fedrad.deployment.streams.client import streams_over_grpc
from fedrad.rounds.client_app import client_app
from fedrad.rounds.records import config_of
from fedrad.rounds.site_tasks import Known

pytestmark = pytest.mark.slow

MESSAGES = 200
MB = 1 << 10
"""Of `ru_maxrss`, which is in kB."""


@pytest.fixture(autouse=True)
def _runtime() -> Iterator[None]:
    in_flowers_runtime()
    yield


Draw = random.Random
Spoil = Callable[[Message, Draw], None]


def settings(message: Message, **changes: Any) -> None:
    config = config_of(message.content) | changes
    told = {key: value for key, value in config.items() if value is not None}
    message.content["config"] = ConfigRecord(told)


def without_a_key(message: Message, draw: Draw) -> None:
    settings(message, **{draw.choice(["experiment", "arm", "fedrad", "schema", "action"]): None})


def of_another_type(message: Message, draw: Draw) -> None:
    key = draw.choice(["experiment", "arm", "seed", "server-round", "action", "fedrad", "schema"])
    good = type(config_of(message.content)[key])
    values = [b"\xff\x00", 7, -1.5, [1, 2], ["x"], True, "seven", "", float("nan")]
    settings(message, **{key: draw.choice([v for v in values if type(v) is not good])})


def no_settings(message: Message, draw: Draw) -> None:
    del message.content["config"]


def settings_that_are_numbers(message: Message, draw: Draw) -> None:
    message.content["config"] = MetricRecord({"arm": 1.0})


def a_number_out_of_range(message: Message, draw: Draw) -> None:
    key = draw.choice(["seed", "server-round"])
    settings(message, **{key: draw.choice([-1, -(2**40), 2**62, 10**6, 99])})


def an_unknown_name(message: Message, draw: Draw) -> None:
    key = draw.choice(["arm", "action"])
    found = draw.choice(["fedagv", "../../etc", "fit\x00", "FIT", "fit;share", "pooled", "💥" * 50])
    settings(message, **{key: found})


def an_endless_text(message: Message, draw: Draw) -> None:
    key = draw.choice(["experiment", "arm", "action", "fedrad"])
    settings(message, **{key: draw.choice(["x", "fit+", "- ", "[", "a: {"]) * 10**6})


def an_action_behind_the_cut(message: Message, draw: Draw) -> None:
    # A hundred letters that are allowed, and one more action behind them.
    settings(message, action="fit+" * 24 + "test+share")


def the_same_twice(message: Message, draw: Draw) -> None:
    settings(message, action=draw.choice(["fit+fit", "fit+validate+test", "describe+describe"]))


def a_bomb(message: Message, draw: Draw) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for n in range(1, draw.randint(8, 12)):
        lines.append(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]")
    settings(message, experiment="\n".join(lines))


def a_deep_text(message: Message, draw: Draw) -> None:
    settings(message, experiment=draw.choice(["[", "{a: ", "- " * 3 + "["]) * 50_000)


def code_in_yaml(message: Message, draw: Draw) -> None:
    told = str(config_of(message.content)["experiment"])
    bad = draw.choice(["!!python/object/apply:os.system [id]", "!!python/name:os.system"])
    settings(message, experiment=f"{told}\nname: {bad}\n")


def of_a_size(message: Message, draw: Draw) -> None:
    told = str(config_of(message.content)["experiment"])
    old, new = draw.choice(
        [
            ("hidden:\n  - 8", "hidden:\n  - 10000000000"),
            ("hidden:\n  - 8", "hidden: [200000, 200000]"),
            ("input:\n  - 6", "input: [100000000000]"),
            ("- brier", "- {name: ece, bins: 1000000000}"),
            ("batch: 8", "batch: 99999999999"),
            ("replicates: 100", "replicates: 1000000000"),
        ]
    )
    assert old in told, told
    settings(message, experiment=told.replace(old, new))


def another_version(message: Message, draw: Draw) -> None:
    settings(message, **draw.choice([{"fedrad": "9.9.9"}, {"fedrad": "x" * 10**5}, {"schema": 77}]))


INVITED: dict[str, Any] = {
    "stream-address": "localhost:9095", "stream-token": "t", "stream-run": "r", "stream-round": 1,
    "stream-ca": "-----BEGIN", "stream-largest": 1 << 20, "stream-deadline": 60.0,
}  # fmt: skip


def an_invitation(message: Message, draw: Draw) -> None:
    key = draw.choice(sorted(INVITED))
    bad = draw.choice(
        [None, 7, -1, 2**62, "evil.example.org:443", "", b"\x00", float("nan"), float("inf"), ["x"]]
    )
    settings(message, **INVITED | {key: bad})


def a_foreign_stream(message: Message, draw: Draw) -> None:
    settings(message, **INVITED | {"stream-address": draw.choice(["[::1]:22", "10.0.0.1:9095"])})


def spoilt_array(message: Message, draw: Draw) -> Array:
    good = np.ones(3, np.float32)
    kind = draw.choice(["empty", "junk", "huge", "dtype", "shape", "stype", "object", "zip"])
    if kind == "huge":
        raw = Array(good).data.replace(b"(3,)" + b" " * 9, b"(1099511627776,)"[:13])
        return Array("float32", (1 << 40,), "numpy.ndarray", raw)
    if kind == "object":
        return Array("object", (1,), "numpy.ndarray", b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fo")
    return {
        "empty": Array("float32", (3,), "numpy.ndarray", b""),
        "junk": Array("float32", (3,), "numpy.ndarray", draw.randbytes(200)),
        "dtype": Array(draw.choice(["float128", "M8[s]", "x", "V8"]), (3,), "numpy.ndarray", b"1"),
        "shape": Array(good.reshape(1, 3, 1)),
        "stype": Array("float32", (3,), "pickle", b"cos\nsystem\n(S'id'\ntR."),
        "zip": Array("float32", (3,), "numpy.ndarray", b"PK\x03\x04" + draw.randbytes(50)),
    }[kind]


def a_spoilt_array(message: Message, draw: Draw) -> None:
    record = message.content["arrays"]
    record[draw.choice(sorted(record))] = spoilt_array(message, draw)


def an_array_less(message: Message, draw: Draw) -> None:
    record = message.content["arrays"]
    del record[draw.choice(sorted(record))]


def no_model(message: Message, draw: Draw) -> None:
    del message.content["arrays"]


def arrays_of_another_kind(message: Message, draw: Draw) -> None:
    record = message.content["arrays"]
    key = draw.choice(sorted(record))
    kind = draw.choice([np.float64, np.int8, np.complex64, np.bool_, ">f4"])
    record[key] = Array(np.zeros(record[key].shape, kind))


def counts_that_are_none(message: Message, draw: Draw) -> None:
    # A record under the counts' name, without what is in it.
    record = ArrayRecord()
    record["wrong"] = Array(np.ones(2, np.float32))
    message.content["arrays.counts"] = record


def a_broken_packet(message: Message, draw: Draw) -> None:
    content = pack_arrays(message.content)
    record = ArrayRecord()
    head = draw.choice(
        [
            b"",
            b"\xff" * 8,
            (1 << 40).to_bytes(8, "little"),
            draw.randbytes(100),
            b"\x02" + b"\0" * 9,
        ]
    )
    record["file"] = Array(np.frombuffer(head, np.uint8))
    if draw.random() < 0.3:
        record = ArrayRecord()
    content["safetensors"] = record
    message.content = content


SPOILS: list[Spoil] = [
    without_a_key, of_another_type, no_settings, settings_that_are_numbers, a_number_out_of_range,
    an_unknown_name, an_endless_text, an_action_behind_the_cut, the_same_twice, a_bomb, a_deep_text,
    code_in_yaml, of_a_size, another_version, an_invitation, a_foreign_stream, a_spoilt_array,
    an_array_less, no_model, arrays_of_another_kind, counts_that_are_none, a_broken_packet,
]  # fmt: skip


def test_two_hundred_hostile_messages_each_end_in_a_name_and_a_line(tmp_path: Path) -> None:
    """Nothing is trained, nothing leaves but a reason, and the next honest message is answered."""
    what, source = made.experiment(), Known(made.federation())
    app = client_app(source, torch.device("cpu"), invited=streams_over_grpc())
    answered = []

    def counting(message: Message, told: Context) -> Message:
        reply = app(message, told)
        answered.append(reply.has_error())
        return reply

    site = site_file(tmp_path, data="phantom")
    answer = guarded(counting, site, source, None, FrameFilter(), unpack_arrays)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    draw = random.Random(19)
    for number in range(MESSAGES):
        spoil = SPOILS[number % len(SPOILS)]
        message = question(what, "fit" if number % 3 else "fit+validate")
        spoil(message, draw)
        reply = answer(message, context(tmp_path))
        told = reply.error.reason if reply.has_error() else "an answer"
        assert reply.has_error(), (spoil.__name__, config_of(message.content))
        assert 0 < len(told) < 1000 and "Traceback" not in told, (spoil.__name__, told)
    assert all(answered), "something was trained"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 400 * MB, f"{grown / MB:.0f} MB more"
    lines = list(AuditLog(site.state_dir / "audit.jsonl").entries())
    assert len(lines) == MESSAGES
    assert {line["decision"] for line in lines} == {"refused", "failed"}
    assert not answer(question(what), context(tmp_path)).has_error()


def test_an_action_behind_the_cut_is_not_done(tmp_path: Path) -> None:
    """The log keeps a hundred letters of an action; who answers once read all of it."""
    source = Known(made.federation())
    answer = guarded(
        client_app(source, torch.device("cpu"), invited=streams_over_grpc()),
        site_file(tmp_path, data="phantom"),
        source,
    )
    message = question(made.experiment())
    an_action_behind_the_cut(message, random.Random(0))
    told = answer(message, context(tmp_path)).error.reason
    assert told == "ConfigError: the message's action is no text of 100 letters or fewer"


def test_a_message_that_was_never_put_together_does_not_end_the_worker(tmp_path: Path) -> None:
    """A content that is no record at all is answered too."""
    source = Known(made.federation())
    answer = guarded(
        client_app(source, torch.device("cpu"), invited=streams_over_grpc()),
        site_file(tmp_path, data="phantom"),
        source,
        unpack=unpack_arrays,
    )
    message = question(made.experiment())
    message.content = RecordDict({"config": ConfigRecord({"experiment": "x"})})
    assert answer(message, context(tmp_path)).has_error()
