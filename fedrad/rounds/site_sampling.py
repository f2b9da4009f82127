"""Which sites take part in a round, where not all of them do."""

import random
from collections.abc import Mapping

from fedrad.core import seeds
from fedrad.rounds.nodes import Node

__all__ = ["sampled_sites"]


def sampled_sites(
    nodes: Mapping[str, Node], some: int, *, seed: int, number: int
) -> tuple[str, ...]:
    """Return the sites of a round, sorted.

    They are drawn among those that can train, each as likely as another: a round of sites without
    a training image has no mean. Where all can train, the draw is that of all.

    Args:
        nodes: of the training sites, by name.
        some: how many are drawn; all that can train if they are fewer.
        seed: of the run.
        number: of the round.

    >>> nodes = {"nord": Node(1, 40, "3f"), "ost": Node(2, 0, "77"), "sued": Node(3, 32, "02")}
    >>> sampled_sites(nodes, 2, seed=0, number=1)
    ('nord', 'sued')
    """
    able = sorted(name for name, node in nodes.items() if node.can_train) or sorted(nodes)
    draw = random.Random(seeds.seed(seed, "", number, "participants"))
    return tuple(sorted(draw.sample(able, min(some, len(able)))))
