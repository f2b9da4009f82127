"""Inputs that showed a fault, each played by a real process; each ends as its README says.

The folder of cases lies beside that of the real data, or where FEDRAD_CASES says.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image, ImageOps

ROOT = Path(__file__).parent.parent
HOME = Path(os.environ.get("FEDRAD_CASES") or Path(os.environ.get("FEDRAD_DATA", ".")) / "../cases")
PROGRAM = "import sys; from fedrad.cli import main; sys.argv[0] = 'fedrad'; main()"
CHECK = ("check", "exp.yaml", "--data-root", ".")
RUN = ("run", "exp.yaml", "--data-root", ".", "--out", "out", "--workers", "1", "--arm", "fedavg")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (HOME / "README.md").is_file(),
        reason=f"{HOME} holds no cases; FEDRAD_CASES names the folder",
    ),
]


@dataclass(frozen=True)
class Case:
    """What a case is expected to end as.

    Args:
        folder: begins with this.
        words: of the command, in a copy of the folder.
        codes: exit codes that are right.
        told: patterns that are all found in what is printed.
        untold: patterns of which none is.
        prepare: changes the copy before.
        left: files that are there afterwards.
    """

    folder: str
    words: tuple[str, ...]
    codes: tuple[int, ...] = (2,)
    told: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()
    prepare: Callable[[Path], None] = lambda folder: None
    left: tuple[str, ...] = ()


def upright(folder: Path) -> None:
    """Put in each JPEG's place what a viewer shows of it, without loss and without EXIF."""
    rows = list(csv.DictReader((folder / "labels.csv").open()))
    for row in rows:
        with Image.open(folder / row["image"]) as image:
            ImageOps.exif_transpose(image).save(folder / f"{row['image']}.png")
        row["image"] += ".png"
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def own_site_file(folder: Path) -> None:
    """Let the federation's only site have the data of this checkout's demo."""
    text = (folder / "fed6.yaml").read_text()
    (folder / "fed6.yaml").write_text(re.sub(r"\S+/nord.yaml", f"{ROOT}/sites/nord.yaml", text))


def long_address(folder: Path) -> None:
    own_site_file(folder)
    text = (folder / "fed6.yaml").read_text()
    (folder / "fed6.yaml").write_text(text.replace('"::1"', '"0:0:0:0:0:0:0:1"'))


HELD = ("--workers", "1", "--out", "out")
RESULTS = ("out/results.json", "out/report.html")
SIX = ("provision", "fed6.yaml", "--out", "kits")
CASES = {
    "equal rows of a table in two splits": Case(
        "01-", CHECK, told=(r"DataLeakageError", r"\brows? \d+.*\d+")
    ),
    "1.0 is the class 1": Case("02-", CHECK, (0, 2), untold=(r"\b1 0\b",)),
    "bits of a 16-bit colour image": Case("03-", RUN, (0,), left=RESULTS),
    "a quote that never closes": Case("05-", CHECK, told=(r"quote", r"\brow \d+")),
    "the label among the features": Case(
        "06-", CHECK, told=(r"ConfigError", r"features", r"'sick'", r"label")
    ),
    "images that lie on their side": Case("07-", RUN, (0,), left=RESULTS),
    "the same images upright": Case("07-", RUN, (0,), prepare=upright, left=RESULTS),
    "batch norm and a last batch of one": Case(
        "10-", CHECK, (0, 2), told=(r"norm", r"(last|single|one) (batch|image)|batch of one")
    ),
    "nobody named the patient": Case("12-", CHECK, (0, 2), told=(r"patient: null",)),
    "several bad files": Case(
        "16-", CHECK, told=(r"(\b\d+\b.*){5}",), untold=(r"Traceback",)
    ),
    "findings with a bar between them": Case("17-", CHECK, (0, 2), told=(r"separator",)),
    "a name that YAML reads as a number": Case("21-", CHECK, told=(r"quotes",)),
    "one arm with a held-out site": Case(
        "fl-02-", ("run", "held.yaml", "--arm", "fedavg", *HELD), (0,),
        told=(r"All that was asked for is finished: fedavg", r"local: not run"), left=RESULTS,
    ),
    "an arm that diverges with a held-out site": Case(
        "fl-02-", ("run", "held_div.yaml", *HELD), (1,),
        told=(r"local has no result: .*no finite number", r"Not finished: local"), left=RESULTS,
    ),
    "a drawn site without training images": Case(
        "fl-05-",
        ("run", "zero.yaml", "--data-root", ".", "--set", "sites_per_round=1", "--set", "rounds=6",
         "--set", "replicates=0", *HELD),
        (0,), told=(r"Took part: .*C in 0 of 6 rounds",), untold=(r"stopped",), left=RESULTS,
    ),
    "an IPv6 coordinator": Case(
        "fl-07-", SIX, (0,), prepare=own_site_file, left=("kits/nord/site.yaml",)
    ),
    "an IPv6 address in full": Case(
        "fl-07-", SIX, (0,), prepare=long_address, left=("kits/nord/site.yaml",)
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a process ended, and where."""

    code: int
    told: str
    folder: Path


def fedrad(*words: str, cwd: Path) -> Ended:
    """Run the command in a folder and a process of its own."""
    known = {k: v for k, v in os.environ.items() if k not in ("FEDRAD_DATA", "COLUMNS")}
    more = {
        "COLUMNS": "400",
        "OMP_NUM_THREADS": "1",
        "FEDRAD_CACHE": str(cwd.with_name(f"{cwd.name}-cache")),
        "PYTHONPATH": str(ROOT),
    }
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=cwd, env=known | more, capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = " ".join(f"{ended.stdout}\n{ended.stderr}".split())
    return Ended(ended.returncode, told, cwd)


def played(case: Case, folder: Path) -> Ended:
    (source,) = HOME.glob(f"{case.folder}*")
    shutil.copytree(source, folder)
    case.prepare(folder)
    return fedrad(*case.words, cwd=folder)


@pytest.fixture(scope="module")
def ends(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Ended]:
    """Play the cases that are asked for, two at a time."""
    asked = [item.callspec.params.get("name") for item in request.session.items
             if getattr(item, "callspec", None) and item.path == request.path]  # fmt: skip
    names = [name for name in CASES if name in asked] or list(CASES)
    home = tmp_path_factory.mktemp("cases")
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda name: played(CASES[name], home / name.replace(" ", "-")), names)
        return dict(zip(names, found, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_a_case_ends_as_its_readme_says(name: str, ends: dict[str, Ended]) -> None:
    case, ended = CASES[name], ends[name]
    assert ended.code in case.codes, ended.told
    for pattern in case.told:
        assert re.search(pattern, ended.told, re.IGNORECASE), (pattern, ended.told)
    for pattern in (*case.untold, r"Traceback \(most"):
        assert not re.search(pattern, ended.told), (pattern, ended.told)
    for path in case.left:
        assert (ended.folder / path).is_file()


@pytest.mark.parametrize("name", ["images that lie on their side"])
def test_what_lies_on_its_side_is_trained_on_as_a_viewer_shows_it(
    name: str, ends: dict[str, Ended]
) -> None:
    """Bit for bit the weights of the same images stored upright."""
    place = "out/fedavg/seed-0/state.safetensors"
    weights = [(ends[one].folder / place).read_bytes() for one in (name, "the same images upright")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("name", ["bits of a 16-bit colour image"])
def test_colour_of_16_bits_is_scaled_so_that_lesions_are_seen(
    name: str, ends: dict[str, Ended]
) -> None:
    """Read by its upper bytes alone it is nearly black, and no network does better than 0.5."""
    results = json.loads((ends[name].folder / "out/results.json").read_text(encoding="utf-8"))
    (fedavg,) = (arm for arm in results["arms"] if arm["name"] == "fedavg")
    assert fedavg["columns"]["auroc"]["mean"]["value"] > 0.95


@pytest.mark.parametrize("name", ["an IPv6 coordinator"])
def test_the_kit_of_an_ipv6_coordinator_can_be_read(name: str, ends: dict[str, Ended]) -> None:
    """Nobody serves there, so the doctor finds faults; that the kit cannot be read is not one."""
    found = fedrad("site", "doctor", "kits/nord/site.yaml", cwd=ends[name].folder)
    assert "expected the node content" not in found.told and "Traceback (most" not in found.told


def test_every_folder_of_cases_is_played() -> None:
    """A new case without an expectation would be read by nobody."""
    folders = {path.name for path in HOME.iterdir() if path.is_dir()}
    known = {name for name in folders for case in CASES.values() if name.startswith(case.folder)}
    assert known == folders
