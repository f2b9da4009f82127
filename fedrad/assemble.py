"""An experiment's text and a site's data in, live objects out.

Nothing here trains. `fedrad check` is exactly this module; a site builds its half from the
experiment's text and its own data, and from nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fedrad.algorithms import ALGORITHMS, WRAPPERS
from fedrad.algorithms.base import Algorithm, Handler
from fedrad.algorithms.evaluation import evaluation
from fedrad.config import POOLED, Experiment, Local, load_site
from fedrad.core import seeds
from fedrad.core.state import State, clone
from fedrad.data import ADAPTERS, PARTITIONERS, TRANSFORMS
from fedrad.data.base import Records, SiteData, assign_splits, pooled, sites_of
from fedrad.data.leaks import check
from fedrad.data.transforms import compose
from fedrad.errors import ConfigError, DataError, MissingError
from fedrad.metrics import METRICS
from fedrad.metrics.base import Metric, Statistic
from fedrad.metrics.calibration import loss
from fedrad.metrics.classification import confusion
from fedrad.metrics.ranking import histogram
from fedrad.models import MODELS
from fedrad.registry import build, nearest
from fedrad.training.local import LocalTask
from fedrad.training.optimizers import OPTIMIZERS

__all__ = [
    "Federation",
    "algorithm_of",
    "check_arms",
    "device_of",
    "federation_of",
    "handlers_of",
    "initial_state",
    "local_task",
    "metrics_of",
    "model_of",
    "steps_per_round",
]


@dataclass(frozen=True)
class Federation:
    """The sites of a simulation, all in one process.

    Args:
        sites: name -> data, sorted by name, held-out sites among them.
        held_out: the sites that never train.
    """

    sites: Mapping[str, SiteData]
    held_out: tuple[str, ...]

    @property
    def training(self) -> tuple[str, ...]:
        """Return the names of the sites that train, sorted."""
        return tuple(name for name in self.sites if name not in self.held_out)

    def pool(self) -> SiteData:
        """Return the data of all training sites as those of one; one site alone is its own pool."""
        parts = [self.sites[name] for name in self.training]
        return parts[0] if len(parts) == 1 else pooled(parts, POOLED)


def federation_of(experiment: Experiment, root: Path) -> Federation:
    """Return the experiment's sites, after all checks of their data.

    Args:
        experiment: its `data` or `sites`, partition, split and held-out sites.
        root: the folder that relative paths of data are under.

    Raises:
        ConfigError: an option does not fit, or a held-out site is none of the sites.
        DataError: the data do not hold what the experiment says, or leak between splits or sites.
    """
    sources = _site_files(experiment, root) if experiment.sites else [_source(experiment, root)]
    sources = [_with_splits(records, experiment) for records in sources]
    check(_columns(sources), shared_patients=experiment.shared_patients)
    found = [sites_of(records) for records in sources]
    sites = {
        name: one[name]
        for name in sorted({n for o in found for n in o})
        for one in found
        if name in one
    }
    federation = Federation(sites, tuple(sorted(experiment.held_out_sites)))
    _check_sites(federation)
    return federation


def _source(experiment: Experiment, root: Path) -> Records:
    records = _adapt(experiment, experiment.data or "", root, where="data")
    if experiment.partition:
        records = build(
            PARTITIONERS, experiment.partition, records, experiment.task, where="partition"
        )
    if records.site is None:
        known = ", ".join(sorted(PARTITIONERS))
        raise ConfigError(f"partition: the data name no sites; choose one of {known}")
    return records


def _site_files(experiment: Experiment, root: Path) -> list[Records]:
    sources: dict[str, Records] = {}
    for path in experiment.sites:
        site = load_site(Path(path))
        if site.name in sources:
            raise ConfigError(f"sites: two site files are named '{site.name}'")
        place = Path(site.data_root) if site.data_root else root
        records = _adapt(experiment, site.data, place, where=f"{Path(path).name}: data")
        sources[site.name] = replace(records, site=np.full(len(records.y), site.name))
    return list(sources.values())


def _adapt(experiment: Experiment, spec: Any, root: Path, *, where: str) -> Records:
    records: Records = build(ADAPTERS, spec, experiment.task, root, where=where)
    found = tuple(records.x.shape[1:])
    if found != experiment.task.input:
        raise DataError(
            f"{where}: rows have the shape {found}, task.input is {experiment.task.input}"
        )
    return records


def _with_splits(records: Records, experiment: Experiment) -> Records:
    if experiment.split is None:
        if records.split is None:
            raise ConfigError(
                "split: the data come without a split; say split: {val: 0.15, test: 0.25}"
            )
        return records
    asked = experiment.split
    return assign_splits(records, val=asked.val, test=asked.test, seed=asked.seed)


def _columns(sources: list[Records]) -> Records:
    """Return the columns that the leak gate reads, of all sources, without their images."""
    first = sources[0]
    if len(sources) == 1:
        return first
    return replace(
        first,
        x=np.empty((sum(len(r.y) for r in sources), 0), np.uint8),
        y=np.concatenate([r.y for r in sources]),
        patient=np.concatenate([r.patient for r in sources]),
        site=_joined([r.site for r in sources]),
        split=_joined([r.split for r in sources]),
        pixels=None
        if any(r.pixels is None for r in sources)
        else _joined([r.pixels for r in sources]),
        attributes={},
        row=None if any(r.row is None for r in sources) else _joined([r.row for r in sources]),
    )


def _joined(parts: Sequence[np.ndarray | None]) -> np.ndarray:
    return np.concatenate([part for part in parts if part is not None])


def _check_sites(federation: Federation) -> None:
    for name in federation.held_out:
        if name not in federation.sites:
            known = ", ".join(federation.sites)
            hint = nearest(name, federation.sites)
            raise ConfigError(f"held_out_sites: '{name}' is not one of {known}{hint}")
    if not any(federation.sites[name].images("train") for name in federation.training):
        raise DataError("no site has an image to train on")
    if POOLED in federation.sites:
        raise DataError(f"no site may be named '{POOLED}'; it means all sites together")


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
        model_of(arm)
        _augmentation(arm.local, arm)
        weight = torch.zeros(1, requires_grad=True)
        build(OPTIMIZERS, arm.local.optimizer, [weight], where="local.optimizer")
    metrics_of(experiment)


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
) -> LocalTask:
    """Return what an algorithm's handlers train and evaluate with at one site.

    Args:
        arm: the experiment as the arm sees it.
        data: the site's.
        model: is loaded with other weights at every call, so it may be shared between sites.
        seed: of the run.
        device: where to compute.
        steps: gradient steps of one round, instead of the arm's epochs or steps.
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
