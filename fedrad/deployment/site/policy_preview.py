"""What a site's policy would say to an exchange, before anybody asks."""

from collections.abc import Callable, Iterable
from functools import cache

from fedrad.config import Experiment, SiteFile
from fedrad.data.base import SPLITS, SiteData
from fedrad.data.sites import hospital_of
from fedrad.deployment.frame_spec import infer_frame_spec
from fedrad.deployment.site.evaluation_places import takes_part
from fedrad.deployment.site.policy import ReadSiteData, check_names, check_task, check_upload
from fedrad.deployment.site.preview import Exchange
from fedrad.deployment.site.update_rules import check_quorum, check_update, risk_of
from fedrad.errors import FedradError, PolicyError

__all__ = ["check_exchange", "preview_decision", "reader_of", "risks_of"]


def reader_of(site: SiteFile, experiment: Experiment) -> ReadSiteData:
    """Return what reads a site's own data when it is first asked, and then keeps them."""

    @cache
    def data() -> SiteData:
        return hospital_of(experiment, site).sites[site.name]

    return data


def risks_of(
    experiment: Experiment, exchanges: Iterable[Exchange], data: ReadSiteData
) -> dict[str, str]:
    """Return, for each arm that sends a trained model, what could be drawn from one update of it.

    Args:
        experiment: the whole of it.
        exchanges: with a site, of all of its arms.
        data: reads the site's own.
    """
    found: dict[str, str] = {}
    for name in dict.fromkeys(one.arm for one in exchanges if one.update):
        try:
            found[name] = risk_of(experiment.arm(name), data())
        except FedradError as error:
            found[name] = f"how few patients an update is made of is not known: {error}"
    return found


def check_exchange(
    site: SiteFile, experiment: Experiment, exchange: Exchange, data: ReadSiteData
) -> None:
    """Hold one exchange against a site's policy.

    Raises:
        PolicyError: a rule does not allow it.
        FedradError: the data cannot be read, or the experiment does not fit them.
    """
    arm = experiment.arm(exchange.arm) if exchange.arm in experiment.arm_names else None

    def patients(part: str) -> int:
        return sum(data().patients(one) for one in (SPLITS if part == "all" else (part,)))

    check_task(site, experiment, arm, exchange.action.split("+"), patients)
    if arm and exchange.update:
        check_update(site, arm, data())
        check_quorum(site, arm)
    streamed = arm and infer_frame_spec(arm, exchange.action, lambda split: data().images(split))
    check_upload(site, streamed.bytes if streamed else 0, exchange.answer.bytes)


def preview_decision(
    site: SiteFile, experiment: Experiment, data: ReadSiteData | None = None
) -> Callable[[Exchange], str]:
    """Return what says, of each exchange, "allowed", "not asked" or why it would be refused.

    Not foreseen is what depends on training: the length of an update.

    Args:
        site: whose policy it is.
        experiment: the whole of it.
        data: reads the site's own; asked once a rule needs the number of patients.

    Raises:
        ConfigError: the policy names what fedrad does not have.
    """
    check_names(site)
    data = data or reader_of(site, experiment)

    def verdict(exchange: Exchange) -> str:
        actions = exchange.action.split("+")
        if not all(takes_part(site, experiment, action) for action in actions):
            return "not asked: the experiment holds this site out"
        try:
            check_exchange(site, experiment, exchange, data)
        except PolicyError as refusal:
            return f"refused: {str(refusal).partition(': ')[2]}"
        except FedradError as error:
            return f"fails: {error}"
        return "allowed"

    return verdict
