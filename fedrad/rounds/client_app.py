"""The site's half: a ClientApp that builds itself from each message's text and the site's own data.

The same app runs in process, on Ray, and at a hospital; only where its data come from differs.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from fedrad.algorithms.base import Reply, Request
from fedrad.core.state import Bundle
from fedrad.core.store import Versions
from fedrad.core.timing import PhaseTimer
from fedrad.errors import FedradError, outward_of
from fedrad.metrics.site_result import FULL_DISCLOSURE, Disclosure
from fedrad.privacy.account import Account
from fedrad.rounds.records import bundle_of, config_of, pack
from fedrad.rounds.site_streams import ClientCoroutine, StreamHandlerFactory
from fedrad.rounds.site_tasks import SiteTasks, Source, Trainer

__all__ = ["COUNTS", "FULL", "Invited", "client_app", "memory_folder", "site_apps"]

log = logging.getLogger(__name__)

COUNTS = "counts"
"""The name under which label counts of all sites travel, for global class weights."""

FULL = torch.OutOfMemoryError.__name__
"""How a site's error begins for which its device's memory was too small."""
_TOO_LARGE = (
    "the network and a batch do not fit the memory that is free on the device; "
    "make local.batch smaller, or the network"
)

Invited = Callable[[Mapping[str, Any]], Callable[[ClientCoroutine, str], Message] | None]
"""A message's settings -> what carries a site's half, by the site's name, over a network; or None
where the message does not invite to a stream."""

_DEFAULT_ACTIONS = {"train": "fit", "evaluate": "validate", "query": "describe"}
_FEDRAD_ERROR = 100
_OTHER_ERROR = 101


def client_app(
    source: Source,
    device: torch.device,
    *,
    meter: PhaseTimer | None = None,
    account: Account | None = None,
    secret: bytes = b"",
    invited: Invited = lambda config: None,
    disclosure: Disclosure = FULL_DISCLOSURE,
    training_labels: Callable[[], bool] = lambda: True,
) -> ClientApp:
    """Return the ClientApp of a site, or of all sites that live in this process.

    Args:
        source: where the sites' data are found.
        device: where models live.
        meter: is told what the sites' work takes.
        account: what private training is charged to; without one it is refused.
        secret: the site's own; keeps a digest of its data, and what it draws, from being guessed.
        invited: finds in a message's settings the invitation to a stream over a network.
        disclosure: what may be told of patients when a model is evaluated.
        training_labels: asked whether labels of training images may be counted to others.

    Messages carry, under `config`, the experiment's text, arm, seed, round and action; a stock
    Flower strategy may leave the action out, which then is fit or validate.
    """
    return site_apps(
        source,
        device,
        meter=meter,
        account=account,
        secret=secret,
        invited=invited,
        disclosure=disclosure,
        training_labels=training_labels,
    )[0]


def site_apps(
    source: Source,
    device: torch.device,
    *,
    meter: PhaseTimer | None = None,
    account: Account | None = None,
    secret: bytes = b"",
    trainer: Trainer | None = None,
    invited: Invited = lambda config: None,
    disclosure: Disclosure = FULL_DISCLOSURE,
    training_labels: Callable[[], bool] = lambda: True,
    simulated: bool = False,
) -> tuple[ClientApp, StreamHandlerFactory]:
    """Return a site's ClientApp, and the door through which its streams are opened.

    With a trainer, sites' halves ask it to train, as `LocalTask.asking` says. Of a simulated site
    the whole message of an error is told: it is on the machine of who asks.
    """
    told = _whole if simulated else _outward
    sites = SiteTasks(
        source, device, meter or PhaseTimer(), account, secret, trainer, disclosure, training_labels
    )
    app = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        try:
            config = config_of(message.content)
            over_network = invited(config)
            if over_network is None:
                return _answer(sites, message, context)
            site = sites.name(context, str(config["experiment"]))
            return over_network(door(message, context), site)
        except Exception as error:
            return _failed(error, message, told)

    def door(message: Message, context: Context) -> ClientCoroutine:
        try:
            return (yield from _stream(sites, message, context))
        except Exception as error:
            return _failed(error, message, told)

    registrations: tuple[Callable[[], Any], ...] = (app.train, app.evaluate, app.query)
    for register in registrations:
        register()(answer)
    return app, door


def _whole(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _outward(error: Exception) -> str:
    log.warning("a message could not be answered: %s", _whole(error))
    return outward_of(error)


def _failed(error: Exception, message: Message, told: Callable[[Exception], str]) -> Message:
    if isinstance(error, FedradError):
        return Message(Error(_FEDRAD_ERROR, told(error)), reply_to=message)
    if isinstance(error, torch.OutOfMemoryError):
        return Message(Error(_OTHER_ERROR, f"{FULL}: {_TOO_LARGE}"), reply_to=message)
    # The text stays here: it can hold a path, and a path can hold a name.
    log.error("round failed", exc_info=error)
    return Message(Error(_OTHER_ERROR, type(error).__name__), reply_to=message)


def _answer(sites: SiteTasks, message: Message, context: Context) -> Message:
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


def _stream(sites: SiteTasks, message: Message, context: Context) -> ClientCoroutine:
    config = config_of(message.content)
    text, arm, action = (str(config[key]) for key in ("experiment", "arm", "action"))
    request, memory = _request(sites, message, sites.name(context, text), context)
    reply, after = yield from sites.stream(text, arm, action)(request)
    return _replied(message, request, reply, after, memory)


def _request(
    sites: SiteTasks, message: Message, site: str, context: Context
) -> tuple[Request, Versions]:
    """Return what a site is asked, and where it keeps its memory."""
    config = config_of(message.content)
    arm, seed, number = str(config["arm"]), int(config["seed"]), int(config["server-round"])
    arrays = bundle_of(message.content)
    key = (str(config["experiment"]), arm, seed, site)
    counts = arrays.pop(COUNTS, None)
    task = sites.weigh(key, counts["train"]) if counts else sites.task(*key)
    kept = Path(str(context.node_config.get("state-dir", ".fedrad-state")))
    memory = Versions(memory_folder(kept, arm, seed))
    before: Bundle = memory.before(number)
    return Request(site=site, round=number, arrays=arrays, memory=before, local=task), memory


def _replied(
    message: Message, request: Request, reply: Reply, after: Bundle, memory: Versions
) -> Message:
    if after is not request.memory and after:
        memory.write(request.round, after)
    return Message(pack(reply.arrays, reply.numbers, {"site": request.site}), reply_to=message)


def _worked(
    sites: SiteTasks, text: str, arm: str, action: str, request: Request
) -> tuple[Reply, Bundle]:
    """Return the reply to an action, or to several of one message, as "fit+validate"."""
    first, *others = action.split("+")
    reply, after = sites.handler(text, arm, first)(request)
    for other in others:
        more, _ = sites.handler(text, arm, other)(request)
        reply = Reply({**more.arrays, **reply.arrays}, {**more.numbers, **reply.numbers})
    return reply, after


def memory_folder(folder: Path, arm: str, seed: int) -> Path:
    """Return where in its folder a site keeps what it knows of an arm and seed."""
    return folder / arm / f"seed-{seed}"
