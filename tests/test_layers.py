"""The package has layers, and imports run downwards only: never up, never between neighbours."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = {
    "errors": -1, "registry": 0, "core": 0, "config": 1, "runs": 1,
    "data": 2, "models": 2, "metrics": 2, "privacy": 2,
    "training": 3, "algorithms": 4, "assemble": 5, "rounds": 6,
    "simulation": 7, "deployment": 7, "report": 7, "runtimes": 8, "commands": 9, "cli": 10,
}  # fmt: skip
ONLY_IN = {
    "flwr": {"rounds", "simulation", "deployment"},
    "ray": {"simulation"}, "grpc": {"simulation", "deployment"},
    "opacus": {"training", "privacy"}, "yaml": {"config"},
    "cryptography": {"deployment", "privacy"},
}  # fmt: skip
PACKAGES = {
    "kits": set(), "streams": set(), "site": {"kits", "streams"},
    "coordinator": {"kits", "streams"}, "preflight": {"site", "kits"},
}  # fmt: skip
"""The packages of deployment, and which others each may import."""
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
    """Return a sentence for every import that breaks a rule of the layers."""
    here = path.parts[1].removesuffix(".py")
    found = []
    for line, name in imported(text, list(path.parent.parts)):
        first, there = [*name.split("."), ""][:2]
        if first in ONLY_IN and here not in ONLY_IN[first]:
            found.append(f"{here}:{line} imports {first}")
        if first == "fedrad" and there == here == "deployment":
            found += wrong_packages(path.parts[2], [*name.split("."), ""][2], line)
        if first != "fedrad" or there == here or there not in LAYERS:
            continue
        if LAYERS[there] >= LAYERS[here]:
            found.append(f"{here}:{line} (layer {LAYERS[here]}) imports {there}")
    return found


def wrong_packages(package: str, other: str, line: int) -> list[str]:
    """Return a sentence if a package of deployment imports one that it should not know."""
    if package not in PACKAGES or other not in PACKAGES or other in {package, *PACKAGES[package]}:
        return []
    return [f"{package}:{line} imports {other}"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downwards_only(path: Path) -> None:
    relative = path.relative_to(ROOT)
    assert relative.parts[1].removesuffix(".py") in LAYERS, "a part of the package without a layer"
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
def test_an_import_upwards_or_sideways_is_seen(text: str) -> None:
    """A rule that cannot fail holds nothing: each of these breaks it from the data folder."""
    assert len(broken_rules(text, Path("fedrad/data/new.py"))) == 1


def test_an_import_of_the_wrong_package_is_seen() -> None:
    text = "from fedrad.deployment.coordinator.service import CoordinatorKit"
    assert len(broken_rules(text, Path("fedrad/deployment/site/new.py"))) == 1
    assert broken_rules(text, Path("fedrad/deployment/coordinator/new.py")) == []
    packages = {path.parent.name for path in (ROOT / "fedrad" / "deployment").glob("*/__init__.py")}
    assert packages == PACKAGES.keys()


def public_names(text: str) -> set[str]:
    """Return the public names that a module's own statements define."""
    found = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    # A type variable, a logger and a command line belong to their module alone.
    return {name for name in found if name[0] != "_"} - {"T", "R", "log", "app"}


def names_of_several(texts: dict[str, str]) -> dict[str, list[str]]:
    """Return the public names that more than one module defines."""
    where: dict[str, list[str]] = {}
    for module, text in texts.items():
        for name in public_names(text):
            where.setdefault(name, []).append(module)
    return {name: sorted(modules) for name, modules in where.items() if len(modules) > 1}


def test_a_public_name_is_defined_in_one_module() -> None:
    """One word has one meaning: who searches for a name finds one thing."""
    made = {"__init__", "split_pb2"}
    texts = {str(p): p.read_text(encoding="utf-8") for p in FILES if p.stem not in made}
    assert names_of_several(texts) == {}


def test_a_name_of_two_modules_is_seen() -> None:
    texts = {"a": "Told = int\n_own = 1", "b": "class Told: ...\n_own = 2", "c": "def app(): ..."}
    assert names_of_several(texts) == {"Told": ["a", "b"]}
