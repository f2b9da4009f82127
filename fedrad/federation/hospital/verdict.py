"""What a site's policy would say to an exchange, before anybody asks."""

from collections.abc import Callable
from functools import cache

from fedrad.config import Experiment, SiteFile
from fedrad.data.base import SPLITS, SiteData
from fedrad.data.sites import hospital_of
from fedrad.errors import FedradError, Refused
from fedrad.federation.frame_outline import streamed_of
from fedrad.federation.hospital.policy import check_names, check_task, check_upload
from fedrad.federation.hospital.preview import Exchange

__all__ = ["verdict_of"]


def verdict_of(site: SiteFile, experiment: Experiment) -> Callable[[Exchange], str]:
    """Return what says, of each exchange, "allowed" or why it would be refused.

    The site's data are read, once, when a rule asks for the number of patients. Not foreseen is
    what depends on training: the length of an update.

    Raises:
        ConfigError: the policy names what fedrad does not have.
    """
    check_names(site)

    @cache
    def data() -> SiteData:
        return hospital_of(experiment, site).sites[site.name]

    def patients(part: str) -> int:
        return sum(data().patients(one) for one in (SPLITS if part == "all" else (part,)))

    def verdict(exchange: Exchange) -> str:
        arm = experiment.arm(exchange.arm) if exchange.arm in experiment.arm_names else None
        try:
            check_task(site, experiment, arm, exchange.action.split("+"), patients)
            streamed = arm and streamed_of(arm, exchange.action, lambda split: data().images(split))
            check_upload(site, streamed.bytes if streamed else 0, exchange.answer.bytes)
        except Refused as refusal:
            return f"refused: {str(refusal).partition(': ')[2]}"
        except FedradError as error:
            return f"fails: {error}"
        return "allowed"

    return verdict
