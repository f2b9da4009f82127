"""Where the arms' networks are cut, where they could be, and what that costs."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from fedrad.algorithms.split.cut_plan import CutPlan
from fedrad.algorithms.split.traffic import Moved, arm_visit_bytes, step_bytes
from fedrad.assemble import cut_of, model_of, steps_per_round
from fedrad.config import Experiment
from fedrad.data.sites import Federation
from fedrad.models.cut import legal_cuts
from fedrad.models.cut_sizes import CutSizes, cut_sizes
from fedrad.registry import split

__all__ = ["arm_cut", "cut_tables", "cuts_of"]


def cuts_of(experiment: Experiment) -> list[dict[str, Any]]:
    """Return, for each network that an arm cuts, its legal cuts and what they cost.

    Cuts are those between the network's children, and the inner ones that arms ask for.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in experiment.arm_names:
        arm = experiment.arm(name)
        plan = cut_of(arm)
        if plan is None:
            continue
        model = model_of(arm)
        tail = plan.tail_of(model)
        key = f"{arm.model} {plan.shape} {tail} {plan.activations} {plan.gradients}"
        group = found.setdefault(key, _group(arm, plan, tail))
        group["arms"].setdefault(plan.cut, []).append(name)
        if plan.cut not in [row["cut"] for row in group["cuts"]]:
            group["cuts"] += _rows(arm, plan, tail, [plan.cut])
    return list(found.values())


def arm_cut(arm: Experiment, federation: Federation) -> dict[str, Any] | None:
    """Return what an arm's own cut costs, and what a round moves; None if it is not cut."""
    plan = cut_of(arm)
    if plan is None:
        return None
    model = model_of(arm)
    sizes = cut_sizes(model, arm.task.input, [plan.cut], plan.tail_of(model))[0]
    moved = Moved(0, 0)
    for site in federation.training:
        images = federation.sites[site].images("train")
        moved += arm_visit_bytes(arm, plan, sizes, images, steps_per_round(arm.local, images))
    return _row(arm, plan, sizes) | {
        "shape": plan.shape,
        "precision": {"activations": plan.activations, "gradients": plan.gradients},
        "round_bytes": {"up": moved.up, "down": moved.down},
    }


def cut_tables(groups: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Return the tables of `cuts_of`, for a terminal."""
    return [_table(group) for group in groups]


def _group(arm: Experiment, plan: CutPlan, tail: str | None) -> dict[str, Any]:
    return {
        "model": split(arm.model, where="model")[0],
        "shape": plan.shape,
        "tail": tail,
        "activations": plan.activations,
        "gradients": plan.gradients,
        "arms": {},
        "cuts": _rows(arm, plan, tail, legal_cuts(model_of(arm), tail=tail)),
    }


def _rows(
    arm: Experiment, plan: CutPlan, tail: str | None, cuts: Sequence[str]
) -> list[dict[str, Any]]:
    return [
        _row(arm, plan, sizes) for sizes in cut_sizes(model_of(arm), arm.task.input, cuts, tail)
    ]


def _row(arm: Experiment, plan: CutPlan, sizes: CutSizes) -> dict[str, Any]:
    # Of a batch of one: what all images of a batch share (scales, norms) is left to the round's.
    two, one = (step_bytes(plan, sizes, n, columns=arm.task.columns, clip=False) for n in (2, 1))
    return {
        "cut": sizes.cut,
        "tail": sizes.tail,
        "activation": list(sizes.activation),
        "image_bytes": {"up": two.up - one.up, "down": two.down - one.down},
        "parameters": {
            "site": sizes.front.parameters + sizes.tail_side.parameters,
            "server": sizes.body.parameters,
        },
        "flops": {
            "site": sizes.front.flops + sizes.tail_side.flops,
            "server": sizes.body.flops,
        },
        "site_share": sizes.share,
    }


def _table(group: Mapping[str, Any]) -> Table:
    tail = f"tail {group['tail']}" if group["tail"] else "labels at the server"
    table = Table(
        title=f"Legal cuts of {group['model']} ({tail}; {group['activations']} activations, "
        f"{group['gradients']} gradients)",
        caption=_LEGEND,
        box=SIMPLE_HEAD,
        title_justify="left",
    )
    for column in ("cut after", "arms", "activation"):
        table.add_column(column)
    for column in ("up", "down", "weights at site", "at server", "MFLOP at site", "share"):
        table.add_column(column, justify="right")
    for row in group["cuts"]:
        table.add_row(
            row["cut"],
            ", ".join(group["arms"].get(row["cut"], [])),
            " x ".join(map(str, row["activation"])),
            f"{row['image_bytes']['up']:,}",
            f"{row['image_bytes']['down']:,}",
            f"{row['parameters']['site']:,}",
            f"{row['parameters']['server']:,}",
            f"{row['flops']['site'] / 1e6:.2f}",
            f"{row['site_share']:.1%}",
        )
    return table


_LEGEND = (
    "Bytes up and down per training image. Operations of a forward pass of one image. Places "
    "inside the children, such as layer2.0, are legal too."
)
