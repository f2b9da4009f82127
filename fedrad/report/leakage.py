"""What whoever receives the frames of a cut network can learn from them, measured by attacks.

The attacker is the server, honest but curious: it knows the front, because fronts pass through it,
and has images of its own of the same kind. Here these are the training images of one site (the
last by name); the attack is on test images of the other sites, or of the same where it is alone.
"""

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fedrad.algorithms.split.cut_plan import CutPlan
from fedrad.assemble import algorithm_of, model_of
from fedrad.config import Experiment, Task
from fedrad.core import seeds
from fedrad.core.state import State
from fedrad.core.store import load_bundle
from fedrad.core.wire import decode, encode
from fedrad.data.base import SiteData
from fedrad.data.sites import Federation
from fedrad.metrics.dependence import distance_correlation
from fedrad.models.cut import Parts
from fedrad.registry import split
from fedrad.runs import RunFolder
from fedrad.training.batches import model_input
from fedrad.training.label_leak import ATTACKS, label_leak
from fedrad.training.objective import objective
from fedrad.training.reconstruction import ATTACK, reconstruct

__all__ = ["LabelledImages", "leakage_of", "measure"]

OWN, OTHERS, PICTURES = 1000, 256, 6
"""At most so many images of the attacker's own, images attacked, and pictures shown."""
_BATCH = 64


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images with their labels.

    Args:
        x: as stored, uint8 [n, c, h, w].
        y: [n, columns].
    """

    x: Tensor
    y: Tensor


def leakage_of(
    folder: RunFolder, experiment: Experiment, federation: Federation
) -> dict[str, dict[str, Any]]:
    """Return arm -> what its cut leaks, of each arm that is cut and finished.

    An arm whose leakage cannot be measured has a "reason" instead of numbers.
    """
    found = {}
    for name in experiment.arm_names:
        arm = experiment.arm(name)
        plan = algorithm_of(arm).cut
        finished = [seed for seed in experiment.seeds if folder.arm(name, seed).finished]
        if plan is None or not finished:
            continue
        reason = _unmeasured(arm, plan)
        if reason is not None:
            found[name] = {"cut": plan.cut, "reason": reason}
            continue
        state = load_bundle(folder.arm(name, finished[0]).path / "state.safetensors")["model"]
        own, others, told = _samples(federation)
        found[name] = told | measure(arm, plan, state, own, others, seed=finished[0])
    return found


def measure(
    arm: Experiment,
    plan: CutPlan,
    state: State,
    own: LabelledImages,
    others: LabelledImages,
    *,
    seed: int,
    steps: int = 400,
) -> dict[str, Any]:
    """Return what a cut leaks, as plain values.

    Args:
        arm: for the model and the task.
        plan: of the cut.
        state: of the whole model.
        own: the attacker's.
        others: those that are attacked.
        seed: of the attack.
        steps: of the decoder's training.
    """
    model = model_of(arm)
    model.load_state_dict(state)
    parts = plan.parts(model.eval())
    sent, images = _sent(plan, parts, others.x, seed), others.x.float() / 255
    dependence = distance_correlation(images, sent)
    drawn = reconstruct(
        (_sent(plan, parts, own.x, seed), own.x.float() / 255),
        sent,
        images,
        steps=steps,
        seed=seeds.seed(seed, "", 0, "decoder"),
    )
    return {
        "cut": plan.cut,
        "seed": seed,
        "images": {"own": len(own.x), "attacked": len(others.x)},
        "distance_correlation": {"plain": dependence.plain, "corrected": dependence.corrected},
        "reconstruction": {
            "attack": ATTACK,
            **{key: getattr(drawn, key) for key in ("ssim", "guess_ssim")},
            # Of an exact copy the ratio is infinite, which JSON has no word for.
            **{key: min(getattr(drawn, key), 120.0) for key in ("psnr", "guess_psnr")},
        },
        "labels": _labels(arm.task, plan, parts, sent, others.y),
        "pictures": _pictures(images, drawn.drawn) if _made_up(arm) else [],
    }


def _sent(plan: CutPlan, parts: Parts, x: Tensor, seed: int) -> Tensor:
    """Return the activations as the server reads them: with noise, and rounded for the wire."""
    with torch.no_grad():
        z = torch.cat([parts.front(model_input(part)) for part in torch.split(x, _BATCH)])
    if plan.noise:
        draws = torch.Generator().manual_seed(seeds.seed(seed, "", 0, "cut noise"))
        z = z + plan.noise * torch.randn(z.shape, generator=draws)
    rounded = [decode("z", encode("z", part, plan.activations)) for part in torch.split(z, _BATCH)]
    return torch.cat(rounded)


def _labels(task: Task, plan: CutPlan, parts: Parts, sent: Tensor, y: Tensor) -> dict[str, Any]:
    if plan.shape != "u":
        return {"sent": True, "attacks": ATTACKS, "findings": {}}
    with torch.no_grad():
        features = torch.cat([parts.body(part) for part in torch.split(sent, _BATCH)])
    features.requires_grad_()
    total = objective(task).losses(parts.tail(features), y).sum()
    gradients = torch.autograd.grad(total, features)[0]
    columns = (
        {label: (y[:, 0] == k).float() for k, label in enumerate(task.labels)}
        if task.name == "multiclass"
        else {label: y[:, k] for k, label in enumerate(task.labels)}
    )
    found = {label: label_leak(gradients, column) for label, column in columns.items()}
    return {"sent": False, "attacks": ATTACKS, "findings": found}


def _unmeasured(arm: Experiment, plan: CutPlan) -> str | None:
    if len(arm.task.input) != 3:
        return "the attacks draw images; this task reads tables"
    if not plan.shared:
        return "the fronts are private: the server has none to try its own images on"
    if min(arm.task.input[1:]) < 11:
        return "the images are smaller than SSIM's window of 11 pixels"
    return None


def _samples(federation: Federation) -> tuple[LabelledImages, LabelledImages, dict[str, Any]]:
    """Return the attacker's images, those attacked, and where they are from."""
    *rest, last = federation.training
    victims = rest or [last]
    each = -(-OTHERS // len(victims))
    parts = [_sample(federation.sites[name], "test", each) for name in victims]
    others = LabelledImages(torch.cat([p.x for p in parts]), torch.cat([p.y for p in parts]))
    own = _sample(federation.sites[last], "train", OWN)
    return own, others, {"attacker": f"{last}, train", "attacked": f"{', '.join(victims)}, test"}


def _sample(data: SiteData, name: str, most: int) -> LabelledImages:
    """Return so many images at most, evenly from a split."""
    rows = data.rows[name]
    take = rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))]
    return LabelledImages(torch.from_numpy(np.array(data.x[take])), torch.from_numpy(data.y[take]))


def _made_up(arm: Experiment) -> bool:
    """Pictures are shown of generated images only: a report may travel further than images may."""
    return arm.data is not None and split(arm.data, where="data")[0] == "phantom"


def _pictures(images: Tensor, drawn: Tensor) -> list[dict[str, str]]:
    rows = range(0, len(images), max(1, len(images) // PICTURES))
    return [{"image": _png(images[k]), "drawn": _png(drawn[k])} for k in list(rows)[:PICTURES]]


def _png(image: Tensor) -> str:
    """Return the first channel of an image as a PNG's data URI."""
    file = io.BytesIO()
    Image.fromarray((image[0] * 255).round().byte().numpy()).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
