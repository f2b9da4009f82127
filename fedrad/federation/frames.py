"""A frame of a stream <-> its message on the wire: arrays as raw bytes with type and shape."""

from collections.abc import Sequence

from google.protobuf.message import DecodeError

from fedrad.algorithms.base import Frame
from fedrad.core.wire import from_bytes, to_bytes
from fedrad.federation import split_pb2

__all__ = ["packet_of", "packet_with", "read"]


def packet_with(number: int, acknowledged: int, content: Frame | split_pb2.End) -> bytes:
    """Return a packet as it is sent: the bytes of a `split.proto` Packet.

    Its fields are put side by side by hand: the compiled classes would copy an array three times,
    here it is copied once.

    >>> packet = packet_of(packet_with(1, 0, Frame("forward", {"z": torch.zeros(2, 3)})))
    >>> packet.number, packet.frame.kind, len(packet.frame.arrays[0].data)
    (1, 'forward', 24)
    """
    head = split_pb2.Packet(number=number, acknowledged=acknowledged)
    if isinstance(content, split_pb2.End):
        head.end.CopyFrom(content)
        return bytes(head.SerializeToString())
    frame = [split_pb2.Frame(kind=content.kind, numbers=content.numbers).SerializeToString()]
    for name, tensor in content.arrays.items():
        dtype, shape, data = to_bytes(tensor)
        array = split_pb2.Array(name=name, dtype=dtype, shape=shape).SerializeToString()
        frame += _field(split_pb2.Frame.ARRAYS_FIELD_NUMBER, [array, *_data(data)])
    return b"".join([head.SerializeToString(), *_field(split_pb2.Packet.FRAME_FIELD_NUMBER, frame)])


def _data(data: memoryview) -> list[bytes | memoryview]:
    return _field(split_pb2.Array.DATA_FIELD_NUMBER, [data])


def _field(number: int, parts: Sequence[bytes | memoryview]) -> list[bytes | memoryview]:
    """Return a field of wire type 2 (its length, then its bytes), in parts."""
    return [_varint(number << 3 | 2), _varint(sum(map(len, parts))), *parts]


def _varint(value: int) -> bytes:
    """Return a number in protobuf's base 128, lowest digits first.

    >>> _varint(300).hex()
    'ac02'
    """
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def read(message: split_pb2.Frame) -> Frame:
    """Return the frame that a message holds.

    Raises:
        ValueError: an array's bytes are not those of its type and shape, or a name comes twice.

    >>> packet = packet_of(packet_with(1, 0, Frame("forward", {"z": torch.ones(2)})))
    >>> read(packet.frame).arrays["z"].tolist()
    [1.0, 1.0]
    """
    arrays = {}
    for array in message.arrays:
        if array.name in arrays:
            raise ValueError(f"array '{array.name[:40]}' comes twice in a frame")
        try:
            arrays[array.name] = from_bytes(array.dtype, array.shape, array.data)
        except ValueError as error:
            raise ValueError(f"array '{array.name[:40]}': {error}") from None
    return Frame(message.kind, arrays, dict(message.numbers))


def packet_of(raw: bytes) -> split_pb2.Packet:
    """Return the packet that a call delivered.

    Raises:
        ValueError: the bytes are no packet, or it holds nothing.
    """
    try:
        packet: split_pb2.Packet = split_pb2.Packet.FromString(raw)
    except DecodeError:
        raise ValueError(f"{len(raw)} bytes came that are no whole packet") from None
    if packet.WhichOneof("content") is None:
        raise ValueError(f"packet {packet.number} holds neither a frame nor an end")
    return packet
