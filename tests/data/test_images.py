import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedrad.config import Task
from fedrad.data import ADAPTERS
from fedrad.data.adapters.images import images
from fedrad.data.base import sites_of
from fedrad.data.checks.overlap import check_overlap
from fedrad.errors import ConfigError, DataError
from fedrad.registry import build

TASK = Task(name="binary", labels=("lesion",), input=(1, 8, 8))
ALL = {
    "csv": "set/labels.csv",
    "patient": "id",
    "site": "site",
    "split": "split",
    "label": "label",
    "age": "age",
    "view": "view",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six films of five patients at two sites; film i is all of grey 10 * i."""
    (tmp_path / "set/films").mkdir(parents=True)
    rows = [
        "Ann,films/0.png,nord,train,0,58,PA",
        "Ann,films/1.png,nord,train,1,58,AP",
        "Bob,films/2.png,nord,test,0,,PA",
        "Cat,films/3.png,west,train,1,70,PA",
        "Dan,films/4.jpg,west,val,,71,PA",
        "Eve,films/5.png,west,test,1,72,LL",
    ]
    for number, row in enumerate(rows):
        image = Image.fromarray(np.full((8, 8), 10 * number, np.uint8))
        image.save(tmp_path / "set" / row.split(",")[1], quality=95)
    write(tmp_path, rows)
    return tmp_path


def write(root: Path, rows: list[str]) -> None:
    text = "\n".join(["id,image,site,split,label,age,view", *rows])
    (root / "set/labels.csv").write_text(text)


def rows_of(root: Path) -> list[str]:
    return (root / "set/labels.csv").read_text().splitlines()[1:]


def read(root: Path, task: Task = TASK, **options):
    return build(ADAPTERS, {"name": "images"} | ALL | options, task, root, where="data")


def test_every_column_lands_where_it_belongs(root) -> None:
    """The row of an image is the row of its label, its patient and its site."""
    found = read(root)
    assert found.x[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40, 50]
    np.testing.assert_array_equal(found.y[:, 0], [0, 1, 0, 1, np.nan, 1])
    assert found.site.tolist() == ["nord"] * 3 + ["west"] * 3
    assert found.split.tolist() == ["train", "train", "test", "train", "val", "test"]
    assert found.patient[0] == found.patient[1] and len(set(found.patient.tolist())) == 5
    np.testing.assert_array_equal(found.attributes["age"], [58, 58, np.nan, 70, 71, 72])
    assert len(set(found.pixels.tolist())) == 6
    check_overlap(found)
    assert sites_of(found)["nord"].images("train") == 2


def test_rows_are_filtered_before_images_are_read(root) -> None:
    """A film that the experiment leaves out may even be missing."""
    (root / "set/films/5.png").unlink()
    found = read(root, where={"view": ["PA", "AP"]}, sites=["west"])
    assert found.x[:, 0, 0, 0].tolist() == [30, 40]
    assert found.row.tolist() == [4, 5]


def test_labels_can_be_left_out_by_their_text(root) -> None:
    """Not read is dropped where the question needs a reading."""
    assert read(root, drop=[""]).row.tolist() == [1, 2, 3, 4, 6]


def test_without_options_there_are_no_sites_splits_or_patients(root) -> None:
    """A hospital's own table may have none of them."""
    plain = {"site": None, "split": None, "patient": None, "age": None, "view": None}
    found = read(root, **plain)
    assert found.site is None and found.split is None and found.attributes == {}
    assert len(set(found.patient.tolist())) == 6


def test_a_changed_image_or_size_is_decoded_again(root) -> None:
    """The cache must never show yesterday's film."""
    read(root)
    path = root / "set/films/1.png"
    Image.fromarray(np.full((8, 8), 99, np.uint8)).save(path)
    os.utime(path, ns=(1, 1))
    assert read(root).x[1, 0, 0, 0] == 99
    small = Task(name="binary", labels=("lesion",), input=(3, 4, 4))
    assert read(root, small).x.shape == (6, 3, 4, 4)


def test_missing_images_are_counted_and_told_by_row(root) -> None:
    """All of them at once, not one a run."""
    for name in ("1.png", "4.jpg"):
        (root / "set/films" / name).unlink()
    with pytest.raises(
        DataError, match=r"labels.csv row 2: .* 2 of 6 images are not there; .* rows: 2, 5$"
    ) as e:
        read(root)
    assert "films" not in str(e.value)


def test_a_damaged_image_is_told_by_row(root) -> None:
    """The row is of the file, also after a filter."""
    (root / "set/films/3.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"labels\.csv row 4: the image is no whole PNG or JPEG"):
        read(root, sites=["west"])


@pytest.mark.parametrize(
    "path", ["../outside.png", "films/../../outside.png", "/etc/passwd", "", "."]
)
def test_a_path_stays_inside_the_tables_folder(root, path) -> None:
    """A table may come from elsewhere; what it lists must not be anything on the disk."""
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(root / "outside.png")
    write(root, [f"Ann,{path},nord,train,0,58,PA"])
    with pytest.raises(
        DataError, match=r"row 1.*outside the folder|row 1: the image cannot be read"
    ):
        read(root)


def test_a_path_with_dots_inside_the_folder_is_read(root) -> None:
    """Only leaving the folder is refused."""
    write(root, ["Ann,films/../films/3.png,nord,train,0,58,PA"])
    assert read(root).x[0, 0, 0, 0] == 30


def test_an_option_that_does_not_fit_is_told(root) -> None:
    """Each message once."""
    with pytest.raises(ConfigError, match="bits: found 17; fits 1 to 16"):
        read(root, bits=17)
    with pytest.raises(ConfigError, match=r"images are \[1 or 3, height, width\]; found \[5\]"):
        read(root, Task(name="binary", labels=("lesion",), input=(5,)))
    with pytest.raises(DataError, match=r"label: labels.csv has no column 'lable' \(did you mean"):
        read(root, label="lable")
    with pytest.raises(DataError, match=r"^labels2.csv: cannot be read"):
        read(root, csv="set/labels2.csv")
    with pytest.raises(ConfigError, match=r"data.fit: .*'pad', 'squeeze' or 'crop'"):
        read(root, fit="stretch")


def test_findings_and_classes_are_read_by_the_task(root) -> None:
    """The same table, another question."""
    findings = Task(name="multilabel", labels=("lesion", "old"), input=(1, 8, 8))
    write(root, [row.replace(",58,", ",1,").replace(",,PA", ",0,PA") for row in rows_of(root)[:3]])
    found = read(root, findings, label=None, labels={"old": "age", "lesion": "label"}, age=None)
    assert found.y.tolist() == [[0, 1], [1, 1], [0, 0]]
    views = Task(name="multiclass", labels=("PA", "AP"), input=(1, 8, 8))
    assert read(root, views, label="view").y.tolist() == [[0], [1], [0]]


@pytest.mark.data
def test_real_films_of_five_sources(real_data: Path) -> None:
    """The counts are those of the data's README; its sites and splits leak nothing."""
    task = Task(name="binary", labels=("abnormal",), input=(1, 32, 32))
    found = images(
        task, real_data, csv="chest-xray-multisite/metadata.csv", patient="patient_id",
        site="site", split="split", label="label",
    )  # fmt: skip
    check_overlap(found)
    sites = sites_of(found)
    counts = {name: sum(site.images(s) for s in site.rows) for name, site in sites.items()}
    assert counts == {
        "guangzhou": 785, "hannover": 198, "nih": 812, "publications": 21, "radiopaedia": 73,
    }  # fmt: skip
    patients = {name: len(np.unique(found.patient[found.site == name])) for name in sites}
    assert sum(patients.values()) == 1284 and patients["hannover"] == 56
