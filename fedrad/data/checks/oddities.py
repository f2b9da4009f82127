"""What looks odd in a site's data: not certain enough to stop a run, too likely to keep silent."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from fedrad.errors import ConfigError
from fedrad.registry import nearest

__all__ = ["RULES", "Oddity", "check_rules", "unaccepted"]

RULES: Mapping[str, str] = {
    "batch-of-one": "batch norm takes a mean over a last batch of one image",
    "bits-unused": "16-bit files use fewer bits than was said",
    "feature-constant": "a feature is equal, or missing, in all rows of a site",
    "feature-range": "a feature's values at one site lie apart from the others'",
    "feature-sentinel": "a number may stand for a missing value",
    "feature-tells-label": "a single feature tells a label in every row, or nearly so",
    "grey-levels": "a site's images use a part of the grey levels only",
    "images-alike": "images of different patients look like one film",
    "images-blank": "single images of a site have one grey level",
    "images-inverted": "single images of a site are inverted beside its others",
    "images-turned": "single images of a site are turned beside its others",
    "label-constant": "a label never changes at a site, or in one of its splits",
    "labels-differ": "one image stands twice, with different labels",
    "patients-spelled-alike": "one patient may be written in two ways",
    "patients-unnamed": "nobody said who the patients are",
    "rows-alike": "rows of different patients are equal in every feature",
    "site-inverted": "a site's images are inverted beside those of most others",
    "site-turned": "a site's images are turned beside those of most others",
    "sites-alike": "two sites' names differ in what a reader overlooks",
}
"""Rule -> what it says; the rules that `accept` may name."""


@dataclass(frozen=True)
class Oddity:
    """One thing that looks odd at one site.

    Attributes:
        site: the site's name; "" where it concerns the sites together.
        rule: a short name of `RULES` that does not change; it silences the oddity.
        found: a sentence, for the site's own eyes: what was found.
        mend: a sentence: what would mend it, or how to say that it is meant.
        rows: of the source, from 1; up to five.
    """

    site: str
    rule: str
    found: str
    mend: str
    rows: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        assert self.rule in RULES, f"{self.rule} is not in the table of rules"


def check_rules(accept: Collection[str], *, where: str) -> None:
    """Refuse to accept what is no rule: its oddity would be told on and on.

    Args:
        accept: names that somebody wrote.
        where: of the key, for the message.

    Raises:
        ConfigError: names the first that is no rule, and the nearest that is.

    >>> check_rules(["image-alike"], where="accept")
    Traceback (most recent call last):
    fedrad.errors.ConfigError: accept: 'image-alike' is no rule (did you mean 'images-alike'?)
    """
    for name in accept:
        if name not in RULES:
            raise ConfigError(f"{where}: '{name}' is no rule{nearest(name, RULES)}")


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
