"""Which of Flower's nodes is which site."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from flwr.serverapp import Grid

from fedrad.errors import SiteFailed
from fedrad.federation.records import config_of, numbers_of, pack

__all__ = ["Node", "nodes_of"]

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


def nodes_of(grid: Grid, config: Mapping[str, str | int]) -> dict[str, Node]:
    """Return every node by its site's name, by asking it.

    Raises:
        SiteFailed: there is no node, one does not say its name, or two say the same one.
    """
    content = pack({}, config={**config, "action": "describe"})
    asked = [grid.create_message(content, "query", node, "0") for node in _node_ids(grid)]
    nodes: dict[str, Node] = {}
    for reply in grid.send_and_receive(asked):
        if reply.has_error():
            raise SiteFailed(f"a site did not say its name: {reply.error.reason}")
        told = config_of(reply.content)
        site = str(told["site"])
        if site in nodes:
            raise SiteFailed(f"two nodes say that they are {site}")
        images = int(numbers_of(reply.content)["num-examples"])
        nodes[site] = Node(
            reply.metadata.src_node_id, images, str(told["data"]), str(told["machine"])
        )
    return nodes


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
        raise SiteFailed(f"no site has come within {_NODES_S:g} s")
    return found


def _after(grid: Grid, seconds: float) -> list[int]:
    time.sleep(seconds)
    return list(grid.get_node_ids())
