"""Files of a run that somebody or something damaged: a sentence that says which, and what to do."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedrad.errors import RunError

__all__ = ["Kinds", "json_lines", "reading"]

Kinds = Mapping[str, type | tuple[type, ...]]


@contextmanager
def reading(path: Path, whose: str, cure: str) -> Iterator[None]:
    """Turn what goes wrong while a file is read into a sentence.

    Args:
        path: of the file.
        whose: file it is, such as an arm and seed.
        cure: what to do.

    Raises:
        RunError: the file is missing or does not hold what it should.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = type(error).__name__
        raise RunError(f"{whose}: {path.name} is missing or damaged ({why}); {cure}") from error


def json_lines(path: Path, kinds: Kinds) -> tuple[list[dict[str, Any]], int | None]:
    r"""Return the objects of a file, one a line, up to the first damaged line, and its number.

    A line that a crash cut off has no newline; it is not there.

    Args:
        path: of the file.
        kinds: key -> the type that its value must have in every line.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "rounds.jsonl"
    ...     _ = path.write_text('{"round": 1}\n{"round": "two"}\n{"rou')
    ...     json_lines(path, {"round": int})
    ([{'round': 1}], 2)
    """
    found: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        if not line.strip():
            continue
        try:
            told = json.loads(line)
        except ValueError:
            return found, number
        if not isinstance(told, dict) or not _fits(told, kinds):
            return found, number
        found.append(told)
    return found, None


def _fits(told: Mapping[str, Any], kinds: Kinds) -> bool:
    return all(
        isinstance(told.get(key), kind) and not isinstance(told[key], bool)
        for key, kind in kinds.items()
    )
