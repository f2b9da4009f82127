"""Who is there: registered sites are asked to describe themselves before round 1."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from flwr.app import Message
from flwr.proto.node_pb2 import NodeInfo

from fedrad.config import Experiment
from fedrad.core.names import listed
from fedrad.data.base import SiteData
from fedrad.errors import SiteFailed
from fedrad.federation.coordinator.network import NetworkGrid
from fedrad.federation.describe import site_of, versions_of
from fedrad.federation.nodes import Node
from fedrad.federation.records import config_of, pack

__all__ = ["Met", "roll_call"]

_SAY_S = 30.0
_POLL_S = 0.1
_REGISTERED_S = 30.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Met:
    """The sites of a federation.

    Args:
        nodes: of all registered sites by name; of those that did not answer, without images.
        data: stand-ins for the data of those that answered.
        versions: of those that answered: fedrad, torch, device.
    """

    nodes: Mapping[str, Node]
    data: Mapping[str, SiteData]
    versions: Mapping[str, Mapping[str, str]]


def roll_call(
    grid: NetworkGrid, experiment: Experiment, sites: Collection[str], *, wait: float, say: Say
) -> Met:
    """Ask all registered sites to describe themselves, and wait for those that are away.

    Args:
        grid: over the coordinator's SuperLink.
        experiment: what they are to describe themselves for.
        sites: whom the coordinator's kit names; all must be registered.
        wait: seconds; after them a quorum will do.
        say: is told who is waited for.

    Raises:
        SiteFailed: a site is not registered, refused, answered nonsense, or too few answered in
            time.
    """
    infos = _registered(grid, sites)
    text = experiment.text()
    content = pack({}, config={"experiment": text, "action": "describe"})
    names = sorted(infos)
    asked = [grid.create_message(content, "query", infos[n].node_id, "0") for n in names]
    numbers = dict(zip(grid.push_messages(asked), names, strict=True))
    answers = _collect(grid, numbers, infos, _needed(experiment, len(names)), wait, say)
    data = {name: _data(name, answers[name], experiment) for name in sorted(answers)}
    images = {name: one.images("train") for name, one in data.items()}
    told = {name: versions_of(answers[name].content) for name in data}
    return Met(
        {name: _node(infos[name], images.get(name, 0), told.get(name, {})) for name in names},
        data,
        told,
    )


def _registered(grid: NetworkGrid, sites: Collection[str]) -> dict[str, NodeInfo]:
    """Return the registered sites; a coordinator that has just started takes them in one by one."""
    if not sites:
        raise SiteFailed("the coordinator's kit names no site; fedrad provision makes their kits")
    ends = time.monotonic() + _REGISTERED_S
    while True:
        nodes = grid.look(0.0).values()
        infos = {info.name: info for info in nodes if info.status != "unregistered"}
        missing = sorted(set(sites) - set(infos))
        if not missing:
            return infos
        if time.monotonic() > ends:
            raise SiteFailed(
                f"the coordinator has not registered {listed(missing)}; start it again, so that "
                "it reads its kit"
            )
        time.sleep(_POLL_S)


def _node(info: NodeInfo, images: int, told: Mapping[str, str]) -> Node:
    return Node(info.node_id, images, told.get("data", ""), told.get("machine", ""))


def _needed(experiment: Experiment, sites: int) -> int:
    return min(experiment.quorum or sites, sites)


def _collect(
    grid: NetworkGrid,
    numbers: dict[str, str],
    infos: Mapping[str, NodeInfo],
    needed: int,
    wait: float,
    say: Say,
) -> dict[str, Message]:
    answers: dict[str, Message] = {}
    start, said = time.monotonic(), float("-inf")
    while numbers:
        for message in grid.pull_messages(list(numbers)):
            name = numbers.pop(message.metadata.reply_to_message_id)
            if message.has_error():
                raise SiteFailed(f"{name}: {message.error.reason}")
            answers[name] = message
        waited = time.monotonic() - start
        if waited > wait:
            if len(answers) >= needed:
                say(f"goes on without {listed(sorted(numbers.values()))}")
                break
            away = listed(sorted(numbers.values()))
            raise SiteFailed(f"{len(answers)} of {needed} sites answered; waited for {away}")
        if numbers and time.monotonic() - said > _SAY_S and waited > 3:
            said = time.monotonic()
            say("waiting for " + _who(grid, numbers.values(), infos))
        time.sleep(_POLL_S)
    return answers


def _who(grid: NetworkGrid, names: Iterable[str], infos: Mapping[str, NodeInfo]) -> str:
    now = grid.look()
    told = []
    for name in sorted(names):
        info = now.get(infos[name].node_id)
        online = info is not None and info.status == "online"
        told.append(f"{name} ({'is at work' if online else 'is not connected'})")
    return ", ".join(told)


def _data(name: str, message: Message, experiment: Experiment) -> SiteData:
    told = str(config_of(message.content).get("site", ""))
    if told != name:
        raise SiteFailed(
            f"the key of {name} is used by a site that says it is {told!r}; "
            "each site needs its own startup kit and its own name"
        )
    return site_of(message.content, experiment.task)
