"""Copies of a film that are no longer the same file, through the adapter and on real data."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedrad.config import Experiment, Task, from_text
from fedrad.data import ADAPTERS
from fedrad.data.checks.lookalikes import look_alike, turned
from fedrad.data.checks.oddities import Oddity
from fedrad.data.checks.sketch import sketches
from fedrad.data.sites import Federation, federation_of
from fedrad.errors import DataLeakageError
from fedrad.registry import build

EXPERIMENT = """
name: tiny
task: {name: binary, labels: [lesion], input: [1, 32, 32]}
data: {name: images, csv: t.csv, patient: id, site: site, split: split, label: lesion}
model: cnn
local: {epochs: 1}
rounds: 1
algorithm: fedavg
"""
PLAIN = from_text(EXPERIMENT)


def film(seed: int, size: int = 160) -> np.ndarray:
    """Return a made-up film: soft shapes of all sizes, no two seeds alike."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size, size))
    for side in (5, 10, 20, 40):
        part = Image.fromarray(rng.normal(size=(side, side)).astype(np.float32))
        total += np.asarray(part.resize((size, size), Image.Resampling.BICUBIC))
    low, high = total.min(), total.max()
    return ((total - low) / (high - low) * 255).astype(np.uint8)


def resized(pixels: np.ndarray, size: int) -> np.ndarray:
    small = Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(small)


def one_changed(pixels: np.ndarray) -> np.ndarray:
    changed = pixels.copy()
    changed[40, 50] ^= 255
    return changed


def as_jpeg(pixels: np.ndarray, quality: int = 75) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


KINDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "JPEG": as_jpeg,
    "poor JPEG": lambda x: as_jpeg(x, 30),
    "one pixel": one_changed,
    "resized": lambda x: resized(x, 100),
    "resized to what the net sees, by another filter": lambda x: np.asarray(
        Image.fromarray(x).resize((32, 32), Image.Resampling.LANCZOS)
    ),
    "a black border": lambda x: np.pad(x, 13),
    "a white border": lambda x: np.pad(x, ((5, 9), (20, 3)), constant_values=255),
    "a border, as JPEG": lambda x: as_jpeg(np.pad(x, 13)),
    "mirrored, as JPEG": lambda x: as_jpeg(x[:, ::-1].copy()),
    "turned by 90 degrees, as JPEG": lambda x: as_jpeg(np.rot90(x).copy()),
    "upside down and resized": lambda x: resized(x[::-1].copy(), 120),
    "inverted": lambda x: 255 - x,
    "brighter": lambda x: np.clip(x * 1.1 + 8, 0, 255).astype(np.uint8),
    "16 bits, of which 12 are used": lambda x: x.astype(np.uint16) * 16,
}
UNDONE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mirrored": lambda x: x[:, ::-1],
    "upside down": lambda x: x[::-1],
    "turned by 90 degrees": np.rot90,
    "turned by 270 degrees and mirrored": lambda x: np.rot90(x, 3)[:, ::-1],
    "16 bits": lambda x: x.astype(np.uint16) * 257,
    "resized to what the net sees": lambda x: resized(x, 32),
}


def federation(
    folder: Path, films: list[np.ndarray], rows: list[str], **changes: object
) -> Federation:
    """Sites of the films given; `rows` are of patient, site, split and label."""
    for number, pixels in enumerate(films):
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / f"{number}.png")
    lines = [f"{number}.png,{row}" for number, row in enumerate(rows)]
    (folder / "t.csv").write_text("\n".join(["image,id,site,split,lesion", *lines]))
    experiment = Experiment.model_validate(PLAIN.model_dump() | changes)
    return federation_of(experiment, folder)


def leaks(found: Federation) -> list[Oddity]:
    """Return what looks odd of copies, without what looks odd of bits and grey levels."""
    return [one for one in found.oddities if one.rule in ("images-alike", "labels-differ")]


ROWS = ["a,nord,train,0", "b,nord,train,1", "c,nord,test,0", "d,west,train,1"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_that_was_changed_is_told_with_its_rows(kind: str, tmp_path: Path) -> None:
    """Row 3 is row 1 again; rows 2 and 4 are other people's films.

    A change that is lost on the way to the network's size, but for rounding, stops the run.
    """
    films = [film(1), film(2), KINDS[kind](film(1)), film(4)]
    try:
        (odd,) = leaks(federation(tmp_path, films, ROWS))
    except DataLeakageError as error:
        assert (error.rule, error.rows) == ("image-in-two-splits", (1, 3))
        assert kind not in ("poor JPEG", "a black border", "inverted", "brighter")
    else:
        assert (odd.rule, odd.rows, odd.site) == ("images-alike", (1, 3), "nord")
        assert odd.found.startswith("1 pair of images") and "nord: test, train" in odd.found


@pytest.mark.parametrize("kind", UNDONE)
@pytest.mark.parametrize(("at", "where"), [(2, "in two splits"), (3, "at two sites")])
def test_a_copy_that_can_be_undone_exactly_stops_the_run(
    kind: str, at: int, where: str, tmp_path: Path
) -> None:
    """Equal as the network sees them, but for rounding, after one of eight turns: no chance."""
    films = [film(k) for k in range(4)]
    films[at] = UNDONE[kind](films[0])
    with pytest.raises(DataLeakageError, match=rf"1 image {where} .*rows 1.*{at + 1}") as told:
        federation(tmp_path, films, ROWS)
    assert told.value.rows == (1, at + 1) and ".png" not in str(told.value)


def test_copies_at_two_sites_are_told_of_both(tmp_path: Path) -> None:
    films = [film(1), film(2), film(3), as_jpeg(film(1), 20)]
    (odd,) = federation(tmp_path, films, [*ROWS[:3], "d,west,train,0"]).oddities
    assert odd.site == "" and "rows 1 (nord), 4 (west)" in odd.found


def test_films_of_one_patient_may_look_alike(tmp_path: Path) -> None:
    """Neighbouring slices and repeated views: they are in one split already."""
    films = [film(1), as_jpeg(film(1)), film(3), film(4)]
    rows = ["a,nord,train,0", "a,nord,train,0", "c,nord,test,0", "d,west,train,1"]
    assert not federation(tmp_path, films, rows).oddities


def test_a_rule_that_is_accepted_is_silent(tmp_path: Path) -> None:
    films = [film(1), film(2), as_jpeg(film(1), 20), film(4)]
    assert federation(tmp_path, films, ROWS).oddities
    assert not federation(tmp_path, films, ROWS, accept=("images-alike",)).oddities


@pytest.mark.parametrize("again", [lambda x: x, as_jpeg])
def test_one_image_with_two_labels_is_told(
    again: Callable[[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    """In one split of one site it is no leak, and one of the labels is wrong all the same."""
    films = [film(1), again(film(1)), film(3), film(4)]
    (odd,) = federation(tmp_path, films, ROWS).oddities
    assert (odd.rule, odd.rows) == ("labels-differ", (1, 2))


def test_blank_images_are_alike_to_none(tmp_path: Path) -> None:
    """A frame without a picture is no film of anybody; equal pixels are another check's matter."""
    films = [np.full((40, 40), grey, np.uint8) for grey in (10, 20, 30, 40)]
    assert not leaks(federation(tmp_path, films, ROWS))


def test_eight_turns_are_all_turns_and_mirror_images() -> None:
    """Each is another image, and each is undone by one of the eight."""
    image = np.arange(9).reshape(3, 3)
    all_turns = [turned(image, turn) for turn in range(8)]
    assert len({one.tobytes() for one in all_turns}) == 8
    for one in all_turns:
        assert any(np.array_equal(turned(one, turn), image) for turn in range(8))


def test_no_pair_is_lost_by_the_first_step() -> None:
    """Two of 3,000 random films are copies, in blocks far apart; turned, they are found."""
    rng = np.random.default_rng(0)
    films = rng.integers(0, 256, (3000, 32, 32)).astype(np.uint8)
    films[2900] = np.rot90(films[17])
    films[5] = films[2000, ::-1]
    found = look_alike(sketches(films, films[:, None]), lambda one, other: one != other)
    assert list(zip(found.one.tolist(), found.other.tolist(), strict=True)) == [
        (5, 2000),
        (17, 2900),
    ]


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "size"),
    [
        ({"csv": "chest-xray-multisite/metadata.csv", "patient": "patient_id"}, 64),
        ({"csv": "chest-xray-multisite/metadata.csv", "patient": "patient_id"}, 28),
        ({"csv": "brain-mri-lgg/metadata.csv", "patient": "patient_id"}, 64),
        ({"name": "npz", "file": "pneumoniamnist/pneumoniamnist.npz", "duplicates": "drop"}, 28),
    ],
)
def test_no_two_patients_of_real_data_are_accused(spec: dict, size: int) -> None:
    """1,889 films of 1,284 patients, 680 slices of 76, 5,827 films: no pair of different ones."""
    task = Task(name="binary", labels=("x",), input=(1, size, size))
    images = {"name": "images", "label": "label", "values": {"0": 0, "1": 1, "": None}}
    chosen = spec if "name" in spec else images | spec
    records = build(ADAPTERS, chosen, task, Path(os.environ["FEDRAD_DATA"]), where="data")
    patient = records.patient
    assert records.sketches is not None
    found = look_alike(records.sketches, lambda one, other: patient[one] != patient[other])
    assert len(found) == 0


@pytest.mark.data
@pytest.mark.parametrize(
    ("kind", "least"),
    [("JPEG", 0.99), ("resized", 0.99), ("one pixel", 0.99), ("a black border", 0.99),
     ("a border, as JPEG", 0.95), ("mirrored, as JPEG", 0.99), ("inverted", 0.99)],
)  # fmt: skip
def test_copies_of_real_films_are_found(kind: str, least: float) -> None:
    """Every 25th film of four hospitals, changed: so many are found again."""
    folder = Path(os.environ["FEDRAD_DATA"]) / "chest-xray-multisite/images"
    paths = sorted(folder.rglob("*.jpg"))[::25]
    films = [np.asarray(Image.open(path).convert("L").resize((224, 224))) for path in paths]

    def sketched(x: np.ndarray) -> np.ndarray:
        return sketches(x[None], resized(x, 64)[None, None])[0]

    both = np.stack([sketched(x) for x in films] + [sketched(KINDS[kind](x)) for x in films])
    found = look_alike(both, lambda one, other: other - one == len(films))
    assert len(found) >= least * len(films)
