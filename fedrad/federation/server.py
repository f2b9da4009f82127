"""The server's half: a ServerApp that plays every arm and seed, one after the other."""

import json
from collections.abc import Mapping
from hashlib import sha256

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedrad.config import POOLED, Experiment
from fedrad.data.sites import check_site_numbers
from fedrad.federation.nodes import Node, nodes_of
from fedrad.federation.rounds import ArmRounds, Play
from fedrad.federation.spent import spent_of
from fedrad.runs import Claim

__all__ = ["server_app"]

CPU = torch.device("cpu")


def server_app(play: Play, device: torch.device = CPU) -> ServerApp:
    """Return the ServerApp that plays the arms and seeds one after the other.

    An arm that diverges or loses too many sites stops and says why; the others go on.

    Args:
        play: what is played.
        device: where the server computes, in split learning.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        with play.folder.locked():
            # A grid over a network has met its sites before, and waited for those that were late.
            asked = {"experiment": play.experiment.text()}
            nodes = getattr(grid, "sites", None) or nodes_of(grid, asked)
            check_site_numbers(play.experiment, play.training(nodes))
            claims = _claims(play.experiment, nodes)
            # Before anything is trained: numbers of other data must not get into one comparison.
            play.folder.check(claims, play.experiment.seeds)
            play.progress.start(list(play.arms), list(play.seeds), play.experiment.rounds)
            for arm in play.arms:
                for seed in play.seeds:
                    ArmRounds(play, arm, seed, grid, nodes, claims[arm], device).play()
            if play.profile and (spent := spent_of(grid)):
                play.folder.write("profile.json", json.dumps(spent.profile(), indent=1))

    return app


def _claims(experiment: Experiment, nodes: Mapping[str, Node]) -> dict[str, Claim]:
    """Return what each arm's numbers rest on, as the sites tell it."""
    sites = {name: node for name, node in nodes.items() if name != POOLED}
    grounds: dict[str, str] = {}
    # A site that is away at the start says nothing of its data: then nothing is claimed of them.
    if all(node.data for node in sites.values()):
        data = "".join(f"{name} {sites[name].data}\n" for name in sorted(sites))
        grounds["data"] = sha256(data.encode()).hexdigest()[:16]
        grounds["computed on"] = "; ".join(sorted({node.machine for node in sites.values()}))
    return {arm: Claim(experiment.arm(arm).text(), grounds) for arm in experiment.arm_names}
