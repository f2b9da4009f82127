"""An audit of privacy from the attacker's side: shadow models of one site, patients in or out.

Each shadow model is trained as the site would train alone, from the same initial weights, with the
same mechanism (clip, noise, sampling rate, steps), on patients drawn by a fair coin each. Samples
and noise differ from model to model. So the accountant's epsilon is that of every shadow model, and
a coin's outcome is what an attacker has to guess.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fedrad.config import Task
from fedrad.core.seeds import seed
from fedrad.core.state import State
from fedrad.data.base import SiteData
from fedrad.errors import ConfigError
from fedrad.privacy.membership import Shadows
from fedrad.training.evaluate import predict
from fedrad.training.fit import load_into
from fedrad.training.local import LocalTask

__all__ = ["LEAST_AUDITED", "confidence", "shadows", "with_patients"]

LEAST_AUDITED = 20
_SUREST = 1e-15  # a probability in double is 1 from log-odds of 36.7 on


def shadows(
    task: LocalTask,
    *,
    models: int,
    rounds: int,
    done: Callable[[int], object] = lambda number: None,
) -> Shadows:
    """Return what shadow models of a site say of each of its training patients.

    Args:
        task: of the site, with all its patients and the account of a simulation.
        models: to train; 8 at least.
        rounds: of each model's training.
        done: is told the number of models trained, after each.

    Returns:
        Patients in the order of their hashes.

    Raises:
        ConfigError: the site has too few patients.
        TrainingDivergedError: as `LocalTask.fit`.
    """
    patients = np.unique(task.data.patient[task.data.rows["train"]])
    if len(patients) < LEAST_AUDITED:
        raise ConfigError(
            f"{task.site}: has {len(patients)} training patients; an audit needs {LEAST_AUDITED}"
        )
    coins = np.random.default_rng(seed(task.seed, task.site, 0, "members"))
    members = coins.random((models, len(patients))) < 0.5
    scores = np.empty(members.shape)
    # The plan of noise and the steps are made for the whole site; they must not tell who is in.
    fixed = replace(task, steps=task.steps_per_round(), epochs=None)
    for number, chosen in enumerate(members):
        own = with_patients(task.data, patients[chosen])
        drawn = seed(task.seed, task.site, number, "shadow")
        state = _trained(replace(fixed, data=own, seed=drawn), rounds)
        scores[number] = _of_patients(task, state)
        done(number + 1)
    return Shadows(scores, members)


def with_patients(data: SiteData, patients: np.ndarray) -> SiteData:
    """Return a site with only some training patients, each with all of their images."""
    rows = data.rows["train"]
    chosen = rows[np.isin(data.patient[rows], patients)]
    return replace(data, rows={**data.rows, "train": chosen})


def confidence(task: Task, scores: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return how sure a model is of an image's true labels: the log-odds of what was read.

    Args:
        task: says what y means.
        scores: probabilities, float64 [n, outputs].
        y: float64 [n, columns], nan where not read.

    Returns:
        float64 [n], the mean over the labels that were read; each image has one at least.

    Carlini et al., 2022, section VI-A ("logit scaling").

    >>> binary = Task(name="binary", labels=("lesion",), input=(2,))
    >>> confidence(binary, np.array([[0.9], [0.9]]), np.array([[1.0], [0.0]])).round(3).tolist()
    [2.197, -2.197]
    """
    sure = np.clip(scores, _SUREST, 1 - _SUREST)
    if task.name == "multiclass":
        truth = np.take_along_axis(sure, y.astype(np.int64), axis=1)
        return np.asarray((np.log(truth) - np.log1p(-truth))[:, 0])
    odds = np.log(sure) - np.log1p(-sure)
    return np.asarray(np.nanmean(np.where(np.isnan(y), np.nan, np.where(y > 0.5, odds, -odds)), 1))


def _trained(task: LocalTask, rounds: int) -> State:
    state = task.initial()
    for number in range(1, rounds + 1):
        state = task.fit(state, round=number).state
    return state


def _of_patients(task: LocalTask, state: State) -> np.ndarray:
    """Return a model's confidence for each training patient, the mean over the images."""
    load_into(task.model.state_dict(), state)
    scores, y = predict(task.model, task.data, "train", task.objective, device=task.device)
    of_images = confidence(task.task, scores, y)
    patient = np.unique(task.data.patient[task.data.rows["train"]], return_inverse=True)[1]
    return np.asarray(np.bincount(patient, of_images) / np.bincount(patient))
