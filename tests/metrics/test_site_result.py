"""What a site tells: the same numbers back from a message, and nothing of too few patients."""

import numpy as np
import pytest

from fedrad.config import Task
from fedrad.core.state import all_finite
from fedrad.metrics import METRICS
from fedrad.metrics.base import Array, sample
from fedrad.metrics.cells import cells_of, from_array, log_odds
from fedrad.metrics.pooling import pooled_metric
from fedrad.metrics.site_result import (
    FULL_DISCLOSURE,
    Disclosed,
    Disclosure,
    SiteResult,
    hospital_disclosure,
    result_of,
)

BINARY = Task(name="binary", labels=("lesion",), input=(1, 8, 8))
GRADES = Task(name="multiclass", labels=("none", "mild", "severe"), input=(1, 8, 8))
FINDINGS = Task(name="multilabel", labels=("oedema", "effusion"), input=(1, 8, 8))
HOSPITAL = hospital_disclosure()
EDGES = {"sensitivity": np.zeros(3)}


def normal(purpose: str, count: int) -> Array:
    return np.random.default_rng(len(purpose)).standard_normal(count)


def scored(task: Task, n: int, seed: int = 0, shift: float = 0.0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, task.outputs)) + shift
    if task.name == "multiclass":
        y = rng.integers(0, 3, (n, 1)).astype(float)
        scores = np.exp(logits + 2 * (y == np.arange(3)))
        return scores / scores.sum(axis=1, keepdims=True), y
    y = (rng.random((n, task.columns)) < 0.4).astype(float)
    return 1 / (1 + np.exp(-logits - 1.5 * y)), y


def told(
    task: Task,
    scores: Array,
    y: Array,
    *,
    patient: Array | None = None,
    disclosure: Disclosure = FULL_DISCLOSURE,
    draws: int = 0,
) -> SiteResult:
    edges = {"sensitivity": np.zeros(task.outputs)}
    return result_of(
        task,
        [builder(task) for builder in METRICS.values()],
        sample(task, scores, y, thresholds=edges),
        np.arange(len(y)) if patient is None else patient,
        draws=draws,
        normal=normal,
        disclosure=disclosure,
    )


@pytest.mark.parametrize("task", [BINARY, GRADES, FINDINGS], ids=lambda task: task.name)
@pytest.mark.parametrize("disclosure", [FULL_DISCLOSURE, HOSPITAL], ids=["simulated", "hospital"])
def test_a_result_is_the_same_after_its_way_through_a_message(task, disclosure):
    """All arrays of a message are finite; what is not told is marked, not sent as nan."""
    scores, y = scored(task, 60)
    y[:2] = np.nan
    found = told(task, scores, y, disclosure=disclosure, draws=10)
    state = found.as_state(disclosure.most_cells)
    assert all_finite({"result": state})
    again = SiteResult.from_state(state)
    for name, values in found.parts.items():
        np.testing.assert_array_equal(values, again.parts[name])
        np.testing.assert_array_equal(found.told[name], again.told[name])
        np.testing.assert_array_equal(found.denominators[name], again.denominators[name])
    for name, values in found.tables.items():
        np.testing.assert_array_equal(values, again.tables[name])
    np.testing.assert_array_equal(found.counts, again.counts)
    assert (found.images, found.patients) == (again.images, again.patients) == (60, 60)
    for pair, other in zip(found.cells, again.cells, strict=True):
        for one, two in zip(pair, other, strict=True):
            for name in ("lower", "upper", "mean", "images"):
                np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


@pytest.mark.parametrize("n", [0, 3, 60, 700])
def test_a_hospital_s_arrays_have_one_length_whatever_it_has(n):
    """So a preview knows them, and their length tells nothing."""
    shapes = {k: v.shape for k, v in told(BINARY, *scored(BINARY, n), disclosure=HOSPITAL)
              .as_state(HOSPITAL.most_cells).items()}  # fmt: skip
    empty = {k: v.shape for k, v in told(BINARY, *scored(BINARY, 0), disclosure=HOSPITAL)
             .as_state(HOSPITAL.most_cells).items()}  # fmt: skip
    assert shapes == empty


def test_on_one_machine_a_cell_is_a_score():
    """Nothing is lost: the cells' means are the scores."""
    scores, y = scored(BINARY, 40)
    negative, positive = told(BINARY, scores, y).cells[0]
    np.testing.assert_allclose(negative.mean, np.sort(log_odds(scores[y == 0])))
    np.testing.assert_allclose(positive.mean, np.sort(log_odds(scores[y == 1])))


@pytest.mark.parametrize("images_each", [1, 3])
@pytest.mark.parametrize("n", [4, 5, 12, 300])
def test_no_cell_holds_fewer_patients_than_allowed(n, images_each):
    """Counted again from the ends that are told; images of one patient are one."""
    rng = np.random.default_rng(n)
    scores, patient = rng.normal(size=n * images_each), np.arange(n).repeat(images_each)
    cells = cells_of(scores, patient, min_cell=5, most=256)
    assert (len(cells) > 0) == (n >= 5)
    for lower, upper, images in zip(cells.lower, cells.upper, cells.images, strict=True):
        inside = (scores > lower) & (scores < upper)
        # Ends are rounded to four digits, beyond which no two of these scores come near.
        assert inside.sum() == images and len(np.unique(patient[inside])) >= 5


@pytest.mark.parametrize("seed", range(5))
def test_no_patient_has_more_than_half_of_a_cell(seed):
    """Some patients have very many images; the leftover at the end keeps to it, too."""
    rng = np.random.default_rng(seed)
    patient = np.arange(60).repeat(rng.zipf(1.6, 60).clip(1, 80))
    scores = rng.normal(size=60)[patient] + rng.normal(0, 0.2, len(patient))
    cells = cells_of(scores, patient, min_cell=5)
    assert len(cells) > 1 and cells.images.sum() == len(patient)
    ends = np.cumsum(cells.images)[:-1].astype(int)
    for inside in np.split(patient[np.argsort(scores)], ends):
        each = np.unique(inside, return_counts=True)[1]
        assert len(each) >= 5 and 2 * each.max() <= each.sum()


def test_a_leftover_of_one_patient_takes_as_many_cells_as_hide_it():
    """Six patients, then seven, then nine images of one: no end parts the nine from the seven."""
    patient = np.concatenate([np.arange(6), np.arange(6, 13), np.full(9, 13)])
    cells = cells_of(np.arange(22.0), patient, min_cell=5)
    assert cells.images.tolist() == [22] and np.isinf([*cells.lower, *cells.upper]).all()
    alike = cells_of(np.arange(22.0), np.arange(22), min_cell=5)
    assert alike.images.tolist() == [5, 5, 5, 7]


def test_an_end_parts_its_cells_however_near_their_scores_are():
    """Scores a thousandth of the last digit apart: a rounded end would lie beyond some of them."""
    scores = 0.12346 + np.arange(40) * 1e-7
    cells = cells_of(scores, np.arange(40), min_cell=5)
    inside = [
        ((scores > a) & (scores < b)).sum() for a, b in zip(cells.lower, cells.upper, strict=True)
    ]
    assert inside == cells.images.tolist() == [5] * 8
    wide = cells_of(scores * 1e6, np.arange(40), min_cell=5)
    assert (wide.upper[:-1] == wide.upper[:-1].round(4)).all()


def test_equal_scores_are_never_parted():
    """Else a cell's end would cut through a tie, and an order would be made up."""
    scores = np.array([0.0] * 7 + [1.0] * 2 + [2.0] * 6)
    cells = cells_of(scores, np.arange(15), min_cell=5)
    assert cells.images.tolist() == [7, 8] and cells.lower.tolist() == [-np.inf, 0.5]
    assert len(from_array(cells.as_array(256))) == 2


def test_what_rests_on_few_patients_of_a_class_is_kept_back():
    """Four positives: AUROC would say where each ranks; accuracy is over all 60."""
    scores, y = scored(BINARY, 60)
    y[:] = 0
    y[:4] = 1
    found = told(BINARY, scores, y, disclosure=HOSPITAL)
    kept = {name for name, why in found.told.items() if (why == Disclosed.WITHHELD).all()}
    assert kept == {
        "auroc", "auprc", "sensitivity", "balanced_accuracy", "kappa_linear", "kappa_quadratic",
    }  # fmt: skip
    assert (found.counts == -1).all() and found.cells[0][1].images.sum() == 0
    assert np.isfinite(found.parts["accuracy"]).all()
    # One patient with ten films is one patient.
    y[:] = 0
    y[:10] = 1
    patient = np.concatenate([np.zeros(10), np.arange(1, 51)])
    again = told(BINARY, scores, y, patient=patient, disclosure=HOSPITAL)
    assert (again.told["auroc"] == Disclosed.WITHHELD).all()


def test_of_fewer_patients_than_allowed_nothing_is_told():
    """But their number."""
    found = told(BINARY, *scored(BINARY, 4), disclosure=HOSPITAL, draws=5)
    assert all((why == Disclosed.WITHHELD).all() for why in found.told.values())
    state = found.as_state(HOSPITAL.most_cells)
    others = {name: float(a.double().abs().sum()) for name, a in state.items()
              if not name.startswith(("told/", "counts", "size", "table/"))}  # fmt: skip
    assert set(others.values()) == {0.0}


def test_a_finding_of_few_patients_is_left_out_and_the_others_stay():
    """Each finding is one of its own."""
    scores, y = scored(FINDINGS, 60)
    y[:, 1] = 0
    y[:3, 1] = 1
    found = told(FINDINGS, scores, y, disclosure=HOSPITAL)
    assert found.told["auroc"].tolist() == [Disclosed.VALUE, Disclosed.WITHHELD]


def test_the_fullest_bin_is_told_of_many_patients_and_not_of_one_with_most_of_its_images():
    """Where a collapsed model puts everybody: no patient's own place."""
    scores, y = np.r_[np.full(45, 0.3), np.linspace(0.4, 0.9, 15)], np.arange(60.0) % 2
    by_one = np.where(np.arange(60) < 40, 0, np.arange(60))
    ways = {
        "many": np.arange(60),
        "four": np.r_[np.arange(45) % 4, np.arange(45, 60)],
        "one": by_one,
    }
    shares = {
        way: told(BINARY, scores[:, None], y[:, None], patient=who, disclosure=HOSPITAL).fullest[0]
        for way, who in ways.items()
    }
    assert shares["many"][1] == 0.75 and shares["many"][0] > 0
    assert not shares["four"].any() and not shares["one"].any()
    here = told(BINARY, scores[:, None], y[:, None], patient=by_one).fullest[0]
    assert here[1] == 0.75, "on one machine all is told"


def test_values_are_rounded():
    """The last digits of a mean over known candidates would say which of them are in it."""
    found = told(BINARY, *scored(BINARY, 60), disclosure=HOSPITAL)
    for values in found.parts.values():
        np.testing.assert_array_equal(values, values.round(4))


# What several sites have together.


def exact(name: str, task: Task, *parts: tuple[Array, Array]) -> float:
    scores, y = (np.concatenate(one) for one in zip(*parts, strict=True))
    edges = {"sensitivity": np.zeros(task.outputs)}
    return float(METRICS[name](task).value(sample(task, scores, y, thresholds=edges))[0])


@pytest.mark.parametrize("task", [BINARY, GRADES, FINDINGS], ids=lambda task: task.name)
@pytest.mark.parametrize("name", sorted(METRICS))
def test_on_one_machine_a_pooled_metric_is_that_of_the_pooled_images(name, task):
    """To rounding: two sites with another mix of classes and other scores."""
    parts = scored(task, 80, 1), scored(task, 50, 2, shift=0.5)
    results = [told(task, *part) for part in parts]
    found = pooled_metric(METRICS[name](task), results, draws=0)
    assert found.values[0] == pytest.approx(exact(name, task, *parts))
    assert found.bound == 0


def test_two_sites_at_auroc_one_can_pool_to_three_quarters():
    """Each ranks its own pair rightly, but a's positive (0.2) lies below b's negative (0.3).

    So 3 of the 4 pooled pairs are in order. Averaging the sites' AUROCs would say 1.
    """
    y = np.array([[0.0], [1.0]])
    a, b = (told(BINARY, np.array(s), y) for s in ([[0.1], [0.2]], [[0.3], [0.9]]))
    metric = METRICS["auroc"](BINARY)
    assert [pooled_metric(metric, one, draws=0).values[0] for one in ([a], [b], [a, b])] == [
        1,
        1,
        0.75,
    ]


@pytest.mark.parametrize("name", ["auroc", "auprc"])
@pytest.mark.parametrize("seed", range(4))
def test_from_hospitals_it_is_that_of_all_scores_within_its_bound(name, seed):
    """Cells of five patients: the bound is what moving them within their cells can do."""
    parts = [scored(BINARY, n, seed + k, shift=0.3 * k) for k, n in enumerate((60, 90, 150))]
    results = [told(BINARY, *part, disclosure=HOSPITAL) for part in parts]
    found = pooled_metric(METRICS[name](BINARY), results, draws=0)
    error = abs(found.values[0] - exact(name, BINARY, *parts))
    assert error <= found.bound
    assert error < 0.03 and 0.005 < found.bound < 0.3


def test_what_one_hospital_keeps_back_the_pool_does_not_have():
    """Over the others it would be another number."""
    many, few = scored(BINARY, 60), scored(BINARY, 12)
    few[1][:] = 0
    few[1][0] = 1
    results = [told(BINARY, *many, disclosure=HOSPITAL), told(BINARY, *few, disclosure=HOSPITAL)]
    found = pooled_metric(METRICS["auroc"](BINARY), results, draws=3)
    assert np.isnan(found.values).all() and found.withheld == (1,)
    assert np.isfinite(pooled_metric(METRICS["accuracy"](BINARY), results, draws=3).values[0])


def test_a_class_of_which_one_patient_has_most_images_has_no_pooled_rank():
    """Without the cells of one site the pool would be over the others alone, and not say so."""
    many, one = scored(BINARY, 60), scored(BINARY, 60)
    patient = np.arange(60)
    patient[np.flatnonzero(one[1] == 1)[4:]] = 1_000
    results = [
        told(BINARY, *many, disclosure=HOSPITAL),
        told(BINARY, *one, patient=patient, disclosure=HOSPITAL),
    ]
    assert pooled_metric(METRICS["auroc"](BINARY), results, draws=3).withheld == (1,)
    assert np.isfinite(pooled_metric(METRICS["accuracy"](BINARY), results, draws=3).values[0])


@pytest.mark.parametrize("name", ["auroc", "accuracy", "kappa_linear"])
def test_pooled_draws_have_the_spread_of_a_resample_of_all_patients(name):
    """Within the sites, whose numbers of patients are given; 400 resamples, 4,000 draws."""
    parts = [scored(BINARY, n, 5 + k) for k, n in enumerate((150, 100))]
    results = [told(BINARY, *part, draws=4_000) for part in parts]
    spread = pooled_metric(METRICS[name](BINARY), results, draws=4_000).values[1:].std()
    rng, again = np.random.default_rng(0), []
    for _ in range(400):
        drawn = [rng.integers(0, len(y), len(y)) for _, y in parts]
        resampled = [(s[at], y[at]) for (s, y), at in zip(parts, drawn, strict=True)]
        again.append(exact(name, BINARY, *resampled))
    assert spread == pytest.approx(np.std(again), rel=0.2)


def test_the_positive_patients_of_a_calibration_bin_are_not_told_where_they_are_few():
    """All of one bin: with one bin the count of a class is the site's, also of two patients."""
    scores = np.full((40, 1), 0.37123456789)
    table = "table/calibration-15"
    for positives, known in ((2, False), (20, True), (38, False), (40, True)):
        y = (np.arange(40) < positives).astype(float)[:, None]
        found = told(BINARY, scores, y, disclosure=HOSPITAL).as_state()[table].numpy()
        assert bool((found >= 0).all()) == known
        if known:
            inside = found.reshape(15, 3)[5]
            assert inside.tolist() == [40, round(40 * 0.37123456789, 4), positives]
