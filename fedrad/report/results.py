"""From a run's folder to `results.json` and `report.html`."""

import json
from collections.abc import Collection, Iterator, Mapping
from hashlib import sha256
from typing import Any

from fedrad.assemble import algorithm_of, metrics_of
from fedrad.config import Experiment, Primary
from fedrad.core.names import listed
from fedrad.core.provenance import DATA, Provenance, changed_parts, training_change
from fedrad.data.sites import Federation
from fedrad.errors import RunError
from fedrad.registry import split
from fedrad.report.comparison import ArmRun, compare
from fedrad.report.environment import environment_of
from fedrad.report.leakage import leakage_of
from fedrad.report.oddities import oddity_values
from fedrad.report.page import render
from fedrad.report.plan import budget_of, plan_of
from fedrad.report.privacy import privacy_of
from fedrad.report.record import Folders, record_of, seeds_told, unfinished
from fedrad.runs import ArmFolder, RunFolder

__all__ = ["results_of", "write_results"]


def write_results(
    folder: RunFolder,
    experiment: Experiment,
    federation: Federation,
    *,
    command: str,
    device: str,
    leakage: bool = False,
) -> dict[str, Any]:
    """Write `results.json` and `report.html` of what was run, and return the results.

    With leakage, cut networks are attacked first, which takes a minute or so for each arm.
    """
    results = results_of(folder, experiment, federation, command=command, device=device)
    leaks = leakage_of(folder, experiment, federation) if leakage else {}
    results["arms"] = [arm | {"leakage": leaks.get(arm["name"])} for arm in results["arms"]]
    folder.write("partition.csv", _partition(federation))
    folder.write("results.json", json.dumps(results, indent=1, allow_nan=False))
    folder.write("report.html", render(results))
    return results


def results_of(
    folder: RunFolder, experiment: Experiment, federation: Federation, *, command: str, device: str
) -> dict[str, Any]:
    """Return everything that is known of an experiment, as plain values without any nan."""
    folders = {
        arm: {seed: folder.arm(arm, seed, text) for seed in experiment.seeds}
        for arm in experiment.arm_names
        for text in [experiment.arm(arm).text()]
    }
    grounds = _grounds(experiment, folders)
    plan = plan_of(experiment, federation)
    metrics = metrics_of(experiment)
    compared = _compared(experiment, federation, plan, folders)
    primary = _primary(experiment)
    pooling = _arms_with(experiment, pooled=True)
    arms = [
        planned
        | measured
        | record_of(folders[planned["name"]], primary.metric, pools=planned["name"] in pooling)
        for planned, measured in zip(plan["arms"], compared["arms"], strict=True)
    ]
    return {
        "schema": 1,
        "experiment": _experiment(experiment, budget_of(arms, experiment), command),
        "environment": {**environment_of(device), **grounds},
        **{key: plan[key] for key in ("model", "sites", "heterogeneity", "precision")},
        "partition": {
            "sha256": sha256(_partition(federation).encode()).hexdigest(),
            "name": experiment.partition and split(experiment.partition, where="partition")[0],
        },
        "metrics": [
            {"name": m.name, "title": m.title, "higher_is_better": m.higher_is_better}
            for m in metrics
        ],
        "arms": arms,
        "privacy": privacy_of(experiment, federation),
        "oddities": oddity_values(federation.oddities),
        **{key: compared[key] for key in ("matrix", "comparisons", "headline", "notes")},
    }


def _grounds(experiment: Experiment, folders: Mapping[str, Folders]) -> dict[str, str]:
    """Return on which data and machine all the arms were begun.

    Raises:
        RunError: a folder holds an arm of another experiment, or arms rest on different data.
    """
    found: dict[str, str] = {}
    first = ""
    for arm, number, one in _each(folders):
        begun = one.begun_as
        if begun is None:
            continue
        if change := training_change(begun, Provenance(experiment.arm(arm).text(), begun.grounds)):
            raise RunError(
                f"{one.name} is of another experiment: {change}; choose another folder with --out"
            )
        known = _known_of(one, begun)
        if changed_parts(found, known):
            raise RunError(
                f"{first} and {one.name} were begun on different data or machines; the report "
                "compares them in no table: run one of them in another folder, with --out"
            )
        first = first or f"{arm}/seed-{number}"
        found |= known
    return found


def _known_of(folder: ArmFolder, begun: Provenance) -> Mapping[str, str]:
    evaluated = folder.evaluated_as
    if folder.finished and evaluated is not None:
        return evaluated.grounds
    # What has no numbers here was tested on nothing that matters.
    return {key: value for key, value in begun.grounds.items() if key != DATA}


def _each(folders: Mapping[str, Folders]) -> Iterator[tuple[str, int, ArmFolder]]:
    return ((arm, seed, one) for arm, seeds in folders.items() for seed, one in seeds.items())


def _compared(
    experiment: Experiment,
    federation: Federation,
    plan: Mapping[str, Any],
    folders: Mapping[str, Folders],
) -> dict[str, Any]:
    finished = [_arm_run(arm, seed, one) for arm, seed, one in _each(folders) if one.finished]
    seeds = [set(run.seed for run in finished if run.arm == arm) for arm in folders]
    # Arms are compared over the seeds that all of them have, so none has an easier set.
    common = set.intersection(*(s for s in seeds if s)) if any(seeds) else set()
    compared = compare(
        [run for run in finished if run.seed in common],
        arms={arm["name"]: arm["models"] for arm in plan["arms"]},
        sites=federation.training,
        metrics=metrics_of(experiment),
        primary=_primary(experiment),
        held_out=federation.held_out,
        local=_alone(experiment),
        pooled=next(iter(_arms_with(experiment, pooled=True)), None),
        unfinished={arm: _why_none(one, common) for arm, one in folders.items()},
    )
    if len(experiment.arm_names) == 1:
        alone = f"Only one arm, {experiment.arm_names[0]}, was asked for: nothing is compared."
        compared |= {"comparisons": [], "headline": [alone]}
    compared["notes"] = [
        *compared["notes"],
        *_weighting(experiment),
        *_unlabelled(plan),
        *_absent(folders),
    ]
    left = sorted(set(experiment.seeds) - common)
    if left and common:
        told = ", ".join(map(str, left))
        compared["notes"] = [
            *compared["notes"],
            f"Seeds {told} are not finished in every arm and are left out.",
        ]
    return compared


def _why_none(folders: Folders, common: Collection[int]) -> str:
    """Return why an arm has no seed that is compared; asked of arms without any."""
    done = [seed for seed, one in folders.items() if one.finished]
    if not done or common:
        return unfinished(folders)
    return f"no seed is finished in every arm; of this one {seeds_told(done)}"


def _primary(experiment: Experiment) -> Primary:
    alone = experiment.arm_names[0]
    return experiment.primary or Primary(
        arm=alone, against=alone, metric=experiment.metric_names[0]
    )


def _arms_with(experiment: Experiment, **wanted: bool) -> list[str]:
    algorithms = {name: algorithm_of(experiment.arm(name)) for name in experiment.arm_names}
    return [
        name
        for name, algorithm in algorithms.items()
        if all(getattr(algorithm, key) is value for key, value in wanted.items())
    ]


def _alone(experiment: Experiment) -> str | None:
    """Return the arm of sites that train alone: the declared opponent if it is one, else any."""
    alone = _arms_with(experiment, personal=True, shared=False)
    against = _primary(experiment).against
    return against if against in alone else next(iter(alone), None)


def _arm_run(arm: str, seed: int, folder: ArmFolder) -> ArmRun:
    found = folder.evaluation()
    return ArmRun(
        arm=arm,
        seed=seed,
        cells=found.cells,
        reasons=found.reasons,
        share_in_fullest_bin=found.facts["share_in_fullest_bin"],
        one_class=found.facts["one_class"],
        bounds=found.facts.get("pooled_bounds", {}),
        counts=found.counts,
    )


def _partition(federation: Federation) -> str:
    """Return which rows of its source each site holds in each split; rows count from 1.

    Hospitals do not tell their rows: of theirs there is no line.
    """
    known = {} if federation.counted else federation.sites
    lines = [
        f"{name},{part},{row + 1}"
        for name, data in known.items()
        for part, rows in data.rows.items()
        for row in rows
    ]
    return "\n".join(["site,split,row", *lines]) + "\n"


def _weighting(experiment: Experiment) -> list[str]:
    """Return a sentence on class weights, if any arm uses them."""
    told = {
        "site": "each site's own label counts",
        "global": "the label counts of all training sites",
    }
    weighted: dict[str, list[str]] = {}
    for name in experiment.arm_names:
        weighted.setdefault(experiment.arm(name).local.class_weights, []).append(name)
    return [
        f"The losses of {', '.join(weighted[kind])} are weighted by {what}."
        for kind, what in told.items()
        if kind in weighted
    ]


def _unlabelled(plan: Mapping[str, Any]) -> list[str]:
    left_out = {site["name"]: site["unlabelled"] for site in plan["sites"] if site["unlabelled"]}
    if not left_out:
        return []
    told = listed([f"{n:,} at {site}" for site, n in left_out.items()])
    return [f"Images of which no label was read are left out of all splits: {told}."]


def _absent(folders: Mapping[str, Folders]) -> list[str]:
    gone = {
        f"{arm}, seed {number}": sorted(one.evaluation().facts.get("absent", {}))
        for arm, number, one in _each(folders)
        if one.finished
    }
    return [
        f"{place}: {listed(sites)} did not answer the final evaluation, and all figures over "
        "several sites are without it."
        for place, sites in gone.items()
        if sites
    ]


def _experiment(experiment: Experiment, budget: str, command: str) -> dict[str, Any]:
    return {
        "name": experiment.name,
        "text": experiment.text(),
        "digest": experiment.digest(),
        "command": command,
        "task": experiment.task.model_dump(mode="json"),
        "rounds": experiment.rounds,
        "seeds": list(experiment.seeds),
        "primary": _primary(experiment).model_dump(),
        "budget": budget,
    }
