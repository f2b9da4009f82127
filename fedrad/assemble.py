"""An experiment's text and a site's data in, live objects out.

Nothing here trains. `fedrad check` is exactly this module; a site builds its half from the
experiment's text and its own data, and from nothing else.
"""

from collections.abc import Mapping
from math import ceil
from typing import Any

import torch
from torch import nn

from fedrad.algorithms import ALGORITHMS, WRAPPERS
from fedrad.algorithms.base import Algorithm, Handler
from fedrad.algorithms.evaluation import evaluation
from fedrad.config import Experiment, Local
from fedrad.core import seeds
from fedrad.core.state import State, clone
from fedrad.data import TRANSFORMS
from fedrad.data.base import SiteData
from fedrad.data.sites import Federation
from fedrad.data.transforms import compose
from fedrad.errors import ConfigError, MissingError
from fedrad.metrics import METRICS
from fedrad.metrics.base import Metric, Statistic
from fedrad.metrics.calibration import loss
from fedrad.metrics.classification import confusion
from fedrad.metrics.ranking import histogram
from fedrad.models import MODELS
from fedrad.privacy.account import Account
from fedrad.registry import build
from fedrad.training.local import LocalTask
from fedrad.training.optimizers import OPTIMIZERS
from fedrad.training.private_arm import check_private, plan_at, private_at

__all__ = [
    "algorithm_of",
    "check_arms",
    "check_privacy",
    "device_of",
    "handlers_of",
    "initial_state",
    "local_task",
    "metrics_of",
    "model_of",
    "steps_per_round",
]


def algorithm_of(arm: Experiment, *, where: str = "algorithm") -> Algorithm:
    """Return the algorithm of an arm, in its wrappers.

    Raises:
        ConfigError: a name or an option does not fit.
    """
    algorithm: Algorithm = build(ALGORITHMS, arm.algorithm or "", where=where)
    for position, spec in enumerate(arm.wrap):
        if algorithm.pooled or not algorithm.shared:
            raise ConfigError(
                f"{where}: a wrapper needs an algorithm that federates a common model"
            )
        algorithm = build(WRAPPERS, spec, algorithm, where=f"wrap.{position}")
    return algorithm


def check_arms(experiment: Experiment) -> None:
    """Build all that the arms name, so that a mistake is told before anything is read or trained.

    Raises:
        ConfigError: a name or an option of an arm does not fit.
    """
    for name in experiment.arm_names:
        arm = experiment.arm(name)
        algorithm_of(arm, where=f"arms.{name}.algorithm")
        check_private(arm, model_of(arm), where=f"arms.{name}.privacy")
        _augmentation(arm.local, arm)
        weight = torch.zeros(1, requires_grad=True)
        build(OPTIMIZERS, arm.local.optimizer, [weight], where="local.optimizer")
    metrics_of(experiment)


def check_privacy(experiment: Experiment, federation: Federation) -> None:
    """Solve the noise of every private arm at every site, before anything is trained.

    Raises:
        ConfigError: a site cannot carry the epsilon that is asked for; names the arm.
    """
    for name in experiment.arm_names:
        arm = experiment.arm(name)
        pooled = algorithm_of(arm).pooled
        for data in [] if pooled else [federation.sites[site] for site in federation.training]:
            try:
                plan_at(arm, data)
            except ConfigError as error:
                raise ConfigError(f"arms.{name}: {error}") from None


def handlers_of(arm: Experiment) -> Mapping[str, Handler]:
    """Return all that a site answers in an arm: the algorithm's actions and the common ones."""
    return {**evaluation(arm.replicates), **algorithm_of(arm).handlers}


def metrics_of(experiment: Experiment) -> tuple[Metric, ...]:
    """Return the experiment's metrics, in its order."""
    return tuple(
        build(METRICS, spec, experiment.task, where=f"metrics.{position}")
        for position, spec in enumerate(experiment.metrics)
    )


def device_of(name: str) -> torch.device:
    """Return the device that was asked for; never another one.

    Args:
        name: "cpu", "cuda", "cuda:1".

    Raises:
        MissingError: the device is not there.
    """
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise MissingError(f"--device {name}: no CUDA device is available; use --device cpu")
    return device


def model_of(arm: Experiment) -> nn.Module:
    """Return an arm's model, with weights that `initial_state` or a message will replace."""
    model: nn.Module = build(MODELS, arm.model, arm.task, where="model")
    return model


def initial_state(arm: Experiment, seed: int) -> State:
    """Return the weights that every arm of a seed starts from; the same on every machine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.seed(seed, "", 0, "init"))
        return clone(model_of(arm).state_dict())


def local_task(
    arm: Experiment,
    data: SiteData,
    model: nn.Module,
    *,
    seed: int,
    device: torch.device,
    steps: int | None = None,
    account: Account | None = None,
) -> LocalTask:
    """Return what an algorithm's handlers train and evaluate with at one site.

    Args:
        arm: the experiment as the arm sees it.
        data: the site's.
        model: is loaded with other weights at every call, so it may be shared between sites.
        seed: of the run.
        device: where to compute.
        steps: gradient steps of one round, instead of the arm's epochs or steps.
        account: what a private arm's training is charged to.
    """
    local = arm.local
    return LocalTask(
        site=data.site,
        seed=seed,
        task=arm.task,
        data=data,
        model=model,
        initial=lambda: initial_state(arm, seed),
        statistics=_statistics(arm),
        optimizer=local.optimizer,
        batch=local.batch,
        epochs=None if steps else local.epochs,
        steps=steps or local.steps,
        clip=local.clip,
        augment=_augmentation(local, arm),
        weights=None,
        device=device,
        private=private_at(arm, data, account, steps=steps),
    )


def _augmentation(local: Local, arm: Experiment) -> Any:
    if local.augment and len(arm.task.input) != 3:
        raise ConfigError("local.augment: augmentation is for images; task.input is a table's row")
    steps = [
        build(TRANSFORMS, spec, where=f"local.augment.{position}")
        for position, spec in enumerate(local.augment)
    ]
    return compose(steps) if steps else None


def _statistics(arm: Experiment) -> tuple[Statistic, ...]:
    # Beside the metrics' own: the loss for curves, counts and scores to detect a collapse.
    always = (histogram(arm.task), confusion(arm.task), loss(arm.task).statistic)
    wanted = (*(metric.statistic for metric in metrics_of(arm)), *always)
    return tuple({statistic.name: statistic for statistic in wanted}.values())


def steps_per_round(local: Local, images: int) -> int:
    """Return the gradient steps that a site with so many training images takes in a round.

    >>> steps_per_round(Local(epochs=2, batch=32), images=100)
    8
    """
    if not images:
        return 0
    return local.steps or (local.epochs or 0) * ceil(images / local.batch)
