"""Which sites are connected, and under which of Flower's nodes: let in anew, a site has another."""

import time
from collections.abc import Mapping

from flwr.proto.node_pb2 import NodeInfo

from fedrad.deployment.coordinator.superlink import SuperLinkClient

__all__ = ["NodeStatus", "is_current"]

_LOOK_S = 2.0
"""Pause between two looks at which sites are connected."""
_OUT = "unregistered"


class NodeStatus:
    """What the SuperLink knows of the sites' nodes, as of the last look.

    A site goes by the node that it had when it was first seen.

    Args:
        link: to the SuperLink.
    """

    def __init__(self, link: SuperLinkClient) -> None:
        self._link = link
        self._nodes: dict[int, NodeInfo] = {}
        self._now: Mapping[int, NodeInfo] = {}
        self._looked = float("-inf")

    def look(self, age: float | None = None) -> dict[int, NodeInfo]:
        """Return the registered nodes, as they were not longer ago than `age` seconds (or 2)."""
        if time.monotonic() - self._looked >= (_LOOK_S if age is None else age):
            self._nodes = {info.node_id: info for info in self._link.nodes()}
            self._now = is_current(self._nodes, self._now)
            self._looked = time.monotonic()
        return self._nodes

    def node(self, site: int) -> int:
        """Return the node under which a site is reached now."""
        return int(self._now[site].node_id) if site in self._now else site

    def connected(self, site: int) -> bool:
        """Return whether a site was connected."""
        return site in self._now and self._now[site].status == "online"

    def activated(self, site: int) -> str:
        """Return when a site's SuperNode last started."""
        return str(self._now[site].last_activated_at) if site in self._now else ""


def is_current(
    nodes: Mapping[int, NodeInfo], before: Mapping[int, NodeInfo]
) -> dict[int, NodeInfo]:
    """Return every node that was ever seen -> the node that its site has now.

    A site is its name: a key file that was moved away and back gives the site a new node, and
    questions to the old one would never be answered. A site that is let out keeps its last node.

    Args:
        nodes: the SuperLink's, by number.
        before: what this returned last time.

    >>> old = NodeInfo(node_id=1, name="nord", status="unregistered")
    >>> new = NodeInfo(node_id=2, name="nord", status="online")
    >>> is_current({1: old, 2: new}, {1: old})[1].node_id
    2
    """
    registered = {info.name: info for info in nodes.values() if info.status != _OUT and info.name}
    seen = {**before, **nodes}
    return {node: registered.get(info.name, nodes.get(node, info)) for node, info in seen.items()}
