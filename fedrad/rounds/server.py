"""The server's half: a ServerApp that runs every arm and seed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedrad.assemble import algorithm_of
from fedrad.config import POOLED
from fedrad.core.names import by_reason
from fedrad.core.provenance import COMPUTED_ON, DATA, TRAINED_ON, Provenance
from fedrad.data.sites import check_site_numbers
from fedrad.rounds.arm_rounds import ArmRounds, RunSpec
from fedrad.rounds.nodes import Node, nodes_of
from fedrad.rounds.progress import ProgressCallback
from fedrad.rounds.refusals import refusal_hint, unanswered_reason
from fedrad.rounds.scheduler import Run, Scheduler
from fedrad.rounds.worker_time import worker_time_of

__all__ = ["server_app"]

CPU = torch.device("cpu")


def server_app(
    spec: RunSpec, device: torch.device = CPU, scheduler: Scheduler | None = None
) -> ServerApp:
    """Return the ServerApp that runs the arms and seeds, one after the other or side by side.

    An arm that diverges or loses too many sites stops and says why; the others go on.

    Args:
        spec: what is run.
        device: where the server computes, in split learning.
        scheduler: runs several arms and seeds at a time; the app's grid then only tells of the
            sites.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        with spec.folder.locked():
            # A grid over a network has met its sites before, and waited for those that were late.
            asked = {"experiment": spec.experiment.text()}
            nodes = getattr(grid, "sites", None) or nodes_of(
                grid,
                asked,
                quorum=spec.experiment.quorum,
                needed=_needed(spec),
                say=spec.progress.note,
            )
            check_site_numbers(spec.experiment, spec.training(nodes))
            claims = _claims(spec, nodes)
            # Before anything is trained: numbers of other data must not get into one comparison.
            spec.folder.check(claims, spec.experiment.seeds)
            spec.progress.start(list(spec.arms), list(spec.seeds), spec.experiment.rounds)

            def given_up(run: Run, reason: str) -> None:
                spec.folder.arm(*run).stop(reason)
                spec.progress.arm_stopped(*run, reason)

            def one(run: Run, grid: Grid, progress: ProgressCallback) -> None:
                if reason := _unwilling(spec, run[0], grid, nodes):
                    given_up(run, reason)
                    return
                told = replace(spec, progress=progress)
                ArmRounds(told, *run, grid, nodes, claims[run[0]], device).run()

            runs = [(arm, seed) for arm in spec.arms for seed in spec.seeds]
            left = [
                run
                for run in runs
                if scheduler and not spec.folder.arm(*run).evaluated(claims[run[0]])
            ]
            for run in (run for run in runs if run not in left):
                one(run, grid, spec.progress)
            if scheduler:
                scheduler.run(
                    sorted(left, key=partial(_spreads, spec)), one, spec.progress, given_up
                )
            if spec.profile and (spent := scheduler.spent if scheduler else worker_time_of(grid)):
                spec.folder.write("profile.json", json.dumps(spent.profile(), indent=1))

    return app


def _needed(spec: RunSpec) -> list[str]:
    """Return the sites that no quorum can do without: those that test alone, and the pool."""
    pools = any(algorithm_of(spec.experiment.arm(arm)).pooled for arm in spec.arms)
    return [*spec.held_out, *([POOLED] if pools else [])]


def _unwilling(spec: RunSpec, arm: str, grid: Grid, nodes: Mapping[str, Node]) -> str | None:
    """Return why too few sites are willing to run an arm, or None.

    Asked before its first round: a hospital that refused in the middle would leave the others with
    privacy that was spent for nothing.
    """
    training = spec.training(nodes)
    why = unanswered_reason(grid, {site: nodes[site] for site in training}, arm)
    willing = len(training) - len(why)
    quorum = spec.experiment.arm(arm).quorum or len(training)
    if not why or willing >= min(quorum, len(training)):
        return None
    return (
        f"not begun: {willing} of {len(training)} sites are willing, the quorum is {quorum} "
        f"({by_reason(why)}); {refusal_hint(willing)}"
    )


def _spreads(spec: RunSpec, run: Run) -> bool:
    """Return whether an arm's sites can be run by several workers at once."""
    algorithm = algorithm_of(spec.experiment.arm(run[0]))
    return not algorithm.pooled and not algorithm.cut


def _claims(spec: RunSpec, nodes: Mapping[str, Node]) -> dict[str, Provenance]:
    """Return what each arm's numbers rest on, as the sites tell it."""
    experiment = spec.experiment
    sites = {name: node for name, node in nodes.items() if name != POOLED}
    grounds: dict[str, str] = {}
    # A site that is away at the start says nothing of its data: then nothing is claimed of them.
    if all(node.data for node in sites.values()):
        training = spec.training(sites)
        grounds[DATA] = _digest(sites, sorted(sites))
        grounds[TRAINED_ON] = f"{len(training)} sites, {_digest(sites, training)}"
        grounds[COMPUTED_ON] = "; ".join(sorted({node.machine for node in sites.values()}))
    return {arm: Provenance(experiment.arm(arm).text(), grounds) for arm in experiment.arm_names}


def _digest(sites: Mapping[str, Node], names: Sequence[str]) -> str:
    data = "".join(f"{name} {sites[name].data}\n" for name in names)
    return sha256(data.encode()).hexdigest()[:16]
