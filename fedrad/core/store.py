"""Safe keeping on disk: whole files or none, versions of a state, no pickle.

A file is written beside its place, flushed to the disk and renamed over it, so a reader finds the
old file or the new one, also after a crash or on a full disk.
"""

import errno
import re
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fedrad.core.files import replacing, write_atomic
from fedrad.core.state import Bundle, State
from fedrad.errors import RunError

__all__ = ["Versions", "load_bundle", "save_bundle", "write_atomic"]

_SEPARATOR = "/"


def save_bundle(path: Path, bundle: Bundle) -> None:
    """Write a bundle as safetensors, with nothing in the file but the arrays.

    Equal bundles make equal files.
    """
    flat = {
        f"{name}{_SEPARATOR}{key}": value.detach().contiguous()
        for name, state in sorted(bundle.items())
        for key, value in sorted(state.items())
    }
    with replacing(path) as beside:
        try:
            # Straight from the arrays' memory; the bytes of a whole file would be a second model.
            save_file(flat, beside)
        except SafetensorError as error:
            raise OSError(errno.EIO, str(error)) from error


def load_bundle(path: Path) -> Bundle:
    """Read a bundle that `save_bundle` wrote.

    Raises:
        RunError: the file is missing or is no whole safetensors file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_bundle(Path(folder) / "a.safetensors", {"model": {"w": torch.ones(2)}})
    ...     load_bundle(Path(folder) / "a.safetensors")
    {'model': {'w': tensor([1., 1.])}}
    """
    try:
        flat = load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path.name} is missing or damaged: {type(error).__name__}") from error
    bundle: Bundle = {}
    for key, value in flat.items():
        name, _, inner = key.partition(_SEPARATOR)
        bundle.setdefault(name, State())[inner] = value
    return bundle


class Versions:
    """The last two versions of a bundle in a folder, by round.

    Two, because a crash can come after a site has kept round r and before the server has: the
    repeated round r must start from what the site knew before it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     kept = Versions(Path(folder))
    ...     for round in (1, 2, 3):
    ...         kept.write(round, {"model": {"w": torch.tensor([float(round)])}})
    ...     kept.rounds(), kept.before(3)["model"]["w"].item(), kept.before(1)
    ([2, 3], 2.0, {})
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def rounds(self) -> list[int]:
        """Return the rounds that are kept, oldest first."""
        found = (re.fullmatch(r"round-(\d+)\.safetensors", p.name) for p in self._files())
        return sorted(int(match[1]) for match in found if match)

    def path(self, round: int) -> Path:
        """Return the place of a round's file."""
        return self.folder / f"round-{round:06d}.safetensors"

    def before(self, round: int) -> Bundle:
        """Return the newest version older than a round, or an empty bundle."""
        older = [kept for kept in self.rounds() if kept < round]
        return load_bundle(self.path(older[-1])) if older else {}

    def write(self, round: int, bundle: Bundle) -> None:
        """Keep a version, and drop all but the newest ones up to it."""
        save_bundle(self.path(round), bundle)
        # A version newer than this one belongs to a history that is being repeated.
        self._drop(lambda kept: kept > round)
        old = self.rounds()[: -self.keep]
        self._drop(lambda kept: kept in old)

    def _drop(self, unwanted: Callable[[int], bool]) -> None:
        for kept in self.rounds():
            if unwanted(kept):
                self.path(kept).unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return list(self.folder.iterdir()) if self.folder.is_dir() else []
