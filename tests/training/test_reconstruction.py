"""The decoder draws what the activations hold: all of it, or nothing."""

import pytest
import torch
from torch import nn

from fedrad.training.reconstruction import reconstruct


def images(count: int, seed: int) -> torch.Tensor:
    """Smooth blobs at random places, [count, 1, 16, 16]."""
    draws = torch.Generator().manual_seed(seed)
    places = torch.arange(16.0)
    centre = 16 * torch.rand(count, 2, 1, generator=draws)
    across = torch.exp(-((places - centre[:, 0]) ** 2) / 12)
    down = torch.exp(-((places - centre[:, 1]) ** 2) / 12)
    return (down[:, :, None] * across[:, None, :])[:, None]


OWN, OTHERS = images(200, 0), images(60, 1)


def test_from_an_identity_front_the_reconstruction_is_near_perfect() -> None:
    found = reconstruct((OWN, OWN), OTHERS, OTHERS, steps=250, batch=16)
    assert found.ssim > 0.97 and found.psnr > 30
    assert found.guess_ssim < 0.6


def test_from_constant_activations_it_is_no_better_than_the_guess() -> None:
    """The best that can be drawn without knowing anything is the mean image."""
    found = reconstruct((torch.ones(200, 4, 8, 8), OWN), torch.ones(60, 4, 8, 8), OTHERS, steps=60)
    assert found.psnr <= found.guess_psnr + 0.2
    assert found.drawn.std(0).max() == 0


def test_from_smaller_maps_and_from_vectors_it_draws_more_than_the_guess() -> None:
    """A front that halves the side twice, and one that ends in eight numbers."""
    torch.manual_seed(0)
    for front in (
        nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, 2, 1)),
        nn.Sequential(nn.Flatten(), nn.Linear(256, 8)),
    ):
        with torch.no_grad():
            own, others = front(OWN), front(OTHERS)
        found = reconstruct((own, OWN), others, OTHERS, steps=60, batch=16)
        assert found.psnr > found.guess_psnr + 1
        assert found.drawn.shape == OTHERS.shape


def test_the_same_seed_draws_the_same() -> None:
    once, again = (reconstruct((OWN, OWN), OTHERS, OTHERS, steps=5) for _ in range(2))
    assert torch.equal(once.drawn, again.drawn)
    assert not torch.equal(
        once.drawn, reconstruct((OWN, OWN), OTHERS, OTHERS, steps=5, seed=1).drawn
    )


def test_others_images_are_measured_with_and_never_learnt_from() -> None:
    """Other images to measure with: what is drawn stays the same, bit for bit."""
    one = reconstruct((OWN, OWN), OTHERS, OTHERS, steps=5)
    other = reconstruct((OWN, OWN), OTHERS, 1 - OTHERS, steps=5)
    assert torch.equal(one.drawn, other.drawn) and one.ssim != pytest.approx(other.ssim)
