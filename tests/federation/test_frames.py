"""A frame is what split.proto says, and what is compiled from it is not stale."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedrad.algorithms.base import Frame
from fedrad.core.wire import TYPES
from fedrad.federation import split_pb2
from fedrad.federation.frames import packet_of, packet_with, read

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
    """Read back by the compiled class, field for field."""
    raw = packet_with(number, 7, frame)
    packet = packet_of(raw)
    assert (packet.number, packet.acknowledged) == (number, 7)
    there = read(packet.frame)
    assert (there.kind, there.numbers) == (frame.kind, frame.numbers)
    assert list(there.arrays) == list(frame.arrays)
    for name, tensor in frame.arrays.items():
        assert there.arrays[name].dtype == tensor.dtype
        assert torch.equal(there.arrays[name], tensor)


def test_framing_is_so_many_bytes_beside_the_arrays() -> None:
    """Tags, lengths and names: number 2, frame 5, kind 9, array 5, name 3, type 9, shape 6, data 5.

    A length of 13 MB takes four bytes, and a side under 128 takes one.
    """
    raw = packet_with(1, 0, Frame("forward", {"z": torch.zeros(16, 64, 56, 56)}))
    assert len(raw) - 16 * 64 * 56 * 56 * 4 == 2 + 5 + 9 + 5 + 3 + 9 + 6 + 5


def test_an_array_that_comes_twice_is_refused() -> None:
    array = split_pb2.Array(name="z", dtype="int8", shape=[1], data=b"\0")
    with pytest.raises(ValueError, match="array 'z' comes twice in a frame"):
        read(split_pb2.Frame(arrays=[array, array]))


def test_the_compiled_messages_are_those_of_split_proto(tmp_path: Path) -> None:
    """`scripts/generate` was run after the last change of split.proto."""
    made = tmp_path / "fedrad" / "federation"
    made.mkdir(parents=True)
    code = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={ROOT}"]
    code += [f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    subprocess.run([*code, "fedrad/federation/split.proto"], check=True, cwd=ROOT)
    for name in ("split_pb2.py", "split_pb2.pyi"):
        committed = (ROOT / "fedrad" / "federation" / name).read_text()
        assert committed == (made / name).read_text(), "run scripts/generate"
