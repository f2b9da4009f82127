"""A .npy file's bytes as a tensor: its size is known before any memory is taken for it.

NumPy's own reader takes the memory that a header claims, and also opens zip archives. This one
reads the header alone and compares it with the bytes that are there.
"""

import io

import numpy as np
from numpy.lib import format as npy
from torch import Tensor

from fedrad.core.wire import from_bytes

__all__ = ["KINDS", "tensor_from_npy"]

KINDS = {
    "<f2": "float16", "<f4": "float32", "<f8": "float64", "<i8": "int64", "|u1": "uint8",
    "|b1": "bool",
}  # fmt: skip
"""What an array from outside may be made of: NumPy's name -> torch's."""

_LONGEST_HEADER = 1000
_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def tensor_from_npy(data: bytes) -> Tensor:
    """Return the array in a .npy file's bytes, in memory of its own.

    Raises:
        ValueError: the bytes are no such file, of another kind than `KINDS`, or not as many as the
            header says.

    >>> file = io.BytesIO(); np.save(file, np.ones((2, 1), np.float16))
    >>> tensor_from_npy(file.getvalue()).tolist()
    [[1.0], [1.0]]
    >>> tensor_from_npy(file.getvalue()[:-1])
    Traceback (most recent call last):
    ValueError: float16 [2, 1] is 4 bytes; found 3
    """
    file = io.BytesIO(data)
    try:
        shape, fortran, dtype = _READERS[npy.read_magic(file)](
            file, max_header_size=_LONGEST_HEADER
        )
        kind, sides = dtype.str, [int(side) for side in shape]
    except Exception:
        # Whatever the bytes made NumPy stumble over: its words may repeat them.
        raise ValueError(f"{len(data)} bytes that are no .npy file") from None
    if kind not in KINDS or dtype.names is not None:
        raise ValueError(f"it is not one of {', '.join(KINDS.values())}")
    raw = memoryview(data)[file.tell() :]
    if kind == "|b1" and len(raw) and np.frombuffer(raw, np.uint8).max() > 1:
        raise ValueError("a truth value is neither 0 nor 1")
    if not fortran:
        return from_bytes(KINDS[kind], sides, raw)
    turned = from_bytes(KINDS[kind], sides[::-1], raw)
    return turned.permute(*range(len(sides) - 1, -1, -1)).contiguous()
