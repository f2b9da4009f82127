"""What leaves a site in the frames of a stream, known before the first one is sent.

By arithmetic, from where the arm's network is cut: names and shapes in each kind of frame, and the
bytes of them all. A preview shows it, and the guard lets nothing else through.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedrad.algorithms.split.cut_plan import CutPlan
from fedrad.algorithms.split.traffic import (
    arm_visit_bytes,
    evaluation_bytes,
    step_bytes,
    travels,
)
from fedrad.assemble import cut_of, model_of, site_model_of, steps_per_round
from fedrad.config import Experiment
from fedrad.core.wire import Precision
from fedrad.deployment.reply_spec import ArraySpec, ArraySpecs, specs_of
from fedrad.models.cut_sizes import CutSizes, cut_sizes
from fedrad.training.evaluate import BATCH

__all__ = ["SPLIT_EVALUATIONS", "FrameSpec", "infer_frame_spec"]

SPLIT_EVALUATIONS: Mapping[str, str] = {
    "split-test": "test", "split-tune": "val", "split-validate": "val",
}  # fmt: skip
"""The evaluations in which the server computes the body, and whose images they are about."""


@dataclass(frozen=True)
class FrameSpec:
    """What a site sends in a stream, beside its reply.

    Args:
        frames: kind of frame -> name of an array in it -> its shape, of a full batch.
        bytes: of the arrays of all frames.
        batch_down: bytes that the site is sent for a full batch.
        told: what it is, in words.
    """

    frames: ArraySpecs
    bytes: int
    batch_down: int
    told: str


def infer_frame_spec(
    arm: Experiment, action: str, images: Callable[[str], int]
) -> FrameSpec | None:
    """Return what leaves in a stream; None of an action that has none.

    Args:
        arm: the experiment as the arm sees it.
        action: that is asked for.
        images: split -> how many the site has.
    """
    plan = cut_of(arm)
    if plan is None or (action not in SPLIT_EVALUATIONS and action != "fit"):
        return None
    model = model_of(arm)
    sizes = cut_sizes(model, arm.task.input, [plan.cut], plan.tail_of(model), flops=False)[0]
    told = f"activations of every image after {plan.cut}"
    if action in SPLIT_EVALUATIONS:
        moved = evaluation_bytes(plan, sizes, images(SPLIT_EVALUATIONS[action]), BATCH).up
        down = evaluation_bytes(plan, sizes, BATCH, BATCH).down
        forward = _encoded("activations", (BATCH, *sizes.activation), plan.activations)
        return FrameSpec({"forward": forward}, moved, down, f"{told}; no image, no label")
    count = images("train")
    moved = arm_visit_bytes(arm, plan, sizes, count, steps_per_round(arm.local, count)).up
    if plan.shared and not travels(arm):
        # What a visit ends with is the site's reply, and no frame.
        moved -= sizes.front.bytes + sizes.tail_side.bytes
    if plan.shape == "labels_at_server":
        told += ", and its labels; no image"
    else:
        told += ", and gradients at the tail; no image, no label"
    down = step_bytes(plan, sizes, arm.local.batch, clip=bool(arm.local.clip)).down
    return FrameSpec(_training_frames(arm, plan, sizes), moved, down, told)


def _training_frames(arm: Experiment, plan: CutPlan, sizes: CutSizes) -> ArraySpecs:
    batch = arm.local.batch
    shrink = {"shrink": ArraySpec((), "float32")} if arm.local.clip else {}
    forward = _encoded("activations", (batch, *sizes.activation), plan.activations)
    if not travels(arm):
        # A step is settled by the next one's frame; where parts travel, by the frame they are in.
        forward |= shrink
    frames: dict[str, dict[str, ArraySpec]] = {"forward": forward}
    if plan.shape == "labels_at_server":
        forward["labels"] = ArraySpec((batch, arm.task.columns), "float32")
        if arm.local.class_weights != "none":
            forward["weights"] = ArraySpec(_weights(arm), "float32")
    else:
        frames["backward"] = _encoded("gradients", (batch, *sizes.features), plan.gradients)
    if not travels(arm):
        return {**frames, "settle": shrink}
    parts = specs_of({"model": site_model_of(arm).state_dict()})["model"]
    return {"ready": {}, **frames, "hand on": {**parts, **shrink}}


def _encoded(name: str, shape: tuple[int, ...], precision: Precision) -> dict[str, ArraySpec]:
    found = {name: ArraySpec(shape, precision)}
    if precision == "int8":
        found[f"{name}.scale"] = ArraySpec(shape[1:2], "float32")
    return found


def _weights(arm: Experiment) -> tuple[int, ...]:
    return (arm.task.outputs,) if arm.task.name == "multiclass" else (arm.task.columns, 2)
