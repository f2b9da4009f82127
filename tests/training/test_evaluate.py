from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedrad.config import Task
from fedrad.data.base import SiteData
from fedrad.metrics.calibration import brier
from fedrad.metrics.site_result import FULL_DISCLOSURE, SiteResult
from fedrad.models import MODELS
from fedrad.training.evaluate import predict, result
from fedrad.training.objective import objective

CPU = torch.device("cpu")
TASK = Task(name="multiclass", labels=("a", "b", "c"), input=(4,))
BRIER = brier(TASK)


@pytest.fixture
def data() -> SiteData:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(400, 4)).astype(np.float32)
    y = generator.integers(0, 3, (400, 1)).astype(np.float32)
    patient = (np.arange(400) // 2).astype(np.uint64)
    rows = {"train": np.arange(0), "val": np.arange(100), "test": np.arange(100, 400)}
    return SiteData("nord", x, y, patient, rows)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3))


def test_scores_are_the_model_s_probabilities_in_the_order_of_the_rows(data: SiteData) -> None:
    """300 rows are three batches; dropout is off and BatchNorm uses its own statistics."""
    model = network()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    scores, y = predict(model, data, "test", objective(TASK), device=CPU)
    with torch.no_grad():
        logits = model[2](model[0].eval()(torch.from_numpy(data.x[100:])))
    np.testing.assert_allclose(scores, logits.double().softmax(-1).numpy(), atol=1e-6)
    assert np.array_equal(y, data.y[100:])
    assert all(torch.equal(value, before[k]) for k, value in model.state_dict().items())


def test_sure_scores_stay_apart() -> None:
    """In float32 the sigmoids of 20 and 30 are both 1, and a ranking would lose the order."""
    task = Task(name="binary", labels=("a",), input=(1,))
    x, y = np.array([[20.0], [30.0]], np.float32), np.ones((2, 1), np.float32)
    data = SiteData("nord", x, y, np.arange(2).astype(np.uint64), {"test": np.arange(2)})
    scores, _ = predict(nn.Identity(), data, "test", objective(task), device=CPU)
    assert scores[0, 0] < scores[1, 0]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_without_images_there_are_as_many_columns_as_the_task_has_outputs(name: str) -> None:
    """Of a multiclass task's, y has one column and the scores have one a class."""
    task = Task(name="multiclass", labels=("a", "b", "c"), input=(1, 32, 32))
    x, rows = np.zeros((4, 1, 32, 32), np.uint8), {"test": np.arange(0)}
    data = SiteData("nord", x, np.zeros((4, 1), np.float32), np.arange(4).astype(np.uint64), rows)
    scores, y = predict(MODELS[name](task), data, "test", objective(task), device=CPU)
    assert (scores.shape, y.shape) == ((0, 3), (0, 1))


def told(data: SiteData, split: str, **options: Any) -> SiteResult:
    scores, _ = predict(network(), data, split, objective(TASK), device=CPU)
    given: dict[str, Any] = {"thresholds": {}, "draws": 0, "key": bytes(32)}
    given["disclosure"] = FULL_DISCLOSURE
    return result(scores, data, split, TASK, [BRIER], **(given | options))


def test_a_split_without_images_tells_that_it_has_none(data: SiteData) -> None:
    """And is as wide as other sites' results."""
    scores, y = predict(network(), data, "train", objective(TASK), device=CPU)
    assert (scores.shape, y.shape) == ((0, 3), (0, 1))
    found = told(data, "train", draws=5)
    assert found.parts["brier"].shape == (6, 1) and np.isnan(found.parts["brier"]).all()
    assert (found.images, found.patients) == (0, 0)


def test_the_first_row_is_observed_and_the_others_vary_patients(data: SiteData) -> None:
    """Their spread is the jackknife's over the patients, who have two images each."""
    found = told(data, "test", draws=4_000)
    scores, y = predict(network(), data, "test", objective(TASK), device=CPU)
    errors = ((scores - np.eye(3)[y[:, 0].astype(int)]) ** 2).sum(axis=1)
    values = found.parts["brier"][:, 0]
    assert values[0] == pytest.approx(errors.mean())
    by_patient = errors.reshape(150, 2).mean(axis=1)
    assert values[1:].std() == pytest.approx((by_patient.var(ddof=1) / 150) ** 0.5, rel=0.05)


def test_without_draws_there_is_one_row(data: SiteData) -> None:
    assert told(data, "val").parts["brier"].shape == (1, 1)
