"""Attacks on what a hospital answers when a model is evaluated: nobody's score or label comes out.

Each attack is first shown to succeed where its defence is switched off.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import FastICA
from torch import nn

from fedrad.algorithms.base import Request
from fedrad.algorithms.evaluation import RESULT, evaluation
from fedrad.config import Task
from fedrad.core.state import State
from fedrad.data.base import SiteData
from fedrad.metrics import METRICS
from fedrad.metrics import cells as cells_module
from fedrad.metrics.base import Array, sample
from fedrad.metrics.cells import cells_of, log_odds
from fedrad.metrics.influence import influences
from fedrad.metrics.site_result import FULL_DISCLOSURE, SiteResult, hospital_disclosure, result_of
from fedrad.privacy.noise import SecureGenerator
from fedrad.training.local import LocalTask

TASK = Task(name="binary", labels=("disease",), input=(6,))
PATIENTS = 70
DRAWS = 1000


def hospital(seed: int = 0) -> SiteData:
    """Return 70 test patients with a row each, about 40 % of them sick, as heart disease has."""
    rng = np.random.default_rng(seed)
    y = (rng.random((3 * PATIENTS, 1)) < 0.4).astype(np.float32)
    x = rng.normal(size=(3 * PATIENTS, 6)).astype(np.float32) + y
    rows = {
        s: np.arange(k * PATIENTS, (k + 1) * PATIENTS)
        for k, s in enumerate(("train", "val", "test"))
    }
    return SiteData("nord", x, y, np.arange(3 * PATIENTS).astype(np.uint64), rows)


def model(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1))


def answering(**changes: Any) -> LocalTask:
    """Return the task of a hospital, with its own secret and the shipped rule."""
    given: dict[str, Any] = {
        "site": "nord",
        "seed": 0,
        "task": TASK,
        "data": hospital(),
        "model": model(0),
        "initial": lambda: model(0).state_dict(),
        "metrics": tuple(METRICS[name](TASK) for name in ("auroc", "brier", "accuracy", "loss")),
        "optimizer": "sgd",
        "batch": 16,
        "epochs": 1,
        "disclosure": hospital_disclosure(),
        "secret": b"drawn from the operating system",
    }
    return LocalTask(**(given | changes))


def reply(task: LocalTask, state: State) -> SiteResult:
    """Return what leaves in one `test` reply, as the coordinator reads it."""
    request = Request("nord", 1, {"model": state}, {}, task)
    answer, _ = evaluation(DRAWS)["test"](request)
    return SiteResult.from_state(answer.arrays[RESULT])


def truth(seed: int) -> tuple[Array, Array]:
    """Return the test patients' scores and labels under a model."""
    scores = answering().predict(model(seed).state_dict(), split="test")
    return scores[:, 0], hospital().y[2 * PATIENTS :, 0]


def guessed_draws(metric: str) -> Array:
    """Return the draws that follow from all that a coordinator knows: names, sizes, code."""
    known = answering(secret=b"")
    return (
        SecureGenerator(known._key, f"test {metric}")
        .normal(DRAWS * PATIENTS)
        .reshape(DRAWS, PATIENTS)
    )


def solved(result: SiteResult, metric: str) -> Array:
    """Least squares: which contribution of each patient gives the draws that were told?"""
    told = result.parts[metric][:, 0]
    return np.linalg.lstsq(guessed_draws(metric), told[1:] - told[0], rcond=None)[0]


def contributions(seed: int, metric: str) -> Array:
    scores, y = truth(seed)
    found = sample(TASK, scores[:, None], y[:, None])
    return influences([METRICS[metric](TASK)], found, np.arange(PATIENTS))[metric][1][:, 0]


def likeness(one: Array, other: Array) -> float:
    return float(np.corrcoef(one, other)[0, 1])


@pytest.mark.parametrize("metric", ["brier", "loss", "auroc", "accuracy"])
def test_least_squares_over_draws_recovers_nobody(metric: str) -> None:
    """With known draws it gives every patient's part in the metric; with a secret, chance."""
    state, exact = model(1).state_dict(), contributions(1, metric)
    careless = reply(answering(secret=b"", disclosure=FULL_DISCLOSURE), state)
    assert likeness(solved(careless, metric), exact) > 0.999
    found = likeness(solved(reply(answering(), state), metric), exact)
    # Of 70 patients a chance likeness has a standard deviation of 0.12.
    assert abs(found) < 0.4


def test_a_score_and_its_label_cannot_be_read_off_a_cell() -> None:
    """A cell of one patient is that patient: with cells of one all 70 are read, with five none."""
    scores, y = truth(1)

    def alone(task: LocalTask) -> set[tuple[float, float]]:
        pair = reply(task, model(1).state_dict()).cells[0]
        return {
            (round(float(mean), 6), label)
            for label, cells in enumerate(pair)
            for mean, images in zip(cells.mean, cells.images, strict=True)
            if images < 5
        }

    known = {(round(float(s), 6), int(label)) for s, label in zip(log_odds(scores), y, strict=True)}
    assert alone(answering(disclosure=FULL_DISCLOSURE)) == known
    assert alone(answering()) == set()


def test_no_cell_s_end_is_a_patient_s_score() -> None:
    """Ends lie between two patients; what is below the first and above the last is not told."""
    scores, _ = truth(1)
    for cells in reply(answering(), model(1).state_dict()).cells[0]:
        ends = np.concatenate([cells.lower[1:], cells.upper[:-1]])
        assert np.isinf([cells.lower[0], cells.upper[-1]]).all()
        nearest = np.abs(ends[:, None] - log_odds(scores)).min(axis=1)
        assert (nearest > 0).all()


def test_a_patient_with_most_images_of_a_cell_is_not_that_cell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A patient with 40 of 45 images of a cell: its mean is the patient's score, to a hundredth."""
    rng = np.random.default_rng(4)
    patient = np.concatenate([np.zeros(40, int), np.arange(1, 46)])
    near, others = 2.0 + np.linspace(-0.1, 0.1, 5), rng.normal(0, 0.5, 40)
    scores = np.concatenate([2.0 + rng.normal(0, 0.01, 40), near, others])

    def nearest() -> float:
        found = cells_of(scores, patient, min_cell=5)
        assert found.images.sum() == len(scores)
        return float(np.abs(found.mean - scores[patient == 0].mean()).min())

    assert nearest() > 0.5
    monkeypatch.setattr(cells_module, "_MOST_OF_ONE", 1.0)
    assert nearest() < 0.01


def test_a_table_does_not_tell_the_class_of_a_patient_with_most_of_its_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 45 films that are called sick, 40 are of one patient: the count is about that one."""
    patient = np.concatenate([np.zeros(40, int), np.arange(1, 106)])
    called = np.arange(len(patient)) < 45
    y = (np.arange(len(patient)) % 2 == 0).astype(float)[:, None]
    y[:40] = 1.0
    y[40:45] = 1.0

    def told() -> bool:
        found = result_of(
            TASK,
            [METRICS["kappa_linear"](TASK)],
            sample(TASK, np.where(called, 0.9, 0.1)[:, None], y),
            patient,
            draws=0,
            normal=lambda purpose, count: np.zeros(count),
            disclosure=hospital_disclosure(),
        )
        return all(np.isfinite(table).all() for table in found.tables.values())

    assert not told()
    monkeypatch.setattr(cells_module, "_MOST_OF_ONE", 1.0)
    assert told()


def unmixed(draws: Array) -> Array:
    """Return how like each of 20 patients is to something that component analysis finds.

    The attacker sees the draws of 40 models, paired: more models than patients, and 10,000 draws,
    the most that an experiment may ask for. Independent component analysis looks for the patients
    (Hyvarinen and Oja, Neural Networks 13, 2000).
    """
    parts = np.random.default_rng(3).beta(2, 5, (20, 40)) ** 2
    parts -= parts.mean(axis=0)
    analysis = FastICA(19, fun="cube", whiten="unit-variance", max_iter=1000, random_state=0)
    analysis.fit(draws @ parts / 20)
    return np.abs(np.corrcoef(analysis.mixing_.T, parts)[:19, 19:]).max(axis=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_models_that_share_their_draws_do_not_give_the_patients_away() -> None:
    """Secret resamples with replacement are undone by independent component analysis.

    Their weights are whole numbers, far from normal. Normal draws are what no analysis can take
    apart: any rotation of the patients explains them as well.
    """
    rng = np.random.default_rng(5)
    resamples = rng.multinomial(20, np.full(20, 1 / 20), 10_000).astype(float)
    # Measured: 19 of 20 with resamples; with normal draws none comes above 0.7.
    assert (unmixed(resamples) > 0.9).mean() > 0.5
    assert (unmixed(rng.standard_normal((10_000, 20))) > 0.9).mean() == 0


def patterns(noise: float) -> tuple[Array, Array]:
    """Return right and wrong of one patient under 48 models, as an attacker reads it and in truth.

    Accuracy of 50 models on 70 patients is told with its draws. Two of them differ in one patient:
    the difference of their draws is that patient's share, and how it goes with the draws of the
    others says whether each of them is right about the patient.
    """
    rng = np.random.default_rng(11)
    ability, models = rng.normal(0.8, 1.0, PATIENTS), 50
    right = (ability[:, None] + rng.normal(0, 0.7, (PATIENTS, models)) > 0).astype(float)
    patient = int(np.argmin(np.abs(right[:, 2:].mean(axis=1) - 0.5)))
    right[:, 1] = right[:, 0]
    right[patient, :2] = 1.0, 0.0
    y, told = np.ones((PATIENTS, 1)), []
    disclosure = replace(hospital_disclosure(), noise=noise)
    for of in right.T:
        found = result_of(
            TASK,
            [METRICS["accuracy"](TASK)],
            sample(TASK, of[:, None], y),
            np.arange(PATIENTS),
            draws=DRAWS,
            normal=lambda purpose, count: SecureGenerator(bytes(32), purpose).normal(count),
            disclosure=disclosure,
        )
        told.append(found.parts["accuracy"][1:, 0])
    draws = np.array(told)
    draws -= draws.mean(axis=1, keepdims=True)
    goes = draws[2:] @ (draws[0] - draws[1])
    return (goes > np.median(goes)).astype(float), right[patient, 2:]


def test_two_models_that_differ_in_one_patient_do_not_give_that_patient_away() -> None:
    """With noise of each model's own the difference is noise of all patients.

    Half of the 48 are right about the patient, so guessing agrees in half of them, 7 % about.
    """
    read, truth = patterns(noise=0.0)
    assert (read == truth).mean() > 0.95
    read, truth = patterns(noise=hospital_disclosure().noise)
    assert (read == truth).mean() < 0.75


def test_noise_of_each_model_s_own_keeps_the_covariance_of_two_models() -> None:
    """Of 200 pairs, the mean: what verdicts of several seeds rest on is not bent."""
    rng, ratios = np.random.default_rng(2), []
    for _ in range(200):
        psi = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], PATIENTS) / PATIENTS
        own = rng.standard_normal((PATIENTS, 2)) * np.sqrt((psi**2).mean(axis=0))
        noised = psi + own
        ratios.append((noised[:, 0] @ noised[:, 1]) / (psi[:, 0] @ psi[:, 1]))
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.1)


def test_of_a_small_class_the_other_class_does_not_tell_the_size() -> None:
    """All images less those in the other's cells would be its size."""
    data = hospital()
    data.y[2 * PATIENTS :] = 0
    data.y[2 * PATIENTS : 2 * PATIENTS + 3] = 1
    pair = reply(answering(data=data), model(1).state_dict()).cells[0]
    assert [cells.images.sum() for cells in pair] == [0, 0]
    open_ = reply(answering(data=data, disclosure=FULL_DISCLOSURE), model(1).state_dict()).cells[0]
    assert [cells.images.sum() for cells in open_] == [67, 3]


def test_draws_of_different_metrics_have_nothing_in_common() -> None:
    """Each metric has draws of its own: more metrics do not make a patient plainer."""
    found = reply(answering(), model(1).state_dict())
    brier, loss = (found.parts[name][1:, 0] for name in ("brier", "loss"))
    # The two errors of a patient are alike, so draws of the same patients would be.
    assert likeness(contributions(1, "brier"), contributions(1, "loss")) > 0.8
    assert abs(likeness(brier, loss)) < 0.15


def test_asking_again_gives_the_same_draws() -> None:
    """Otherwise a mean over many answers would tell covariances to any precision."""
    one, other = (reply(answering(), model(1).state_dict()) for _ in range(2))
    np.testing.assert_array_equal(one.parts["auroc"], other.parts["auroc"])


def test_one_patient_more_or_less_changes_all_draws() -> None:
    """The difference of two answers would otherwise be the one patient's part alone."""
    whole = hospital()
    fewer = replace(whole, rows={**whole.rows, "test": whole.rows["test"][:-1]})
    one = reply(answering(), model(1).state_dict()).parts["brier"][1:, 0]
    other = reply(answering(data=fewer), model(1).state_dict()).parts["brier"][1:, 0]
    assert abs(likeness(one, other)) < 0.15
    # With draws that are known, they are alike in all but the last patient.
    again = [
        reply(answering(data=d, secret=b""), model(1).state_dict()).parts["brier"]
        for d in (whole, whole)
    ]
    assert likeness(again[0][1:, 0], again[1][1:, 0]) > 0.99


def test_two_models_pair_over_the_same_patients_all_the_same() -> None:
    """What the draws are for: their covariance is that of the two metrics."""
    one, other = (reply(answering(), model(k).state_dict()).parts["auroc"][1:, 0] for k in (1, 2))
    exact = [contributions(k, "auroc") for k in (1, 2)]
    # In the mean over data sets; of 70 patients the noise of the models' own leaves a fifth.
    each = float(np.sqrt((exact[0] @ exact[0]) * (exact[1] @ exact[1])))
    assert np.cov(one, other)[0, 1] == pytest.approx(float(exact[0] @ exact[1]), abs=each / 2)
