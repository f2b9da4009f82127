"""A message's arrays as one, for the way between coordinator and site.

Flower sends every array by several calls of its own, each with a write to a disk; one array of
bytes crosses as fast as the line allows. The bytes are a safetensors file: nothing in it is code.
"""

import torch
from flwr.app import ArrayRecord, RecordDict
from safetensors.torch import load, save

from fedrad.core.npy import KINDS
from fedrad.core.state import Bundle, State
from fedrad.core.wire import TYPES
from fedrad.errors import SiteFailedError
from fedrad.rounds.records import TensorArray, arrays_in, bundle_of, config_of, pack, tensor_of

__all__ = ["Packer", "pack_arrays", "pack_into_one", "unpack_arrays"]

_WIRE = "safetensors"
_FILE = "file"
_LONGEST_HEADER = 16 << 20
_KINDS = {TYPES[kind] for kind in KINDS.values()}
_SEPARATOR = "/"


def pack_arrays(content: RecordDict) -> RecordDict:
    """Return a message's content with all of its arrays in one.

    >>> content = pack({"model": {"w": torch.ones(2)}}, {"num-examples": 3.0})
    >>> packed = pack_arrays(content)
    >>> sorted(packed), bundle_of(unpack_arrays(packed))["model"]["w"].tolist()
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
    record[_FILE] = TensorArray(torch.frombuffer(bytearray(save(flat)), dtype=torch.uint8))
    return record


def _with(content: RecordDict, file: ArrayRecord | None) -> RecordDict:
    told = RecordDict()
    told.update(content.metric_records)
    told.update(content.config_records)
    if file is not None:
        told[_WIRE] = file
    return told


def unpack_arrays(content: RecordDict) -> RecordDict:
    """Return a message's content as it was before it was packed; another one is returned as it is.

    Raises:
        SiteFailedError: the bytes are no safetensors file of arrays that are taken, or other arrays
            stand beside it.
    """
    record = content.get(_WIRE)
    if record is None:
        return content
    if not isinstance(record, ArrayRecord) or len(arrays_in(content)) > 1 or set(record) != {_FILE}:
        raise SiteFailedError("its arrays cannot be read (they are not in one file)")
    told = pack(_bundle(tensor_of(record[_FILE])))
    for key, other in content.items():
        if key in told:
            raise SiteFailedError("its arrays cannot be read (two records bear one name)")
        if key != _WIRE:
            told[key] = other
    return told


def _bundle(file: torch.Tensor) -> Bundle:
    """Return the arrays in a safetensors file's bytes.

    Raises:
        SiteFailedError: it cannot be read, or holds an array of another kind.
    """
    raw = file.numpy().tobytes() if file.dtype == torch.uint8 and file.dim() == 1 else b""
    if int.from_bytes(raw[:8], "little") > _LONGEST_HEADER:
        raise SiteFailedError("its arrays cannot be read (its list of arrays is too long)")
    try:
        flat = load(raw)
    except Exception as error:
        # From outside comes what it will: its kind is told, its text could repeat anything.
        raise SiteFailedError(f"its arrays cannot be read ({type(error).__name__})") from None
    bundle: Bundle = {}
    for name, value in flat.items():
        state, separator, key = name.partition(_SEPARATOR)
        if not separator or value.dtype not in _KINDS:
            raise SiteFailedError("its arrays cannot be read (a name or a type that is not taken)")
        bundle.setdefault(state, State())[key] = value
    return bundle


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


def pack_into_one(content: RecordDict) -> bool:
    """Return whether the other side packs its arrays; a stock Flower strategy does not."""
    return _WIRE in content or bool(config_of(content).get("fedrad"))
