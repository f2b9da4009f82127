"""Records: what every adapter returns. SiteData: what one site holds of them.

Axis letters: n images (or table lines), c channels, h, w, f features.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from hashlib import blake2b, sha256

import numpy as np

from fedrad.data.checks.oddities import Oddity
from fedrad.errors import DataError

__all__ = [
    "SPLITS",
    "Records",
    "SiteData",
    "at_site",
    "hashes",
    "pooled_site",
    "row_numbers",
    "select",
    "sites_of",
]

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Records:
    """One source of data, one row an image or a table line.

    Attributes:
        x: uint8 [n, c, h, w] (may be a read-only memmap), or float32 [n, f].
        y: float32 [n, columns]; nan is "not read". Binary 0 or 1, multiclass the class's index.
        patient: uint64 [n], a hash of the source's patient id; never the id.
        site: str [n], or None where the source has no sites.
        split: str [n] of "train", "val", "test", or None where the source has no splits.
        pixels: uint64 [n], a hash of each decoded image, or None for tables.
        attributes: age (float32, nan unknown), sex, view (str, "" unknown), each [n].
        row: int64 [n], the source's own row numbers from 1, for messages; None is 1, 2, 3 ...
        alike: uint64 [n], equal where two rows are likely one patient's though `patient` differs
            (ids spelled in two ways), or None where patients have no ids.
        sketches: int8 [n, 3, 32, 32], by which near copies are known (see `sketch`), or None.
        oddities: what its adapter saw that looks odd; their `site` is "" where a table holds
            several.
        columns: names of x's columns, of a table.
    """

    x: np.ndarray
    y: np.ndarray
    patient: np.ndarray
    site: np.ndarray | None
    split: np.ndarray | None
    pixels: np.ndarray | None
    attributes: Mapping[str, np.ndarray] = field(default_factory=dict)
    row: np.ndarray | None = None
    alike: np.ndarray | None = None
    sketches: np.ndarray | None = None
    oddities: tuple[Oddity, ...] = ()
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        columns = (self.y, self.patient, self.site, self.split, self.pixels, self.row)
        more = (self.alike, self.sketches, *self.attributes.values())
        lengths = [len(c) for c in (*columns, *more) if c is not None]
        assert all(n == len(self.x) for n in lengths), f"{len(self.x)} rows of x, {lengths}"
        assert self.y.ndim == 2, f"y is [n, columns], found {self.y.shape}"

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, eq=False)
class SiteData:
    """All that one site holds: the source's arrays, shared between sites, and its own rows.

    Attributes:
        site: the site's name.
        x, y, patient: of the whole source, as in `Records`; never copied for a site.
        rows: "train" | "val" | "test" -> sorted int64 rows of x, y and patient, each with a label.
        attributes: of the whole source, as in `Records`.
        pixels: of the whole source, as in `Records`.
        unlabelled: rows of this site that were left out, because none of their labels was read.
        columns: of the whole source, as in `Records`.
        row: of the whole source, as in `Records`.
    """

    site: str
    x: np.ndarray
    y: np.ndarray
    patient: np.ndarray
    rows: Mapping[str, np.ndarray]
    attributes: Mapping[str, np.ndarray] = field(default_factory=dict)
    pixels: np.ndarray | None = None
    unlabelled: int = 0
    columns: tuple[str, ...] = ()
    row: np.ndarray | None = None

    @cached_property
    def digest(self) -> str:
        """Return 64 hex digits that change with any image, label, patient or split of the site."""
        found = sha256()
        images = self.x if self.pixels is None else self.pixels
        # Not as memmaps: a view of one takes as long as the hash of a small site.
        columns = [np.asarray(column) for column in (images, self.y, self.patient)]
        for split in SPLITS:
            rows = self.rows[split]
            found.update(f"{split} {len(rows)}\n".encode())
            for column in columns:
                found.update(np.ascontiguousarray(column[rows]).data)
        return found.hexdigest()

    def images(self, split: str) -> int:
        """Return the number of images (or table lines) of a split."""
        return len(self.rows[split])

    def patients(self, split: str) -> int:
        """Return the number of patients of a split."""
        return len(np.unique(self.patient[self.rows[split]]))


def hashes(ids: Iterable[str]) -> np.ndarray:
    """Return uint64 [n], the start of each text's BLAKE2b digest.

    A hash hides an id from a reader's eye, not from one who can guess ids: it stays at the site.

    >>> one, other, again = hashes(["17", "18", "17"])
    >>> one == again, one == other
    (np.True_, np.False_)
    """
    digests = b"".join(blake2b(text.encode(), digest_size=8).digest() for text in ids)
    return np.frombuffer(digests, dtype=np.uint64)


def select(records: Records, rows: np.ndarray) -> Records:
    """Return only some rows of the records, in the order given.

    Args:
        records: the source.
        rows: int64 or bool, as numpy indexes.
    """

    def pick(column: np.ndarray | None) -> np.ndarray | None:
        return None if column is None else column[rows]

    return replace(
        records,
        x=records.x[rows],
        y=records.y[rows],
        patient=records.patient[rows],
        site=pick(records.site),
        split=pick(records.split),
        pixels=pick(records.pixels),
        attributes={name: column[rows] for name, column in records.attributes.items()},
        row=row_numbers(records)[rows],
        alike=pick(records.alike),
        sketches=pick(records.sketches),
    )


def row_numbers(records: Records) -> np.ndarray:
    """Return int64 [n], the number by which a message names each row."""
    return np.arange(1, len(records) + 1) if records.row is None else records.row


def at_site(records: Records, site: str) -> Records:
    """Return the records with every row at one site, as a hospital sees its own table."""
    own = tuple(replace(oddity, site=site) for oddity in records.oddities)
    return replace(records, site=np.full(len(records), site), oddities=own)


def sites_of(records: Records) -> dict[str, SiteData]:
    """Return what each site holds, sorted by name.

    Raises:
        DataError: the source says no site or no split.
    """
    if records.site is None:
        raise DataError("the data name no sites: give a site column, or a partition to draw them")
    if records.split is None:
        raise DataError("the data name no splits: give a split column, or shares to draw them")
    read = ~np.isnan(records.y).all(axis=1)
    return {str(name): _site_of(records, str(name), read) for name in np.unique(records.site)}


def _site_of(records: Records, name: str, read: np.ndarray) -> SiteData:
    """Return what one site holds; a row without any label can neither teach nor test."""
    here = records.site == name
    return SiteData(
        site=name,
        x=records.x,
        y=records.y,
        patient=records.patient,
        rows={split: np.flatnonzero(here & read & (records.split == split)) for split in SPLITS},
        attributes=records.attributes,
        pixels=records.pixels,
        unlabelled=int((here & ~read).sum()),
        columns=records.columns,
        row=records.row,
    )


def pooled_site(sites: Sequence[SiteData], name: str) -> SiteData:
    """Return one site that holds the rows of several.

    Sites of one source share its arrays; of different sources, the rows they use are copied.

    Raises:
        DataError: the sites' images or labels differ in shape.
    """
    first = sites[0]
    if all(site.x is first.x and site.y is first.y for site in sites):
        rows = _joined([site.rows for site in sites])
        return replace(first, site=name, rows=rows, unlabelled=0)
    shapes = {(site.x.shape[1:], site.y.shape[1:]) for site in sites}
    if len(shapes) > 1:
        found = ", ".join(f"{site.site} {list(site.x.shape[1:])}" for site in sites)
        raise DataError(f"sites of different shapes cannot be pooled: {found}")
    used = [np.concatenate([site.rows[split] for split in SPLITS]) for site in sites]
    starts = np.cumsum([0, *map(len, used)])
    common = reduce(set.intersection, [set(site.attributes) for site in sites])
    pairs = list(zip(sites, used, strict=True))
    return SiteData(
        site=name,
        x=np.concatenate([site.x[rows] for site, rows in pairs]),
        y=np.concatenate([site.y[rows] for site, rows in pairs]),
        patient=np.concatenate([site.patient[rows] for site, rows in pairs]),
        rows=_joined([_laid_out(s, int(at)) for s, at in zip(sites, starts, strict=False)]),
        attributes={
            key: np.concatenate([site.attributes[key][rows] for site, rows in pairs])
            for key in sorted(common)
        },
    )


def _joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {split: np.sort(np.concatenate([p[split] for p in parts])) for split in SPLITS}


def _laid_out(site: SiteData, start: int) -> dict[str, np.ndarray]:
    """Return a site's rows once its splits lie one behind the other from a start."""
    ends = start + np.cumsum([site.images(split) for split in SPLITS])
    return {
        split: np.arange(end - site.images(split), end)
        for split, end in zip(SPLITS, ends, strict=True)
    }
