"""The page's section on leakage: what attacks on the frames of cut networks found."""

from collections.abc import Mapping
from typing import Any

from fedrad.report.formatting import BLANK, number

__all__ = ["leakage", "worst"]


def leakage(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the section's rows and pictures, None of a run in which nothing was attacked."""
    found = {arm["name"]: arm.get("leakage") for arm in results["arms"]}
    attacked = {name: leak for name, leak in found.items() if leak}
    if not attacked:
        return None
    measured = [leak for leak in attacked.values() if "reason" not in leak]
    return {
        "rows": [_row(name, leak) for name, leak in attacked.items()],
        "attacks": _attacks(measured[0]) if measured else [],
        "who": measured[0] if measured else None,
        "pictures": [
            {"name": name, "pairs": leak["pictures"]}
            for name, leak in attacked.items()
            if leak.get("pictures")
        ],
    }


def _row(name: str, leak: Mapping[str, Any]) -> dict[str, Any]:
    if "reason" in leak:
        return {"name": name, "cut": leak["cut"], "reason": leak["reason"], "cells": []}
    dependence, drawn = leak["distance_correlation"], leak["reconstruction"]
    cells = [
        number(dependence["plain"], digits=2),
        number(dependence["corrected"], digits=2),
        _ssim(drawn),
        f"{number(drawn['psnr'], digits=1)} ({number(drawn['guess_psnr'], digits=1)})",
        *(_label(leak["labels"], attack) for attack in ("norm", "direction")),
    ]
    return {"name": name, "cut": leak["cut"], "reason": None, "cells": cells}


def worst(leak: Mapping[str, Any] | None) -> list[str]:
    """Return how well images are drawn (SSIM, the guess) and labels read (AUROC), for other tables.

    Blank where nothing was measured.
    """
    if not leak or "reason" in leak:
        return [BLANK, BLANK]
    return [_ssim(leak["reconstruction"]), _label(leak["labels"], "norm", "direction")]


def _ssim(drawn: Mapping[str, Any]) -> str:
    return f"{number(drawn['ssim'], digits=2)} ({number(drawn['guess_ssim'], digits=2)})"


def _label(labels: Mapping[str, Any], *attacks: str) -> str:
    """Return the AUROC of the finding that leaks most, by the best of the attacks."""
    if labels["sent"]:
        return "sent"
    tried = [one[attack] for one in labels["findings"].values() for attack in attacks]
    known = [auroc for auroc in tried if auroc is not None]
    return number(max(known), digits=2) if known else BLANK


def _attacks(leak: Mapping[str, Any]) -> list[str]:
    return [
        "Distance correlation (Sz\u00e9kely, Rizzo, Bakirov 2007), and its square corrected for "
        "bias (Sz\u00e9kely, Rizzo 2014)",
        f"Images: {leak['reconstruction']['attack']}",
        *(f"Labels: {attack}" for attack in leak["labels"]["attacks"].values()),
    ]
