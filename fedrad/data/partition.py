"""Artificial sites: one source dealt out by its patients, alike or not.

Every partition gives all of a patient's rows to one site, draws only from its seed, and keeps the
source's splits. Sites are named site-1, site-2 ... (site-01 with ten or more), and earlier sites
are forgotten.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from fedrad.config import Task
from fedrad.core.seeds import seed as seed_of
from fedrad.data.base import Records, select
from fedrad.data.splits import patient_labels
from fedrad.errors import ConfigError, DataError

__all__ = ["dirichlet", "iid", "prevalence", "quantity"]

_DRAWS = 100


def iid(records: Records, task: Task, *, sites: int, seed: int = 0) -> Records:
    """Return sites of equal size, patients dealt at random.

    Args:
        records: the source.
        task: not used; all partitions are called alike.
        sites: how many.
        seed: of the draw.

    Raises:
        ConfigError: there are more sites than patients, or fewer than one.

    >>> from fedrad.data.base import hashes
    >>> task = Task(name="binary", labels=("lesion",), input=(1,))
    >>> one = Records(np.zeros((6, 1)), np.zeros((6, 1)), hashes("aabbcd"), None, None, None)
    >>> iid(one, task, sites=2, seed=1).site.tolist()
    ['site-1', 'site-1', 'site-1', 'site-1', 'site-2', 'site-2']
    """
    patients, rng = _start(records, sites, seed, "iid")
    place = rng.permutation(len(patients)) % sites
    return _dealt(records, patients, place, sites)


def quantity(records: Records, task: Task, *, sites: int, alpha: float, seed: int = 0) -> Records:
    """Return sites of unequal size, patients dealt at random.

    Args:
        records: the source.
        task: not used; all partitions are called alike.
        sites: how many.
        alpha: of the symmetric Dirichlet distribution that shares of the patients come from; small
            is unequal, large is equal.
        seed: of the draw.

    Raises:
        ConfigError: alpha is not positive, or the number of sites does not fit.
        DataError: in a hundred draws some site always got no patient.
    """
    patients, rng = _start(records, sites, seed, "quantity")
    _positive(alpha)

    def draw() -> np.ndarray:
        place = np.empty(len(patients), np.int64)
        place[rng.permutation(len(patients))] = _cut(len(patients), sites, alpha, rng)
        return place

    return _dealt(records, patients, _all_filled(draw, sites, "quantity"), sites)


def dirichlet(records: Records, task: Task, *, sites: int, alpha: float, seed: int = 0) -> Records:
    """Return sites that differ in their labels (and so in size).

    Each class's patients are shared out by a draw of their own. A patient's class is: binary, the
    highest label of its images; multiclass, the most frequent; multilabel, the rarest of its
    findings, or none. Hsu, Qi, Brown, 2019, https://arxiv.org/abs/1909.06335; Yurochkin et al.,
    ICML 2019, https://arxiv.org/abs/1905.12022 (this form).

    Args:
        records: the source.
        task: says what a label is.
        sites: how many.
        alpha: of the symmetric Dirichlet distribution; 0.1 leaves a site hardly more than one
            class, 100 makes sites alike.
        seed: of the draw.

    Raises:
        ConfigError: alpha is not positive, or the number of sites does not fit.
        DataError: in a hundred draws some site always got no patient.
    """
    patients, rng = _start(records, sites, seed, "dirichlet")
    _positive(alpha)
    classes = _classes(records, task)

    def draw() -> np.ndarray:
        place = np.empty(len(patients), np.int64)
        for one in np.unique(classes):
            members = rng.permutation(np.flatnonzero(classes == one))
            place[members] = _cut(len(members), sites, alpha, rng)
        return place

    return _dealt(records, patients, _all_filled(draw, sites, "dirichlet"), sites)


def prevalence(
    records: Records,
    task: Task,
    *,
    sites: int | None = None,
    shares: Sequence[float] | None = None,
    low: float | None = None,
    high: float | None = None,
    seed: int = 0,
) -> Records:
    """Return sites of equal size that differ in the share of positive patients.

    As many patients are used as the shares allow; the others' rows are left out (the images of the
    rest are copied).

    Args:
        records: the source.
        task: binary.
        sites: how many, with `low` and `high`.
        shares: of positive patients at each site, instead of `sites`, `low` and `high`.
        low: share at the first site; the others lie at even steps up to `high`.
        high: share at the last site.
        seed: of the draw.

    Raises:
        ConfigError: the task is not binary, or the shares do not fit.
        DataError: there are too few patients of a kind for one at each site.
    """
    _check_number(len(np.unique(records.patient)), sites or len(shares or [1]))
    wanted = _shares(task, sites, shares, low, high)
    patients, rng = _start(records, len(wanted), seed, "prevalence")
    classes = _classes(records, task)
    kinds = [rng.permutation(np.flatnonzero(classes == one)) for one in (0, 1)]
    needed = [float((1 - wanted).sum()), float(wanted.sum())]
    size = _largest(wanted, [len(kind) for kind in kinds], needed)
    if size < 1:
        raise DataError(
            f"prevalence: {len(kinds[1])} positive and {len(kinds[0])} negative patients are too "
            f"few for {len(wanted)} sites of these shares"
        )
    positives = np.rint(wanted * size).astype(int)
    place = np.full(len(patients), -1)
    for kind, counts in zip(kinds, (size - positives, positives), strict=True):
        place[kind[: counts.sum()]] = np.repeat(np.arange(len(wanted)), counts)
    of = place[np.searchsorted(patients, records.patient)]
    return _dealt(select(records, of >= 0), patients, place, len(wanted))


def _largest(wanted: np.ndarray, have: Sequence[int], needed: Sequence[float]) -> int:
    """Return the largest size of sites for which both kinds of patients suffice."""
    size = int(min(h / n for h, n in zip(have, needed, strict=True) if n > 0)) + 1
    while size > 0:
        positives = int(np.rint(wanted * size).sum())
        if positives <= have[1] and size * len(wanted) - positives <= have[0]:
            break
        size -= 1
    return size


def _shares(
    task: Task,
    sites: int | None,
    shares: Sequence[float] | None,
    low: float | None,
    high: float | None,
) -> np.ndarray:
    if task.name != "binary":
        raise ConfigError(f"prevalence: needs a binary task, found {task.name}")
    if (shares is None) == (sites is None or low is None or high is None):
        raise ConfigError("prevalence: give shares, or sites with low and high")
    if shares is not None and sites not in (None, len(shares)):
        raise ConfigError(f"prevalence: {len(shares)} shares for {sites} sites")
    if shares is not None:
        wanted = np.array(shares, dtype=float)
    else:
        assert sites is not None and low is not None and high is not None
        wanted = np.linspace(low, high, sites)
    if not len(wanted) or not ((wanted >= 0) & (wanted <= 1)).all():
        raise ConfigError("prevalence: shares are from 0 to 1, one a site")
    return wanted


def _start(
    records: Records, sites: int, seed: int, purpose: str
) -> tuple[np.ndarray, np.random.Generator]:
    """Return the patients (sorted) and the generator, after a check of the number of sites."""
    patients = np.unique(records.patient)
    _check_number(len(patients), sites)
    return patients, np.random.default_rng(seed_of(seed, "", 0, f"partition {purpose}"))


def _check_number(patients: int, sites: int) -> None:
    """Refuse more sites than patients, before anything is made for each of them."""
    if not 1 <= sites <= patients:
        raise ConfigError(f"sites: found {sites}; fits 1 to {patients}, the patients")


def _positive(alpha: float) -> None:
    if not alpha > 0:
        raise ConfigError(f"alpha: found {alpha:g}; must be above 0")


def _classes(records: Records, task: Task) -> np.ndarray:
    """Return each patient's class, int [p] in the order of sorted patients; -1 where not read."""
    if task.name == "multiclass":
        return _majority(records, len(task.labels))
    _, labels = patient_labels(records.y, records.patient)
    unread = np.isnan(labels).all(1)
    if task.name == "binary":
        return np.where(unread, -1, np.nan_to_num(labels[:, 0])).astype(int)
    # 1 + the rarest finding that the patient has; 0 for none.
    has = np.nan_to_num(labels) > 0
    rarity = np.where(has, has.sum(0), len(has) + 1)
    return np.where(unread, -1, np.where(has.any(1), 1 + rarity.argmin(1), 0))


def _majority(records: Records, classes: int) -> np.ndarray:
    """Return each patient's most frequent class; the first of equals."""
    patients, inverse = np.unique(records.patient, return_inverse=True)
    read = ~np.isnan(records.y[:, 0])
    counts = np.zeros((len(patients), classes), int)
    np.add.at(counts, (inverse[read], records.y[read, 0].astype(int)), 1)
    return np.where(counts.any(1), counts.argmax(1), -1)


def _cut(n: int, sites: int, alpha: float, rng: np.random.Generator) -> np.ndarray:
    """Return sorted sites for n patients, in shares drawn from a Dirichlet distribution."""
    ends = np.rint(np.cumsum(rng.dirichlet(np.full(sites, alpha))) * n)
    return np.searchsorted(ends, np.arange(n), side="right").clip(max=sites - 1)


def _all_filled(draw: Callable[[], np.ndarray], sites: int, name: str) -> np.ndarray:
    """Return the first draw in which each site has a patient."""
    for _ in range(_DRAWS):
        place = draw()
        if len(np.unique(place)) == sites:
            return place
    raise DataError(
        f"{name}: in {_DRAWS} draws some of {sites} sites always got no patient; "
        "take a larger alpha or fewer sites"
    )


def _dealt(records: Records, patients: np.ndarray, place: np.ndarray, sites: int) -> Records:
    """Return the records at the sites that their patients (sorted) were given."""
    digits = len(str(sites))
    names = np.array([f"site-{number:0{digits}d}" for number in range(1, sites + 1)])
    return replace(records, site=names[place[np.searchsorted(patients, records.patient)]])
