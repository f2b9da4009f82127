"""Rows of a table that stand twice, the label among the features, and what heart disease holds."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from fedrad.config import load_experiment
from fedrad.data.base import Records, hashes
from fedrad.data.checks.giveaways import check_features, giveaways
from fedrad.data.checks.likely_overlap import likely_leaks
from fedrad.data.checks.repeats import repeats_of
from fedrad.data.sites import federation_of
from fedrad.errors import ConfigError, DataLeakageError

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def records(x: np.ndarray, seed: int = 0, sites: int = 1) -> Records:
    """Rows of different patients, in two splits (and at two sites) at random."""
    rng = np.random.default_rng(seed)
    n = len(x)
    return Records(
        x.astype(np.float32),
        rng.integers(0, 2, (n, 1)).astype(np.float32),
        hashes(map(str, range(n))),
        rng.choice(["nord", "west"][:sites], n),
        rng.choice(["train", "test"], n),
        None,
    )


COPIES = {
    "continuous": lambda rng: rng.normal(size=(60, 12)),
    "few columns of ten values": lambda rng: rng.integers(1, 11, (60, 5)),
    "one decimal": lambda rng: rng.integers(0, 50, (60, 4)) / 10,
    "two columns of many values": lambda rng: rng.normal(size=(60, 2)),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_table_whose_rows_all_stand_four_times_is_refused(kind: str) -> None:
    """Coin-flip labels are then learnt by heart, and tested on what was learnt."""
    x = np.tile(COPIES[kind](np.random.default_rng(1)), (4, 1))
    with pytest.raises(
        DataLeakageError, match=r"repeated rows in two splits \(nord: .*rows "
    ) as told:
        likely_leaks(records(x))
    assert told.value.rule == "repeated-row-in-two-splits" and told.value.rows


def test_one_row_of_many_measured_values_that_stands_twice_is_refused() -> None:
    """Twelve numbers of three digits each do not agree by chance among a few hundred rows."""
    x = np.random.default_rng(2).normal(size=(300, 12)).round(2)
    x[250] = x[10]
    made = records(x)
    made.split[[10, 250]] = ["train", "test"]
    with pytest.raises(DataLeakageError, match=r"1 repeated row in two splits .*rows 11, 251\)"):
        likely_leaks(made)


def test_equal_rows_at_two_sites_are_refused_too() -> None:
    x = np.tile(np.random.default_rng(3).normal(size=(40, 6)), (2, 1))
    made = records(x, sites=2)
    made.split[:] = "train"
    with pytest.raises(DataLeakageError, match=r"repeated rows at two sites .*\((nord|west)\)"):
        likely_leaks(made)


CHANCE = {
    "three binary columns": lambda rng: rng.integers(0, 2, (500, 3)),
    "twelve that go together": lambda rng: (
        rng.normal(size=(1000, 1)) + rng.normal(size=(1000, 12)) > 1
    ),
    "thirty that go together more": lambda rng: (
        1.5 * rng.normal(size=(3000, 1)) + rng.normal(size=(3000, 30)) > 1
    ),
    "five of five grades": lambda rng: rng.integers(0, 5, (2000, 5)),
    "one column": lambda rng: rng.integers(0, 90, (300, 1)),
    "mostly missing": lambda rng: np.where(rng.random((400, 12)) < 0.97, 0, rng.random((400, 12))),
    "all distinct": lambda rng: rng.normal(size=(500, 4)),
}


@pytest.mark.parametrize("kind", CHANCE)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rows_that_coincide_by_chance_accuse_nobody(kind: str, seed: int) -> None:
    """In a table of few or coarse columns most rows have a twin."""
    found = repeats_of(made := records(CHANCE[kind](np.random.default_rng(seed)), seed), made.split)
    assert not len(found.certain) and not len(found.likely)


def test_rows_of_one_patient_may_be_equal() -> None:
    """They are in one split already."""
    x = np.tile(np.random.default_rng(4).normal(size=(30, 6)), (2, 1))
    made = records(x)
    made.split[30:] = made.split[:30]
    assert not likely_leaks(made)


@pytest.mark.data
def test_heart_disease_runs_and_tells_its_equal_rows_at_va() -> None:
    """Two of the VA's 200 rows agree in all ten features, one in train and one in test."""
    experiment = load_experiment(EXPERIMENTS / "heart_disease.yaml")
    found = federation_of(experiment, Path(os.environ["FEDRAD_DATA"])).oddities
    assert [(odd.site, odd.rule, odd.rows) for odd in found] == [
        ("va", "rows-alike", (140, 188)),
        ("switzerland", "feature-constant", ()),  # no cholesterol was taken there
    ]


@pytest.mark.data
def test_real_tables_hold_no_row_that_is_called_certain() -> None:
    """brca: 40 columns, nearly all of them 0 or 1; 1,096 rows, 1,057 of them distinct."""
    path = Path(os.environ["FEDRAD_DATA"]) / "tcga-brca/brca.csv"
    x = np.loadtxt(path, delimiter=",", skiprows=1, usecols=range(1, 40), ndmin=2, quotechar='"')
    found = repeats_of(made := records(x), made.split)
    assert not len(found.certain) and not len(found.likely)


@pytest.mark.parametrize(
    ("name", "what"), [("sick", "the label"), ("id", "the patients' column"), ("place", "the site")]
)
def test_a_feature_that_is_the_label_or_says_who_or_where_is_refused(name: str, what: str) -> None:
    others = {"the label": ["sick"], "the patients' column": ["id"], "the site": ["place", None]}
    with pytest.raises(ConfigError, match=rf"^features: '{name}' is {what}; leave it out"):
        check_features(["age", name], others)
    check_features(["age"], others)


LABEL = np.repeat([0.0, 1.0], [30, 20])
GUISES = {
    "itself": LABEL,
    "its negation": 1 - LABEL,
    "recoded and scaled": np.where(LABEL > 0, 7.5, -2),
    "grades of it": np.where(LABEL > 0, 1 + np.arange(50) % 3, 0),
    "a number that a threshold turns into it": LABEL * 100 + np.arange(50) / 7,
}


@pytest.mark.parametrize("kind", GUISES)
def test_a_feature_that_tells_the_label_in_every_row_is_told(kind: str) -> None:
    x = np.stack([np.random.default_rng(0).normal(size=50), GUISES[kind]], axis=1)
    (odd,) = giveaways(x, LABEL[:, None], ["age", "marker"], ["sick"])
    assert (
        odd.rule == "feature-tells-label" and "'marker'" in odd.found and "'age'" not in odd.found
    )


@pytest.mark.parametrize(
    "feature",
    [
        np.arange(50) * 0.0,
        np.random.default_rng(1).normal(size=50),
        np.r_[1 - LABEL[:3], LABEL[3:]],
        np.r_[1 - LABEL[:1], LABEL[1:] + np.arange(49) % 2],
    ],
    ids=["constant", "every row its own value", "wrong in three rows", "a strong finding"],
)
def test_a_feature_that_does_not_tell_every_label_is_left_alone(feature: np.ndarray) -> None:
    assert not giveaways(feature[:, None], LABEL[:, None], ["age"], ["sick"])


@pytest.mark.parametrize("way", [1.0, -1.0])
def test_a_feature_that_is_wrong_in_four_of_360_rows_is_told_with_its_area(way: float) -> None:
    """The label's copy with two mistakes in each class: AUROC 1 - 2 / 180, either way round."""
    label = np.repeat([0.0, 1.0], 180)
    copy = label.copy()
    copy[[0, 1, 358, 359]] = 1 - copy[[0, 1, 358, 359]]
    (odd,) = giveaways(way * copy[:, None], label[:, None], ["code"], ["sick"])
    assert odd.rule == "feature-tells-label"
    assert odd.found == (
        "Feature 'code' alone ranks 'sick' with an AUROC of 0.988 over 360 labelled rows."
    )


@pytest.mark.data
@pytest.mark.parametrize("name", ["abide-qc", "tcga-brca", "heart-disease", "parrot-reports"])
def test_no_column_of_a_real_table_is_accused_of_giving_a_label_away(name: str) -> None:
    """Every numeric column; of the reports their length, against being of one kind of image."""
    x, y, names = real_table(Path(os.environ["FEDRAD_DATA"]) / name)
    assert len(x) > 100 and len(np.unique(y)) == 2
    assert [odd.found for odd in giveaways(x, y[:, None], names, ["label"])] == []


def real_table(folder: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return a real table's numbers, 0 for what is none, its label and its columns' names."""
    if folder.name == "parrot-reports":
        lines = (folder / "reports.jsonl").read_text(encoding="utf-8").splitlines()
        read = [json.loads(line) for line in lines]
        length = np.array([[float(len(one["report"]))] for one in read])
        return length, np.array([float(one["modality"] == "MR") for one in read]), ["length"]
    if folder.name == "heart-disease":
        files = sorted(folder.glob("processed.*.data"))
        cells = [line.split(",") for file in files for line in file.read_text().split()]
        names = [str(number) for number in range(14)]
        label = "13"
    else:
        path = next(folder.glob("abide.csv" if folder.name == "abide-qc" else "brca.csv"))
        with path.open(encoding="utf-8", newline="") as file:
            names, *cells = csv.reader(file)
        label = "label" if "label" in names else "E"
    place = names.index(label)
    x = np.array([[number(cell) for cell in row] for row in cells])
    y = (x[:, place] > 0).astype(float)
    return np.delete(x, place, axis=1), y, [name for name in names if name != label]


def number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return 0.0


def test_a_ranking_of_few_rows_or_of_grades_accuses_nobody() -> None:
    """One pair of rows out of order is told of 15 and 15, not of 14 and 15, nor of nine ill."""
    for well, ill, told in ((15, 15, 1), (14, 15, 0), (300, 9, 0)):
        label = np.r_[np.zeros(well - 1), 1.0, 0.0, np.ones(ill - 1)]
        rank = np.arange(well + ill, dtype=float)[:, None]
        assert len(giveaways(rank, label[:, None], ["age"], ["sick"])) == told
    grades = np.repeat([0.0, 1.0, 2.0], 40)
    nearly = np.r_[2.0, grades[1:]]
    assert not giveaways(nearly[:, None], grades[:, None], ["age"], ["grade"])
