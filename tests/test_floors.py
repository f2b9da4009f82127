"""The house has floors, and imports run downwards only: never up, never between neighbours."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {
    "errors": -1, "registry": 0, "core": 0, "config": 1, "runs": 1,
    "data": 2, "models": 2, "metrics": 2, "privacy": 2,
    "training": 3, "algorithms": 4, "assemble": 5, "federation": 6, "report": 6,
    "commands": 7, "cli": 8,
}  # fmt: skip
ONLY_IN = {
    "flwr": {"federation"}, "ray": {"federation"}, "grpc": {"federation"},
    "opacus": {"training", "privacy"}, "yaml": {"config"},
    "cryptography": {"federation", "privacy"},
}  # fmt: skip
ROOMS = {
    "kits": set(), "streams": set(), "simulation": set(), "ray": {"simulation"},
    "hospital": {"kits", "streams"}, "coordinator": {"kits", "streams"},
    "doctor": {"hospital", "kits"},
}  # fmt: skip
"""The rooms of the federation's floor, and into which others each may look."""
FILES = sorted((ROOT / "fedrad").glob("*/**/*.py")) + [
    path for path in sorted((ROOT / "fedrad").glob("*.py")) if path.stem != "__init__"
]


def imported(text: str, package: list[str]) -> Iterator[tuple[int, str]]:
    """Yield the line and full name of every import, also those inside functions."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, node.module or ""])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def broken_rules(text: str, path: Path) -> list[str]:
    """Return a sentence for every import that breaks a rule of the house."""
    here = path.parts[1].removesuffix(".py")
    found = []
    for line, name in imported(text, list(path.parent.parts)):
        first, there = [*name.split("."), ""][:2]
        if first in ONLY_IN and here not in ONLY_IN[first]:
            found.append(f"{here}:{line} imports {first}")
        if first == "fedrad" and there == here == "federation":
            found += wrong_doors(path.parts[2], [*name.split("."), ""][2], line)
        if first != "fedrad" or there == here or there not in FLOORS:
            continue
        if FLOORS[there] >= FLOORS[here]:
            found.append(f"{here}:{line} (floor {FLOORS[here]}) imports {there}")
    return found


def wrong_doors(room: str, other: str, line: int) -> list[str]:
    """Return a sentence if a room of the federation's floor looks into one it should not know."""
    if room not in ROOMS or other not in ROOMS or other in {room, *ROOMS[room]}:
        return []
    return [f"{room}:{line} imports {other}"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downwards_only(path: Path) -> None:
    relative = path.relative_to(ROOT)
    assert relative.parts[1].removesuffix(".py") in FLOORS, "a part of the house without a floor"
    assert broken_rules(path.read_text(encoding="utf-8"), relative) == []


@pytest.mark.parametrize(
    "text",
    [
        "from fedrad.training.local import LocalTask",
        "from fedrad import training",
        "from ..metrics import base",
        "def late() -> None:\n    import flwr.app",
        "from fedrad.models import MODELS",
    ],
)
def test_an_import_that_climbs_or_goes_next_door_is_seen(text: str) -> None:
    """A rule that cannot fail holds nothing: each of these breaks it from the data folder."""
    assert len(broken_rules(text, Path("fedrad/data/new.py"))) == 1


def test_a_room_that_looks_through_the_wrong_door_is_seen() -> None:
    text = "from fedrad.federation.coordinator.service import CoordinatorKit"
    assert len(broken_rules(text, Path("fedrad/federation/hospital/new.py"))) == 1
    assert broken_rules(text, Path("fedrad/federation/coordinator/new.py")) == []
    rooms = {path.parent.name for path in (ROOT / "fedrad" / "federation").glob("*/__init__.py")}
    assert rooms == ROOMS.keys()
