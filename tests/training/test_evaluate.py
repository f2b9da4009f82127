import numpy as np
import pytest
import torch
from torch import nn

from fedrad.config import Task
from fedrad.data.base import SiteData
from fedrad.metrics.base import Statistic
from fedrad.metrics.intervals import patient_weights
from fedrad.models import MODELS
from fedrad.training.evaluate import evaluate, predict
from fedrad.training.objective import objective

CPU = torch.device("cpu")
TASK = Task(name="multiclass", labels=("a", "b", "c"), input=(4,))
BRIER = Statistic("brier", lambda scores, y: (scores - np.eye(3)[y[:, 0].astype(int)]) ** 2)
IMAGES = Statistic("images", lambda scores, y: np.ones((len(y), 1)))


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


def test_a_split_without_images_has_sums_of_zero(data: SiteData) -> None:
    """As wide as those of other sites, so that they add up."""
    scores, y = predict(network(), data, "train", objective(TASK), device=CPU)
    assert (scores.shape, y.shape) == ((0, 3), (0, 1))
    found = evaluate(network(), data, "train", objective(TASK), [BRIER], device=CPU, replicates=5)
    assert torch.equal(found["brier"], torch.zeros(6, 3, dtype=torch.float64))


def test_the_first_row_is_observed_and_the_others_resample_patients(data: SiteData) -> None:
    """Each replicate is the sum over the images of the drawn patients."""
    args = (network(), data, "test", objective(TASK))
    scores, y = predict(*args, device=CPU)
    found = evaluate(*args, [BRIER, IMAGES], device=CPU, replicates=7, seed=11)
    terms = BRIER.terms(scores, y)
    weights = patient_weights(data.patient[100:], 7, 11)
    np.testing.assert_allclose(found["brier"][0], terms.sum(0))
    np.testing.assert_allclose(found["brier"][1:], weights @ terms)
    assert found["images"].dtype == torch.float64
    assert found["images"].flatten().tolist() == [300.0] * 8  # two images a patient


def test_without_replicates_there_is_one_row(data: SiteData) -> None:
    found = evaluate(network(), data, "val", objective(TASK), [IMAGES], device=CPU)
    assert found["images"].tolist() == [[100.0]]
