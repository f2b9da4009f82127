"""What looks odd in a site's data: not certain enough to stop a run, too likely to keep silent."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

__all__ = ["Oddity", "unaccepted"]


@dataclass(frozen=True)
class Oddity:
    """One thing that looks odd at one site.

    Attributes:
        site: the site's name; "" where it concerns the sites together.
        rule: a short name that does not change, such as "patients-unnamed"; it silences the oddity.
        found: a sentence, for the site's own eyes: what was found.
        mend: a sentence: what would mend it, or how to say that it is meant.
        rows: of the source, from 1; up to five.
    """

    site: str
    rule: str
    found: str
    mend: str
    rows: tuple[int, ...] = ()


def unaccepted(oddities: Iterable[Oddity], accept: Collection[str]) -> tuple[Oddity, ...]:
    """Return the oddities whose rules are not accepted, in their order.

    Args:
        oddities: found.
        accept: rules that the owner of the experiment or of the site has looked at and accepts.

    >>> odd = Oddity("nord", "patients-unnamed", "No patient is named.", "Name one.")
    >>> unaccepted([odd], ["patients-unnamed"]), len(unaccepted([odd], []))
    ((), 1)
    """
    return tuple(one for one in oddities if one.rule not in accept)
