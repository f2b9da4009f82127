"""Whether a whole run fits a site's policy, asked before its first round.

A refusal in mid-run would spend the others' epsilon for nothing. So a site that describes itself
also says which arms it will not take part in to the end, and why. Which arms and seeds are going to
run is the coordinator's word; whoever names fewer gains nothing by it, since each message that
trains is held against the ledger and the policy again.
"""

import json
from collections.abc import Callable, Mapping, Sequence

from flwr.app import ConfigRecord, RecordDict

from fedrad.assemble import algorithm_of
from fedrad.config import Experiment, SiteFile
from fedrad.data.base import SiteData
from fedrad.deployment.site.evaluation_places import takes_part
from fedrad.deployment.site.message_checks import check_size
from fedrad.deployment.site.policy import (
    PrivacyBudget,
    check_epsilon,
    check_task,
    check_upload,
    policy_error,
)
from fedrad.deployment.site.policy_preview import check_exchange
from fedrad.deployment.site.preview import Exchange, exchanges_of, per_round
from fedrad.deployment.site.promised_patients import check_promised
from fedrad.errors import FedradError, outward_of
from fedrad.privacy.promised import Promised
from fedrad.rounds.records import config_of
from fedrad.rounds.refusals import REFUSALS_KEY, refusal_sentences

__all__ = ["add_refusals", "as_setting", "refusals_of"]

_LONGEST = 200
_MOST = 64


def refusals_of(
    site: SiteFile,
    experiment: Experiment,
    arms: Sequence[str],
    seeds: Sequence[int],
    data: Callable[[], SiteData],
    ledger: PrivacyBudget | None,
    promised: Promised | None = None,
) -> dict[str, str]:
    """Return arm -> why the site would refuse a part of it, sooner or later; {} where all fits.

    All of an arm's questions are held against the policy, its bytes of a round and at the end
    against the upload, and all rounds of these seeds and arms, one after the other, against what
    the ledger has left. Not foreseen is what depends on training: the length of an update.

    Args:
        site: whose policy it is.
        experiment: the whole of it.
        arms: those of it that are going to run; none named is all.
        seeds: of each of them; none named is all.
        data: reads the site's own.
        ledger: the account of privacy.
        promised: patients who were trained on under a promise of privacy.
    """
    found: dict[str, str] = {}
    kept: list[Experiment] = []
    for name in (one for one in experiment.arm_names if not arms or one in arms):
        try:
            arm = experiment.arm(name)
            if algorithm_of(arm).pooled:
                continue
            # The rules about names first: they need no run of the arm.
            check_task(site, experiment, arm, [], lambda part: 0)
            check_size(site, arm)
            _check_questions(site, experiment, name, data, ledger, promised)
            _check_budget(site, experiment, [*kept, arm], len(seeds or experiment.seeds), ledger)
            kept.append(arm)
        except FedradError as error:
            found[name] = outward_of(error)
    return found


def as_setting(refusals: Mapping[str, str]) -> str:
    """Return refusals as they travel: JSON of bounded length.

    >>> as_setting({"fedavg": "PolicyError: nord: allow.models: limit cnn, asked mlp"})
    '{"fedavg": "PolicyError: nord: allow.models: limit cnn, asked mlp"}'
    """
    first = list(refusals.items())[:_MOST]
    return json.dumps({arm: why[:_LONGEST] for arm, why in first})


def add_refusals(
    content: RecordDict,
    site: SiteFile,
    experiment: Experiment,
    arms: Sequence[str],
    seeds: Sequence[int],
    data: Callable[[], SiteData],
    ledger: PrivacyBudget | None,
    promised: Promised | None = None,
) -> str:
    """Say in a description which arms the site will not run to their end; nothing if it will.

    The arguments are those of `refusals_of`.

    Returns:
        The same in words, for the site's own log; "" where nothing is refused.
    """
    refused = refusals_of(site, experiment, arms, seeds, data, ledger, promised)
    if not refused:
        return ""
    told = as_setting(refused)
    content["config"] = ConfigRecord({**config_of(content), REFUSALS_KEY: told})
    return "; ".join(refusal_sentences({site.name: json.loads(told)}))


def _check_questions(
    site: SiteFile,
    experiment: Experiment,
    name: str,
    data: Callable[[], SiteData],
    ledger: PrivacyBudget | None,
    promised: Promised | None,
) -> None:
    arm = experiment.arm(name)
    asked = [
        one
        for one in exchanges_of(experiment, name)
        if all(takes_part(site, experiment, action) for action in _asked(one))
    ]
    for exchange in asked:
        check_exchange(site, experiment, exchange, data)
        actions = _asked(exchange)
        check_promised(site, promised, experiment, actions, data)
        check_epsilon(site, ledger, arm, seed=arm.seeds[0], round=1, actions=actions)
    check_upload(site, 0, per_round(asked)[1])
    check_upload(site, 0, sum(one.answer.bytes for one in asked if one.when == "at the end"))


def _asked(exchange: Exchange) -> list[str]:
    return exchange.action.split("+")


def _check_budget(
    site: SiteFile,
    experiment: Experiment,
    arms: list[Experiment],
    seeds: int,
    ledger: PrivacyBudget | None,
) -> None:
    if site.epsilon is None or ledger is None or site.name in experiment.held_out_sites:
        return
    told = ledger.project_run(arms, seeds=seeds)
    if not told <= site.epsilon:
        asked = f"{told:.4g} after all rounds and seeds of {', '.join(_names(experiment, arms))}"
        raise policy_error(site.name, "epsilon", f"{site.epsilon:g}", asked)


def _names(experiment: Experiment, arms: list[Experiment]) -> list[str]:
    texts = {experiment.arm(name).text(): name for name in experiment.arm_names}
    return [texts[arm.text()] for arm in arms]
