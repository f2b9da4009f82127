"""The site's half: a ClientApp that builds itself from each message's text and the site's own data.

The same app runs in process, on Ray, and at a hospital; only where its data come from differs.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from fedrad.algorithms.base import Handler, Reply, Request, StreamHandler
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
from fedrad.core.meter import Meter
from fedrad.core.state import Bundle
from fedrad.core.store import Versions
from fedrad.data.base import SiteData
from fedrad.data.sites import Federation
from fedrad.errors import ConfigError, FedradError
from fedrad.federation.channels import Door, Half
from fedrad.federation.describe import description, keyed
from fedrad.federation.invitation import Invitation
from fedrad.federation.play import play_stream
from fedrad.federation.records import bundle_of, config_of, pack
from fedrad.privacy.account import Account
from fedrad.training.local import Fitted, LocalTask
from fedrad.training.objective import balanced_weights
from fedrad.training.private_arm import asked_of

__all__ = ["COUNTS", "Source", "client_app", "site_apps"]

log = logging.getLogger(__name__)

T = TypeVar("T")

Trainer = Callable[..., Fitted]
"""(task, start, what else `LocalTask.fit` was given) -> what came of it."""

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

    def __init__(
        self,
        source: Source,
        device: torch.device,
        meter: Meter,
        account: Account | None,
        secret: bytes,
        trainer: Trainer | None,
    ) -> None:
        self._source = source
        self.trainer = trainer
        self._account = account
        self._secret = secret
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
            self._experiments[text] = from_text(text)
        return self._experiments[text]

    def _arm(self, text: str, name: str) -> Experiment:
        if (text, name) not in self._arms:
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
        return description(
            # One site alone is its own pool, under the pool's name.
            replace(data, site=site),
            experiment.task,
            self._device,
            # The pool is made of the sites, which tell of themselves.
            digest="" if site == POOLED else keyed(data.digest, self._secret),
            private=self._private(text),
        )

    def _private(self, text: str) -> bool:
        """Return whether any arm of an experiment is private; asked of every site there is."""
        if text not in self._privacy:
            arms = self.experiment(text).arm_names
            self._privacy[text] = any(asked_of(self._arm(text, name)) for name in arms)
        return self._privacy[text]

    def handler(self, text: str, arm: str, action: str) -> Handler:
        """Return the site's half of an action."""
        if (text, arm) not in self._handlers:
            self._handlers[text, arm] = dict(handlers_of(self._arm(text, arm)))
        return _known(self._handlers[text, arm], action)

    def stream(self, text: str, arm: str, action: str) -> StreamHandler:
        """Return the site's half of a stream."""
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
        own = site if asked_of(arm) else ""
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
            self._pattern = key, replace(task, meter=self._meter)
        return self._pattern[1].at(data)

    def weigh(self, key: tuple[str, str, int, str], counts: torch.Tensor) -> LocalTask:
        """Return a task whose loss is weighted by the counts of all sites."""
        task = self.task(*key)
        if task.weights is None:
            self._tasks[key] = replace(task, weights=balanced_weights(counts))
        return self._tasks[key]

    def _model(self, arm: Experiment) -> nn.Module:
        key = f"{arm.model} {arm.task} {arm.local.channels_last} {algorithm_of(arm).cut}"
        if key not in self._models:
            check_model(arm)
            self._models = {key: site_model_of(arm).to(self._device)}
        return self._models[key]


def _known(table: Mapping[str, T], action: str) -> T:
    if action not in table:
        raise ConfigError(f"action '{action}' is not one of {', '.join(sorted(table))}")
    return table[action]


def _data(federation: Federation, site: str, arm: Experiment) -> tuple[SiteData, int | None]:
    if site != POOLED:
        return federation.sites[site], None
    parts = [federation.sites[name].images("train") for name in federation.training]
    return federation.pool(), sum(steps_per_round(arm.local, images) for images in parts)


def client_app(
    source: Source,
    device: torch.device,
    *,
    meter: Meter | None = None,
    account: Account | None = None,
    secret: bytes = b"",
    gate: Callable[[Half], Half] = lambda half: half,
) -> ClientApp:
    """Return the ClientApp of a site, or of all sites that live in this process.

    Args:
        source: where the sites' data are found.
        device: where models live.
        meter: is told what the sites' work takes.
        account: what private training is charged to; without one it is refused.
        secret: the site's own; keeps a digest of its data from being guessed.
        gate: what a half of a stream over a network passes through.

    Messages carry, under `config`, the experiment's text, arm, seed, round and action; a stock
    Flower strategy may leave the action out, which then is fit or validate.
    """
    return site_apps(source, device, meter=meter, account=account, secret=secret, gate=gate)[0]


def site_apps(
    source: Source,
    device: torch.device,
    *,
    meter: Meter | None = None,
    account: Account | None = None,
    secret: bytes = b"",
    trainer: Trainer | None = None,
    gate: Callable[[Half], Half] = lambda half: half,
) -> tuple[ClientApp, Door]:
    """Return a site's ClientApp, and the door through which its streams are opened.

    With a trainer, sites' halves ask it to train, as `LocalTask.asking` says.
    """
    sites = _Sites(source, device, meter or Meter(), account, secret, trainer)
    app = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        try:
            config = config_of(message.content)
            invitation = Invitation.of(config)
            if invitation is None:
                return _answer(sites, message, context)
            site = sites.name(context, str(config["experiment"]))
            return play_stream(gate(door(message, context)), invitation, site=site)
        except Exception as error:
            return _failed(error, message)

    def door(message: Message, context: Context) -> Half:
        try:
            return (yield from _stream(sites, message, context))
        except Exception as error:
            return _failed(error, message)

    registrations: tuple[Callable[[], Any], ...] = (app.train, app.evaluate, app.query)
    for register in registrations:
        register()(answer)
    return app, door


def _failed(error: Exception, message: Message) -> Message:
    if isinstance(error, FedradError):
        told = f"{type(error).__name__}: {error}"
        return Message(Error(_FEDRAD_ERROR, told), reply_to=message)
    # The text stays here: it can hold a path, and a path can hold a name.
    log.error("round failed", exc_info=error)
    return Message(Error(_OTHER_ERROR, type(error).__name__), reply_to=message)


def _answer(sites: _Sites, message: Message, context: Context) -> Message:
    config = config_of(message.content)
    text = str(config["experiment"])
    site = sites.name(context, text)
    action = str(config.get("action") or _DEFAULT_ACTIONS[message.metadata.message_type])
    if action == "describe":
        return Message(sites.describe(text, site), reply_to=message)
    request, memory = _request(sites, message, site, context)
    if sites.trainer is not None:
        request = replace(request, local=request.local.asking(sites.trainer))
    reply, after = _worked(sites, text, str(config["arm"]), action, request)
    return _replied(message, request, reply, after, memory)


def _stream(sites: _Sites, message: Message, context: Context) -> Half:
    config = config_of(message.content)
    text, arm, action = (str(config[key]) for key in ("experiment", "arm", "action"))
    request, memory = _request(sites, message, sites.name(context, text), context)
    reply, after = yield from sites.stream(text, arm, action)(request)
    return _replied(message, request, reply, after, memory)


def _request(
    sites: _Sites, message: Message, site: str, context: Context
) -> tuple[Request, Versions]:
    """Return what a site is asked, and where it keeps its memory."""
    config = config_of(message.content)
    arm, seed, number = str(config["arm"]), int(config["seed"]), int(config["server-round"])
    arrays = bundle_of(message.content)
    key = (str(config["experiment"]), arm, seed, site)
    counts = arrays.pop(COUNTS, None)
    task = sites.weigh(key, counts["train"]) if counts else sites.task(*key)
    memory = Versions(_memory_folder(context, arm, seed))
    before: Bundle = memory.before(number)
    return Request(site=site, round=number, arrays=arrays, memory=before, local=task), memory


def _replied(
    message: Message, request: Request, reply: Reply, after: Bundle, memory: Versions
) -> Message:
    if after is not request.memory and after:
        memory.write(request.round, after)
    return Message(pack(reply.arrays, reply.numbers, {"site": request.site}), reply_to=message)


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
