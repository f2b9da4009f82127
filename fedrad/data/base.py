"""Records: what every adapter returns. SiteData: what one site holds of them.

Axis letters: n images (or table lines), c channels, h, w, f features.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from hashlib import blake2b

import numpy as np

from fedrad.core.seeds import seed as seed_of
from fedrad.errors import ConfigError, DataError

__all__ = [
    "SPLITS",
    "Records",
    "SiteData",
    "assign_splits",
    "at_site",
    "hashes",
    "patient_labels",
    "pooled",
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
    """

    x: np.ndarray
    y: np.ndarray
    patient: np.ndarray
    site: np.ndarray | None
    split: np.ndarray | None
    pixels: np.ndarray | None
    attributes: Mapping[str, np.ndarray] = field(default_factory=dict)
    row: np.ndarray | None = None

    def __post_init__(self) -> None:
        columns = (self.y, self.patient, self.site, self.split, self.pixels, self.row)
        lengths = [len(c) for c in (*columns, *self.attributes.values()) if c is not None]
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
        rows: "train" | "val" | "test" -> sorted int64 rows of x, y and patient.
        attributes: of the whole source, as in `Records`.
    """

    site: str
    x: np.ndarray
    y: np.ndarray
    patient: np.ndarray
    rows: Mapping[str, np.ndarray]
    attributes: Mapping[str, np.ndarray] = field(default_factory=dict)

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

    return Records(
        x=records.x[rows],
        y=records.y[rows],
        patient=records.patient[rows],
        site=pick(records.site),
        split=pick(records.split),
        pixels=pick(records.pixels),
        attributes={name: column[rows] for name, column in records.attributes.items()},
        row=row_numbers(records)[rows],
    )


def row_numbers(records: Records) -> np.ndarray:
    """Return int64 [n], the number by which a message names each row."""
    return np.arange(1, len(records) + 1) if records.row is None else records.row


def at_site(records: Records, site: str) -> Records:
    """Return the records with every row at one site, as a hospital sees its own table."""
    return replace(records, site=np.full(len(records), site))


def patient_labels(y: np.ndarray, patient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the patients, and the highest label over each one's rows.

    Args:
        y: [n, columns]; nan is not read.
        patient: uint64 [n].

    Returns:
        uint64 [p] sorted, and [p, columns]; nan where none of the patient's rows was read.

    >>> patient_labels(np.array([[0.0], [1.0], [0.0]]), np.array([7, 7, 9]))[1].tolist()
    [[1.0], [0.0]]
    """
    patients, inverse = np.unique(patient, return_inverse=True)
    labels = np.full((len(patients), y.shape[1]), np.nan)
    np.fmax.at(labels, inverse, y)
    return patients, labels


def assign_splits(records: Records, *, val: float, test: float, seed: int) -> Records:
    """Return the records with every patient in one split, drawn within each site.

    A patient gets one split wherever it is seen. Patients are taken at even steps through each
    site's list ordered by label, so every split has a site's share of each label to within one
    patient. Splits that the source had are replaced; adding a site does not move another's.

    Args:
        records: the source; without sites it counts as one.
        val: share of the patients, not negative, together with test below 1.
        test: the same.
        seed: of the draw.

    Raises:
        ConfigError: the shares do not fit.

    >>> one = Records(np.zeros((20, 1)), np.zeros((20, 1)), hashes(map(str, range(20))),
    ...     None, None, None)
    >>> splits = assign_splits(one, val=0.1, test=0.25, seed=0).split
    >>> [int((splits == name).sum()) for name in SPLITS]
    [13, 2, 5]
    """
    if not (val >= 0 and test >= 0 and val + test < 1):
        raise ConfigError(f"val {val:g} and test {test:g}: each from 0, together below 1")
    patients, labels = patient_labels(records.y, records.patient)
    home = np.full(len(patients), "") if records.site is None else _first_site(records)
    splits = np.full(len(patients), "train", dtype="<U5")
    for site in np.unique(home):
        here = np.flatnonzero(home == site)
        rng = np.random.default_rng(seed_of(seed, str(site), 0, "split"))
        order = here[_by_label(labels[here], rng)]
        tested = _every(len(order), test)
        splits[order[tested]] = "test"
        rest = order[~tested]
        splits[rest[_every(len(rest), val / (1 - test))]] = "val"
    return replace(records, split=splits[np.searchsorted(patients, records.patient)])


def _first_site(records: Records) -> np.ndarray:
    """Return each patient's first site by name, str [p] in the order of sorted patients."""
    assert records.site is not None
    order = np.lexsort((records.site, records.patient))
    _, starts = np.unique(records.patient[order], return_index=True)
    first: np.ndarray = records.site[order[starts]]
    return first


def _by_label(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an order of patients: like labels together, the rarest finding first, else random."""
    read = np.where(np.isnan(labels), -1, labels)
    rarest_last = np.argsort(-(read > 0).sum(0), kind="stable")
    # lexsort's last key sorts first.
    return np.lexsort((rng.permutation(len(read)), *(read[:, k] for k in rarest_last)))


def _every(n: int, share: float) -> np.ndarray:
    """Return bool [n], a share of the places at even steps; n * share of them, rounded."""
    # 1e-9: 10 * 0.15 + 0.5 must not fall just short of its whole number.
    steps = np.floor(np.arange(n + 1) * share + 0.5 + 1e-9)
    taken: np.ndarray = np.diff(steps) > 0
    return taken


def sites_of(records: Records) -> dict[str, SiteData]:
    """Return what each site holds, sorted by name.

    Raises:
        DataError: the source says no site or no split.
    """
    if records.site is None:
        raise DataError("the data name no sites: give a site column, or a partition to draw them")
    if records.split is None:
        raise DataError("the data name no splits: give a split column, or shares to draw them")
    return {
        str(name): SiteData(
            site=str(name),
            x=records.x,
            y=records.y,
            patient=records.patient,
            rows={
                split: np.flatnonzero((records.site == name) & (records.split == split))
                for split in SPLITS
            },
            attributes=records.attributes,
        )
        for name in np.unique(records.site)
    }


def pooled(sites: Sequence[SiteData], name: str) -> SiteData:
    """Return one site that holds the rows of several.

    Sites of one source share its arrays; of different sources, the rows they use are copied.

    Raises:
        DataError: the sites' images or labels differ in shape.
    """
    first = sites[0]
    if all(site.x is first.x and site.y is first.y for site in sites):
        return replace(first, site=name, rows=_joined([site.rows for site in sites]))
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
