"""What looks odd in the sites' data as they are trained on, at a site and compared between sites.

Nothing here is certain: each oddity says what was seen, and what would mend it if it is a fault.
Images are looked at in a sample, so that `fedrad check` stays quick; the doctor looks at all.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from fedrad.config import Task
from fedrad.data.base import SPLITS, SiteData
from fedrad.data.checks.layout import between, shrunk, typical, unlike
from fedrad.data.checks.oddities import Oddity
from fedrad.registry import shown_names

__all__ = ["looks_odd", "odd_at_site"]

_SHOWN = 5
_SAMPLE = 4000
"""Images that are looked at over all sites, and of one site at most a tenth of it."""
_LEAST = 20
"""Images that are looked at of each site, however many sites there are."""
_FEW = 5
"""Rows of a split, or values of a feature, below which a constant is no surprise."""
_MANY = 10
"""Sites of more than this are compared with what most of them have in common."""
_UNITS = 5.0
"""Medians of a feature at two sites this many times apart may be in two units."""


def looks_odd(sites: Mapping[str, SiteData], task: Task) -> list[Oddity]:
    """Return what looks odd at each site and between them.

    Args:
        sites: name -> data; one without a row in its splits is not looked at.
        task: its labels.
    """
    sites = {name: site for name, site in sites.items() if len(_rows(site))}
    most = min(_SAMPLE // 10, max(_LEAST, _SAMPLE // max(1, len(sites))))
    found = [*_names(sites)]
    typicals: dict[str, np.ndarray] = {}
    for site in sites.values():
        found += _labels(site, task)
        odd, common = _at_site(site, most)
        found += odd
        if common is not None:
            typicals[site.site] = common
    return [*found, *_layouts(typicals), *_ranges(sites)]


def odd_at_site(site: SiteData) -> list[Oddity]:
    """Return what looks odd in the features or in all images of one site, as the doctor asks."""
    return _at_site(site, None)[0]


def _at_site(site: SiteData, most: int | None) -> tuple[list[Oddity], np.ndarray | None]:
    """Return what looks odd at a site, and its typical image where it has one."""
    rows = _rows(site)
    if site.x.dtype != np.uint8:
        return list(_constant(site, rows)), None
    some = rows if most is None else rows[:: max(1, -(-len(rows) // most))]
    images = np.asarray(site.x[some])
    small = shrunk(images)
    looked = f" of {len(some):,} images looked at" if len(some) < len(rows) else ""
    return [*_greys(site, images, looked), *_unlike(site, small, some, looked)], typical(small)


def _rows(site: SiteData) -> np.ndarray:
    return np.sort(np.concatenate([site.rows[split] for split in SPLITS]))


def _names(sites: Mapping[str, SiteData]) -> Iterator[Oddity]:
    """Yield names that a reader would take for one site's, with the rows of the rarest of them."""
    alike: dict[str, list[str]] = {}
    for name in sites:
        alike.setdefault(_plain(name), []).append(name)
    for same in alike.values():
        if len(same) > 1:
            # Of two that are alike the first is named: which is meant nobody knows.
            rare = min(same, key=lambda name: len(_rows(sites[name])))
            told, shown = _numbered(sites[rare], _rows(sites[rare]))
            yield Oddity(
                "",
                "sites-alike",
                f"{shown_names(map(repr, same))} count as {len(same)} sites ({rare!r} in {told}).",
                "If they are one, write its name in one way in the site column.",
                shown,
            )


def _numbered(site: SiteData, rows: np.ndarray) -> tuple[str, tuple[int, ...]]:
    """Return "rows 3, 4" as the source counts them, up to five, and these."""
    numbers = rows + 1 if site.row is None else site.row[rows]
    shown = tuple(int(number) for number in numbers[:_SHOWN])
    more = ", ..." if len(numbers) > _SHOWN else ""
    return f"row{'' if len(numbers) == 1 else 's'} {', '.join(map(str, shown))}{more}", shown


def _plain(name: str) -> str:
    """Return what is left of a name without case, accents, spaces, marks and leading zeros."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    number = re.fullmatch(r"\s*0*(\d+)(\.0*)?\s*", letters)
    if number:
        return number[1]
    return "".join(one for one in letters if unicodedata.category(one)[0] in "LN") or letters


def _labels(site: SiteData, task: Task) -> Iterator[Oddity]:
    """Yield labels that never change at a site, or in one of its splits alone."""
    y = site.y[_rows(site)]
    for what, names in _unchanging(y, task).items():
        yield Oddity(
            site.site,
            "label-constant",
            f"{_quoted(names)} {what} in all {len(y):,} rows.",
            "Check label, values and the site's own table; such a site cannot be scored by AUROC.",
        )
    known = {name for names in _unchanging(y, task).values() for name in names}
    for split in SPLITS:
        part = site.y[site.rows[split]]
        for what, names in _unchanging(part, task).items() if len(part) >= _FEW else ():
            new = [name for name in names if name not in known]
            if new:
                yield Oddity(
                    site.site,
                    "label-constant",
                    f"{_quoted(new)} {what} in all {len(part):,} rows of {split}.",
                    "Check the split column, or let fedrad draw the splits (split: ...).",
                )


def _unchanging(y: np.ndarray, task: Task) -> dict[str, list[str]]:
    """Return "is 0", "is 1", "is not read" -> labels of which it is so in every row."""
    found: dict[str, list[str]] = {}
    if len(y) < _FEW:
        return found
    for k, name in enumerate(task.labels):
        column = y[:, 0] == k if task.name == "multiclass" else y[:, k]
        read = column[~np.isnan(column)] if task.name != "multiclass" else column
        if not len(read):
            found.setdefault("is not read", []).append(name)
        elif (read == read[0]).all():
            found.setdefault(f"is {int(read[0])}", []).append(name)
    return found


def _constant(site: SiteData, rows: np.ndarray) -> Iterator[Oddity]:
    """Yield that features are equal, or missing, in all rows of a site."""
    x = site.x[rows]
    # Not the indicators of missing values behind them: most are 0 throughout.
    same = [
        name for k, name in enumerate(site.columns) if len(x) >= _FEW and (x[:, k] == x[0, k]).all()
    ]
    if same:
        yield Oddity(
            site.site,
            "feature-constant",
            f"Feature{'s' if len(same) > 1 else ''} {_quoted(same)} "
            f"{'are' if len(same) > 1 else 'is'} equal, or missing, in all {len(x):,} rows.",
            "Check the columns' names and the site's own table.",
        )


def _ranges(sites: Mapping[str, SiteData]) -> Iterator[Oddity]:
    """Yield features whose values at one site lie apart from those at the others, as units do."""
    if len(sites) < 2:
        return
    first = next(iter(sites.values()))
    if first.x.dtype == np.uint8:
        return
    for k, name in enumerate(first.columns):
        values = {s.site: _present(s, k) for s in sites.values() if k < s.x.shape[1]}
        values = {site: v for site, v in values.items() if len(v) >= 2 * _FEW}
        for site, own in values.items():
            others = [v for other, v in values.items() if other != site]
            # Of two sites either may be the one with the other unit: it is said once.
            if (
                others
                and _apart(own, np.concatenate(others))
                and not (len(values) == 2 and site == min(values))
            ):
                yield Oddity(
                    site,
                    "feature-range",
                    f"Feature '{name}' lies apart from the other sites' (median "
                    f"{np.median(own):.3g} against {np.median(np.concatenate(others)):.3g}, "
                    "after centre and scale).",
                    "Check its unit (mg or g, cm or m, years or months) and the order of columns.",
                )


def _present(site: SiteData, k: int) -> np.ndarray:
    """Return a feature's values; 0 is its centre, where missing ones are put."""
    values: np.ndarray = site.x[_rows(site), k].astype(np.float64)
    known: np.ndarray = values[values != 0]
    return known


def _apart(own: np.ndarray, others: np.ndarray) -> bool:
    low, middle, high = np.percentile(own, (5, 50, 95))
    other_low, other_middle, other_high = np.percentile(others, (5, 50, 95))
    if low <= other_high and other_low <= high:
        return False
    smaller, larger = sorted((abs(middle), abs(other_middle)))
    spread = max(high - low, other_high - other_low, 1e-12)
    return bool(larger > _UNITS * smaller or abs(middle - other_middle) > 3 * spread)


def _greys(site: SiteData, images: np.ndarray, looked: str) -> Iterator[Oddity]:
    """Yield that a site's images use a part of the grey levels only."""
    if not images.size:
        return
    low, high = int(images.min()), int(images.max())
    levels = len(np.unique(images))
    if high < 128 or low > 127 or levels <= 4:
        told = (
            f"{levels} grey levels" if levels <= 4 else f"grey levels {low} to {high} of 0 to 255"
        )
        yield Oddity(
            site.site,
            "grey-levels",
            f"All images{looked} have {told}.",
            "Check bits (for 16-bit files, often 12), and that these are the films and no masks.",
        )


def _unlike(site: SiteData, small: np.ndarray, rows: np.ndarray, looked: str) -> Iterator[Oddity]:
    for what, places in unlike(small).items():
        where = rows[places]
        told, shown = _numbered(site, where)
        one = len(where) == 1
        found = f"{len(where)}{looked or (' image' if one else ' images')}"
        yield Oddity(
            site.site,
            f"images-{what.split()[0]}" if what != "upside down" else "images-turned",
            f"{found} look{'s' if one else ''} {what} ({told}).",
            "Look at them; compared with the layout of the site's other images.",
            shown,
        )


def _layouts(typicals: Mapping[str, np.ndarray]) -> Iterator[Oddity]:
    """Yield sites whose images lie otherwise, or are inverted, beside those of most others."""
    if len(typicals) == 2:
        (one, own), (other, reference) = typicals.items()
        what = between(own, reference)
        if what:
            yield _layout("", f"{one} and {other} are {what} to each other", what)
        return
    common = typical(np.stack(list(typicals.values()))) if len(typicals) > _MANY else None
    for site, own in typicals.items():
        against = [common] if common is not None else _others(typicals, site)
        told = [way for way in (between(own, other) for other in against) if way]
        if 2 * len(told) > len(against):
            what = max(sorted(set(told)), key=told.count)
            yield _layout(site, f"{site} are {what}, beside most other sites'", what)


def _others(typicals: Mapping[str, np.ndarray], site: str) -> list[np.ndarray]:
    others = [image for name, image in typicals.items() if name != site]
    return others[:_MANY]


def _layout(site: str, told: str, what: str) -> Oddity:
    cure = "invert them, as for MONOCHROME1" if what == "inverted" else "turn them"
    return Oddity(
        site,
        "site-inverted" if what == "inverted" else "site-turned",
        f"The images of {told}.",
        f"Look at some of each; if so, {cure}, before the sites train together.",
    )


def _quoted(names: Sequence[str]) -> str:
    return shown_names((f"'{name}'" for name in names), most=_SHOWN)
