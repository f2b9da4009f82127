"""Bundles and numbers <-> Flower's records, under the keys that stock strategies know.

A bundle's "model" is the record `arrays`; other states are `arrays.<name>`; numbers are `metrics`,
with `num-examples` as the weight; all else is `config`. In process nothing is copied: an array
holds its tensor and makes bytes only when a wire asks for them.
"""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedrad.core import npy
from fedrad.core.printable import printable
from fedrad.core.state import Bundle, State
from fedrad.errors import SiteFailedError

__all__ = ["TensorArray", "arrays_in", "bundle_of", "config_of", "numbers_of", "pack", "tensor_of"]

_ARRAYS = "arrays"
_NPY = "numpy.ndarray"


class TensorArray(Array):
    """A Flower array that holds a tensor by reference and becomes bytes when asked.

    >>> array = TensorArray(torch.ones(2))
    >>> array.tensor.tolist(), array.numpy().tolist()
    ([1.0, 1.0], [1.0, 1.0])
    """

    # The class's name is written into the header of every array on the wire.
    __qualname__ = "Array"

    def __init__(self, tensor: torch.Tensor) -> None:
        self.__dict__.update(
            tensor=tensor,
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=tuple(tensor.shape),
            stype=_NPY,
        )

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """Return the bytes that Flower expects: a .npy file's."""
        if "bytes" not in self.__dict__:
            buffer = io.BytesIO()
            np.save(buffer, self.__dict__["tensor"].detach().cpu().numpy(), allow_pickle=False)
            self.__dict__["bytes"] = buffer.getvalue()
        return bytes(self.__dict__["bytes"])

    @property
    def tensor(self) -> torch.Tensor:
        """Return the very tensor that was given."""
        tensor: torch.Tensor = self.__dict__["tensor"]
        return tensor


def pack(
    bundle: Bundle,
    numbers: Mapping[str, float] | None = None,
    config: Mapping[str, Any] | None = None,
) -> RecordDict:
    """Return Flower's records for a message's content."""
    content = RecordDict()
    for name, state in bundle.items():
        # Filled one by one: ArrayRecord(dict) would copy every array's bytes.
        record = ArrayRecord()
        for key, tensor in state.items():
            record[key] = TensorArray(tensor)
        content[_ARRAYS if name == "model" else f"{_ARRAYS}.{name}"] = record
    if numbers is not None:
        content["metrics"] = MetricRecord(dict(numbers))
    if config is not None:
        content["config"] = ConfigRecord(dict(config))
    return content


def bundle_of(content: RecordDict) -> Bundle:
    """Return the arrays of a message; tensors by reference where no wire lies between.

    Raises:
        SiteFailedError: an array cannot be read.
    """
    return {
        "model" if key == _ARRAYS else key.removeprefix(f"{_ARRAYS}."): _state(record)
        for key, record in arrays_in(content).items()
    }


def arrays_in(content: RecordDict) -> dict[str, ArrayRecord]:
    """Return a message's records of arrays.

    Not by `content.array_records`: that makes a cycle of references, so that the arrays of a
    message live on until Python's garbage collector comes by, which with large models is too late.
    """
    return {key: record for key, record in content.items() if isinstance(record, ArrayRecord)}


def numbers_of(content: RecordDict) -> dict[str, float]:
    """Return the numbers of a message."""
    record = content.get("metrics")
    if not isinstance(record, MetricRecord):
        return {}
    return {key: float(value) for key, value in record.items() if not isinstance(value, list)}


def config_of(content: RecordDict) -> dict[str, Any]:
    """Return the settings of a message."""
    record = content.get("config")
    return dict(record) if isinstance(record, ConfigRecord) else {}


def tensor_of(array: Array) -> torch.Tensor:
    """Return an array as a tensor; what has crossed a wire is looked at before it is read.

    Raises:
        SiteFailedError: it is no .npy file of a kind that is taken, or not what it says it is.

    >>> tensor_of(Array("float32", (2**40,), "numpy.ndarray", b""))
    Traceback (most recent call last):
    fedrad.errors.SiteFailedError: an array cannot be read: 0 bytes that are no .npy file
    """
    if isinstance(array, TensorArray):
        return array.tensor
    try:
        if array.stype != _NPY:
            raise ValueError(f"its form '{printable(array.stype, 20)}' is not {_NPY}")
        tensor = npy.tensor_from_npy(array.data)
        told = str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)
        if (array.dtype, tuple(array.shape)) != told:
            raise ValueError("its bytes are of another type or shape than it says")
    except ValueError as error:
        raise SiteFailedError(f"an array cannot be read: {error}") from None
    return tensor


def _state(record: ArrayRecord) -> State:
    return {key: tensor_of(array) for key, array in record.items()}
