"""What a process keeps of the sites that it runs: data are read once, one network serves all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import torch
from flwr.app import Context, RecordDict
from torch import nn

from fedrad.algorithms.base import Handler, StreamHandler
from fedrad.assemble import (
    algorithm_of,
    check_model,
    handlers_of,
    local_task,
    site_model_of,
    steps_per_round,
    streams_of,
)
from fedrad.config import POOLED, Experiment, from_text
from fedrad.core.timing import PhaseTimer
from fedrad.data.base import SiteData
from fedrad.data.sites import Federation
from fedrad.errors import ConfigError, about_the_question
from fedrad.metrics.site_result import FULL_DISCLOSURE, Disclosure
from fedrad.privacy.account import Account
from fedrad.rounds.site_summary import keyed, site_summary
from fedrad.training.dp.private_arm import dp_config_of
from fedrad.training.local import Fitted, LocalTask
from fedrad.training.objective import balanced_weights

__all__ = ["Known", "SiteTasks", "Source", "Trainer"]

T = TypeVar("T")

Trainer = Callable[..., Fitted]
"""(task, start, what else `LocalTask.fit` was given) -> what came of it."""


class Source(Protocol):
    """Where a process finds the data of the sites that it may be."""

    def federation(self, experiment: Experiment) -> Federation:
        """Return the sites, with those data that are here."""


@dataclass(frozen=True)
class Known:
    """The source of a process that has all sites' data in hand."""

    known: Federation

    def federation(self, experiment: Experiment) -> Federation:
        """Return the sites, whatever the experiment."""
        return self.known


class SiteTasks:
    """The sites' tasks and halves, built once and kept.

    Args:
        source: where the sites' data are found.
        device: where models live.
        meter: is told what the sites' work takes.
        account: what private training is charged to; without one it is refused.
        secret: keeps a digest of the data from being guessed.
        trainer: is asked to train in the sites' place, as `LocalTask.asking` says.
        disclosure: what may be told of patients.
        training_labels: asked whether labels of training images may be counted to others.
    """

    def __init__(
        self,
        source: Source,
        device: torch.device,
        meter: PhaseTimer,
        account: Account | None,
        secret: bytes,
        trainer: Trainer | None,
        disclosure: Disclosure = FULL_DISCLOSURE,
        training_labels: Callable[[], bool] = lambda: True,
    ) -> None:
        self._source = source
        self.trainer = trainer
        self._account = account
        self._secret = secret
        self._disclosure = disclosure
        self._training_labels = training_labels
        self._device = device
        self._meter = meter
        self._experiments: dict[str, Experiment] = {}
        self._arms: dict[tuple[str, str], Experiment] = {}
        self._privacy: dict[str, bool] = {}
        self._models: dict[str, nn.Module] = {}
        self._tasks: dict[tuple[str, str, int, str], LocalTask] = {}
        self._pattern: tuple[tuple[object, ...], LocalTask] | None = None
        self._handlers: dict[tuple[str, str], dict[str, Handler]] = {}

    def experiment(self, text: str) -> Experiment:
        """Return the experiment of a text."""
        if text not in self._experiments:
            with about_the_question():
                self._experiments[text] = from_text(text)
        return self._experiments[text]

    def _arm(self, text: str, name: str) -> Experiment:
        if (text, name) not in self._arms:
            with about_the_question():
                self._arms[text, name] = self.experiment(text).arm(name)
        return self._arms[text, name]

    def name(self, context: Context, text: str) -> str:
        """Return the site that a node is: its own word, or its place among the sorted sites."""
        if "site" in context.node_config:
            return str(context.node_config["site"])
        if "partition-id" in context.node_config:
            names = list(self._source.federation(self.experiment(text)).sites)
            return names[int(context.node_config["partition-id"])]
        raise ConfigError("the node's configuration names no site")

    def describe(self, text: str, site: str) -> RecordDict:
        """Return what a site tells about itself before round 1."""
        experiment = self.experiment(text)
        federation = self._source.federation(experiment)
        data = federation.pool() if site == POOLED else federation.sites[site]
        return site_summary(
            # One site alone is its own pool, under the pool's name.
            replace(data, site=site),
            experiment.task,
            self._device,
            # The pool is made of the sites, which tell of themselves.
            digest="" if site == POOLED else keyed(data.digest, self._secret),
            private=self._private(text),
            labels=self._training_labels(),
            min_cell=self._disclosure.min_cell,
        )

    def _private(self, text: str) -> bool:
        """Return whether any arm of an experiment is private; asked of every site there is."""
        if text not in self._privacy:
            arms = self.experiment(text).arm_names
            with about_the_question():
                self._privacy[text] = any(dp_config_of(self._arm(text, name)) for name in arms)
        return self._privacy[text]

    def handler(self, text: str, arm: str, action: str) -> Handler:
        """Return the site's half of an action."""
        if (text, arm) not in self._handlers:
            with about_the_question():
                self._handlers[text, arm] = dict(handlers_of(self._arm(text, arm)))
        return _known(self._handlers[text, arm], action)

    def stream(self, text: str, arm: str, action: str) -> StreamHandler:
        """Return the site's half of a stream."""
        with about_the_question():
            return _known(streams_of(self._arm(text, arm)), action)

    def task(self, text: str, arm: str, seed: int, site: str) -> LocalTask:
        """Return a site's task in an arm."""
        key = (text, arm, seed, site)
        if key not in self._tasks:
            # Of one arm and seed at a time: caches of tensors of finished arms are let go.
            if next(iter(self._tasks), key)[:3] != key[:3]:
                self._tasks = {}
            self._tasks[key] = self._build(*key)
        return self._tasks[key]

    def _build(self, text: str, name: str, seed: int, site: str) -> LocalTask:
        arm = self._arm(text, name)
        federation = self._source.federation(self.experiment(text))
        data, steps = _data(federation, site, arm)
        # Private noise is solved for the site's own patients: its task is like no other's.
        own = site if dp_config_of(arm) else ""
        task = self._like((text, name, seed, steps, own), arm, data)
        if arm.local.class_weights == "site":
            return replace(task, weights=balanced_weights(task.label_counts()))
        return task

    def _like(
        self, key: tuple[str, str, int, int | None, str], arm: Experiment, data: SiteData
    ) -> LocalTask:
        """Return a site's task, made like the last one where only the site differs."""
        if self._pattern is None or self._pattern[0] != key:
            _, _, seed, steps, _ = key
            task = local_task(
                arm,
                data,
                self._model(arm),
                seed=seed,
                device=self._device,
                steps=steps,
                account=self._account,
            )
            self._pattern = (
                key,
                replace(
                    task, meter=self._meter, disclosure=self._told_in(key[0]), secret=self._secret
                ),
            )
        return self._pattern[1].at(data)

    def _told_in(self, text: str) -> Disclosure:
        """Return what may be told in an experiment: of a private arm's patients no arm tells."""
        hospital = self._disclosure != FULL_DISCLOSURE
        if hospital and (self._private(text) or not self._training_labels()):
            return replace(self._disclosure, training_labels=False)
        return self._disclosure

    def weigh(self, key: tuple[str, str, int, str], counts: torch.Tensor) -> LocalTask:
        """Return a task whose loss is weighted by the counts of all sites."""
        task = self.task(*key)
        if task.weights is None:
            self._tasks[key] = replace(task, weights=balanced_weights(counts))
        return self._tasks[key]

    def _model(self, arm: Experiment) -> nn.Module:
        key = f"{arm.model} {arm.task} {arm.local.channels_last} {algorithm_of(arm).cut}"
        if key not in self._models:
            with about_the_question():
                check_model(arm)
                model = site_model_of(arm)
            self._models = {key: model.to(self._device)}
        return self._models[key]


def _known(table: Mapping[str, T], action: str) -> T:
    with about_the_question():
        if action not in table:
            raise ConfigError(f"action '{action}' is not one of {', '.join(sorted(table))}")
        return table[action]


def _data(federation: Federation, site: str, arm: Experiment) -> tuple[SiteData, int | None]:
    if site != POOLED:
        return federation.sites[site], None
    parts = [federation.sites[name].images("train") for name in federation.training]
    return federation.pool(), sum(steps_per_round(arm.local, images) for images in parts)
