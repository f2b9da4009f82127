"""The site's half: a ClientApp that builds itself from each message's text and the site's own data.

The same app runs in process, on Ray, and at a hospital; only where its data come from differs.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from fedrad.algorithms.base import Handler, Reply, Request
from fedrad.assemble import handlers_of, local_task, model_of, steps_per_round
from fedrad.config import POOLED, Experiment, from_text
from fedrad.core.state import Bundle
from fedrad.core.store import Versions
from fedrad.data.base import SiteData
from fedrad.data.sites import Federation
from fedrad.errors import ConfigError, FedradError
from fedrad.federation.describe import description
from fedrad.federation.records import bundle_of, config_of, pack
from fedrad.training.local import LocalTask
from fedrad.training.objective import balanced_weights

__all__ = ["COUNTS", "Source", "client_app"]

log = logging.getLogger(__name__)

COUNTS = "counts"
"""The name under which label counts of all sites travel, for global class weights."""

_DEFAULT_ACTIONS = {"train": "fit", "evaluate": "validate", "query": "describe"}
_FEDRAD_ERROR = 100
_OTHER_ERROR = 101


class Source(Protocol):
    """Where a process finds the data of the sites that it may be."""

    def federation(self, experiment: Experiment) -> Federation:
        """Return the sites, with those data that are here."""


class _Sites:
    """The sites' halves, built once and kept: data are read once, one model serves all sites."""

    def __init__(self, source: Source, device: torch.device) -> None:
        self._source = source
        self._device = device
        self._experiments: dict[str, Experiment] = {}
        self._models: dict[str, nn.Module] = {}
        self._tasks: dict[tuple[str, str, int, str], LocalTask] = {}
        self._handlers: dict[tuple[str, str], dict[str, Handler]] = {}

    def experiment(self, text: str) -> Experiment:
        """Return the experiment of a text."""
        if text not in self._experiments:
            self._experiments[text] = from_text(text)
        return self._experiments[text]

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
        # One site alone is its own pool, under the pool's name.
        return description(replace(data, site=site), experiment.task, self._device)

    def handler(self, text: str, arm: str, action: str) -> Handler:
        """Return the site's half of an action."""
        if (text, arm) not in self._handlers:
            self._handlers[text, arm] = dict(handlers_of(self.experiment(text).arm(arm)))
        known = self._handlers[text, arm]
        if action not in known:
            raise ConfigError(f"action '{action}' is not one of {', '.join(sorted(known))}")
        return known[action]

    def task(self, text: str, arm: str, seed: int, site: str) -> LocalTask:
        """Return a site's task in an arm."""
        key = (text, arm, seed, site)
        if key not in self._tasks:
            # Of one arm and seed at a time: caches of tensors of finished arms are let go.
            self._tasks = {k: v for k, v in self._tasks.items() if k[:3] == key[:3]}
            self._tasks[key] = self._build(*key)
        return self._tasks[key]

    def _build(self, text: str, name: str, seed: int, site: str) -> LocalTask:
        arm = self.experiment(text).arm(name)
        federation = self._source.federation(self.experiment(text))
        data, steps = _data(federation, site, arm)
        task = local_task(arm, data, self._model(arm), seed=seed, device=self._device, steps=steps)
        if arm.local.class_weights == "site":
            return replace(task, weights=balanced_weights(task.label_counts()))
        return task

    def weigh(self, key: tuple[str, str, int, str], counts: torch.Tensor) -> LocalTask:
        """Return a task whose loss is weighted by the counts of all sites."""
        task = self.task(*key)
        if task.weights is None:
            self._tasks[key] = replace(task, weights=balanced_weights(counts))
        return self._tasks[key]

    def _model(self, arm: Experiment) -> nn.Module:
        key = f"{arm.model} {arm.task}"
        if key not in self._models:
            self._models = {key: model_of(arm).to(self._device)}
        return self._models[key]


def _data(federation: Federation, site: str, arm: Experiment) -> tuple[SiteData, int | None]:
    if site != POOLED:
        return federation.sites[site], None
    parts = [federation.sites[name].images("train") for name in federation.training]
    return federation.pool(), sum(steps_per_round(arm.local, images) for images in parts)


def client_app(source: Source, device: torch.device) -> ClientApp:
    """Return the ClientApp of a site, or of all sites that live in this process.

    Messages carry, under `config`, the experiment's text, arm, seed, round and action; a stock
    Flower strategy may leave the action out, which then is fit or validate.
    """
    sites = _Sites(source, device)
    app = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        try:
            return _answer(sites, message, context)
        except FedradError as error:
            return Message(
                Error(_FEDRAD_ERROR, f"{type(error).__name__}: {error}"), reply_to=message
            )
        except Exception as error:
            # The text stays here: it can hold a path, and a path can hold a name.
            log.exception("round failed")
            return Message(Error(_OTHER_ERROR, type(error).__name__), reply_to=message)

    registrations: tuple[Callable[[], Any], ...] = (app.train, app.evaluate, app.query)
    for register in registrations:
        register()(answer)
    return app


def _answer(sites: _Sites, message: Message, context: Context) -> Message:
    config = config_of(message.content)
    text = str(config["experiment"])
    site = sites.name(context, text)
    action = str(config.get("action") or _DEFAULT_ACTIONS[message.metadata.message_type])
    if action == "describe":
        return Message(sites.describe(text, site), reply_to=message)
    arm, seed, number = str(config["arm"]), int(config["seed"]), int(config["server-round"])
    arrays = bundle_of(message.content)
    key = (text, arm, seed, site)
    counts = arrays.pop(COUNTS, None)
    task = sites.weigh(key, counts["train"]) if counts else sites.task(*key)
    memory = Versions(_memory_folder(context, arm, seed))
    before: Bundle = memory.before(number)
    request = Request(site=site, round=number, arrays=arrays, memory=before, local=task)
    reply, after = _worked(sites, text, arm, action, request)
    if after is not before and after:
        memory.write(number, after)
    return Message(pack(reply.arrays, reply.numbers, {"site": site}), reply_to=message)


def _worked(
    sites: _Sites, text: str, arm: str, action: str, request: Request
) -> tuple[Reply, Bundle]:
    """Return the reply to an action, or to several of one message, as "fit+validate"."""
    first, *others = action.split("+")
    reply, after = sites.handler(text, arm, first)(request)
    for other in others:
        more, _ = sites.handler(text, arm, other)(request)
        reply = Reply({**more.arrays, **reply.arrays}, {**more.numbers, **reply.numbers})
    return reply, after


def _memory_folder(context: Context, arm: str, seed: int) -> Path:
    folder = Path(str(context.node_config.get("state-dir", ".fedrad-state")))
    return folder / arm / f"seed-{seed}"
