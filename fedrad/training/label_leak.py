"""An attack: labels read off the gradients that cross a cut.

Li, Sun, Yang, Gao, Zhang, Xie, Smith, Wang: "Label leakage and protection in two-party split
learning", ICLR 2022, https://arxiv.org/abs/2102.08504: the norm attack (of a rare class the
gradients are larger) and the direction attack (images of one class pull the same way; the attacker
knows the label of one positive image). What is reported is their "leak AUC".
"""

import torch
from torch import Tensor

__all__ = ["ATTACKS", "label_leak"]

ATTACKS = {
    "norm": "norm of the gradient (Li et al., ICLR 2022)",
    "direction": "cosine with one known positive's gradient (Li et al., ICLR 2022)",
}


def label_leak(gradients: Tensor, labels: Tensor, *, known: int = 10) -> dict[str, float | None]:
    """Return the AUROC with which each attack tells the labels; 0.5 is a coin's, None undefined.

    Args:
        gradients: [n, ...] of the loss by what was sent, image by image.
        labels: [n], 0 or 1; nan is not read.
        known: so many positive images take turns as the one that the attacker knows; the mean is
            returned, and the known image is not counted.

    >>> label_leak(torch.tensor([[3.0], [2.0], [-1.0], [-1.5]]), torch.tensor([1.0, 1, 0, 0]))
    {'norm': 1.0, 'direction': 1.0}
    """
    read = ~labels.isnan()
    flat, y = gradients[read].flatten(1).double(), labels[read] > 0
    positives = y.nonzero().flatten()
    if not 2 <= len(positives) < len(y):
        return dict.fromkeys(ATTACKS)
    norms = flat.norm(dim=1)
    rare = y.double().mean() <= 0.5
    found = []
    for place in positives[:known]:
        others = torch.arange(len(y), device=y.device) != place
        product = flat @ flat[place]
        # A gradient of zero has no direction: it is like no other.
        cosine = product / (norms * norms[place]).clamp_min(1e-300)
        found.append(_auroc(cosine[others], y[others]))
    return {
        "norm": _auroc(norms if rare else -norms, y),
        "direction": sum(found) / len(found),
    }


def _auroc(scores: Tensor, positive: Tensor) -> float:
    """Return the share of pairs that are in order; a tie is half a pair."""
    high, low = scores[positive], scores[~positive]
    order = low.sort().values
    below = torch.searchsorted(order, high, right=False)
    ties = torch.searchsorted(order, high, right=True) - below
    return float((below + ties / 2).double().mean() / len(low))
