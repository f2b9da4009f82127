"""Distance correlation: how far two sets of paired samples depend on each other, in any way.

Székely, Rizzo, Bakirov: "Measuring and testing dependence by correlation of distances", Annals of
Statistics 35, 2007; bias-corrected by U-statistics in Székely and Rizzo: "Partial distance
correlation with methods for dissimilarities", Annals of Statistics 42, 2014. The sums are taken
over blocks of rows, so memory grows with n and not with n squared.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Dependence", "distance_correlation"]

_BLOCK = 256


@dataclass(frozen=True)
class Dependence:
    """Two estimates of the distance correlation.

    Args:
        plain: in [0, 1]; 1 for x and a rotated, shifted, scaled x. Of few samples with many
            coordinates it is near 1 even where nothing depends on anything.
        corrected: of the squared correlation, without that bias: its mean is 0 under independence,
            so it can be a little negative. Needs four samples.
    """

    plain: float
    corrected: float


def distance_correlation(x: Tensor, z: Tensor) -> Dependence:
    """Return the distance correlation of samples and what was computed of them.

    Args:
        x: [n, ...]; n is 4 or more. All other axes are flattened.
        z: [n, ...], sample for sample.

    Where one of them is constant nothing can be told from it, and both estimates are 0.

    >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    >>> found = distance_correlation(x, 2 * x + 1)
    >>> round(found.plain, 6), round(found.corrected, 6)
    (1.0, 1.0)
    >>> distance_correlation(x, torch.ones(50, 1))
    Dependence(plain=0.0, corrected=0.0)
    """
    n = len(x)
    if n != len(z) or n < 4:
        raise ValueError(f"distance correlation needs 4 or more pairs, found {n} and {len(z)}")
    x, z = x.flatten(1).double(), z.flatten(1).double()
    products, rows = _sums(x, z)
    plain, corrected = _covariances(products, rows, n)
    return Dependence(
        plain=_ratio(plain["xz"], plain["xx"], plain["zz"], root=True),
        corrected=_ratio(corrected["xz"], corrected["xx"], corrected["zz"], root=False),
    )


def _sums(x: Tensor, z: Tensor) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Return the sums of products of distances, and each row's sum of distances."""
    products = {"xx": 0.0, "xz": 0.0, "zz": 0.0}
    rows: dict[str, list[Tensor]] = {"x": [], "z": []}
    for start in range(0, len(x), _BLOCK):
        part = slice(start, start + _BLOCK)
        found = {"x": _distances(x, part), "z": _distances(z, part)}
        for pair in products:
            products[pair] += float((found[pair[0]] * found[pair[1]]).sum())
        for name, distances in found.items():
            rows[name].append(distances.sum(1))
    return products, {name: torch.cat(sums) for name, sums in rows.items()}


def _distances(x: Tensor, part: slice) -> Tensor:
    distances = torch.cdist(x[part], x)
    # By matrix products a sample's distance to itself comes out as 1e-8, not as 0.
    distances[torch.arange(len(distances)), torch.arange(len(x))[part]] = 0
    return distances


def _covariances(
    products: dict[str, float], rows: dict[str, Tensor], n: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the squared distance covariances as V-statistics and as U-statistics."""
    plain, corrected = {}, {}
    for pair, product in products.items():
        a, b = rows[pair[0]], rows[pair[1]]
        across, total = float(a @ b), float(a.sum() * b.sum())
        plain[pair] = product / n**2 - 2 * across / n**3 + total / n**4
        corrected[pair] = (product - 2 * across / (n - 2) + total / ((n - 1) * (n - 2))) / (
            n * (n - 3)
        )
    return plain, corrected


def _ratio(covariance: float, one: float, other: float, *, root: bool) -> float:
    if one <= 1e-15 or other <= 1e-15:
        return 0.0
    share = covariance / math.sqrt(one * other)
    return math.sqrt(max(0.0, share)) if root else share
