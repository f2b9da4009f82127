"""A site's kit as one .tar.gz: chosen files alone, equal bytes for equal files."""

import gzip
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

from fedrad.deployment.kits.keys import write_secret

__all__ = ["write_archive"]


def write_archive(path: Path, folder: Path, names: Sequence[str]) -> None:
    """Write the named files of a folder that are there into an archive, under the folder's name.

    It may hold a private key, so it is for its owner's eyes only (0600), and the key in it too.

    Raises:
        RunError: it exists already, or cannot be written.
    """
    packed = io.BytesIO()
    # mtime 0: packing the same kit twice makes the same archive.
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as squeezed,
        tarfile.open(fileobj=squeezed, mode="w") as archive,
    ):
        for name in sorted(names):
            if (folder / name).is_file():
                content = (folder / name).read_bytes()
                entry = tarfile.TarInfo(f"{folder.name}/{name}")
                entry.size = len(content)
                entry.mode = 0o600 if name.endswith(".key") else 0o644
                archive.addfile(entry, io.BytesIO(content))
    write_secret(path, packed.getvalue())
