from pathlib import Path

import numpy as np
import pytest

from fedrad.config import Task
from fedrad.data import ADAPTERS
from fedrad.data.checks.overlap import check_overlap
from fedrad.errors import ConfigError, DataError, DataLeakageError
from fedrad.registry import build

TASK = Task(name="binary", labels=("pneumonia",), input=(1, 8, 8))
SIZES = {"train": 6, "val": 3, "test": 4}


def arrays(shape=(8, 8), columns: int = 1, classes: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    made = {}
    for split, n in SIZES.items():
        made[f"{split}_images"] = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
        made[f"{split}_labels"] = rng.integers(0, classes, (n, columns), dtype=np.uint8)
    return made


def read(folder: Path, held: dict[str, np.ndarray], task: Task = TASK, **options):
    np.savez(folder / "set.npz", **held)
    return build(ADAPTERS, {"name": "npz", "file": "set.npz"} | options, task, folder, where="data")


def test_the_official_splits_stay_and_no_pixel_changes(tmp_path) -> None:
    """At the file's own size, x is the file's images."""
    held = arrays()
    found = read(tmp_path, held)
    check_overlap(found)
    assert found.site is None
    for split, n in SIZES.items():
        rows = found.split == split
        assert rows.sum() == n
        np.testing.assert_array_equal(found.x[rows, 0], held[f"{split}_images"])
        np.testing.assert_array_equal(found.y[rows], held[f"{split}_labels"])
    assert len(set(found.patient.tolist())) == 13


def test_colour_and_grey_and_sizes_come_to_the_tasks(tmp_path) -> None:
    """[n, h, w, 3] becomes [n, 3, h, w]; other sizes are resized."""
    colour = arrays(shape=(8, 8, 3))
    three = Task(name="binary", labels=("pneumonia",), input=(3, 8, 8))
    found = read(tmp_path, colour, three)
    np.testing.assert_array_equal(found.x[0], colour["train_images"][0].transpose(2, 0, 1))
    assert read(tmp_path, colour).x.shape == (13, 1, 8, 8)
    assert read(tmp_path, arrays(shape=(12, 16)), three).x.shape == (13, 3, 8, 8)


def test_classes_and_findings_are_read_by_the_task(tmp_path) -> None:
    """MedMNIST has one column of classes, or one a finding."""
    classes = Task(name="multiclass", labels=("a", "b", "c"), input=(1, 8, 8))
    assert set(read(tmp_path, arrays(classes=3), classes).y.ravel()) == {0, 1, 2}
    findings = Task(name="multilabel", labels=("a", "b"), input=(1, 8, 8))
    assert read(tmp_path, arrays(columns=2), findings).y.shape == (13, 2)


def test_repeats_are_refused_or_the_copy_in_the_later_part_stays(tmp_path) -> None:
    """test keeps its image, val loses to test, train loses to both."""
    held = arrays()
    held["train_images"][0] = held["test_images"][1]
    held["train_images"][2] = held["val_images"][0]
    held["val_images"][2] = held["test_images"][3]
    with pytest.raises(
        DataLeakageError, match=r"set.npz: 3 of 13 images are exact repeats.*duplicates: drop"
    ):
        read(tmp_path, held)
    found = read(tmp_path, held, duplicates="drop")
    check_overlap(found)
    assert {s: int((found.split == s).sum()) for s in SIZES} == {"train": 4, "val": 2, "test": 4}
    assert found.row[found.split == "train"].tolist() == [2, 4, 5, 6]


def test_an_object_array_is_never_unpickled(tmp_path) -> None:
    """An .npz from elsewhere could run anything."""
    held = arrays() | {"train_labels": np.array([{"a": 1}] * 6, dtype=object)}
    with pytest.raises(DataError, match=r"set.npz: is no whole .npz file of plain arrays"):
        read(tmp_path, held)


def test_a_truncated_or_missing_file_is_refused(tmp_path) -> None:
    """At any length."""
    read(tmp_path, arrays())
    path = tmp_path / "set.npz"
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"^set.npz"):
            ADAPTERS["npz"](TASK, tmp_path, file="set.npz")
    path.unlink()
    with pytest.raises(DataError, match=r"^set.npz: cannot be read \(No such file"):
        ADAPTERS["npz"](TASK, tmp_path, file="set.npz")


def test_what_does_not_fit_is_told(tmp_path) -> None:
    """Each message once."""
    held = arrays()
    with pytest.raises(DataError, match="has no test_labels; it has test_images, train_images"):
        read(tmp_path, {k: v for k, v in held.items() if k != "test_labels"})
    with pytest.raises(DataError, match="labels from 0 to 2; the task's are 0 to 1"):
        read(tmp_path, arrays(classes=3))
    with pytest.raises(DataError, match="2 columns of labels, the task has 1"):
        read(tmp_path, arrays(columns=2))
    with pytest.raises(DataError, match=r"images are float64 \[13, 8, 8\]; fits uint8"):
        read(tmp_path, {k: v / 1 if "images" in k else v for k, v in held.items()})
    with pytest.raises(DataError, match=r"different shapes: train_images \[6, 8, 8\]"):
        read(tmp_path, held | {"val_images": np.zeros((3, 4, 4), np.uint8)})
    with pytest.raises(DataError, match=r"set\.npz: 13 images and 12 labels"):
        read(tmp_path, held | {"val_labels": held["val_labels"][:2]})
    with pytest.raises(ConfigError, match="images are"):
        read(tmp_path, held, Task(name="binary", labels=("a",), input=(4,)))


@pytest.mark.data
def test_real_pneumoniamnist(real_data: Path) -> None:
    """5856 images, 29 of them exact repeats, as its README counts."""
    task = Task(name="binary", labels=("pneumonia",), input=(1, 28, 28))
    spec = {"name": "npz", "file": "pneumoniamnist/pneumoniamnist.npz"}
    with pytest.raises(DataLeakageError, match="29 of 5856"):
        build(ADAPTERS, spec, task, real_data, where="data")
    found = build(ADAPTERS, spec | {"duplicates": "drop"}, task, real_data, where="data")
    check_overlap(found)
    assert len(found) == 5827
