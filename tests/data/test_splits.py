import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_records import records

from fedrad.data.base import SPLITS, Records, hashes, select
from fedrad.data.splits import assign_splits, patient_labels
from fedrad.errors import ConfigError


@given(
    n=st.integers(4, 80),
    val=st.floats(0, 0.45),
    test=st.floats(0, 0.45),
    seed=st.integers(0, 9),
)
@settings(max_examples=50, deadline=None)
def test_every_patient_gets_one_split_wherever_it_is_seen(n, val, test, seed) -> None:
    """A patient in train and test would be recognised, not diagnosed."""
    drawn = assign_splits(records(n, seed), val=val, test=test, seed=seed)
    for patient in np.unique(drawn.patient):
        assert len(set(drawn.split[drawn.patient == patient])) == 1


def test_a_patient_of_two_sites_gets_one_split_at_both() -> None:
    """Training at one site on a patient that another tests on is a leak too."""
    n = 200
    two = Records(
        np.zeros((n, 1)), np.zeros((n, 1)), hashes(str(i // 2) for i in range(n)),
        np.array(["nord", "west"] * (n // 2)), None, None,
    )  # fmt: skip
    split = assign_splits(two, val=0.2, test=0.2, seed=3).split
    assert (split[::2] == split[1::2]).all()


def test_splits_have_the_shares_asked_for_and_each_labels_share() -> None:
    """100 patients, 20 positive, test 0.25 and val 0.2: 25 and 20, with 5 and 4 positives +- 1."""
    y = np.arange(100) % 5 == 0
    one = Records(
        np.zeros((100, 1)), y[:, None].astype(np.float32), hashes(map(str, range(100))),
        None, None, None,
    )  # fmt: skip
    for seed in range(10):
        split = assign_splits(one, val=0.2, test=0.25, seed=seed).split
        assert [(split == name).sum() for name in SPLITS] == [55, 20, 25]
        assert abs(y[split == "test"].sum() - 5) <= 1
        assert abs(y[split == "val"].sum() - 4) <= 1


def test_another_site_does_not_move_a_sites_splits() -> None:
    """A hospital that joins later must not turn the others' test patients into training ones."""
    both = assign_splits(records(), val=0.2, test=0.2, seed=1)
    alone = assign_splits(select(records(), both.site == "nord"), val=0.2, test=0.2, seed=1)
    assert (both.split[both.site == "nord"] == alone.split).all()


def test_the_order_of_rows_does_not_move_a_patient() -> None:
    """A table that is sorted anew holds the same patients."""
    one = records()
    order = np.random.default_rng(5).permutation(len(one))
    drawn = assign_splits(one, val=0.2, test=0.2, seed=1).split
    assert (
        assign_splits(select(one, order), val=0.2, test=0.2, seed=1).split == drawn[order]
    ).all()


def test_shares_that_leave_nothing_to_train_on_are_refused() -> None:
    """val + test = 1 leaves no patient to learn from."""
    with pytest.raises(ConfigError, match=r"val 0\.5 and test 0\.5: .* below 1"):
        assign_splits(records(), val=0.5, test=0.5, seed=0)


def test_a_patients_label_is_the_highest_that_was_read() -> None:
    """A lesion on one of two films is a lesion; nan only where no film was read."""
    y = np.array([[0.0, np.nan], [1.0, np.nan], [np.nan, 0.0]])
    _, labels = patient_labels(y, np.array([1, 1, 2]))
    np.testing.assert_array_equal(labels, [[1.0, np.nan], [np.nan, 0.0]])
