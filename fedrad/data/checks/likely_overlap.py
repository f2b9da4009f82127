"""A closer look for leaks: copies that are no longer equal byte by byte, rows that stand twice.

What is certain is refused here too; what is likely is told with rows, and silenced by name. What
neither can find is in docs/leaks.md.
"""

from collections.abc import Callable

import numpy as np

from fedrad.data.base import Records
from fedrad.data.checks.lookalikes import MOST_PAIRS, Pairs, look_alike, turned
from fedrad.data.checks.oddities import Oddity
from fedrad.data.checks.overlap import refuse_rows
from fedrad.data.checks.repeats import repeats_of
from fedrad.data.groups import crossing, first_rows, places, told_rows

__all__ = ["likely_leaks"]

_CONTRAST = 32
"""Grey levels that an image spans at least before it is certain that it is another one."""

ImageOf = Callable[[int], np.ndarray]

_ONE_OF_TWO = (
    "keep one of the copies, or give both rows to one patient and one split; if they are different"
)


def likely_leaks(records: Records, image_of: ImageOf | None = None) -> list[Oddity]:
    """Return what looks like a leak in records that `leaks.check` let pass.

    Args:
        records: of all sites of this process, with their splits.
        image_of: row -> [c, h, w], an image at the task's size; by default of `records.x`.

    Raises:
        DataLeakageError: an image that is another one, turned, mirrored or brought to the task's
            size, or a table's row that no chance makes equal to another, in two splits or at two
            sites.
    """
    pairs = _alike(records)
    _refuse_turned(records, pairs, image_of or (lambda row: records.x[row]))
    return [
        *_spellings(records),
        *_repeated_rows(records),
        *_copies(records, pairs),
        *_contradictions(records, pairs),
    ]


def _spellings(records: Records) -> list[Oddity]:
    """Return that ids differ only in case, leading zeros, or what stands between their parts."""
    if records.alike is None:
        return []
    group, rows = crossing([records.alike], records.patient)
    if not len(rows):
        return []
    told = (
        f"{_many(len(np.unique(group[rows])), 'patient')} may be written in two ways (case, "
        "leading zeros, or what stands between words and numbers)"
    )
    cure = "write each patient's id in one way; if they are different people"
    return [_odd(records, rows, "patients-spelled-alike", told, cure)]


def _alike(records: Records) -> Pairs:
    """Return the pairs of images that look alike and should not, if the images are sketched."""
    if records.sketches is None:
        none = np.empty(0, np.int64)
        return Pairs(none, none, none)
    patient, place = records.patient, _codes(records)
    y = records.y

    def wanted(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        apart = (place[:, one] != place[:, other]).any(axis=0) | _differ(y[one], y[other])
        found: np.ndarray = (patient[one] != patient[other]) & apart
        return found

    return look_alike(records.sketches, wanted)


def _codes(records: Records) -> np.ndarray:
    """Return int64 [2, n], numbers of each row's split and of its site."""
    columns = (records.split, records.site)
    none = np.zeros(len(records), np.int64)
    return np.stack([none if c is None else np.unique(c, return_inverse=True)[1] for c in columns])


def _differ(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return bool [m]: some label was read in both rows and differs; nan is not read."""
    differ: np.ndarray = (np.abs(one - other) > 0).any(axis=1)
    return differ


def _refuse_turned(records: Records, pairs: Pairs, image_of: ImageOf) -> None:
    """Raise where one image, at the task's size, is the other, turned or mirrored."""
    place = _codes(records)
    cure = "they are equal as the network sees them, perhaps turned or mirrored; keep one of them"
    for axis, where in enumerate(("in two splits", "at two sites")):
        rows = [
            (one, other)
            for one, other, turn in zip(pairs.one, pairs.other, pairs.turn, strict=True)
            if place[axis, one] != place[axis, other]
            and _equal(image_of(one), turned(image_of(other), int(turn)))
        ]
        refuse_rows(records, np.array(rows, np.int64).reshape(-1), len(rows), "image", where, cure)


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two images differ by no more than a resizer rounds, one grey level."""
    if one.shape != other.shape or np.ptp(one) < _CONTRAST:
        return False
    return bool(np.abs(one.astype(np.int16) - other.astype(np.int16)).max(initial=0) <= 1)


def _copies(records: Records, pairs: Pairs) -> list[Oddity]:
    """Return that images of different patients look like one film."""
    place = _codes(records)
    across = (place[:, pairs.one] != place[:, pairs.other]).any(axis=0)
    if not across.any():
        return []
    number = int(across.sum())
    least = "at least " if len(pairs) >= MOST_PAIRS else ""
    told = (
        f"{least}{_many(number, 'pair')} of images of different patients look like one film each "
        "(saved again, resized, framed, turned or inverted), in two splits or at two sites"
    )
    rows = np.stack([pairs.one[across], pairs.other[across]], axis=1).reshape(-1)
    return [_odd(records, rows, "images-alike", told[0].upper() + told[1:], _ONE_OF_TWO)]


def _repeated_rows(records: Records) -> list[Oddity]:
    """Return that a table's rows are equal which chance would hardly make so.

    Raises:
        DataLeakageError: no chance would.
    """
    if records.x.ndim != 2 or not records.x.shape[1]:
        return []
    found = []
    for column, where in ((records.split, "in two splits"), (records.site, "at two sites")):
        if column is None:
            continue
        repeats = repeats_of(records, column)
        rows, group = repeats.certain, repeats.group
        cure = (
            "they agree in every feature, which chance does not make in a table like this; keep "
            "one of each, or name the patient"
        )
        refuse_rows(records, rows, len(np.unique(group[rows])), "repeated row", where, cure)
        rows = repeats.likely
        if len(rows):
            number = len(np.unique(group[rows]))
            stand = f"{_many(number, 'row')} {'stand' if number > 1 else 'stands'}"
            told = f"{stand} {where} as different patients, equal in every feature"
            found.append(_odd(records, rows, "rows-alike", told, _ONE_OF_TWO))
    return found


def _contradictions(records: Records, pairs: Pairs) -> list[Oddity]:
    """Return that one image stands with two labels."""
    differ = _differ(records.y[pairs.one], records.y[pairs.other])
    if records.pixels is not None:
        # Equal pixels are counted below, whoever's they are.
        differ &= records.pixels[pairs.one] != records.pixels[pairs.other]
    rows = np.stack([pairs.one[differ], pairs.other[differ]], axis=1).reshape(-1)
    number = int(differ.sum())
    if records.pixels is not None:
        for k in range(records.y.shape[1]):
            read = np.flatnonzero(~np.isnan(records.y[:, k]))
            group, equal = crossing([records.pixels[read]], records.y[read, k])
            number += len(np.unique(group[equal]))
            rows = np.concatenate([read[equal], rows])
    if not number:
        return []
    told = f"{_many(number, 'image')} {'stand' if number > 1 else 'stands'} twice, with "
    told += "different labels"
    cure = "find out which label is right and keep that row; if both are meant"
    return [_odd(records, rows, "labels-differ", told, cure)]


def _odd(records: Records, rows: np.ndarray, rule: str, found: str, mend: str) -> Oddity:
    """Return an oddity of rows, at their site or between sites, with the way to silence it."""
    names = [] if records.site is None else np.unique(records.site[rows]).tolist()
    return Oddity(
        site=str(names[0]) if len(names) == 1 else "",
        rule=rule,
        found=f"{found} ({places(records, rows)}; {told_rows(records, rows)}).",
        mend=f"{mend}, say accept: [{rule}].",
        rows=first_rows(records, rows),
    )


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' if number > 1 else ''}"
