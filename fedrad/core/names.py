"""Names in a sentence, and what is said of them, in few words however many they are."""

from collections.abc import Collection, Mapping

__all__ = ["by_reason", "listed"]

_MOST = 8
_FIRST = 3


def listed(names: Collection[str]) -> str:
    """Return the names with commas; of more than eight the first three and a count.

    >>> listed(["nord", "ost"])
    'nord, ost'
    >>> listed([f"site-{number}" for number in range(155)])
    'site-0, site-1, site-2 and 152 more'
    """
    found = list(names)
    if len(found) <= _MOST:
        return ", ".join(found)
    return f"{', '.join(found[:_FIRST])} and {len(found) - _FIRST} more"


def by_reason(reasons: Mapping[str, str]) -> str:
    """Return what is said of each name, once for all of which the same is said.

    Args:
        reasons: name -> what is said of it.

    >>> by_reason({"nord": "no answer", "ost": "its disk is full", "west": "no answer"})
    'nord, west: no answer; ost: its disk is full'
    """
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    told = [f"{listed(group)}: {reason}" for reason, group in names.items()]
    if len(told) <= _MOST:
        return "; ".join(told)
    return f"{'; '.join(told[:_FIRST])}; and {len(told) - _FIRST} other reasons"
