from dataclasses import replace

import numpy as np
import pytest
from made_records import records

from fedrad.data.base import (
    SPLITS,
    Records,
    SiteData,
    at_site,
    pooled_site,
    select,
    sites_of,
)
from fedrad.data.splits import assign_splits
from fedrad.errors import DataError


def test_sites_share_the_sources_arrays_and_divide_its_rows() -> None:
    """Forty simulated sites must not hold forty copies of the images."""
    one = assign_splits(records(), val=0.2, test=0.2, seed=0)
    sites = sites_of(one)
    assert list(sites) == ["nord", "west"]
    assert all(site.x is one.x and site.y is one.y for site in sites.values())
    rows = np.concatenate([site.rows[split] for site in sites.values() for split in SPLITS])
    assert sorted(rows) == list(range(len(one)))
    nord = sites["nord"]
    assert nord.images("test") == ((one.site == "nord") & (one.split == "test")).sum()
    assert nord.patients("train") == len(np.unique(one.patient[nord.rows["train"]]))


@pytest.mark.parametrize("column", ["site", "split"])
def test_sites_need_sites_and_splits(column) -> None:
    """What is missing is said with what would fit."""
    one = assign_splits(records(), val=0.2, test=0.2, seed=0)
    with pytest.raises(DataError, match=f"name no {column}s: give a {column} column"):
        sites_of(Records(one.x, one.y, one.patient, **{"site": one.site, "split": one.split,
                 "pixels": None} | {column: None}))  # fmt: skip


def test_pooling_sites_of_one_source_copies_nothing_and_keeps_every_row() -> None:
    """Centralised training is over exactly the rows that the sites train on."""
    sites = sites_of(assign_splits(records(), val=0.2, test=0.2, seed=0))
    one = pooled_site(list(sites.values()), "pooled")
    assert one.x is sites["nord"].x
    for split in SPLITS:
        rows = np.concatenate([site.rows[split] for site in sites.values()])
        assert (one.rows[split] == np.sort(rows)).all()


def test_pooling_sites_of_two_sources_is_the_same_as_pooling_them_in_one() -> None:
    """Where the arrays lie must not matter to what is in a split."""
    one = assign_splits(records(), val=0.2, test=0.2, seed=0)
    apart = [sites_of(select(one, one.site == name))[name] for name in ("nord", "west")]
    joined, shared = (
        pooled_site(apart, "pooled"),
        pooled_site(list(sites_of(one).values()), "pooled"),
    )
    for split in SPLITS:
        for name in ("x", "y", "patient"):
            mine = getattr(joined, name)[joined.rows[split]]
            other = getattr(shared, name)[shared.rows[split]]
            assert sorted(mine.ravel()) == sorted(other.ravel())
        rows = joined.rows[split]
        # The columns of one row stay together: age is the patient's, x the row's own.
        ages = dict(zip(one.x[:, 0], one.attributes["age"], strict=True))
        assert [ages[x] for x in joined.x[rows, 0]] == joined.attributes["age"][rows].tolist()


def test_sites_of_different_shapes_cannot_be_pooled() -> None:
    """Images of 32 and 64 pixels have no common array."""
    rows = {split: np.arange(1) for split in SPLITS}
    sites = [
        SiteData(str(size), np.zeros((1, 1, size, size)), np.zeros((1, 1)), np.zeros(1), rows)
        for size in (32, 64)
    ]
    with pytest.raises(DataError, match=r"different shapes.*32 \[1, 32, 32\], 64 \[1, 64, 64\]"):
        pooled_site(sites, "pooled")


def test_selected_rows_keep_their_numbers_in_the_source() -> None:
    """A message after a filter must still name the row of the file."""
    twice = select(select(records(10), np.array([2, 5, 7])), np.array([2, 0]))
    assert twice.row.tolist() == [8, 3]
    assert twice.x[:, 0].tolist() == [7, 2]


def test_a_hospitals_own_table_is_all_at_its_site() -> None:
    """A hospital's file names no site; its site file does."""
    assert set(at_site(records(), "ost").site) == {"ost"}


def labelled(y: list[list[float]]) -> Records:
    """Four rows of one site, two to train on and one in each other split."""
    n = len(y)
    return Records(
        x=np.arange(n, dtype=np.float32)[:, None],
        y=np.array(y, np.float32),
        patient=np.arange(n, dtype=np.uint64),
        site=np.full(n, "nord"),
        split=np.array(["train", "train", "val", "test"][:n]),
        pixels=None,
    )


def test_a_row_without_any_label_is_in_no_split_and_is_counted() -> None:
    """It can neither teach nor test; a row with one of two findings read can do both."""
    nan = np.nan
    data = sites_of(labelled([[nan, nan], [nan, 1], [nan, nan], [0, 1]]))["nord"]
    assert {split: list(rows) for split, rows in data.rows.items()} == {
        "train": [1],
        "val": [],
        "test": [3],
    }
    assert data.unlabelled == 2


@pytest.mark.parametrize("column", ["x", "y", "patient", "split"])
def test_the_digest_of_a_site_changes_with_everything_that_its_results_rest_on(column: str) -> None:
    records = labelled([[0.0], [1.0], [0.0], [1.0]])
    before = sites_of(records)["nord"].digest
    assert sites_of(labelled([[0.0], [1.0], [0.0], [1.0]]))["nord"].digest == before
    values = getattr(records, column).copy()
    values[0] = "val" if column == "split" else values[0] + 1
    assert sites_of(replace(records, **{column: values}))["nord"].digest != before


def test_where_pixels_have_fingerprints_they_stand_for_the_images() -> None:
    """So a large archive is not read twice; a changed image has another fingerprint."""
    records = labelled([[0.0], [1.0], [0.0], [1.0]])
    prints = np.arange(4, dtype=np.uint64)
    one, other = (
        sites_of(replace(records, pixels=pixels))["nord"].digest for pixels in (prints, prints + 1)
    )
    assert one != other
