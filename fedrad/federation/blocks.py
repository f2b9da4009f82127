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
from fedrad.federation.answers import alike
from fedrad.federation.records import bundle_of, config_of, numbers_of, pack

__all__ = [
    "BLOCK",
    "WEIGHT",
    "Part",
    "blocks_of",
    "failed_in",
    "fold",
    "merge",
    "pack_part",
    "part_of",
]

BLOCK = "block"
"""Setting of a message to a block: its sites' names, in order, with commas."""
WEIGHT = "weight"
"""Setting of a message to a block: the number that weighs a reply."""
_TOTAL = "total-weight"
_FAILED = "failed"
_MOST_BLOCKS = 32  # few, since a partial sum is as large as a model


@dataclass
class Part:
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


def blocks_of(images: Mapping[str, int]) -> list[tuple[str, ...]]:
    """Return the sites in at most 32 blocks of one size, those with the most images first.

    >>> blocks_of({"nord": 10, "ost": 30})
    [('ost',), ('nord',)]
    """
    order = sorted(images, key=lambda site: (-images[site], site))
    size = -(-len(order) // _MOST_BLOCKS)
    return [tuple(order[at : at + size]) for at in range(0, len(order), size)]


def fold(part: Part, reply: Reply, weight: str, like: Bundle | None = None) -> str | None:
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
        if (like is not None or part.mean.total) and not alike(others, reply.arrays):
            return "its arrays are not those of the other sites"
        part.mean.add(reply.arrays, reply.numbers[weight])
    part.bytes_up += num_bytes(reply.arrays)
    for key, value in reply.numbers.items():
        part.numbers[key] = part.numbers.get(key, 0.0) + value
    return None


def merge(whole: Part, part: Part) -> None:
    """Add a block to the sum of all blocks, but for its failures."""
    whole.mean.merge(part.mean)
    whole.bytes_up += part.bytes_up
    for key, value in part.numbers.items():
        whole.numbers[key] = whole.numbers.get(key, 0.0) + value


def pack_part(part: Part) -> RecordDict:
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


def part_of(content: RecordDict) -> Part:
    """Return the sums that a block's reply carries."""
    numbers, config = numbers_of(content), config_of(content)
    mean = Mean()
    mean.total = numbers.pop(_TOTAL)
    mean.sums = bundle_of(content)
    mean.kinds = {
        name: {key: getattr(torch, kind) for key, kind in kinds.items()}
        for name, kinds in json.loads(str(config["kinds"])).items()
    }
    return Part(mean, numbers, failed_in(config), int(config["bytes-up"]))


def failed_in(config: Mapping[str, Any]) -> dict[str, str]:
    """Return site -> reason of a block's reply, by its settings; none of a site's own reply."""
    found: dict[str, str] = json.loads(str(config.get(_FAILED, "{}")))
    return found
