"""Sums over blocks of sites: where a block is added up does not change the bits.

A Grid whose workers add up whole blocks says so by `folds = True`; a block's message then names its
sites, and its reply carries one weighted sum instead of one model a site.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from flwr.app import RecordDict

from fedrad.algorithms.base import Numbers, Reply
from fedrad.core.state import Bundle, Mean, num_bytes
from fedrad.rounds.records import bundle_of, config_of, numbers_of, pack
from fedrad.rounds.replies import has_same_shapes

__all__ = [
    "GROUP_SIZE",
    "WEIGHT",
    "PartialAggregate",
    "accumulate",
    "failures_in",
    "groups_of_sites",
    "merge_partial",
    "pack_partial",
    "partial_of",
]

GROUP_SIZE = "block"
"""Setting of a message to a block: its sites' names, in order, with commas."""
WEIGHT = "weight"
"""Setting of a message to a block: the number that weighs a reply."""
_TOTAL = "total-weight"
_FAILED = "failed"
_MOST_BLOCKS = 32  # few, since a partial sum is as large as a model


@dataclass
class PartialAggregate:
    """What a block of sites adds up to.

    Args:
        mean: of their arrays.
        numbers: their sums.
        failed: site -> reason.
        bytes_up: of the sites' own arrays, each counted, as they would cross a network.
    """

    mean: Mean = field(default_factory=Mean)
    numbers: Numbers = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    bytes_up: int = 0


def groups_of_sites(images: Mapping[str, int]) -> list[tuple[str, ...]]:
    """Return the sites in at most 32 blocks of one size, those with the most images first.

    >>> groups_of_sites({"nord": 10, "ost": 30})
    [('ost',), ('nord',)]
    """
    order = sorted(images, key=lambda site: (-images[site], site))
    size = -(-len(order) // _MOST_BLOCKS)
    return [tuple(order[at : at + size]) for at in range(0, len(order), size)]


def accumulate(
    part: PartialAggregate, reply: Reply, weight: str, like: Bundle | None = None
) -> str | None:
    """Add a site's reply to its block; return why it cannot be, and then change nothing.

    Args:
        part: the block's sums.
        reply: the site's.
        weight: the number that weighs it.
        like: another site's arrays; None is those of the block.
    """
    if reply.numbers.get(weight, 0.0) < 0:
        return f"its {weight} is negative"
    if reply.numbers.get(weight, 0.0) > 0:
        others = like if like is not None else part.mean.sums
        if (like is not None or part.mean.total) and not has_same_shapes(others, reply.arrays):
            return "its arrays are not those of the other sites"
        part.mean.add(reply.arrays, reply.numbers[weight])
    part.bytes_up += num_bytes(reply.arrays)
    for key, value in reply.numbers.items():
        part.numbers[key] = part.numbers.get(key, 0.0) + value
    return None


def merge_partial(whole: PartialAggregate, part: PartialAggregate) -> None:
    """Add a block to the sum of all blocks, but for its failures."""
    whole.mean.merge(part.mean)
    whole.bytes_up += part.bytes_up
    for key, value in part.numbers.items():
        whole.numbers[key] = whole.numbers.get(key, 0.0) + value


def pack_partial(part: PartialAggregate) -> RecordDict:
    """Return a block's sums as the content of a reply."""
    kinds = {
        name: {key: str(kind).removeprefix("torch.") for key, kind in kinds.items()}
        for name, kinds in part.mean.kinds.items()
    }
    config: Mapping[str, Any] = {
        "kinds": json.dumps(kinds),
        _FAILED: json.dumps(part.failed),
        "bytes-up": part.bytes_up,
    }
    return pack(part.mean.sums, part.numbers | {_TOTAL: part.mean.total}, config)


def partial_of(content: RecordDict) -> PartialAggregate:
    """Return the sums that a block's reply carries."""
    numbers, config = numbers_of(content), config_of(content)
    mean = Mean()
    mean.total = numbers.pop(_TOTAL)
    mean.sums = bundle_of(content)
    mean.kinds = {
        name: {key: getattr(torch, kind) for key, kind in kinds.items()}
        for name, kinds in json.loads(str(config["kinds"])).items()
    }
    return PartialAggregate(mean, numbers, failures_in(config), int(config["bytes-up"]))


def failures_in(config: Mapping[str, Any]) -> dict[str, str]:
    """Return site -> reason of a block's reply, by its settings; none of a site's own reply."""
    found: dict[str, str] = json.loads(str(config.get(_FAILED, "{}")))
    return found
