"""A message's arrays as one, for the way between coordinator and site.

Flower sends every array by several calls of its own, each with a write to a disk; one array of
bytes crosses as fast as the line allows. The bytes are a safetensors file: nothing in it is code.
"""

import numpy as np
import torch
from flwr.app import ArrayRecord, RecordDict
from safetensors import SafetensorError
from safetensors.torch import load, save

from fedrad.core.state import Bundle, State
from fedrad.errors import SiteFailed
from fedrad.federation.records import TensorArray, bundle_of, config_of, pack

__all__ = ["Packer", "in_one", "packed", "unpacked"]

_WIRE = "safetensors"
_SEPARATOR = "/"


def packed(content: RecordDict) -> RecordDict:
    """Return a message's content with all of its arrays in one.

    >>> content = pack({"model": {"w": torch.ones(2)}}, {"num-examples": 3.0})
    >>> sorted(packed(content)), bundle_of(unpacked(packed(content)))["model"]["w"].tolist()
    (['metrics', 'safetensors'], [1.0, 1.0])
    """
    return _with(content, _file(bundle_of(content)))


def _file(bundle: Bundle) -> ArrayRecord | None:
    if not bundle:
        return None
    flat = {
        f"{name}{_SEPARATOR}{key}": value.detach().cpu().contiguous()
        for name, state in bundle.items()
        for key, value in state.items()
    }
    record = ArrayRecord()
    record["file"] = TensorArray(torch.frombuffer(bytearray(save(flat)), dtype=torch.uint8))
    return record


def _with(content: RecordDict, file: ArrayRecord | None) -> RecordDict:
    told = RecordDict()
    told.update(content.metric_records)
    told.update(content.config_records)
    if file is not None:
        told[_WIRE] = file
    return told


def unpacked(content: RecordDict) -> RecordDict:
    """Return a message's content as it was before it was packed; another one is returned as it is.

    Raises:
        SiteFailed: the bytes are no safetensors file.
    """
    record = content.array_records.get(_WIRE)
    if record is None:
        return content
    try:
        flat = load(np.ascontiguousarray(record["file"].numpy(), dtype=np.uint8).tobytes())
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise SiteFailed(f"its arrays cannot be read ({type(error).__name__})") from None
    bundle: Bundle = {}
    for name, value in flat.items():
        state, _, key = name.partition(_SEPARATOR)
        bundle.setdefault(state, State())[key] = value
    told = pack(bundle)
    told.update(content.metric_records)
    told.update(content.config_records)
    return told


class Packer:
    """Packs the messages of one exchange, which share their arrays, once."""

    def __init__(self) -> None:
        self._arrays: tuple[ArrayRecord, ...] = ()
        self._file: ArrayRecord | None = None

    def __call__(self, content: RecordDict) -> RecordDict:
        """Return a message's content with all of its arrays in one."""
        arrays = tuple(content.array_records.values())
        # By identity: the messages of an exchange hold the very same records.
        if len(arrays) != len(self._arrays) or any(
            one is not other for one, other in zip(arrays, self._arrays, strict=False)
        ):
            self._arrays, self._file = arrays, _file(bundle_of(content))
        return _with(content, self._file)


def in_one(content: RecordDict) -> bool:
    """Return whether the other side packs its arrays; a stock Flower strategy does not."""
    return _WIRE in content or bool(config_of(content).get("fedrad"))
