"""From an arm's `privacy` to DP-SGD at a site, and all that does not go together with it."""

from math import ceil

from torch import nn

from fedrad.config import Experiment, Local
from fedrad.data.base import SiteData
from fedrad.errors import ConfigError, about_the_question
from fedrad.privacy import PRIVACY
from fedrad.privacy.account import Account
from fedrad.privacy.dp_sgd import DpSgdConfig, Plan, plan, rounded
from fedrad.registry import build, split
from fedrad.training.dp.dp_sgd import Private, most_images
from fedrad.training.dp.ghost_clipping import check_per_sample

__all__ = ["check_private", "counted", "dp_config_of", "plan_at", "private_at"]

COVERED = ("centralized", "fedavg", "fedprox", "local")
"""Algorithms of which it is known that a site's data reach others through trained weights alone."""

COVERED_WRAPPERS = ("central_dp", "finetune", "float16_updates")

_NO_ACCOUNT = (
    "privacy: this process keeps no account of epsilon, so it trains nothing under dp_sgd; a "
    "hospital starts it with 'fedrad site start', a simulation with 'fedrad run'"
)


def dp_config_of(arm: Experiment, *, where: str = "privacy") -> DpSgdConfig | None:
    """Return the privacy that an arm asks for, or None.

    Raises:
        ConfigError: a name or an option does not fit.
    """
    if arm.privacy is None:
        return None  # asked of every site
    asked: DpSgdConfig | None = build(PRIVACY, arm.privacy, where=where)
    return asked


def check_private(arm: Experiment, model: nn.Module, *, where: str) -> None:
    """Refuse what does not go together with an arm's privacy; do nothing without it.

    Args:
        arm: the experiment as the arm sees it.
        model: its model.
        where: place of the arm's privacy, for messages.

    Raises:
        ConfigError: the algorithm, a wrapper, the class weights or the model do not fit.
    """
    if dp_config_of(arm, where=where) is None:
        return
    algorithm = split(arm.algorithm or "", where="algorithm")[0]
    if algorithm not in COVERED:
        known = ", ".join(COVERED)
        reason = _reason(algorithm)
        raise ConfigError(f"{where}: dp_sgd goes with {known}, not with {algorithm}: {reason}")
    for spec in arm.wrap:
        name = split(spec, where="wrap")[0]
        if name not in COVERED_WRAPPERS:
            known = ", ".join(COVERED_WRAPPERS)
            raise ConfigError(
                f"{where}: dp_sgd goes with the wrappers {known}, not with {name}: {_reason(name)}"
            )
    if arm.local.class_weights != "none":
        raise ConfigError(
            f"{where}: local.class_weights: {arm.local.class_weights} is made of exact label "
            "counts, which epsilon does not cover; say none"
        )
    check_per_sample(model)


def _reason(name: str) -> str:
    if name == "scaffold":
        return "its corrections are made from noised weights and carry each round's noise into all"
    return "what it makes public of a site's data is not accounted for"


def counted(arm: Experiment, images: int) -> int:
    """Return the training images that a round's steps are made of: rounded where they are private.

    >>> from fedrad.config import from_text
    >>> text = '''
    ... {name: one, task: {name: binary, labels: [lesion], input: [4]}, data: x, model: mlp,
    ...  local: {epochs: 1}, rounds: 1, algorithm: fedavg, privacy: {name: dp_sgd, noise: 1}}
    ... '''
    >>> counted(from_text(text), 523)
    520
    """
    return images if dp_config_of(arm) is None else rounded(images)


def plan_at(arm: Experiment, data: SiteData, *, steps: int | None = None) -> Plan | None:
    """Return what an arm's privacy comes to at a site, or None.

    Args:
        arm: the experiment as the arm sees it.
        data: the site's.
        steps: gradient steps of a round, instead of the arm's epochs or steps.

    Raises:
        ConfigError: the site cannot carry it.
    """
    asked = dp_config_of(arm)
    images = data.images("train")
    if asked is None or not images:
        return None
    return plan(
        asked,
        site=data.site,
        images=images,
        patients=data.patients("train"),
        most_images=most_images(data),
        batch=arm.local.batch,
        steps=steps or _steps(arm.local, rounded(images)),
        rounds=arm.rounds,
    )


def private_at(
    arm: Experiment, data: SiteData, account: Account | None, *, steps: int | None = None
) -> Private | None:
    """Return DP-SGD as a site runs it in an arm, or None.

    Args:
        arm: as for `plan_at`.
        data: as for `plan_at`.
        account: what training is charged to.
        steps: as for `plan_at`.

    Raises:
        ConfigError: the site cannot carry it, or there is no account.
    """
    found = plan_at(arm, data, steps=steps)
    if found is None:
        return None
    if account is None:
        with about_the_question():
            raise ConfigError(_NO_ACCOUNT)
    return Private(found, account, arm.name, arm.digest())


def _steps(local: Local, images: int) -> int:
    return local.steps or (local.epochs or 0) * ceil(images / local.batch)
