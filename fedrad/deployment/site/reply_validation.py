"""Whether a reply is what was asked for, and nothing besides."""

from collections.abc import Iterator
from math import isfinite

from flwr.app import RecordDict

from fedrad.core.state import all_finite
from fedrad.deployment.reply_spec import ReplySpec, specs_of
from fedrad.rounds.records import bundle_of, config_of

__all__ = ["find_violation", "numbers_in"]

_SITE = frozenset({"site"})
_DESCRIPTION = frozenset({"site", "fedrad", "torch", "device", "data", "machine", "refuses"})


def find_violation(content: RecordDict, look: ReplySpec, *, describes: bool = False) -> str | None:
    """Return in words what of a reply is not what was asked for, or None.

    Args:
        content: of the reply.
        look: what it has to look like.
        describes: the site was asked to describe itself, so versions and device may be told.
    """
    arrays, numbers = bundle_of(content), numbers_in(content)
    if set(content.metric_records) - {"metrics"} or set(content.config_records) - {"config"}:
        return "a record that nobody asked for"
    difference = look.difference(specs_of(arrays), numbers)
    if difference:
        return difference
    if not (all_finite(arrays) and all(map(isfinite, numbers.values()))):
        return "a number that is not finite"
    known = _DESCRIPTION if describes else _SITE
    return None if set(config_of(content)) <= known else "a setting that nobody asked for"


def numbers_in(content: RecordDict) -> dict[str, float]:
    """Return all numbers of a content; a list, which could not be added up, is not a number."""
    return dict(_flat(content))


def _flat(content: RecordDict) -> Iterator[tuple[str, float]]:
    for record in content.metric_records.values():
        for key, value in record.items():
            yield (key, float("nan")) if isinstance(value, list) else (key, float(value))
