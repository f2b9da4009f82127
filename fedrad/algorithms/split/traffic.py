"""How many bytes a cut moves, by arithmetic: what a run then measures, to the byte.

Counted are the bytes of arrays, as everywhere in the record. Over gRPC come 20 to 100 bytes of
framing for each frame and array, and TLS.
"""

from dataclasses import dataclass
from math import prod

from fedrad.algorithms.split.cut_plan import CutPlan
from fedrad.config import Experiment
from fedrad.core.wire import Precision
from fedrad.models.cut_sizes import CutSizes
from fedrad.registry import split

__all__ = [
    "Moved",
    "arm_visit_bytes",
    "batch_sizes",
    "evaluation_bytes",
    "step_bytes",
    "travels",
    "visit_bytes",
]

_SIZES: dict[Precision, int] = {"float32": 4, "float16": 2, "int8": 1}
_FLOAT = 4


@dataclass(frozen=True)
class Moved:
    """Bytes up from a site and down to it."""

    up: int
    down: int

    def __add__(self, other: "Moved") -> "Moved":
        """Return the sum."""
        return Moved(self.up + other.up, self.down + other.down)


def step_bytes(
    plan: CutPlan, sizes: CutSizes, images: int, *, columns: int = 1, weights: int = 0, clip: bool
) -> Moved:
    """Return what one training step moves.

    Args:
        plan: of the cut.
        sizes: of the cut.
        images: in the batch.
        columns: of the labels; sent only where labels go to the server.
        weights: numbers in the class weights; likewise.
        clip: whether gradients are clipped, for which their norms travel.

    >>> from fedrad.models.cut_sizes import Side
    >>> none = Side(0, 0, 0, 0)
    >>> sizes = CutSizes("a", "b", (8, 4, 4), (16,), none, none, none)
    >>> step_bytes(CutPlan("a", "b"), sizes, 2, clip=False)
    Moved(up=1152, down=1152)
    """
    z, dz = (_bytes(sizes.activation, images, p) for p in (plan.activations, plan.gradients))
    # The scale by which the server shrinks its gradients goes up, their norms come down.
    shrink, norms = (_FLOAT, _FLOAT * sizes.body.tensors) if clip else (0, 0)
    if plan.shape == "labels_at_server":
        labels = _FLOAT * (images * columns + weights)
        return Moved(z + labels + shrink, dz + _FLOAT + norms)
    h, dh = (_bytes(sizes.features, images, p) for p in (plan.activations, plan.gradients))
    return Moved(z + dh + shrink, h + dz + norms)


def visit_bytes(
    plan: CutPlan,
    sizes: CutSizes,
    batches: list[int],
    *,
    columns: int = 1,
    weights: int = 0,
    clip: bool,
    travels: bool = False,
) -> Moved:
    """Return what a site's visit of a round moves, the site's parts of the network included.

    Args:
        plan: of the cut.
        sizes: of the cut.
        batches: the images of each, from `batch_sizes`.
        columns: as for `step_bytes`.
        weights: as for `step_bytes`.
        clip: as for `step_bytes`.
        travels: whether the site's parts travel after every batch, instead of once a visit.
    """
    total = Moved(0, 0)
    for images in batches:
        total += step_bytes(plan, sizes, images, columns=columns, weights=weights, clip=clip)
    own = sizes.front.bytes + sizes.tail_side.bytes if plan.shared else 0
    times = len(batches) if travels else 1
    return total + Moved(times * own, times * own)


def arm_visit_bytes(
    arm: Experiment, plan: CutPlan, sizes: CutSizes, images: int, steps: int
) -> Moved:
    """Return what a visit of an arm's round moves at a site with so many training images.

    Args:
        arm: the experiment as the arm sees it.
        plan: of the arm's cut.
        sizes: of the cut.
        images: that the site trains on.
        steps: that it takes in a round.
    """
    weighted = arm.local.class_weights != "none"
    classes = arm.task.outputs if arm.task.name == "multiclass" else 2 * arm.task.columns
    return visit_bytes(
        plan,
        sizes,
        batch_sizes(images, arm.local.batch, steps),
        columns=arm.task.columns,
        weights=classes if weighted else 0,
        clip=bool(arm.local.clip),
        travels=travels(arm),
    )


def evaluation_bytes(plan: CutPlan, sizes: CutSizes, images: int, batch: int) -> Moved:
    """Return what an evaluation moves in frames: activations up, features down.

    Args:
        plan: of the cut.
        sizes: of the cut.
        images: that are evaluated.
        batch: of how many a frame is, at most.
    """
    total = Moved(0, 0)
    for start in range(0, images, batch):
        n = min(batch, images - start)
        up, down = (_bytes(s, n, plan.activations) for s in (sizes.activation, sizes.features))
        total += Moved(up, down)
    return total


def travels(arm: Experiment) -> bool:
    """Return whether the site's parts travel after every batch, instead of once a visit."""
    return split(arm.algorithm or "", where="algorithm")[1].get("alternate") == "minibatch"


def batch_sizes(images: int, batch: int, steps: int) -> list[int]:
    """Return the images of each batch of a visit, as `training.batches.orders` deals them.

    >>> batch_sizes(images=5, batch=2, steps=5)
    [2, 2, 1, 2, 2]
    """
    epoch = [batch] * (images // batch) + ([images % batch] if images % batch else [])
    return [epoch[step % len(epoch)] for step in range(steps)] if epoch else []


def _bytes(shape: tuple[int, ...], images: int, precision: Precision) -> int:
    # With 8 bits each channel has a scale, in every tensor.
    scales = _FLOAT * shape[0] if precision == "int8" else 0
    return images * prod(shape) * _SIZES[precision] + scales
