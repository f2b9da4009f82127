"""What a ledger says, in rows and in sentences for a hospital's own people."""

from collections.abc import Sequence

from fedrad.privacy.accountant import compose_uses, for_group
from fedrad.privacy.ledger import LedgerEntry

__all__ = ["ledger_rows", "ledger_sentences"]

_SHORT = 12  # hexadecimal digits of a digest that are shown


def ledger_rows(entries: Sequence[LedgerEntry], delta: float) -> list[tuple[str, ...]]:
    """Return a row for each data set and arm, in the order of their first use.

    Args:
        entries: of the ledger.
        delta: at which epsilon is told.

    Returns:
        Data set, experiment, arm's digest, unit, uses, steps, a patient's epsilon, its account.
    """
    kinds = dict.fromkeys(
        (e.charge.data, e.charge.experiment, e.charge.digest, e.charge.unit) for e in entries
    )
    rows: list[tuple[str, ...]] = []
    for data, experiment, digest, unit in kinds:
        uses = [
            e.charge.use
            for e in entries
            if (e.charge.data, e.charge.digest, e.charge.unit) == (data, digest, unit)
        ]
        spent = compose_uses(uses, delta)
        steps = sum(use.steps for use in uses)
        rows.append(
            (
                data[:_SHORT],
                experiment,
                digest[:_SHORT],
                unit,
                f"{len(uses)}",
                f"{steps}",
                f"{spent.epsilon:.3g}",
                spent.accountant,
            )
        )
    return rows


def ledger_sentences(
    entries: Sequence[LedgerEntry], delta: float, ceiling: float | None
) -> list[str]:
    """Return what is spent and left over all experiments, and how it is to be read.

    >>> ledger_sentences([], 1e-5, 8.0)
    ['Nothing is spent yet.', 'Left below the ceiling of 8: all of it.']
    """
    if not entries:
        left = [] if ceiling is None else [f"Left below the ceiling of {ceiling:g}: all of it."]
        return ["Nothing is spent yet.", *left]
    spent = compose_uses([e.charge.use for e in entries], delta)
    told = [
        f"Spent by a patient over all experiments: epsilon {spent.epsilon:.3g} at delta {delta:g} "
        f"({spent.accountant}; the rows above do not add up to it, they are composed)."
    ]
    if ceiling is not None:
        left_over = "nothing" if spent.epsilon >= ceiling else f"{ceiling - spent.epsilon:.3g}"
        told.append(
            f"Left below the ceiling of {ceiling:g}: {left_over}; what a round costs depends on "
            "all before it."
        )
    columns = len({e.charge.data for e in entries})
    if columns > 1:
        told.append(
            f"{columns} data sets were used. A patient may be in all of them, so all count against "
            "one ceiling; who is in one alone has spent that column's epsilon at most."
        )
    return told + _of_images(entries, delta)


def _of_images(entries: Sequence[LedgerEntry], delta: float) -> list[str]:
    images = [e.charge.use for e in entries if e.charge.unit == "image"]
    if not images:
        return []
    most = max(use.units for use in images)
    alone = compose_uses(
        [type(use)(use.rate, use.noise, use.steps) for use in images], delta
    ).epsilon
    epsilon, group_delta = for_group(alone, delta, most)
    return [
        f"Some uses hid single images: epsilon {alone:.3g} for an image. A patient has up to {most}"
        f"; by group privacy alone that is epsilon {epsilon:.3g} at delta {group_delta:.2g}, and "
        "the figures above count such a patient by the bound for sampled groups."
    ]
