"""The audit as a whole: it finds what is there, and nothing where there is nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from calls import TASK, task_of
from torch import Tensor, nn

from fedrad.config import Task
from fedrad.data.base import SiteData
from fedrad.errors import ConfigError
from fedrad.models.mlp import mlp
from fedrad.privacy.account import Simulated
from fedrad.privacy.dp_sgd import DpSgdConfig, plan
from fedrad.privacy.membership import Attack, attack
from fedrad.training.audit import confidence, shadows, with_patients
from fedrad.training.dp.dp_sgd import Private
from fedrad.training.local import LocalTask

PATIENTS, FEATURES = 40, 60
WIDE = Task(name="binary", labels=("lesion",), input=(FEATURES,))


def memorable(patients: int = PATIENTS) -> SiteData:
    """Two rows a patient, many features and labels by chance: to be right is to remember."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(patients, FEATURES)).repeat(2, axis=0)
    y = rng.integers(0, 2, patients).repeat(2)[:, None]
    rows = {"train": np.arange(2 * patients), "val": np.arange(0), "test": np.arange(0)}
    patient = np.arange(patients, dtype=np.uint64).repeat(2)
    noisy = (x + 0.1 * rng.normal(size=x.shape)).astype(np.float32)
    return SiteData("nord", noisy, y.astype(np.float32), patient, rows)


def audited(task: LocalTask, models: int = 48) -> Attack:
    return attack(shadows(task, models=models, rounds=2), delta=1e-5)


def task(
    model: nn.Module | None = None, epsilon: float | None = None, **changes: object
) -> LocalTask:
    """Forty full-batch steps in all, private where epsilon is given."""
    if model is None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = mlp(WIDE, hidden=(8,))
    start = {name: value.clone() for name, value in model.state_dict().items()}
    options: dict = {
        "batch": 2 * PATIENTS, "steps": 20, "epochs": None, "model": model, "task": WIDE,
        "initial": lambda: start, "optimizer": {"name": "sgd", "lr": 0.5, "momentum": 0.9},
    }  # fmt: skip
    if epsilon is not None:
        asked = DpSgdConfig(epsilon, None, 1e-5, 1.0, "patient", "gaussian", 256)
        found = plan(
            asked, site="nord", images=2 * PATIENTS, patients=PATIENTS, most_images=2,
            batch=2 * PATIENTS, steps=20, rounds=2,
        )  # fmt: skip
        options["private"] = Private(found, Simulated(), "made", "digest")
    return replace(task_of(memorable()), **options | changes)


def test_without_noise_the_audit_finds_leakage() -> None:
    """The audit must be able to fail a site: a net that learnt its rows by heart."""
    found = audited(task())
    assert found.auroc > 0.9 and found.bound > 1


@pytest.mark.slow
def test_with_strong_noise_it_finds_none_and_never_passes_the_accountant() -> None:
    """Epsilon 1 at the same site and with the same steps."""
    found = audited(task(epsilon=1.0))
    # 24 models of 40 patients: a standard error of AUROC of about 0.02
    assert abs(found.auroc - 0.5) < 0.06 and found.bound <= 1


@pytest.mark.slow
def test_with_little_noise_the_proof_stays_below_the_promise() -> None:
    """Epsilon 30 leaks, and the attack proves part of it, but never more than was promised."""
    found = audited(task(epsilon=30.0))
    assert found.auroc > 0.55 and 0 < found.bound < 30


class Deaf(nn.Module):
    """Says the same whatever it was trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.register_buffer("fixed", torch.linspace(-1, 1, FEATURES))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.fixed + 0 * self.weight)[:, None]


def test_a_model_that_ignores_its_data_leaks_nothing() -> None:
    """What depends on no patient tells of none."""
    found = audited(task(Deaf()), models=16)
    assert found.auroc == 0.5 and found.bound == 0 and found.guesses == 0


def test_a_patient_is_in_or_out_with_all_images() -> None:
    """Half a patient would be found by the other half."""
    data = memorable()
    chosen = with_patients(data, np.array([3, 7], np.uint64))
    assert chosen.rows["train"].tolist() == [6, 7, 14, 15]
    assert data.images("train") == 2 * PATIENTS


def test_coins_are_fair_and_differ_from_model_to_model() -> None:
    """The bound rests on independent coins; the same audit draws the same."""
    one, again = (shadows(task(Deaf()), models=16, rounds=1) for _ in range(2))
    assert np.array_equal(one.members, again.members) and np.array_equal(one.scores, again.scores)
    assert abs(one.members.mean() - 0.5) < 0.08 and len(np.unique(one.members, axis=0)) == 16


def test_noise_and_samples_of_shadow_models_have_nothing_in_common() -> None:
    """Else known noise could be taken off the others; the first weights are shared."""
    slow = {"optimizer": {"name": "sgd", "lr": 0.001}}  # else all models are sure to the last bit
    found = shadows(task(epsilon=1.0, **slow), models=4, rounds=1)
    assert len(np.unique(found.scores[:, 0])) == 4
    same = shadows(task(epsilon=1.0, **slow, seed=1), models=4, rounds=1)
    assert not np.array_equal(found.scores, same.scores)


def test_the_mechanism_is_the_whole_site_s_whoever_is_in() -> None:
    """Steps that grew with the drawn patients would tell how many they are."""
    taken = []

    class Counting(Simulated):
        def spend(self, charge: object) -> None:
            taken.append(charge.use)

    one = task(epsilon=1.0)
    private = replace(one.private, account=Counting())
    shadows(replace(one, private=private, steps=None, epochs=3), models=4, rounds=2)
    assert set(taken) == {one.private.plan.use(3)} and len(taken) == 8


def test_confidence_is_the_mean_log_odds_of_what_was_read() -> None:
    """ln 9 = 2.197 for a label given 0.9, and its negative for one given 0.1."""
    findings = Task(name="multilabel", labels=("lesion", "fracture"), input=(2,))
    scores, nan = np.array([[0.9, 0.1], [0.9, 0.5]]), np.nan
    found = confidence(findings, scores, np.array([[1, 1], [1, nan]]))
    assert found == pytest.approx([0.0, np.log(9)])
    classes = Task(name="multiclass", labels=("a", "b", "c"), input=(2,))
    thirds = confidence(classes, np.array([[0.8, 0.1, 0.1]]), np.array([[0.0]]))
    assert thirds == pytest.approx([np.log(4)])
    assert np.isfinite(confidence(TASK, np.array([[1.0], [0.0]]), np.array([[1.0], [1.0]]))).all()


def test_too_few_patients_are_told() -> None:
    """With a handful, a half of them may be nobody."""
    with pytest.raises(ConfigError, match="nord: has 12 training patients; an audit needs 20"):
        shadows(task(data=memorable(12)), models=16, rounds=1)
