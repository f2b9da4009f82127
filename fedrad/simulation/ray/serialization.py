"""What goes to other processes by Ray's object store: arrays that are read there without a copy.

Ray gives numpy arrays in an object a place in memory that all processes of a node map. bfloat16 is
none of numpy's kinds, so arrays travel as bytes with their kind's name.
"""

import mmap
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from fedrad.core.state import Bundle
from fedrad.core.store import write_atomic
from fedrad.data.base import SiteData
from fedrad.data.sites import Federation

__all__ = [
    "Arrays",
    "Files",
    "by_name",
    "by_value",
    "bytes_of_data",
    "copied",
    "data_to_files",
    "files_in",
    "from_object_store",
    "set_files",
    "to_object_store",
    "with_mapped_files",
]

Arrays = dict[str, dict[str, tuple[str, tuple[int, ...], np.ndarray]]]
"""A bundle on its way: state -> name -> (kind, shape, uint8 [bytes])."""

Files = dict[str, bytes]
"""A folder's files by their paths below it."""


def to_object_store(bundle: Bundle) -> Arrays:
    """Return a bundle as Ray carries it; arrays on the CPU are not copied.

    >>> from_object_store(to_object_store({"model": {"w": torch.ones(2, dtype=torch.bfloat16)}}))
    {'model': {'w': tensor([1., 1.], dtype=torch.bfloat16)}}
    """
    return {
        name: {key: _bytes(value) for key, value in state.items()} for name, state in bundle.items()
    }


def _bytes(value: torch.Tensor) -> tuple[str, tuple[int, ...], np.ndarray]:
    flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return str(value.dtype).removeprefix("torch."), tuple(value.shape), flat.numpy()


def from_object_store(arrays: Arrays) -> Bundle:
    """Return views of the arrays. What Ray carried is not to be written."""
    return {
        name: {key: _tensor(*value) for key, value in state.items()}
        for name, state in arrays.items()
    }


def copied(arrays: Arrays) -> Bundle:
    """Return copies of the arrays, which may be written."""
    return {
        name: {key: _tensor(kind, shape, flat.copy()) for key, (kind, shape, flat) in state.items()}
        for name, state in arrays.items()
    }


def _tensor(kind: str, shape: tuple[int, ...], flat: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(flat).view(getattr(torch, kind)).view(shape)


@dataclass(frozen=True)
class _Mapped:
    """An array that lies in a file of this node."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    offset: int


def by_name(federation: Federation) -> Federation:
    """Return the federation with arrays in files replaced by the files' names, for this node."""
    return _with_images(federation, lambda x: _name_of(x) if _in_file(x) else x)


def by_value(federation: Federation) -> Federation:
    """Return the federation with arrays in files as plain arrays, for other nodes."""
    # Of a memmap pickle makes bytes; of a plain array Ray makes memory that is shared.
    return _with_images(federation, np.asarray)


def with_mapped_files(federation: Federation) -> Federation:
    """Return a federation that came by name, with its files mapped."""
    return _with_images(federation, lambda x: _open(x) if isinstance(x, _Mapped) else x)


def _with_images(federation: Federation, change: Any) -> Federation:
    """Return the federation with each of its distinct image arrays changed once."""
    # By identity, and by value of what was named: sites of one source share its array.
    changed: dict[Any, np.ndarray] = {}
    sites: dict[str, SiteData] = {}
    for name, data in federation.sites.items():
        x: Any = data.x
        key = x if isinstance(x, _Mapped) else id(x)
        if key not in changed:
            changed[key] = change(x)
        sites[name] = replace(data, x=changed[key])
    return replace(federation, sites=sites)


def _in_file(x: np.ndarray) -> bool:
    # A slice's base is the array that it was cut from; its place in the file is not told.
    whole = isinstance(x, np.memmap) and isinstance(x.base, mmap.mmap)
    return whole and x.flags.c_contiguous and bool(cast("np.memmap", x).filename)


def _name_of(x: np.ndarray) -> np.ndarray:
    file = cast("np.memmap", x)
    path = str(Path(str(file.filename)).resolve())
    return cast(np.ndarray, _Mapped(path, x.dtype.str, x.shape, file.offset))


def _open(x: _Mapped) -> np.ndarray:
    return np.memmap(x.path, dtype=x.dtype, mode="r", offset=x.offset, shape=x.shape)


def data_to_files(federation: Federation) -> bool:
    """Return whether any site's images lie in a file."""
    return any(_in_file(data.x) for data in federation.sites.values())


def bytes_of_data(federation: Federation) -> int:
    """Return the bytes of a federation's distinct arrays; those in files that are named are 0."""
    arrays: dict[int, Any] = {}
    for data in federation.sites.values():
        columns = (data.x, data.y, data.patient, *data.rows.values(), *data.attributes.values())
        arrays |= {id(column): column for column in columns}
    return sum(array.nbytes for array in arrays.values() if not isinstance(array, _Mapped))


def files_in(folder: Path) -> Files:
    """Return all files below a folder; none if it is not there."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".part")
    }


def set_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make a folder hold these files and no others; unchanged ones are not touched.

    New files are written before old ones are dropped: after a crash the last version is there.
    """
    before = files_in(folder)
    for name, content in files.items():
        if before.get(name) != content:
            write_atomic(folder / name, content)
    for name in before.keys() - files.keys():
        (folder / name).unlink(missing_ok=True)
    if not files:
        shutil.rmtree(folder, ignore_errors=True)
