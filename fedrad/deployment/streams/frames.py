"""A frame of a stream <-> its bytes on the wire: a head, and beside it the arrays as raw bytes.

A packet is a message of `split.proto`, but its two fields are put side by side and taken apart by
hand: the compiled class would copy every array two or three times, here it is copied once.
"""

from collections.abc import Sequence

from google.protobuf.message import DecodeError

from fedrad.algorithms.base import Frame
from fedrad.core.printable import printable
from fedrad.core.wire import from_bytes, size_of, to_bytes
from fedrad.deployment.streams import split_pb2

__all__ = ["frame_from", "packet_of", "packet_with"]

_LENGTH_DIGITS = 5
"""Of a length on the wire, at most: protobuf's are below 2 GiB."""


def packet_with(number: int, acknowledged: int, content: Frame | split_pb2.End) -> bytes:
    """Return a packet as it is sent: the bytes of a `split.proto` Packet.

    >>> head, data = packet_of(packet_with(1, 0, Frame("forward", {"z": torch.zeros(2, 3)})))
    >>> head.number, head.frame.kind, len(data)
    (1, 'forward', 24)
    """
    head = split_pb2.Head(number=number, acknowledged=acknowledged)
    data: list[memoryview] = []
    if isinstance(content, split_pb2.End):
        head.end.CopyFrom(content)
    else:
        head.frame.kind = content.kind
        head.frame.numbers.update(content.numbers)
        for name, tensor in content.arrays.items():
            dtype, shape, raw = to_bytes(tensor)
            head.frame.arrays.add(name=name, dtype=dtype, shape=shape)
            data.append(raw)
    return b"".join(
        [
            *_field(split_pb2.Packet.HEAD_FIELD_NUMBER, [head.SerializeToString()]),
            *_field(split_pb2.Packet.DATA_FIELD_NUMBER, data),
        ]
    )


def packet_of(raw: bytes) -> tuple[split_pb2.Head, memoryview]:
    """Return the head of a packet that a call delivered, and its arrays' bytes, not copied.

    Raises:
        ValueError: the bytes are no packet, or it holds nothing.
    """
    try:
        first, rest = _taken(split_pb2.Packet.HEAD_FIELD_NUMBER, memoryview(raw))
        data, rest = _taken(split_pb2.Packet.DATA_FIELD_NUMBER, rest)
        if rest:
            raise ValueError
        head: split_pb2.Head = split_pb2.Head.FromString(bytes(first))
    except (DecodeError, ValueError):
        raise ValueError(f"{len(raw)} bytes came that are no whole packet") from None
    if head.WhichOneof("content") is None:
        raise ValueError(f"packet {head.number} holds neither a frame nor an end")
    return head, data


def frame_from(message: split_pb2.Frame, data: memoryview) -> Frame:
    """Return the frame that a head and the bytes beside it hold.

    Raises:
        ValueError: the bytes are not those of the arrays' types and shapes, or a name comes twice.

    >>> head, data = packet_of(packet_with(1, 0, Frame("forward", {"z": torch.ones(2)})))
    >>> frame_from(head.frame, data).arrays["z"].tolist()
    [1.0, 1.0]
    """
    arrays = {}
    for array in message.arrays:
        if array.name in arrays:
            raise ValueError(f"array '{printable(array.name, 40)}' comes twice in a frame")
        try:
            size = size_of(array.dtype, array.shape)
            arrays[array.name] = from_bytes(array.dtype, array.shape, data[:size])
        except ValueError as error:
            raise ValueError(f"array '{printable(array.name, 40)}': {error}") from None
        data = data[size:]
    if data:
        raise ValueError(f"{len(data)} bytes came that are of no array in their frame")
    return Frame(message.kind, arrays, dict(message.numbers))


def _field(number: int, parts: Sequence[bytes | memoryview]) -> list[bytes | memoryview]:
    """Return a field of wire type 2 (its length, then its bytes), in parts."""
    return [bytes([number << 3 | 2]), _varint(sum(map(len, parts))), *parts]


def _taken(number: int, raw: memoryview) -> tuple[memoryview, memoryview]:
    """Return the bytes of the field that `_field` has put first, and what stands behind it.

    Raises:
        ValueError: another field stands there, or not all of it.
    """
    if raw[:1] != bytes([number << 3 | 2]):
        raise ValueError
    length = 0
    for place, digit in enumerate(raw[1 : 1 + _LENGTH_DIGITS]):
        length |= (digit & 127) << 7 * place
        if digit <= 127:
            break
    else:
        raise ValueError
    content = raw[place + 2 :]
    if len(content) < length:
        raise ValueError
    return content[:length], content[length:]


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
