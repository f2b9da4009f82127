"""How alike two images are: PSNR and SSIM."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["psnr", "ssim"]

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def psnr(images: Tensor, others: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of each pair, in dB; inf for equal images.

    Args:
        images: [n, c, h, w] in [0, 1].
        others: the same, pair by pair.

    Returns:
        [n]

    >>> psnr(torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 0.5)).item()
    6.020599913279624
    """
    return -10 * (images.double() - others.double()).square().flatten(1).mean(1).log10()


def ssim(images: Tensor, others: Tensor) -> Tensor:
    """Return the mean structural similarity of each pair; 1 for equal images.

    Wang, Bovik, Sheikh, Simoncelli: "Image quality assessment: from error visibility to structural
    similarity", IEEE Transactions on Image Processing 13, 2004: a Gaussian window of 11 pixels with
    standard deviation 1.5, K1 = 0.01, K2 = 0.03, where it lies wholly inside.

    Args:
        images: [n, c, h, w] in [0, 1]; h and w are 11 or more.
        others: the same, pair by pair.

    Returns:
        [n]

    >>> images = torch.rand(2, 1, 16, 16)
    >>> ssim(images, images).tolist()
    [1.0, 1.0]
    """
    if min(images.shape[2:]) < _WINDOW:
        raise ValueError(f"ssim needs images of {_WINDOW} pixels or more, found {images.shape[2:]}")
    # Double: the variances are differences of nearly equal numbers.
    x, y = images.double(), others.double()
    mean_x, mean_y = _smooth(x), _smooth(y)
    var_x, var_y = _smooth(x * x) - mean_x**2, _smooth(y * y) - mean_y**2
    covariance = _smooth(x * y) - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    scale = (mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2)
    return (likeness / scale).flatten(1).mean(1)


def _smooth(x: Tensor) -> Tensor:
    places = torch.arange(_WINDOW, dtype=x.dtype, device=x.device) - _WINDOW // 2
    line = torch.exp(-(places**2) / (2 * _SIGMA**2))
    window = torch.outer(line, line) / line.sum() ** 2
    channels = x.shape[1]
    return F.conv2d(x, window.expand(channels, 1, _WINDOW, _WINDOW), groups=channels)
