"""What looks odd in a site's data: not certain enough to stop a run, too likely to keep silent."""

from dataclasses import dataclass

__all__ = ["Oddity"]


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
