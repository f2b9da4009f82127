"""Which of Flower's nodes is which site."""

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from flwr.app import Message
from flwr.serverapp import Grid

from fedrad.core.names import by_reason, listed
from fedrad.core.printable import printable
from fedrad.errors import SiteFailedError
from fedrad.rounds.records import config_of, numbers_of, pack

__all__ = ["Node", "nodes_of"]

log = logging.getLogger(__name__)

_POLL_S = 0.05
_NODES_S = 60.0
_SETTLED_S = 0.5


@dataclass(frozen=True)
class Node:
    """Where a site is reached, and what it says of itself.

    Args:
        id: of Flower's node.
        images: that it trains on.
        data: digest of all its data.
        machine: kind of device and version of torch, on which the bits of its results depend.
    """

    id: int
    images: int
    data: str = ""
    machine: str = ""

    @property
    def can_train(self) -> bool:
        """Return whether the site has training images; who has told nothing yet may have some."""
        return self.images > 0 or not self.data


def nodes_of(
    grid: Grid,
    config: Mapping[str, str | int],
    *,
    quorum: int | None = None,
    needed: Collection[str] = (),
    say: Callable[[str], None] = log.warning,
) -> dict[str, Node]:
    """Return every node by its site's name, by asking it.

    A site whose description is an error or cannot be used is named, and the run goes on without it
    where the quorum allows.

    Args:
        grid: whose nodes are asked.
        config: goes with the question.
        quorum: so many descriptions that can be used will do; None is all of them.
        needed: sites that no quorum can do without.
        say: is told who is left out, and why.

    Raises:
        SiteFailedError: there is no node, or too few descriptions can be used; names who, and why.
    """
    content = pack({}, config={**config, "action": "describe"})
    asked = [grid.create_message(content, "query", node, "0") for node in _node_ids(grid)]
    found: dict[str, list[Node]] = {}
    failed: dict[str, str] = {}
    for reply in grid.send_and_receive(asked):
        name = f"node {reply.metadata.src_node_id}"
        try:
            name = _name(reply) or name
            node = _node(reply)
            found.setdefault(name, []).append(node)
        except SiteFailedError as error:
            failed[printable(name)] = printable(error)
    for name in [name for name, nodes in found.items() if len(nodes) > 1]:
        failed[printable(name)] = f"{len(found.pop(name))} nodes say that they are this site"
    _check(failed, len(found), min(quorum or len(asked), len(asked)), set(needed) - set(found))
    if failed:
        say(f"goes on without {by_reason(dict(sorted(failed.items())))}")
    return {name: nodes[0] for name, nodes in found.items()}


def _name(reply: Message) -> str:
    """Return the name that a site gives, or "" where it gives none."""
    told = "" if reply.has_error() else config_of(reply.content).get("site", "")
    return told if isinstance(told, str) else ""


def _node(reply: Message) -> Node:
    """Return what a node's description says.

    Raises:
        SiteFailedError: it is an error, or lacks something.
    """
    if reply.has_error():
        raise SiteFailedError(f"did not say its name: {reply.error.reason or 'unknown error'}")
    told, numbers = config_of(reply.content), numbers_of(reply.content)
    images = numbers.get("num-examples", -1.0)
    missing = [key for key in ("site", "data", "machine") if not isinstance(told.get(key), str)]
    if missing:
        raise SiteFailedError(f"its description does not say {listed(missing)}")
    if images < 0 or not images.is_integer():
        raise SiteFailedError("its description does not say how many images it trains on")
    return Node(reply.metadata.src_node_id, int(images), told["data"], told["machine"])


def _check(failed: Mapping[str, str], usable: int, quorum: int, absent: Collection[str]) -> None:
    if not failed or (usable >= quorum and not absent):
        return
    need = f"needs {listed(sorted(absent))}" if usable >= quorum else f"needs {quorum} sites"
    told = by_reason(dict(sorted(failed.items())))
    raise SiteFailedError(f"the experiment {need} and {usable} can be used ({told})")


def _node_ids(grid: Grid) -> list[int]:
    """Return the nodes; where none is known yet, wait until there are some and no more come.

    Flower's simulation starts the server before it has made its nodes.
    """
    found = list(grid.get_node_ids())
    ends = time.monotonic() + _NODES_S
    while not found and time.monotonic() < ends:
        time.sleep(_POLL_S)
        found = list(grid.get_node_ids())
        while found and found != (later := _after(grid, _SETTLED_S)):
            found = later
    if not found:
        raise SiteFailedError(f"no site has come within {_NODES_S:g} s")
    return found


def _after(grid: Grid, seconds: float) -> list[int]:
    time.sleep(seconds)
    return list(grid.get_node_ids())
