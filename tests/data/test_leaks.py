import numpy as np
import pytest

from fedrad.data.base import Records, hashes
from fedrad.data.checks.overlap import check_overlap
from fedrad.errors import DataLeakageError


def records(patients, site=None, split=None, pixels=None, row=None) -> Records:
    n = len(patients)
    return Records(
        np.zeros((n, 1)),
        np.zeros((n, 1)),
        hashes(patients),
        None if site is None else np.array(site),
        None if split is None else np.array(split),
        None if pixels is None else np.array(pixels, np.uint64),
        row=None if row is None else np.array(row),
    )


def test_a_patient_in_two_splits_is_refused_with_its_rows_and_without_its_id() -> None:
    """The row finds the patient at the site; the id must not travel."""
    leaky = records(["Ann", "Bob", "Ann"], ["nord"] * 3, ["train", "test", "val"], row=[11, 12, 13])
    with pytest.raises(
        DataLeakageError, match=r"1 patient in two splits \(nord: train, val; rows 11, 13\)"
    ) as e:
        check_overlap(leaky)
    assert "Ann" not in str(e.value)


def test_at_most_five_rows_are_listed_and_all_are_counted() -> None:
    """Seven leaking patients are fourteen rows."""
    leaky = records([str(i // 2) for i in range(14)], split=["train", "test"] * 7)
    with pytest.raises(
        DataLeakageError, match=r"7 patients .* rows 1, 2, 3, 4, 5|rows (\d+, ){5}\.\.\."
    ):
        check_overlap(leaky)


def test_a_patient_at_two_sites_is_refused_unless_patients_are_shared() -> None:
    """Two hospitals of a simulation must not train and test on one person unknowingly."""
    moved = records(["a", "a"], ["nord", "west"], ["train", "train"])
    with pytest.raises(
        DataLeakageError, match=r"at two sites \(nord: train; west: train.*patient_per_site"
    ):
        check_overlap(moved)
    check_overlap(moved, shared_patients=True)


def test_a_shared_patient_still_stands_in_one_split_only() -> None:
    """Trained on at one hospital and tested on at the other is a leak, agreed or not."""
    with pytest.raises(DataLeakageError, match="in two splits"):
        check_overlap(
            records(["a", "a"], ["nord", "west"], ["train", "test"]), shared_patients=True
        )


@pytest.mark.parametrize(
    ("site", "split", "where"),
    [
        (["nord", "nord"], ["train", "test"], "in two splits"),
        (["nord", "west"], ["train", "train"], "at two sites"),
    ],
)
def test_one_image_under_two_patients_is_found_by_its_pixels(site, split, where) -> None:
    """Ids are typed by people; pixels are not."""
    with pytest.raises(DataLeakageError, match=f"1 image {where}"):
        check_overlap(records(["a", "b"], site, split, pixels=[5, 5]))


def test_repeats_inside_one_split_of_one_site_are_no_leak() -> None:
    """Two films of a patient, or one film twice, on the same side of every comparison."""
    check_overlap(records(["a", "a", "b"], ["nord"] * 3, ["train"] * 3, pixels=[1, 1, 2]))


def test_records_without_sites_and_splits_have_nothing_to_leak_between() -> None:
    """The gate also runs on a source before it is dealt out."""
    check_overlap(records(["a", "a", "b"]))
