"""Under which of Flower's nodes a site is reached now: let in anew, it has another one."""

from collections.abc import Mapping

from flwr.proto.node_pb2 import NodeInfo

__all__ = ["current"]

_OUT = "unregistered"


def current(nodes: Mapping[int, NodeInfo], before: Mapping[int, NodeInfo]) -> dict[int, NodeInfo]:
    """Return every node that was ever seen -> the node that its site has now.

    A site is its name: a key file that was moved away and back gives the site a new node, and
    questions to the old one would never be answered. A site that is let out keeps its last node.

    Args:
        nodes: the SuperLink's, by number.
        before: what this returned last time.

    >>> old = NodeInfo(node_id=1, name="nord", status="unregistered")
    >>> new = NodeInfo(node_id=2, name="nord", status="online")
    >>> current({1: old, 2: new}, {1: old})[1].node_id
    2
    """
    registered = {info.name: info for info in nodes.values() if info.status != _OUT and info.name}
    seen = {**before, **nodes}
    return {node: registered.get(info.name, nodes.get(node, info)) for node, info in seen.items()}
