"""A hospital's rules, each as a check that either passes or refuses with rule, limit and asked.

A refusal travels to the coordinator. It says which rule it is, the rule's limit where that is a
number or a name that fedrad gave, and what was asked; nothing else that is known here: not how many
patients there are, only that they are too few, and no text of the site's own file.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite, sqrt
from typing import Protocol

from fedrad.algorithms import ALGORITHMS, WRAPPERS
from fedrad.algorithms.base import CHANGE
from fedrad.algorithms.evaluation import evaluation
from fedrad.algorithms.fedavg import fedavg
from fedrad.config import Experiment, SiteFile
from fedrad.core.state import Bundle, State
from fedrad.data.base import SiteData
from fedrad.deployment.frame_spec import SPLIT_EVALUATIONS
from fedrad.errors import ConfigError, PolicyError
from fedrad.models import MODELS
from fedrad.registry import nearest, options_of, split

__all__ = [
    "SPLIT_OF",
    "UNMEASURED",
    "PrivacyBudget",
    "ReadSiteData",
    "check_epsilon",
    "check_names",
    "check_norm",
    "check_task",
    "check_upload",
    "policy_error",
]

ReadSiteData = Callable[[], SiteData]
"""Reads the site's data when they are needed."""

SPLIT_OF: Mapping[str, str] = {
    "describe": "all", "test": "test", "tune": "val", "validate": "val", **SPLIT_EVALUATIONS,
}  # fmt: skip
"""Which patients an action tells of; every other one tells of those that are trained on."""

UNMEASURED = frozenset(
    {"count", "describe", "share", "test", "tune", "validate", *SPLIT_EVALUATIONS}
)
"""Actions whose answers are sums, or a model of the site's own: no update of what was sent."""

_MB = 1e6


class PrivacyBudget(Protocol):
    """The site's own account of what its patients' privacy has been spent on."""

    def project(self, arm: Experiment, *, seed: int, round: int, action: str) -> float:
        """Return the epsilon that a patient would have spent after this, over all experiments.

        Infinite where what leaves is not differentially private.
        """

    def project_run(self, arms: Sequence[Experiment], *, seeds: int) -> float:
        """Return the epsilon that a patient would have spent after whole arms of a run."""


def policy_error(site: str, rule: str, limit: object, asked: object) -> PolicyError:
    """Return a refusal in the words that the coordinator reads.

    >>> print(policy_error("nord", "max_upload_mb", 10, "44.8"))
    nord: max_upload_mb: limit 10, asked 44.8
    """
    return PolicyError(f"{site}: {rule}: limit {limit}, asked {asked}")


def check_names(site: SiteFile) -> None:
    """Refuse a policy that names what fedrad does not have: it would allow less than it seems to.

    Raises:
        ConfigError: an algorithm, model or action is unknown; with the nearest that is known.
    """
    known: Mapping[str, Iterable[str]] = {
        "algorithms": (*ALGORITHMS, *WRAPPERS),
        "models": MODELS,
        "actions": _actions(),
    }
    for rule, names in known.items():
        for name in getattr(site.allow, rule):
            if name not in names:
                listed = ", ".join(sorted(names))
                raise ConfigError(
                    f"allow.{rule}: '{name}' is not one of {listed}{nearest(name, names)}"
                )


def check_task(
    site: SiteFile,
    experiment: Experiment,
    arm: Experiment | None,
    actions: Sequence[str],
    patients: Callable[[str], int],
) -> None:
    """Check what is asked, the cheap rules first; data are read for the last one alone.

    Args:
        site: whose policy it is.
        experiment: the whole of it.
        arm: the experiment as the arm sees it; None where a message is about no arm.
        actions: asked for in one message.
        patients: split, or "all" -> how many this site has.

    Raises:
        PolicyError: a rule does not allow it.
    """
    _check_experiment(site, experiment)
    for action in actions:
        _check_named(site, "actions", action)
    if arm is not None:
        for spec in (arm.algorithm or "", *arm.wrap):
            _check_named(site, "algorithms", split(spec, where="algorithm")[0])
        _check_named(site, "models", split(arm.model, where="model")[0])
    _check_labels(site, experiment)
    for action in actions:
        part = SPLIT_OF.get(action, "train")
        if patients(part) < site.min_patients:
            asked = f"{action} on fewer ({part})"
            raise policy_error(site.name, "min_patients", site.min_patients, asked)


def check_upload(site: SiteFile, sent: int, more: int) -> None:
    """Check the bytes of a round, those that left already and those that would.

    Raises:
        PolicyError: they are more than the policy allows.
    """
    if sent + more > site.max_upload_mb * _MB:
        asked = f"{(sent + more) / _MB:.6g} in this round"
        raise policy_error(site.name, "max_upload_mb", f"{site.max_upload_mb:g}", asked)


def check_epsilon(
    site: SiteFile,
    ledger: PrivacyBudget | None,
    arm: Experiment,
    *,
    seed: int,
    round: int,
    actions: Sequence[str],
) -> None:
    """Check what a patient's privacy would have been spent after the task.

    Raises:
        PolicyError: more than the policy allows, or what is asked is not differentially private.
    """
    if site.epsilon is None:
        return
    for action in actions:
        told = (
            float("inf")
            if ledger is None
            else ledger.project(arm, seed=seed, round=round, action=action)
        )
        if not told <= site.epsilon:
            asked = f"{told:.4g}" if isfinite(told) else "unlimited: no differential privacy"
            raise policy_error(site.name, "epsilon", f"{site.epsilon:g}", asked)


def check_norm(site: SiteFile, sent: Bundle, reply: Bundle) -> None:
    """Check the length of an update: what changed in a state that was sent; else the state itself.

    Raises:
        PolicyError: it is longer than the policy allows.
    """
    if site.max_norm is None:
        return
    for name, state in reply.items():
        # A change is an update as it stands, whatever a coordinator may have sent by that name.
        length = _length(sent.get(name, {}) if name != CHANGE else {}, state)
        if not length <= site.max_norm:
            raise policy_error(
                site.name, "max_norm", f"{site.max_norm:g}", f"{length:.4g} ({name})"
            )


def _length(sent: State, state: State) -> float:
    total = 0.0
    for key, value in state.items():
        if value.is_floating_point():
            wide = value.double()
            wide = wide - sent[key].double() if key in sent else wide
            total += float(wide.square().sum())
    return sqrt(total)


def _check_experiment(site: SiteFile, experiment: Experiment) -> None:
    if site.experiments != "any" and experiment.digest() not in site.experiments:
        limit = f"{len(site.experiments)} approved"
        asked = f"{experiment.name} ({experiment.digest()[:12]})"
        raise policy_error(site.name, "experiments", limit, asked)


def _check_named(site: SiteFile, rule: str, name: str) -> None:
    allowed = getattr(site.allow, rule)
    if name not in allowed:
        raise policy_error(site.name, f"allow.{rule}", ", ".join(allowed) or "none", name)


def _check_labels(site: SiteFile, experiment: Experiment) -> None:
    ours = site.task
    if ours is None:
        return
    if ours.name != experiment.task.name:
        raise policy_error(site.name, "task.name", ours.name, experiment.task.name)
    if ours.labels != experiment.task.labels:
        # The site's own labels are text of its file, and stay there.
        asked = ", ".join(experiment.task.labels)
        raise policy_error(site.name, "task.labels", "those of the site's own file", asked)


def _actions() -> set[str]:
    """Return every action of the algorithms and wrappers that can be built without options."""
    found = {"describe", *evaluation(0), *SPLIT_EVALUATIONS}
    for table, given in ((ALGORITHMS, ()), (WRAPPERS, (fedavg(),))):
        for builder in table.values():
            if all(option.default is not option.empty for option in options_of(builder).values()):
                found |= set(builder(*given).handlers)
    return found
