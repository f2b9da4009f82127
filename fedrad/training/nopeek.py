"""How much of an image can be told from an activation: distance correlation.

Székely, Rizzo, Bakirov: "Measuring and testing dependence by correlation of distances", Annals of
Statistics 2007, https://arxiv.org/abs/0803.4101. As a penalty on the front of a split network:
Vepakomma, Singh, Gupta, Raskar: "NoPeek", ICDM workshops 2020, https://arxiv.org/abs/2008.09161.
"""

import torch
from torch import Tensor

__all__ = ["sample_distance_correlation"]


def sample_distance_correlation(x: Tensor, z: Tensor) -> Tensor:
    """Return the sample distance correlation of two sets of vectors, 0 to 1; has a gradient.

    Args:
        x: [n, ...], such as images.
        z: [n, ...], such as their activations; 16 or more, below that chance alone is near 1.

    Returns:
        Scalar; 0 where all x or all z are alike, and of fewer than two.

    >>> x = torch.randn(32, 4)
    >>> round(sample_distance_correlation(x, 3 * x + 1).item(), 4)
    1.0
    """
    if len(x) < 2:
        return z.sum() * 0.0
    a, b = _centred(x.flatten(1)), _centred(z.flatten(1))
    product, squares = (a * b).mean(), (a * a).mean() * (b * b).mean()
    if not bool(squares > 0):
        return z.sum() * 0.0
    # The clamp: a root has no gradient at 0, and rounding can make the product negative.
    return (product.clamp_min(1e-12) / squares.sqrt()).sqrt()


def _centred(x: Tensor) -> Tensor:
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    means = distances.mean(0)
    return distances - means - means[:, None] + means.mean()
