import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrad.config import Task
from fedrad.data import PARTITIONERS
from fedrad.data.base import Records, hashes
from fedrad.data.checks.overlap import check_overlap
from fedrad.data.partition import dirichlet, iid, prevalence, quantity
from fedrad.data.splits import patient_labels
from fedrad.errors import ConfigError, DataError

BINARY = Task(name="binary", labels=("lesion",), input=(1,))
OPTIONS = {
    "dirichlet": {"sites": 4, "alpha": 1.0},
    "iid": {"sites": 4},
    "prevalence": {"sites": 4, "low": 0.2, "high": 0.6},
    "quantity": {"sites": 4, "alpha": 1.0},
}


def records(patients: int = 200, share: float = 0.4, seed: int = 0) -> Records:
    """Patients with one to three rows, all of a patient's rows with its label."""
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    label = rng.permutation(patients) < round(share * patients)
    n = len(of)
    return Records(
        np.arange(n, dtype=np.float32)[:, None],
        label[of, None].astype(np.float32),
        hashes(map(str, of)),
        None,
        np.array(["train", "test"])[of % 2],
        np.arange(n, dtype=np.uint64),
    )


def test_every_partition_is_tried_here() -> None:
    """A new partition joins the laws below."""
    assert OPTIONS.keys() == PARTITIONERS.keys()


@pytest.mark.parametrize("name", OPTIONS)
@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_a_patient_is_at_one_site_and_every_site_has_one(name, seed) -> None:
    """The leak gate passes after any partition, and keeps the source's splits."""
    source = records()
    dealt = PARTITIONERS[name](source, BINARY, seed=seed, **OPTIONS[name])
    check_overlap(dealt)
    assert sorted(set(dealt.site)) == ["site-1", "site-2", "site-3", "site-4"]
    rows = dealt.x[:, 0].astype(int)
    assert (dealt.split == source.split[rows]).all()
    if name != "prevalence":
        assert len(dealt) == len(source)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_same_seed_deals_the_same_sites_and_another_seed_others(name) -> None:
    """A partition is part of the experiment's text."""
    one, again, other = (
        PARTITIONERS[name](records(), BINARY, seed=seed, **OPTIONS[name]) for seed in (1, 1, 2)
    )
    assert (one.site == again.site).all()
    assert len(one) != len(other) or (one.site != other.site).any()


@pytest.mark.parametrize("name", OPTIONS)
def test_more_sites_than_patients_are_refused(name) -> None:
    """Each site needs a patient."""
    options = OPTIONS[name] | {"sites": 7}
    with pytest.raises(ConfigError, match="sites: found 7; fits 1 to 6, the patients"):
        PARTITIONERS[name](records(patients=6, share=0.5), BINARY, **options)


def patients_at(dealt: Records) -> list[int]:
    return [len(np.unique(dealt.patient[dealt.site == s])) for s in np.unique(dealt.site)]


def shares_at(dealt: Records) -> list[float]:
    """Share of positive patients at each site."""
    at = [dealt.site == site for site in np.unique(dealt.site)]
    return [patient_labels(dealt.y[rows], dealt.patient[rows])[1].mean() for rows in at]


def test_iid_sites_have_equal_numbers_of_patients() -> None:
    """200 patients at 3 sites are 67, 67 and 66."""
    assert sorted(patients_at(iid(records(), BINARY, sites=3))) == [66, 67, 67]


def test_sites_get_names_that_sort_as_numbers() -> None:
    """Ten sites are site-01 to site-10: sorted order is counting order."""
    names = np.unique(iid(records(), BINARY, sites=10).site).tolist()
    assert (names[0], names[1], names[-1]) == ("site-01", "site-02", "site-10")


def test_dirichlet_goes_from_one_class_a_site_to_alike_sites() -> None:
    """alpha towards 0 gives disjoint labels, towards infinity the pool's share everywhere."""
    skewed = shares_at(dirichlet(records(), BINARY, sites=2, alpha=0.02, seed=3))
    assert all(share < 0.05 or share > 0.95 for share in skewed)
    alike = dirichlet(records(), BINARY, sites=4, alpha=1e6)
    np.testing.assert_allclose(shares_at(alike), 0.4, atol=0.02)
    assert patients_at(alike) == [50, 50, 50, 50]


def test_quantity_goes_from_unequal_to_equal_sizes_and_keeps_the_labels_share() -> None:
    """Only sizes differ; labels differ by chance alone."""
    assert max(patients_at(quantity(records(), BINARY, sites=4, alpha=0.3))) > 100
    assert patients_at(quantity(records(), BINARY, sites=4, alpha=1e6)) == [50, 50, 50, 50]
    shares = shares_at(quantity(records(2000), BINARY, sites=2, alpha=5.0))
    np.testing.assert_allclose(shares, 0.4, atol=0.05)


def test_prevalence_gives_equal_sites_of_the_shares_asked_for() -> None:
    """80 positive, 120 negative, shares 0.1 and 0.9: m = min(80 / 1, 120 / 1) = 80 a site."""
    dealt = prevalence(records(), BINARY, shares=[0.1, 0.9])
    assert patients_at(dealt) == [80, 80]
    assert shares_at(dealt) == pytest.approx([0.1, 0.9])


@given(shares=st.lists(st.floats(0, 1), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_prevalence_is_met_to_within_half_a_patient(shares) -> None:
    """Whatever the shares, a site has round(share * size) positive patients."""
    dealt = prevalence(records(), BINARY, shares=shares)
    size = patients_at(dealt)[0]
    assert patients_at(dealt) == [size] * len(shares)
    np.testing.assert_allclose(shares_at(dealt), shares, atol=0.5 / size + 1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give shares, or sites with low and high"),
        ({"shares": [0.1], "sites": 2}, "1 shares for 2 sites"),
        ({"shares": [1.2]}, "shares are from 0 to 1"),
    ],
)
def test_shares_that_do_not_fit_are_refused(options, message) -> None:
    """Each message once."""
    with pytest.raises(ConfigError, match=message):
        prevalence(records(), BINARY, **options)


def test_prevalence_of_other_tasks_is_refused_and_too_few_positives_are_told() -> None:
    """There is one prevalence in a binary task only."""
    with pytest.raises(ConfigError, match="binary task, found multiclass"):
        prevalence(records(), Task(name="multiclass", labels=("a", "b"), input=(1,)), shares=[0.5])
    with pytest.raises(DataError, match="0 positive and 200 negative patients are too few"):
        prevalence(records(share=0), BINARY, shares=[1.0, 0.9])


def test_a_site_that_always_stays_empty_is_an_error_and_not_an_empty_site() -> None:
    """alpha 0.001 gives all to one site; there is no fair way to mend that silently."""
    with pytest.raises(
        DataError, match="some of 5 sites always got no patient; take a larger alpha"
    ):
        quantity(records(10), BINARY, sites=5, alpha=1e-3)
    with pytest.raises(ConfigError, match="alpha: found 0; must be above 0"):
        dirichlet(records(), BINARY, sites=2, alpha=0)


def test_a_multiclass_patient_counts_by_its_most_frequent_class() -> None:
    """Patients of class 2 (most images) go together when alpha is tiny, whatever else they have."""
    n = 60
    y = np.tile([2.0, 2.0, 0.0], n)
    y[90:] = np.tile([1.0, 1.0, 0.0], n // 2)
    source = Records(
        np.zeros((3 * n, 1)), y[:, None].astype(np.float32),
        hashes(str(i // 3) for i in range(3 * n)), None, None, None,
    )  # fmt: skip
    task = Task(name="multiclass", labels=("a", "b", "c"), input=(1,))
    dealt = dirichlet(source, task, sites=2, alpha=0.01, seed=1)
    for site in np.unique(dealt.site):
        counts = [(dealt.y[dealt.site == site] == one).sum() for one in (1, 2)]
        assert min(counts) <= 4


def test_multilabel_patients_and_unread_ones_are_dealt_too() -> None:
    """The rarest finding stands for a patient; one that nobody read is a class of its own."""
    rng = np.random.default_rng(0)
    y = (rng.random((100, 3)) < [0.5, 0.1, 0.3]).astype(np.float32)
    y[:10] = np.nan
    task = Task(name="multilabel", labels=("a", "b", "c"), input=(1,))
    source = Records(np.zeros((100, 1)), y, hashes(map(str, range(100))), None, None, None)
    dealt = dirichlet(source, task, sites=2, alpha=1e6)
    rare = [np.nansum(dealt.y[dealt.site == site, 1]) for site in np.unique(dealt.site)]
    assert abs(rare[0] - rare[1]) <= 1
