"""Whom a hospital has trained on under a promise of privacy, by digests that only it can make.

Epsilon says nothing of validation and test patients, of whom metrics are exact. So who was trained
on with noise must not be tested on later, by another split of the same patients.

```
<state_dir>/privacy/promised.bin   16 bytes a patient, BLAKE2b under the site's own key, mode 0600
```
Digests are on the disk before training starts. Whoever removes the file makes the site forget.
"""

import os
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedrad.errors import PrivacyError

__all__ = ["Promised"]

_SIZE = 16


class Promised:
    """The patients that a promise was made to.

    Args:
        folder: the site's `state_dir`; its `privacy` folder is made when somebody is added.
        key: the site's own secret, of 64 bytes at most.

    Raises:
        PrivacyError: the file cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     Promised(Path(place), b"secret").add(np.array([7, 8], np.uint64))
    ...     again = Promised(Path(place), b"secret")
    ...     again.any_of(np.array([8, 9], np.uint64)), again.any_of(np.array([9], np.uint64))
    (True, False)
    """

    def __init__(self, folder: Path, key: bytes) -> None:
        self._path = folder / "privacy" / "promised.bin"
        self._key = key
        try:
            raw = self._path.read_bytes() if self._path.exists() else b""
        except OSError as error:
            raise PrivacyError(f"privacy: {self._path.name}: {error.strerror}") from None
        # A digest that a crash cut off is none: nothing was trained on it.
        self._whole = len(raw) - len(raw) % _SIZE
        self._known = {raw[at : at + _SIZE] for at in range(0, self._whole, _SIZE)}

    def add(self, patients: NDArray[np.uint64]) -> None:
        """Remember patients; they are on the disk when this returns.

        Args:
            patients: hashes of their ids, as `SiteData.patient`.

        Raises:
            PrivacyError: they cannot be written.
        """
        # Sorted: their order would be that of the table.
        fresh = sorted(set(self._digests(patients)) - self._known)
        if not fresh:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
                file.truncate(self._whole)
                file.seek(self._whole)
                file.write(b"".join(fresh))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise PrivacyError(
                f"privacy: {self._path.name} could not be written ({error.strerror}); training "
                "does not start; the hospital's operator can make room"
            ) from error
        self._whole += _SIZE * len(fresh)
        self._known.update(fresh)

    def any_of(self, patients: NDArray[np.uint64]) -> bool:
        """Return whether a promise was made to any of these patients."""
        return bool(self._known) and not self._known.isdisjoint(self._digests(patients))

    def _digests(self, patients: NDArray[np.uint64]) -> Iterable[bytes]:
        return (
            blake2b(int(one).to_bytes(8, "big"), key=self._key, digest_size=_SIZE).digest()
            for one in np.unique(patients)
        )
