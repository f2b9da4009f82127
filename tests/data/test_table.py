from pathlib import Path

import numpy as np
import pytest

from fedrad.config import Task
from fedrad.data import ADAPTERS
from fedrad.data.base import sites_of
from fedrad.data.checks.overlap import check_overlap
from fedrad.data.splits import assign_splits
from fedrad.errors import ConfigError, DataError
from fedrad.registry import build


def task(features: int) -> Task:
    return Task(name="binary", labels=("disease",), input=(features,))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "nord.csv").write_text("age,chol,num\n60,240,0\n50,?,2\n")
    (tmp_path / "west.csv").write_text("age,chol,num\n70,0,1\n40,190,0\n")
    return tmp_path


def read(root: Path, inputs: int = 2, **options):
    spec = {
        "name": "table",
        "files": {"nord": "nord.csv", "west": "west.csv"},
        "features": {"age": {"centre": 50, "scale": 10}, "chol": {"centre": 240, "scale": 50}},
        "label": "num",
        "threshold": 0,
    }
    return build(ADAPTERS, spec | options, task(inputs), root, where="data")


def test_features_are_centred_and_scaled_and_missing_ones_are_at_the_centre(root) -> None:
    """(value - centre) / scale; ? is missing, 0 is a number."""
    found = read(root)
    expected = [[1, 0], [0, 0], [2, -4.8], [-1, -1]]
    np.testing.assert_allclose(found.x, expected, rtol=1e-6)
    assert found.x.dtype == np.float32
    assert found.y[:, 0].tolist() == [0, 1, 1, 0]
    assert found.site.tolist() == ["nord", "nord", "west", "west"]
    assert len(set(found.patient.tolist())) == 4


def test_zero_can_mean_missing_and_an_indicator_says_where(root) -> None:
    """A cholesterol of 0 is nobody's; the column behind the features tells the model."""
    found = read(root, inputs=4, missing="indicator", missing_zero=["chol"])
    np.testing.assert_allclose(
        found.x, [[1, 0, 0, 0], [0, 0, 0, 1], [2, 0, 0, 1], [-1, -1, 0, 0]], rtol=1e-6
    )


def test_an_indicator_can_be_for_one_feature_alone(root) -> None:
    """CsvTable that are never missing need none."""
    features = {"age": {"centre": 50, "scale": 10}, "chol": {"missing": "indicator"}}
    found = build(
        ADAPTERS,
        {"name": "table", "csv": "nord.csv", "features": features, "label": "num", "threshold": 0},
        task(3), root, where="data",
    )  # fmt: skip
    assert found.x.tolist() == [[1, 240, 0], [0, 0, 1]] and found.site is None


def test_the_number_of_features_must_be_the_tasks(root) -> None:
    """Both numbers, and where they come from."""
    with pytest.raises(
        ConfigError, match=r"found \[5\]; 2 features and 1 indicators .* make \[3\]"
    ):
        build(
            ADAPTERS,
            {"name": "table", "csv": "nord.csv", "label": "num", "threshold": 0,
             "features": {"age": {}, "chol": {"missing": "indicator"}}},
            task(5), root, where="data",
        )  # fmt: skip


def test_a_file_without_a_header_is_read_with_names_from_the_options(root) -> None:
    """As UCI gives its files."""
    (root / "bare.csv").write_text("60,240,0\n50,230,3\n")
    options = {
        "files": None,
        "csv": "bare.csv",
        "columns": ["age", "chol", "num"],
        "features": ["age", "chol"],
    }
    assert read(root, **options).x.tolist() == [[60, 240], [50, 230]]


def test_sites_splits_and_patients_come_from_columns(root) -> None:
    """One table of several hospitals."""
    (root / "all.csv").write_text("id,s,part,a,l\n1,n,train,5,1\n1,w,test,6,0\n1,n,train,7,1\n")
    options = {"files": None, "csv": "all.csv", "features": ["a"], "label": "l", "threshold": None,
               "site": "s", "split": "part", "patient": "id"}  # fmt: skip
    found = read(root, inputs=1, **options, patient_per_site=True)
    check_overlap(found)
    assert found.site.tolist() == ["n", "w", "n"] and found.split.tolist()[1] == "test"
    assert read(root, inputs=1, **options, sites=["w"]).x.tolist() == [[6]]


@pytest.mark.parametrize("cell", ["x", "inf", "1e999", "1 2"])
def test_a_cell_that_is_no_number_is_told_by_row(root, cell) -> None:
    """Infinity is no measurement."""
    (root / "west.csv").write_text(f"age,chol,num\n70,1,1\n40,{cell},0\n")
    with pytest.raises(
        DataError, match=r"west\.csv row 2: feature 'chol' is a text; fits a number"
    ):
        read(root)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"csv": "nord.csv"}, "csv, files: give one of them"),
        ({"files": None}, "csv, files: give one of them"),
        ({"site": "s"}, "files: name the sites themselves"),
        ({"features": ["age", "age"]}, "one name stands twice"),
        (
            {"features": {"age": {"scale": 0}, "chol": {}}},
            r"features.age.scale: found 0; must be above 0",
        ),
        ({"features": {"age": {"center": 5}, "chol": {}}}, "center"),
        ({"missing_zero": ["col"]}, r"'col' is none of the features \(did you mean 'chol'"),
    ],
)
def test_options_that_do_not_fit_are_refused(root, options, message) -> None:
    """Each message once."""
    with pytest.raises(ConfigError, match=message):
        read(root, **options)


@pytest.mark.data
def test_real_heart_disease_of_four_hospitals(real_data: Path) -> None:
    """Rows, positives and unknown chol (0, or missing) as the data's README counts them."""
    names = [
        *("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang"),
        *("oldpeak", "slope", "ca", "thal", "num"),
    ]
    hospitals = ("cleveland", "hungarian", "switzerland", "va")
    spec = {
        "name": "table",
        "files": {name: f"heart-disease/processed.{name}.data" for name in hospitals},
        "columns": names,
        "features": {
            name: {"missing": "indicator"} if name == "chol" else {} for name in names[:-1]
        },
        "missing_zero": ["chol"],
        "label": "num",
        "threshold": 0,
    }
    found = build(ADAPTERS, spec, task(14), real_data, where="data")
    at = {name: found.site == name for name in hospitals}
    assert [int(at[name].sum()) for name in hospitals] == [303, 294, 123, 200]
    assert [int(found.y[at[name]].sum()) for name in hospitals] == [139, 106, 115, 149]
    assert [int(found.x[at[name], 13].sum()) for name in hospitals][::2] == [0, 123]
    assert np.isfinite(found.x).all()
    drawn = assign_splits(found, val=0.15, test=0.25, seed=0)
    check_overlap(drawn)
    assert list(sites_of(drawn)) == sorted(hospitals)
