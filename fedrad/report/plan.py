"""What would run: sites, arms, steps, bytes, and how precise the test sets can be.

`fedrad check` prints it before anything is trained, and a report repeats it.
"""

from collections.abc import Mapping, Sequence
from math import ceil, isfinite
from typing import Any

import numpy as np

from fedrad.algorithms.base import Algorithm
from fedrad.assemble import algorithm_of, initial_state, steps_per_round
from fedrad.config import Experiment, Task
from fedrad.core.state import num_bytes
from fedrad.data.base import SPLITS, SiteData
from fedrad.data.heterogeneity import heterogeneity
from fedrad.data.sites import Federation
from fedrad.metrics.intervals import half_widths
from fedrad.registry import split
from fedrad.report.cuts import arm_cut, cuts_of
from fedrad.training.dp.private_arm import counted

__all__ = ["budget_of", "budgets_differ", "plan_of"]

_EQUAL = (
    "Every arm takes the same number of gradient steps in total, {settings}, with the same splits "
    "(compute-matched; no arm was trained to convergence)."
)
_UNEQUAL = (
    "The arms do NOT take the same number of gradient steps: {steps}. Differences between them "
    "mix the method with its budget."
)
_SAME = "from the same initial weights with the same optimizer and batch size"
_OTHER = "but not with the same model and local training, which {arms} set on their own"


def plan_of(experiment: Experiment, federation: Federation) -> dict[str, Any]:
    """Return what would run, as plain values under the keys of `results.json`.

    Adds to them `precision`: test site -> half widths of 95 % intervals to expect.
    """
    arms = [_arm(experiment, name, federation) for name in experiment.arm_names]
    return {
        "sites": [
            _site(data, experiment.task, held_out=name in federation.held_out)
            for name, data in federation.sites.items()
        ],
        "heterogeneity": heterogeneity(
            {name: federation.sites[name] for name in federation.training}, experiment.task
        ).as_json(),
        "model": _model(experiment),
        "arms": arms,
        "budget": budget_of(arms, experiment),
        "cuts": cuts_of(experiment),
        "precision": {
            name: _precision(data, experiment.task) for name, data in federation.sites.items()
        },
    }


def _site(data: SiteData, task: Task, *, held_out: bool) -> dict[str, Any]:
    return {
        "name": data.site,
        "held_out": held_out,
        "patients": {name: data.patients(name) for name in SPLITS},
        "images": {name: data.images(name) for name in SPLITS},
        "unlabelled": data.unlabelled,
        "labels": {name: _labels(data.y[data.rows[name]], task) for name in SPLITS},
    }


def _labels(y: np.ndarray, task: Task) -> dict[str, Any]:
    if task.name == "multiclass":
        return {label: int((y[:, 0] == k).sum()) for k, label in enumerate(task.labels)}
    return {
        label: {
            "negative": int((y[:, k] == 0).sum()),
            "positive": int((y[:, k] == 1).sum()),
            "not_read": int(np.isnan(y[:, k]).sum()),
        }
        for k, label in enumerate(task.labels)
    }


def _model(experiment: Experiment) -> dict[str, Any]:
    state = initial_state(experiment, experiment.seeds[0])
    return {
        "name": split(experiment.model, where="model")[0],
        "parameters": sum(tensor.numel() for tensor in state.values()),
        "bytes": num_bytes({"model": state}),
    }


def _arm(experiment: Experiment, name: str, federation: Federation) -> dict[str, Any]:
    arm = experiment.arm(name)
    algorithm = algorithm_of(arm, where=f"arms.{name}.algorithm")
    images = [counted(arm, federation.sites[site].images("train")) for site in federation.training]
    # The draw is among those that can train.
    share = _share(arm, algorithm, sum(n > 0 for n in images))
    steps = [steps_per_round(arm.local, n) for n in images]
    total = round(sum(steps) * arm.rounds * share)
    one_model = sum(steps) if algorithm.pooled or algorithm.relays else max(steps)
    return {
        "name": name,
        "algorithm": _told(arm),
        "pooled": algorithm.pooled,
        "models": _models(algorithm.shared, algorithm.personal),
        "gradient_steps": {"total": total, "one_model": one_model * arm.rounds},
        "split": arm_cut(arm, federation),
        "images_seen": _images_seen(arm, images, pooled=algorithm.pooled, share=share),
    }


def _share(arm: Experiment, algorithm: Algorithm, sites: int) -> float:
    """Return the share of their rounds that sites train; at home every site always trains.

    Args:
        arm: says how many are drawn.
        algorithm: says what is trained at home.
        sites: with training images.
    """
    if algorithm.pooled or not algorithm.shared:
        return 1.0
    drawn = min(1.0, (arm.sites_per_round or sites) / max(sites, 1))
    home = algorithm.local_rounds
    return (drawn * (arm.rounds - home) + home) / arm.rounds


def _told(arm: Experiment) -> str:
    specs = [split(spec, where="algorithm") for spec in (arm.algorithm or "", *arm.wrap)]
    return " + ".join(
        name + (f" ({', '.join(f'{k} {v}' for k, v in options.items())})" if options else "")
        for name, options in specs
    )


def _models(shared: bool, personal: bool) -> str:
    if shared and personal:
        return "both"
    return "global" if shared else "personal"


def _images_seen(arm: Experiment, images: Sequence[int], *, pooled: bool, share: float) -> int:
    local, rounds = arm.local, arm.rounds
    if pooled:
        seen = _seen(sum(images), local.batch, sum(steps_per_round(local, n) for n in images))
        return seen * rounds
    return round(
        sum(_seen(n, local.batch, steps_per_round(local, n)) for n in images) * rounds * share
    )


def _seen(images: int, batch: int, steps: int) -> int:
    if not images:
        return 0
    epochs, rest = divmod(steps, ceil(images / batch))
    return epochs * images + min(rest * batch, images)


def budget_of(arms: Sequence[Mapping[str, Any]], experiment: Experiment) -> str:
    """Return in words whether the arms spend the same.

    Args:
        arms: entries of "arms"; the steps that were taken count, where they are known, else those
            that are planned.
        experiment: says which arms change the model or the local training.
    """
    totals = {arm["name"]: _steps(arm) for arm in arms}
    if budgets_differ(arms):
        steps = ", ".join(f"{name} {total:,.0f}" for name, total in totals.items())
        return _UNEQUAL.format(steps=steps)
    base = experiment.arm(experiment.arm_names[0])
    others = [
        name
        for name in experiment.arm_names
        for arm in [experiment.arm(name)]
        if (arm.local, arm.model) != (base.local, base.model)
    ]
    settings = _OTHER.format(arms=", ".join(others)) if others else _SAME
    return _EQUAL.format(settings=settings)


def budgets_differ(arms: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the arms took, or are to take, different numbers of gradient steps."""
    return len({_steps(arm) for arm in arms}) > 1


def _steps(arm: Mapping[str, Any]) -> float:
    taken = arm.get("steps_taken")
    planned: float = arm["gradient_steps"]["total"]
    # A wrapper that hides single sites hides their steps, too.
    return float(taken) if taken else planned


def _precision(data: SiteData, task: Task) -> dict[str, float | None]:
    y = data.y[data.rows["test"]]
    if task.name == "multiclass":
        counts = [int((y[:, 0] == k).sum()) for k in range(task.outputs)]
        positives, negatives = min(counts), sum(counts) - min(counts)
    else:
        rarest = int(np.argmin((y == 1).sum(axis=0)))
        positives, negatives = int((y[:, rarest] == 1).sum()), int((y[:, rarest] == 0).sum())
    widths = half_widths(positives, negatives)
    return {name: value if isfinite(value) else None for name, value in widths.items()}
