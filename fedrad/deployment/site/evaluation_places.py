"""Where a run of an experiment has models evaluated: in which rounds, and how many models each.

All of it follows from the experiment's text, as `rounds.arm_rounds` and `rounds.evaluation` run
it. What no run asks is refused: it could only serve to ask more about the patients.
"""

from collections.abc import Collection, Sequence

from fedrad.assemble import algorithm_of, metrics_of
from fedrad.config import Experiment, SiteFile
from fedrad.deployment.frame_spec import SPLIT_EVALUATIONS
from fedrad.deployment.site.policy import policy_error
from fedrad.rounds.evaluation import MATRIX_LIMIT

__all__ = ["EVALUATIONS", "check_place", "models_of", "takes_part"]

EVALUATIONS = frozenset({"test", "tune", "validate", *SPLIT_EVALUATIONS})
"""Actions that tell how good a model is."""

_RUN = 3
"""Models that one round may end in: run, run again after a crash by other sites or with fresh
noise, and in an arm that is trained anew."""
_FINAL = 2
"""Models that an arm may end in: what is tested is on the disk before it is, and so is the same
after a crash; another one comes only of an arm that is trained anew."""


def check_place(site: SiteFile, arm: Experiment, actions: Sequence[str], number: int) -> None:
    """Refuse what no run of the experiment asks of this site, or not in this round.

    Args:
        site: whose policy it is.
        arm: the experiment as the arm sees it.
        actions: asked for in one message.
        number: the round that the message says.

    Raises:
        PolicyError: says in which rounds it would be answered, or that the site is held out.
    """
    for action in actions:
        if not takes_part(site, arm, action):
            raise policy_error(site.name, "held_out_sites", "test", action)
        if action not in EVALUATIONS:
            continue
        asked = f"{action} in round {number}"
        if not models_of(site, arm, action):
            raise policy_error(site.name, "evaluations", f"no {action} in this arm", asked)
        rounds, told = _rounds(arm, action)
        if number not in rounds:
            raise policy_error(site.name, "evaluations", f"{action} in {told}", asked)


def takes_part(site: SiteFile, experiment: Experiment, action: str) -> bool:
    """Return whether a run may ask an action of this site: of one that is held out only a test.

    Args:
        site: whose policy it is.
        experiment: the whole of it, or an arm.
        action: asked for.
    """
    held_out = site.name in experiment.held_out_sites
    return not held_out or action in ("describe", "test", "split-test")


def models_of(site: SiteFile, arm: Experiment, action: str) -> int:
    """Return how many models runs of an experiment have this site evaluate, in one round.

    Args:
        site: whose policy it is.
        arm: the experiment as the arm sees it.
        action: one of `EVALUATIONS`.
    """
    algorithm = algorithm_of(arm)
    kind = action.removeprefix("split-")
    trains = site.name not in arm.held_out_sites
    # A cut network is evaluated over streams, and a whole one never.
    if (kind != action) != (algorithm.cut is not None):
        return 0
    if kind == "validate":
        return _RUN if trains and arm.validate_every else 0
    thresholds = any(metric.specificity is not None for metric in metrics_of(arm))
    own = algorithm.personal and trains
    if kind == "tune":
        # Whoever has a whole network of its own finds its threshold alone.
        models = algorithm.shared + (own and algorithm.cut is not None)
        return _FINAL * models if thresholds and trains else 0
    most = _FINAL * (algorithm.shared + own)
    if algorithm.shared and thresholds and arm.quorum is not None:
        # Thresholds without the sites that did not answer, for the same model.
        most += _FINAL
    if algorithm.personal and algorithm.cut is None:
        # The text does not say how many hospitals there are: of 16 at most each tests each model.
        most += MATRIX_LIMIT - trains
    return most


def _rounds(arm: Experiment, action: str) -> tuple[Collection[int], str]:
    """Return in which rounds an evaluation is asked for, as numbers and in words."""
    end = arm.rounds + 1
    if not action.endswith("validate"):
        return {end}, f"round {end}"
    # A round's model is validated in the round after it.
    every = arm.validate_every
    if every == 1:
        return range(2, end + 1), f"rounds 2 to {end}"
    told = f"round {end} and those after each {every} rounds"
    return {*range(every + 1, end + 1, every), end}, told
