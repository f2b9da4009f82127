"""A frame of a stream <-> its message on the wire: arrays as raw bytes with type and shape."""

from google.protobuf.message import DecodeError

from fedrad.algorithms.base import Frame
from fedrad.core.wire import from_bytes, to_bytes
from fedrad.federation import split_pb2

__all__ = ["message_of", "packet_of", "read"]


def message_of(frame: Frame) -> split_pb2.Frame:
    """Return a frame as it is sent.

    >>> message = message_of(Frame("forward", {"z": torch.zeros(2, 3)}, {"seen": 2.0}))
    >>> message.arrays[0].dtype, list(message.arrays[0].shape), len(message.arrays[0].data)
    ('float32', [2, 3], 24)
    """
    message = split_pb2.Frame(kind=frame.kind, numbers=frame.numbers)
    for name, tensor in frame.arrays.items():
        dtype, shape, data = to_bytes(tensor)
        message.arrays.add(name=name, dtype=dtype, shape=shape, data=data)
    return message


def read(message: split_pb2.Frame) -> Frame:
    """Return the frame that a message holds.

    Raises:
        ValueError: an array's bytes are not those of its type and shape, or a name comes twice.

    >>> read(message_of(Frame("forward", {"z": torch.ones(2)}))).arrays["z"].tolist()
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
