"""The server's half: a ServerApp that plays every arm and seed."""

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
    play: RunSpec, device: torch.device = CPU, scheduler: Scheduler | None = None
) -> ServerApp:
    """Return the ServerApp that plays the arms and seeds, one after the other or side by side.

    An arm that diverges or loses too many sites stops and says why; the others go on.

    Args:
        play: what is played.
        device: where the server computes, in split learning.
        scheduler: plays several arms and seeds at a time; the app's grid then only tells of the
            sites.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        with play.folder.locked():
            # A grid over a network has met its sites before, and waited for those that were late.
            asked = {"experiment": play.experiment.text()}
            nodes = getattr(grid, "sites", None) or nodes_of(
                grid,
                asked,
                quorum=play.experiment.quorum,
                needed=_needed(play),
                say=play.progress.note,
            )
            check_site_numbers(play.experiment, play.training(nodes))
            claims = _claims(play, nodes)
            # Before anything is trained: numbers of other data must not get into one comparison.
            play.folder.check(claims, play.experiment.seeds)
            play.progress.start(list(play.arms), list(play.seeds), play.experiment.rounds)

            def given_up(run: Run, reason: str) -> None:
                play.folder.arm(*run).stop(reason)
                play.progress.arm_stopped(*run, reason)

            def one(run: Run, grid: Grid, progress: ProgressCallback) -> None:
                if reason := _unwilling(play, run[0], grid, nodes):
                    given_up(run, reason)
                    return
                told = replace(play, progress=progress)
                ArmRounds(told, *run, grid, nodes, claims[run[0]], device).play()

            runs = [(arm, seed) for arm in play.arms for seed in play.seeds]
            left = [
                run
                for run in runs
                if scheduler and not play.folder.arm(*run).evaluated(claims[run[0]])
            ]
            for run in (run for run in runs if run not in left):
                one(run, grid, play.progress)
            if scheduler:
                scheduler.play(
                    sorted(left, key=partial(_spreads, play)), one, play.progress, given_up
                )
            if play.profile and (spent := scheduler.spent if scheduler else worker_time_of(grid)):
                play.folder.write("profile.json", json.dumps(spent.profile(), indent=1))

    return app


def _needed(play: RunSpec) -> list[str]:
    """Return the sites that no quorum can do without: those that test alone, and the pool."""
    pools = any(algorithm_of(play.experiment.arm(arm)).pooled for arm in play.arms)
    return [*play.held_out, *([POOLED] if pools else [])]


def _unwilling(play: RunSpec, arm: str, grid: Grid, nodes: Mapping[str, Node]) -> str | None:
    """Return why too few sites are willing to play an arm, or None.

    Asked before its first round: a hospital that refused in the middle would leave the others with
    privacy that was spent for nothing.
    """
    training = play.training(nodes)
    why = unanswered_reason(grid, {site: nodes[site] for site in training}, arm)
    willing = len(training) - len(why)
    quorum = play.experiment.arm(arm).quorum or len(training)
    if not why or willing >= min(quorum, len(training)):
        return None
    return (
        f"not begun: {willing} of {len(training)} sites are willing, the quorum is {quorum} "
        f"({by_reason(why)}); {refusal_hint(willing)}"
    )


def _spreads(play: RunSpec, run: Run) -> bool:
    """Return whether an arm's sites can be played by several workers at once."""
    algorithm = algorithm_of(play.experiment.arm(run[0]))
    return not algorithm.pooled and not algorithm.cut


def _claims(play: RunSpec, nodes: Mapping[str, Node]) -> dict[str, Provenance]:
    """Return what each arm's numbers rest on, as the sites tell it."""
    experiment = play.experiment
    sites = {name: node for name, node in nodes.items() if name != POOLED}
    grounds: dict[str, str] = {}
    # A site that is away at the start says nothing of its data: then nothing is claimed of them.
    if all(node.data for node in sites.values()):
        training = play.training(sites)
        grounds[DATA] = _digest(sites, sorted(sites))
        grounds[TRAINED_ON] = f"{len(training)} sites, {_digest(sites, training)}"
        grounds[COMPUTED_ON] = "; ".join(sorted({node.machine for node in sites.values()}))
    return {arm: Provenance(experiment.arm(arm).text(), grounds) for arm in experiment.arm_names}


def _digest(sites: Mapping[str, Node], names: Sequence[str]) -> str:
    data = "".join(f"{name} {sites[name].data}\n" for name in names)
    return sha256(data.encode()).hexdigest()[:16]
