"""An attack: a small decoder learns to draw the images behind the activations at a cut.

He, Zhang, Lee: "Model inversion attacks against collaborative inference", ACSAC 2019,
https://doi.org/10.1145/3359789.3359824, the black-box attack by an inverse network: whoever
receives the activations feeds images of their own through the same front and trains a decoder on
the pairs.
The decoder here is small, so what it finds is a lower bound of what leaks.
"""

from dataclasses import dataclass
from math import ceil, log2

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from fedrad.metrics.similarity import psnr, ssim

__all__ = ["ATTACK", "Reconstruction", "reconstruct"]

ATTACK = "inverse network (He, Zhang, Lee, ACSAC 2019)"

_WIDTH = 32
_START = 8
"""Side of the map that a decoder of vectors begins with."""


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What the attack drew, and how like the images it is.

    Args:
        drawn: [n, c, h, w] in [0, 1].
        ssim, psnr: mean over the images.
        guess_ssim, guess_psnr: the same of the mean of the attacker's own images, which needs no
            activations: nothing leaks that the decoder does not draw better than this.
    """

    drawn: Tensor
    ssim: float
    psnr: float
    guess_ssim: float
    guess_psnr: float


def reconstruct(
    own: tuple[Tensor, Tensor],
    activations: Tensor,
    images: Tensor,
    *,
    steps: int = 400,
    batch: int = 32,
    lr: float = 2e-3,
    seed: int = 0,
) -> Reconstruction:
    """Train a decoder on the attacker's own images, and try it on activations of others'.

    Args:
        own: the attacker's activations [m, ...] and images [m, c, h, w] in [0, 1].
        activations: [n, ...], those that were sent.
        images: [n, c, h, w] in [0, 1], to measure with; the decoder does not see them.
        steps: of Adam on the mean squared error.
        batch: images in a step.
        lr: at the start; it falls to 0 as a cosine.
        seed: of the decoder's weights and of the order of batches.
    """
    z, x = own
    # Activations of each channel to mean 0 and variance 1, by the attacker's own.
    axes = [axis for axis in range(z.dim()) if axis != 1]
    mean, std = z.mean(axes, keepdim=True), z.std(axes, keepdim=True).clamp_min(1e-6)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = _decoder(z.shape[1:], x.shape[1:]).to(z.device)
    _train(decoder, (z - mean) / std, x, steps=steps, batch=batch, lr=lr, seed=seed)
    with torch.no_grad():
        parts = [decoder(part) for part in torch.split((activations - mean) / std, batch)]
    drawn = torch.cat(parts).clamp(0, 1)
    guess = x.mean(0, keepdim=True).expand_as(images)
    return Reconstruction(
        drawn=drawn,
        ssim=float(ssim(drawn, images).mean()),
        psnr=float(psnr(drawn, images).mean()),
        guess_ssim=float(ssim(guess, images).mean()),
        guess_psnr=float(psnr(guess, images).mean()),
    )


def _train(
    decoder: nn.Module, z: Tensor, x: Tensor, *, steps: int, batch: int, lr: float, seed: int
) -> None:
    draws = Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = torch.randint(len(x), (min(batch, len(x)),), generator=draws).to(x.device)
        optimizer.zero_grad(set_to_none=True)
        F.mse_loss(decoder(z[rows]), x[rows]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()


def _decoder(shape: torch.Size, image: torch.Size) -> nn.Module:
    """Return convolutions that double the side until it is the image's, and a straight way beside.

    The straight way is one linear map of each place, enlarged: where the activations are the image
    already it is all that is needed.
    """
    channels, height, width = image
    if len(shape) == 1:
        start = nn.Sequential(
            nn.Linear(shape[0], _WIDTH * _START * _START), nn.Unflatten(1, (_WIDTH, _START, _START))
        )
        inner, side = _WIDTH, _START
    else:
        start, inner, side = nn.Sequential(), shape[0], min(shape[1:])
    layers: list[nn.Module] = [nn.Conv2d(inner, _WIDTH, 3, padding=1), nn.ReLU()]
    for _ in range(max(0, ceil(log2(min(height, width) / side)))):
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1), nn.ReLU()]
    layers += [nn.Upsample((height, width)), nn.Conv2d(_WIDTH, channels, 3, padding=1)]
    straight = nn.Sequential(nn.Conv2d(inner, channels, 1), nn.Upsample((height, width)))
    return nn.Sequential(start, _Sum(nn.Sequential(*layers), straight))


class _Sum(nn.Module):
    def __init__(self, deep: nn.Module, straight: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList([deep, straight])

    def forward(self, x: Tensor) -> Tensor:
        deep, straight = self.parts
        drawn: Tensor = deep(x) + straight(x)
        return drawn
