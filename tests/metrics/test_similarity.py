"""PSNR and SSIM: known values of constant images, and 1 of equal ones."""

import math

import pytest
import torch

from fedrad.metrics.similarity import psnr, ssim


def test_psnr_is_ten_decades_of_the_mean_squared_error() -> None:
    """An error of 0.25 everywhere: -10 log10(1 / 16) dB."""
    images = torch.full((2, 1, 8, 8), 0.5)
    assert psnr(images, images - 0.25).tolist() == pytest.approx([10 * math.log10(16)] * 2)
    assert psnr(images, images).tolist() == [math.inf] * 2


def test_ssim_of_constant_images_is_its_first_factor() -> None:
    """No variance: (2ab + C1) / (a^2 + b^2 + C1) with C1 = 0.0001."""
    one, other = torch.full((1, 1, 12, 12), 0.25), torch.full((1, 1, 12, 12), 0.75)
    expected = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    assert ssim(one, other).item() == pytest.approx(expected, abs=1e-12)


def test_ssim_of_an_inverted_image_is_negative_and_of_a_blurred_one_between() -> None:
    images = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(images, 3, 1, 1)
    assert ssim(images, 1 - images).item() < 0 < ssim(images, blurred).item() < 1
    assert ssim(images, images).item() == 1


def test_images_smaller_than_the_window_are_refused() -> None:
    with pytest.raises(ValueError, match="images of 11 pixels"):
        ssim(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))
