"""Splits of data that come without: every patient in one, each site's labels in all."""

from dataclasses import replace

import numpy as np

from fedrad.core.seeds import seed as seed_of
from fedrad.data.base import Records
from fedrad.errors import ConfigError

__all__ = ["assign_splits", "patient_labels"]


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

    >>> from fedrad.data.base import SPLITS, hashes
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
