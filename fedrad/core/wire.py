"""Tensors at a wire's precision, and as raw little-endian bytes with their type and shape.

Two steps that know nothing of each other. `encode` turns a tensor into smaller ones (a `State`, so
it goes wherever arrays go), and `decode` turns them back: an algorithm does this, in every runtime,
so a run in one process rounds exactly as a run over a network does. `to_bytes` and `from_bytes` are
for a transport: exact for every type, and nothing is ever unpickled.
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from fedrad.core.printable import printable
from fedrad.core.state import State
from fedrad.errors import TrainingDivergedError

__all__ = [
    "PRECISIONS",
    "TYPES",
    "Precision",
    "decode",
    "encode",
    "from_bytes",
    "size_of",
    "to_bytes",
]

Precision = Literal["float32", "float16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

TYPES: dict[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.bfloat16, torch.bool, torch.float16, torch.float32, torch.float64,
        torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8,
    )
}  # fmt: skip
"""The types that a wire carries, by the names that stand in a frame."""

_MOST = torch.iinfo(torch.int64).max
_MOST_AXES = 16
_SCALE = ".scale"
_LEVELS = 127
_LEAST_SCALE = torch.finfo(torch.float32).tiny


def encode(name: str, x: Tensor, precision: Precision) -> State:
    """Return a tensor's values at a precision, under a name, as they are sent.

    What `decode` gives back differs from x, element by element, by at most
    float32: nothing (float64: by rounding to 24 bits);
    float16: max(|x| / 2^11, 2^-25);
    int8: max(a / 253.9, 2^-127), a the largest |x| of the element's channel in this tensor.

    Args:
        name: of the array in its frame.
        x: [n, c, ...] of any floating type, or [n]; channels are the second axis, and one scale
            serves all of a tensor with one axis or none.
        precision: of the wire.

    Returns:
        The values under the name, of x's shape and of the precision's type; for int8 also
        "<name>.scale", float32 [c] or [].

    Raises:
        TrainingDivergedError: a value is not finite (float16, int8), or beyond 65504 (float16).

    >>> sent = encode("z", torch.tensor([[127.0, 0.3], [-63.6, 0.1]]), "int8")
    >>> sent["z"].tolist(), [round(scale, 5) for scale in sent["z.scale"].tolist()]
    ([[127, 127], [-64, 42]], [1.0, 0.00236])
    >>> decode("z", sent)[1, 0].item()
    -64.0
    """
    x = x.detach()
    if precision == "float32":
        return {name: x.float()}
    if precision == "float16":
        return {name: _finite(name, x.half(), "float16 holds at most 65504")}
    levels, scale = _eight_bits(_finite(name, x, "int8 has no infinity and no NaN").float())
    return {name: levels, name + _SCALE: scale}


def decode(name: str, arrays: State) -> Tensor:
    """Return, as float32, the tensor that `encode` put under a name.

    >>> decode("z", encode("z", torch.tensor([0.1]), "float16")).item()
    0.0999755859375
    """
    values = arrays[name].float()
    scale = arrays.get(name + _SCALE)
    return values if scale is None else values * _beside(scale, values.dim())


def to_bytes(x: Tensor) -> tuple[str, tuple[int, ...], memoryview]:
    """Return a tensor's type, its shape, and its elements as little-endian bytes in C order.

    The bytes are the tensor's own memory where that is in order already, so nothing is copied.

    >>> dtype, shape, raw = to_bytes(torch.tensor([[1, 258]], dtype=torch.int16))
    >>> dtype, shape, raw.tolist()
    ('int16', (1, 2), [1, 0, 2, 1])
    """
    flat = x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    size = x.element_size()
    # On a big-endian machine this turns the bytes round; on all others it does nothing.
    raw = flat.view(f"=u{size}").astype(f"<u{size}", copy=False)
    return str(x.dtype).removeprefix("torch."), tuple(x.shape), raw.view(np.uint8).data


def from_bytes(dtype: str, shape: Sequence[int], raw: bytes | memoryview) -> Tensor:
    r"""Return the tensor that `to_bytes` took apart; it has memory of its own.

    Raises:
        ValueError: it is not of a type and shape that a tensor has (`size_of`), or the number of
            bytes is not that of the type and shape.

    >>> from_bytes("int16", (1, 2), b"\x01\x00\x02\x01").tolist()
    [[1, 258]]
    """
    wanted = size_of(dtype, shape)
    if len(raw) != wanted:
        raise ValueError(f"{dtype} {list(shape)} is {wanted} bytes; found {len(raw)}")
    if math.prod(max(side, 1) for side in shape) > _MOST:
        # Without elements, but torch counts the steps from one to the next.
        raise ValueError(f"a shape is larger than a tensor can be: {list(shape)}")
    size = TYPES[dtype].itemsize
    # In torch's own memory: where a tensor begins can change the bits of a sum over it.
    own = torch.empty(wanted, dtype=torch.uint8)
    own.numpy().view(f"=u{size}")[:] = np.frombuffer(raw, dtype=f"<u{size}")
    return own.view(TYPES[dtype]).reshape(tuple(shape))


def size_of(dtype: str, shape: Sequence[int]) -> int:
    """Return the bytes of a tensor on the wire.

    Raises:
        ValueError: the type is not one of `TYPES`, a side is negative, or there are too many.

    >>> size_of("float32", (16, 64, 56, 56))
    12845056
    """
    if dtype not in TYPES:
        raise ValueError(f"type '{printable(dtype, 20)}' is not one of {', '.join(TYPES)}")
    if len(shape) > _MOST_AXES:
        raise ValueError(f"a shape has {len(shape)} axes; {_MOST_AXES} are taken")
    if any(side < 0 for side in shape):
        raise ValueError(f"a shape has a negative side: {list(shape)}")
    return math.prod(shape) * TYPES[dtype].itemsize


def _eight_bits(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return symmetric 8-bit levels and the scale of each channel; zero stays zero."""
    axes = [axis for axis in range(x.dim()) if axis != 1] if x.dim() > 1 else list(range(x.dim()))
    if not x.numel():
        largest = x.new_zeros(x.shape[1] if x.dim() > 1 else ())
    else:
        largest = x.abs().amax(axes) if axes else x.abs()
    # Not zero for a channel of zeros, and a normal number: 0 / 0 would be no level.
    scale = (largest / _LEVELS).clamp_min(_LEAST_SCALE)
    levels = (x / _beside(scale, x.dim())).round().clamp(-_LEVELS, _LEVELS)
    return levels.to(torch.int8), scale


def _beside(scale: Tensor, dims: int) -> Tensor:
    """Return the scales in a shape that multiplies channel by channel."""
    return scale.reshape(1, -1, *[1] * (dims - 2)) if dims > 1 else scale


def _finite(name: str, x: Tensor, why: str) -> Tensor:
    # The sum is finite unless an element is not, or it overflows itself: then look at each.
    if not bool(x.sum(dtype=torch.float32).isfinite()) and not bool(x.isfinite().all()):
        raise TrainingDivergedError(
            f"'{name}' holds numbers that are not finite and cannot be sent ({why}); "
            "send float32 or lower the learning rate"
        )
    return x
