"""An experiment's text and a site's data in, live objects out.

Nothing here trains. `fedrad check` is exactly this module; a site builds its half from the
experiment's text and its own data, and from nothing else.
"""

from collections.abc import Collection, Mapping
from functools import partial
from math import ceil
from re import fullmatch
from typing import Any

import torch
from torch import nn

from fedrad.algorithms import ALGORITHMS, WRAPPERS
from fedrad.algorithms.base import Algorithm, Handler, StreamHandler
from fedrad.algorithms.evaluation import evaluation
from fedrad.algorithms.split.cut_plan import CutPlan
from fedrad.algorithms.split.site import split_evaluation as split_evaluation
from fedrad.config import Experiment, Local
from fedrad.core import seeds
from fedrad.core.state import State
from fedrad.core.timing import PhaseTimer
from fedrad.data import TRANSFORMS
from fedrad.data.base import SiteData
from fedrad.data.checks.oddities import Oddity
from fedrad.data.sites import Federation
from fedrad.data.transforms import chained
from fedrad.errors import ConfigError, MissingError
from fedrad.metrics import METRICS
from fedrad.metrics.base import Metric
from fedrad.metrics.calibration import loss
from fedrad.models import MODELS
from fedrad.privacy.account import Account
from fedrad.registry import build, split
from fedrad.training.dp.private_arm import check_private, plan_at, private_at
from fedrad.training.last_batch import (
    batch_of_one,
    last_of_one,
)
from fedrad.training.local import LocalTask
from fedrad.training.optimizers import OPTIMIZERS
from fedrad.training.server import ServerTask

__all__ = [
    "algorithm_of",
    "check_arms",
    "check_last_batch",
    "check_model",
    "check_privacy",
    "cut_of",
    "device_of",
    "handlers_of",
    "initial_state",
    "local_task",
    "metrics_of",
    "model_of",
    "server_task",
    "site_model_of",
    "steps_per_round",
    "streams_of",
]

_MOST_PARAMETERS = 2_000_000_000


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
        place = f"{where.removesuffix('algorithm')}wrap.{position}"
        try:
            algorithm = build(WRAPPERS, spec, algorithm, where=place)
        except ConfigError as error:
            # A wrapper that refuses what is inside it knows no place.
            told = str(error)
            raise ConfigError(told if told.startswith(place) else f"{place}: {told}") from None
    return algorithm


def check_arms(experiment: Experiment, asked_for: Collection[str] = ()) -> None:
    """Build all that the arms name, so that a mistake is told before anything is read or trained.

    Args:
        experiment: the whole of it.
        asked_for: arms that must fit the number of rounds, which may have been cut for a first
            try of one arm; none named is all.

    Raises:
        ConfigError: a name or an option of an arm does not fit.
    """
    for name in experiment.arm_names:
        arm = experiment.arm(name)
        algorithm = algorithm_of(arm, where=f"arms.{name}.algorithm")
        if algorithm.local_rounds >= arm.rounds and name in (asked_for or experiment.arm_names):
            raise ConfigError(
                f"arms.{name}: {algorithm.local_rounds} rounds at home of {arm.rounds} in all "
                "leave none to federate"
            )
        check_model(arm)
        model, plan = model_of(arm), cut_of(arm)
        check_private(arm, model, where=f"arms.{name}.privacy")
        if plan:
            plan.check(model, where=f"arms.{name}.algorithm")
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


def check_last_batch(arm: Experiment, site: str, images: int, steps: int) -> Oddity | None:
    """Return that batch norm takes a site's last image by itself, which looks odd; mostly None.

    Args:
        arm: the experiment as the arm sees it.
        site: its name, for messages.
        images: of its training split.
        steps: of a round.

    Raises:
        ConfigError: batch norm cannot take one image.
    """
    if arm.privacy is not None or not batch_of_one(images, arm.local.batch, steps):
        return None
    return last_of_one(partial(model_of, _without_weights(arm)), arm.task, site, images)


def _without_weights(arm: Experiment) -> Experiment:
    """Return an arm whose model is drawn: a file of weights has no part in its shapes."""
    name, options = split(arm.model, where="model")
    model = {"name": name, **{k: v for k, v in options.items() if k != "weights"}}
    return arm.model_copy(update={"model": model})


def handlers_of(arm: Experiment) -> Mapping[str, Handler]:
    """Return all that a site answers in an arm: the algorithm's actions and the common ones."""
    return {**evaluation(arm.replicates), **algorithm_of(arm).handlers}


def cut_of(arm: Experiment, *, where: str = "algorithm") -> CutPlan | None:
    """Return where an arm's network is cut, whatever wraps the algorithm; None if nowhere."""
    algorithm: Algorithm = build(ALGORITHMS, arm.algorithm or "", where=where)
    return algorithm.cut


def streams_of(arm: Experiment) -> Mapping[str, StreamHandler]:
    """Return all the streams that a site runs in an arm: the algorithm's, and evaluations."""
    algorithm = algorithm_of(arm)
    common = split_evaluation(algorithm.cut, arm.replicates) if algorithm.cut else {}
    return {**common, **algorithm.streams}


def site_model_of(arm: Experiment) -> nn.Module:
    """Return what a site computes in: the arm's model, or its own parts of it where it is cut.

    The rest of a cut model is never given any memory at the site.
    """
    plan = algorithm_of(arm).cut
    if plan is None:
        return model_of(arm)
    with torch.device("meta"):
        whole = model_of(arm)
    return plan.ends(whole).to_empty(device="cpu")


def server_task(
    arm: Experiment, *, seed: int, device: torch.device, meter: PhaseTimer | None = None
) -> ServerTask:
    """Return what the server computes with in an arm."""
    local, meter = arm.local, meter or PhaseTimer()
    build = partial(model_of, arm)
    return ServerTask(seed, arm.task, build, local.optimizer, local.clip, device, meter)


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
        ConfigError: it is no name of such a device.
        MissingError: the device is not there.
    """
    if not fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ConfigError(f"--device {name}: say cpu, cuda, or cuda:1 for the second of several")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise MissingError(f"--device {name}: no CUDA device is available; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise MissingError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices; "
            "they count from 0"
        )
    return device


def model_of(arm: Experiment) -> nn.Module:
    """Return an arm's model, with weights that `initial_state` or a message will replace."""
    model: nn.Module = build(MODELS, arm.model, arm.task, where="model")
    return model


def check_model(arm: Experiment) -> None:
    """Refuse a model too large to be made, by its shapes alone: nothing is allocated.

    Raises:
        ConfigError: the model's name or options do not fit, or no memory would hold it.
    """
    try:
        with torch.device("meta"):
            # A file of weights has memory of its own, and says by itself whether it fits.
            model = model_of(_without_weights(arm))
    except (RuntimeError, OverflowError, TypeError):
        raise ConfigError("model: its arrays are larger than any computer's memory") from None
    size = sum(parameter.numel() for parameter in model.parameters())
    if size > _MOST_PARAMETERS:
        raise ConfigError(f"model: has {size:,} parameters; {_MOST_PARAMETERS:,} are the most")


def initial_state(arm: Experiment, seed: int) -> State:
    """Return the weights that every arm of a seed starts from; the same on every machine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.seed(seed, "", 0, "init"))
        # Nobody else holds the model: its arrays are the state.
        state: State = model_of(arm).state_dict()
    return state


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

    Raises:
        ConfigError: batch norm cannot take the site's last batch of one image.
    """
    local = arm.local
    images = data.images("train")
    check_last_batch(arm, data.site, images, steps or steps_per_round(local, images))
    return LocalTask(
        site=data.site,
        seed=seed,
        task=arm.task,
        data=data,
        model=model,
        initial=lambda: initial_state(arm, seed),
        metrics=_metrics(arm),
        optimizer=local.optimizer,
        batch=local.batch,
        epochs=None if steps else local.epochs,
        steps=steps or local.steps,
        clip=local.clip,
        augment=_augmentation(local, arm),
        weights=None,
        device=device,
        precision=torch.bfloat16 if local.precision == "bfloat16" else torch.float32,
        channels_last=local.channels_last,
        private=private_at(arm, data, account, steps=steps),
    )


def _augmentation(local: Local, arm: Experiment) -> Any:
    if local.augment and len(arm.task.input) != 3:
        raise ConfigError("local.augment: augmentation is for images; task.input is a table's row")
    steps = [
        build(TRANSFORMS, spec, where=f"local.augment.{position}")
        for position, spec in enumerate(local.augment)
    ]
    return chained(steps) if steps else None


def _metrics(arm: Experiment) -> tuple[Metric, ...]:
    # The loss is always there, for curves.
    wanted = (*metrics_of(arm), loss(arm.task))
    return tuple({metric.name: metric for metric in wanted}.values())


def steps_per_round(local: Local, images: int) -> int:
    """Return the gradient steps that a site with so many training images takes in a round.

    >>> steps_per_round(Local(epochs=2, batch=32), images=100)
    8
    """
    if not images:
        return 0
    return local.steps or (local.epochs or 0) * ceil(images / local.batch)
