"""The files that a table's column of images names: where they are, and what tells a change."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from fedrad.data.reading.csv_table import CsvTable

__all__ = ["paths_of", "stamps_of"]


def paths_of(table: CsvTable, image: str, folder: Path) -> list[Path]:
    """Return the images' paths, all under the table's folder.

    A path with backslashes, from a table made on Windows, is read with slashes where no file has
    its name as it stands.

    Raises:
        DataError: paths are empty or lead outside; all rows are told.
    """
    top = os.path.abspath(folder)
    paths: list[Path] = []
    wrong: list[tuple[int, str]] = []
    for index, cell in enumerate(table.column(image, "image")):
        path = _joined(top, cell)
        if "\\" in cell and not os.path.lexists(path):
            path = _joined(top, cell.replace("\\", "/"))
        drive = re.match(r"[A-Za-z]:[\\/]", cell)
        if drive or not cell or os.path.commonpath([top, path]) != top:
            cure = "; a drive of Windows is not here: write paths from the table's folder"
            told = f"the image (column '{image}') is empty or outside the folder of the table"
            wrong.append((index, told + (cure if drive else "")))
        paths.append(Path(path))
    if wrong:
        raise table.refusal(wrong, rule="image-outside", column=image)
    return paths


def _joined(top: str, cell: str) -> str:
    # Normalised as a text: a folder's owner may link its images from elsewhere.
    return os.path.normpath(os.path.join(top, cell))


def stamps_of(table: CsvTable, image: str, paths: Sequence[Path]) -> tuple[list[str], int]:
    """Return what tells a changed file, for each, and when the last of them changed, in ns.

    A file's own time can be set to any other (`touch`, `cp -p`); the time of its entry in the file
    system cannot, and moves with every change in place.

    Raises:
        DataError: files are not there; all rows are told.
    """
    stamps: list[str] = []
    missing: list[int] = []
    changed_ns = 0
    for index, path in enumerate(paths):
        try:
            found = path.stat()
        except (OSError, ValueError):
            missing.append(index)
            continue
        times = f"{found.st_mtime_ns}\x1f{found.st_ctime_ns}\x1f{found.st_ino}"
        stamps.append(f"{path}\x1f{found.st_size}\x1f{times}")
        changed_ns = max(changed_ns, found.st_mtime_ns, found.st_ctime_ns)
    if missing:
        text = f"the image is not there{_instead(paths[missing[0]])}"
        if len(missing) > 1:
            text += f"; {len(missing)} of {len(paths)} images are not there"
        rows = [(index, text) for index in missing]
        raise table.refusal(rows, rule="image-missing", column=image)
    return stamps, changed_ns


def _instead(path: Path) -> str:
    """Return what is there in a missing file's place: other letters, or another ending."""
    try:
        names = os.listdir(path.parent)
    except OSError:
        return f" (nor is its folder '{path.parent.name}')"
    same = [name for name in names if name.casefold() == path.name.casefold()]
    if same:
        return f", but '{same[0]}' is: capital letters count"
    ending = [n for n in names if Path(n).stem.casefold() in (path.name.casefold(), path.stem)]
    return f", but '{ending[0]}' is: its ending is another" if ending else ""
