import json

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from fedrad.config import Task
from fedrad.data.base import SiteData
from fedrad.data.heterogeneity import heterogeneity

BINARY = Task(name="binary", labels=("lesion",), input=(1,))
CLASSES = Task(name="multiclass", labels=("a", "b", "c"), input=(1,))
FINDINGS = Task(name="multilabel", labels=("mass", "haze"), input=(1,))


def site(name: str, y) -> SiteData:
    y = np.array(y, dtype=np.float32)
    y = y[:, None] if y.ndim == 1 else y
    rows = {"train": np.arange(len(y)), "val": np.arange(0), "test": np.arange(0)}
    return SiteData(name, np.zeros((len(y), 1)), y, np.arange(len(y)), rows)


def of(task: Task, **labels):
    return heterogeneity({name: site(name, y) for name, y in labels.items()}, task)


def test_distances_are_scipys_for_classes() -> None:
    """The same quantity: the square root of the divergence in bits."""
    found = of(CLASSES, one=[0, 0, 1, 2], other=[2, 2, 2, 1, 0])
    expected = jensenshannon([0.5, 0.25, 0.25], [0.2, 0.2, 0.6], base=2)
    assert found.jensen_shannon[0, 1] == pytest.approx(expected, abs=1e-12)
    assert found.label_share["other"] == {"a": 0.2, "b": 0.2, "c": 0.6}


def test_distances_of_findings_are_the_root_mean_square_of_each_findings() -> None:
    """Findings are not exclusive: each has a distribution of its own over 0 and 1."""
    found = of(FINDINGS, one=[[0, 1], [1, 1]], other=[[0, 0], [0, 1]])
    mass = jensenshannon([0.5, 0.5], [1, 0], base=2)
    haze = jensenshannon([0, 1], [0.5, 0.5], base=2)
    assert found.jensen_shannon[0, 1] == pytest.approx(np.sqrt((mass**2 + haze**2) / 2))


def test_the_distance_is_symmetric_zero_for_equals_and_one_for_disjoint() -> None:
    """It is a metric on label distributions, scaled to 1."""
    found = of(BINARY, none=[0, 0], all=[1], none_too=[0])
    np.testing.assert_allclose(found.jensen_shannon, [[0, 1, 0], [1, 0, 1], [0, 1, 0]])


def test_labels_that_nobody_read_do_not_count() -> None:
    """nan is neither positive nor negative."""
    found = of(BINARY, one=[1, 0, np.nan, np.nan], unread=[np.nan])
    assert found.label_share["one"] == {"lesion": 0.5}
    assert np.isnan(found.jensen_shannon[0, 1])
    assert found.as_json()["label_share"]["unread"] == {"lesion": None}


def test_equal_sites_have_gini_zero_and_count_fully() -> None:
    """Four equal sites are four effective ones."""
    found = of(BINARY, a=[0] * 5, b=[0] * 5, c=[0] * 5, d=[1] * 5)
    assert (found.size_gini, found.effective_sites) == (0, pytest.approx(4))


def test_one_site_with_nearly_everything_counts_as_one() -> None:
    """Gini is sum |x_i - x_j| / (2 n sum x) = 4 * 97 / (2 * 3 * 100) for 98, 1, 1."""
    found = of(BINARY, a=[0] * 98, b=[0], c=[0])
    assert found.size_gini == pytest.approx(4 * 97 / 600)
    assert found.effective_sites == pytest.approx(1 / (0.98**2 + 2 * 0.01**2))


def test_the_json_form_has_no_nan() -> None:
    """results.json must be readable by parsers that know no NaN."""
    found = of(BINARY, a=[0], empty=np.zeros((0, 1)))
    text = json.dumps(found.as_json(), allow_nan=False)
    assert json.loads(text)["label_share"]["empty"] == {"lesion": None}


def test_the_gini_is_that_of_all_pairs_without_a_table_of_them() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 200, 50)
    found = of(BINARY, **{f"s{n:02d}": [0.0] * size for n, size in enumerate(sizes)})
    gaps = np.abs(sizes[:, None] - sizes[None, :]).sum()
    assert found.size_gini == pytest.approx(gaps / (2 * 50 * sizes.sum()), abs=1e-15)


@pytest.mark.parametrize(
    ("count", "told", "compared"), [(100, True, True), (101, False, True), (1001, False, False)]
)
def test_of_many_sites_the_largest_distance_is_told_or_none(
    count: int, told: bool, compared: bool
) -> None:
    """Pairs grow with the square: of ten thousand sites they would not fit the memory."""
    labels = {f"s{n}": [0.0, 1.0] for n in range(count)} | {"odd": [1.0, 1.0]}
    del labels["s0"]
    found = of(BINARY, **labels).as_json()
    assert (found["jensen_shannon"] is not None) == told
    expected = jensenshannon([0.5, 0.5], [0, 1], base=2)
    assert found["farthest"] == (pytest.approx(expected) if compared else None)
