"""A frame is what split.proto says, and what is compiled from it is not stale."""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrad.algorithms.base import Frame
from fedrad.core.wire import TYPES
from fedrad.deployment.streams import split_pb2
from fedrad.deployment.streams.frames import frame_from, packet_of, packet_with

ROOT = Path(__file__).parents[2]

tensors = st.builds(
    lambda name, shape, seed: torch.randint(
        0, 2, shape, generator=torch.Generator().manual_seed(seed)
    ).to(TYPES[name]),
    st.sampled_from(sorted(TYPES)),
    st.lists(st.integers(0, 9), max_size=4),
    st.integers(0, 9),
)
frames = st.builds(
    Frame,
    st.text(max_size=20),
    st.dictionaries(st.text(max_size=200), tensors, max_size=4),
    st.dictionaries(st.text(max_size=9), st.floats(allow_nan=False), max_size=4),
)


@given(frames, st.integers(0, 2**64 - 1))
def test_fields_put_side_by_side_are_the_message_that_the_compiled_class_would_write(
    frame: Frame, number: int
) -> None:
    """Read back by the compiled class, field for field, and by hand: the same, to the last bit."""
    raw = packet_with(number, 7, frame)
    head, data = packet_of(raw)
    packet = split_pb2.Packet.FromString(raw)
    assert (packet.head, packet.data) == (head, bytes(data))
    assert (head.number, head.acknowledged) == (number, 7)
    there = frame_from(head.frame, data)
    assert (there.kind, there.numbers) == (frame.kind, frame.numbers)
    assert list(there.arrays) == list(frame.arrays)
    for name, tensor in frame.arrays.items():
        assert there.arrays[name].dtype == tensor.dtype
        assert torch.equal(there.arrays[name], tensor)


@given(frames)
def test_what_the_compiled_class_writes_is_read_by_hand(frame: Frame) -> None:
    """Its canonical form: fields in order, none of them empty."""
    raw = packet_with(1, 7, Frame(frame.kind, frame.arrays | {"z": torch.ones(1)}, frame.numbers))
    head, data = packet_of(split_pb2.Packet.FromString(raw).SerializeToString())
    assert list(frame_from(head.frame, data).arrays) == list(frame.arrays | {"z": None})


changed = st.builds(
    lambda raw, at, count, by: raw[: (at := at % len(raw))] + by + raw[at + count :],
    st.builds(packet_with, st.just(1), st.just(7), frames),
    st.integers(0, 2**31),
    st.integers(0, 9),
    st.binary(max_size=9),
)


@given(st.one_of(st.binary(max_size=99), changed))
@settings(max_examples=200)
def test_garbage_is_refused_or_read_as_the_compiled_class_reads_it(raw: bytes) -> None:
    """A packet with bytes cut out, put in or replaced: ValueError, and never another exception."""
    try:
        head, data = packet_of(raw)
    except ValueError:
        return
    packet = split_pb2.Packet.FromString(raw)
    assert packet.head.SerializeToString() == head.SerializeToString()
    assert packet.data == bytes(data)
    with suppress(ValueError):
        frame_from(head.frame, data)


END = split_pb2.Head(number=1, end=split_pb2.End()).SerializeToString()
"""Four bytes: a number, and an end in which nothing stands."""


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x0a\x04" + END,
        b"\x12\x00\x0a\x04" + END,
        b"\x0a\x04" + END + b"\x0a\x04" + END + b"\x12\x00",
        b"\x0a\x04" + END + b"\x12\x00\x12\x00",
        b"\x0a\x04" + END + b"\x12\x00\x1a\x00",
        b"\x0a\x04" + END + b"\x10\x00",
        b"\x0a\x05" + END + b"\x12\x00",
        b"\x0a\x04" + END + b"\x12\x01",
        b"\x0a\x84\x80\x80\x80\x80\x00" + END + b"\x12\x00",
        b"\x0a\x84",
    ],
    ids=[
        "nothing", "no data", "data first", "two heads", "data twice", "an unknown field",
        "another wire type", "a head cut off", "data cut off", "an over-long length",
        "a length cut off",
    ],
)  # fmt: skip
def test_what_is_not_a_head_and_then_its_data_is_no_packet(raw: bytes) -> None:
    """The layout is stricter than protobuf's, which takes fields in any order and number."""
    assert packet_of(b"\x0a\x04" + END + b"\x12\x00")[0].HasField("end")
    with pytest.raises(ValueError, match=f"{len(raw)} bytes came that are no whole packet"):
        packet_of(raw)


def test_framing_is_so_many_bytes_beside_the_arrays() -> None:
    """Tags, lengths and names: head 2, number 2, frame 2, kind 9, array 2, name 3, type 9, shape 6.

    The length of 13 MB of data takes four bytes, with its tag five; a side under 128 takes one.
    """
    raw = packet_with(1, 0, Frame("forward", {"z": torch.zeros(16, 64, 56, 56)}))
    assert len(raw) - 16 * 64 * 56 * 56 * 4 == 2 + 2 + 2 + 9 + 2 + 3 + 9 + 6 + 5


def test_an_array_has_memory_of_its_own() -> None:
    """What is trained on may be changed in place; the bytes that gRPC gave are Python's."""
    raw = packet_with(1, 0, Frame("forward", {"z": torch.ones(2)}))
    head, data = packet_of(raw)
    frame_from(head.frame, data).arrays["z"].zero_()
    assert frame_from(head.frame, data).arrays["z"].tolist() == [1.0, 1.0]


def test_an_array_that_comes_twice_is_refused() -> None:
    array = split_pb2.Array(name="z", dtype="int8", shape=[1])
    with pytest.raises(ValueError, match="array 'z' comes twice in a frame"):
        frame_from(split_pb2.Frame(arrays=[array, array]), memoryview(b"\0\0"))


def test_the_compiled_messages_are_those_of_split_proto(tmp_path: Path) -> None:
    """`scripts/generate` was run after the last change of split.proto."""
    made = tmp_path / "fedrad" / "deployment" / "streams"
    made.mkdir(parents=True)
    code = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={ROOT}"]
    code += [f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    subprocess.run([*code, "fedrad/deployment/streams/split.proto"], check=True, cwd=ROOT)
    for name in ("split_pb2.py", "split_pb2.pyi"):
        committed = (ROOT / "fedrad" / "deployment" / "streams" / name).read_text()
        assert committed == (made / name).read_text(), "run scripts/generate"
