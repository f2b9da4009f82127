"""The leak gate: no patient and no image where it would make a comparison untrue.

What is certain is an error here; what is likely is told by `likely`.
"""

from collections.abc import Sequence

import numpy as np

from fedrad.data.base import Records
from fedrad.data.groups import crossing, first_rows, places, told_rows
from fedrad.errors import DataLeakageError

__all__ = ["check_overlap", "refuse_overlap", "refuse_rows"]


def check_overlap(records: Records, *, shared_patients: bool = False) -> None:
    """Refuse records in which a patient or an image stands on both sides of a comparison.

    Args:
        records: with sites and splits where the source has them.
        shared_patients: some patients are known to visit several sites. They may then stand at
            several sites, still in one split only.

    Raises:
        DataLeakageError: a patient in two splits; one image (by its pixels) in two splits or at two
            sites; a patient at two sites, unless shared. It says how many, where, and up to
            five rows.

    >>> twice = Records(np.zeros((2, 1)), np.zeros((2, 1)), np.array([7, 7]),
    ...     np.array(["nord", "nord"]), np.array(["train", "test"]), None)
    >>> check_overlap(twice)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    fedrad.errors.DataLeakageError: 1 patient in two splits (nord: test, train; rows 1, 2): ...
    """
    n = len(records)
    site = np.full(n, "") if records.site is None else records.site
    split = np.full(n, "") if records.split is None else records.split
    # Without shared patients, equal numbers at two sites are told as that, not as two splits.
    whose = [records.patient] if shared_patients else [records.patient, site]
    refuse_overlap(
        records, whose, split, "patient", "in two splits",
        "give all rows of a patient one split, or let fedrad draw the splits",
    )  # fmt: skip
    if not shared_patients:
        refuse_overlap(
            records, [records.patient], site, "patient", "at two sites",
            "if numbers are each site's own, say so (patient_per_site); "
            "if these patients visit both, say shared_patients",
        )  # fmt: skip
    if records.pixels is not None:
        cure = "keep one of the copies"
        refuse_overlap(records, [records.pixels], split, "image", "in two splits", cure)
        refuse_overlap(records, [records.pixels], site, "image", "at two sites", cure)


def refuse_overlap(
    records: Records, keys: Sequence[np.ndarray], over: np.ndarray, what: str, where: str, cure: str
) -> None:
    """Raise if rows that agree in the keys differ in `over`.

    Raises:
        DataLeakageError: "2 images in two splits (nord: test, train; rows 1, 2, 5, 6): <cure>".
    """
    group, rows = crossing(keys, over)
    refuse_rows(records, rows, len(np.unique(group[rows])), what, where, cure)


def refuse_rows(
    records: Records, rows: np.ndarray, number: int, what: str, where: str, cure: str
) -> None:
    """Raise if there are any such rows; see `refuse_overlap`."""
    if not len(rows):
        return
    plural = "s" if number > 1 else ""
    raise DataLeakageError(
        f"{number} {what}{plural} {where} ({places(records, rows)}; {told_rows(records, rows)}): "
        f"{cure}",
        rule=f"{what} {where}".replace(" ", "-"),
        rows=first_rows(records, rows),
    )
