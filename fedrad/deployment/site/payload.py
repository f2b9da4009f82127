"""What a message's content weighs, and a digest that names exactly what left."""

from hashlib import sha256
from math import prod

import numpy as np
from flwr.app import RecordDict

__all__ = ["payload_bytes", "payload_digest"]

_NUMBER_BYTES = 8


def payload_bytes(content: RecordDict) -> int:
    """Return the bytes of arrays, numbers and settings, without names and framing."""
    arrays = sum(
        prod(array.shape) * np.dtype(array.dtype).itemsize
        for record in content.array_records.values()
        for array in record.values()
    )
    numbers = sum(
        _NUMBER_BYTES * (len(value) if isinstance(value, list) else 1)
        for record in content.metric_records.values()
        for value in record.values()
    )
    settings = sum(
        len(str(value).encode())
        for record in content.config_records.values()
        for value in record.values()
    )
    return arrays + numbers + settings


def payload_digest(content: RecordDict) -> str:
    """Return the SHA-256 of all arrays, numbers and settings, with their names, sorted."""
    found = sha256()
    for name, record in sorted(content.array_records.items()):
        for key, array in sorted(record.items()):
            found.update(f"{name}\x1f{key}\x1f{array.dtype}\x1f{array.shape}\x1e".encode())
            found.update(array.data)
    plain = {name: dict(record) for name, record in content.metric_records.items()} | {
        name: dict(record) for name, record in content.config_records.items()
    }
    for name, values in sorted(plain.items()):
        for key, value in sorted(values.items()):
            found.update(f"{name}\x1f{key}\x1f{value!r}\x1e".encode())
    return found.hexdigest()
