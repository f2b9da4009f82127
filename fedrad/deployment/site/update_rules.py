"""What an update is made of: how many patients stand behind it, and how many sites behind a mean.

An update of one step on one image is that image's gradient, from which the image follows. So a
policy bounds the patients whose images a round's steps draw, not only those that a site has.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedrad.assemble import steps_per_round
from fedrad.config import Experiment, SiteFile
from fedrad.data.base import SiteData
from fedrad.deployment.site.policy import policy_error
from fedrad.registry import split

__all__ = [
    "SITES",
    "PatientsBehind",
    "check_quorum",
    "check_sites",
    "check_update",
    "patients_behind",
    "risk_of",
]

SITES = "training-sites"
"""Under which a coordinator says how many sites train in a round."""


@dataclass(frozen=True)
class PatientsBehind:
    """What one update of a model is made of.

    Args:
        patients: the fewest whose images a round's steps can be drawn from.
        of: training patients that the site has.
        steps: gradient steps of a round.
        batch: images in a step; under dp_sgd as many as are expected.
        images: different ones that a round's steps draw.
    """

    patients: int
    of: int
    steps: int
    batch: int
    images: int


def patients_behind(arm: Experiment, data: SiteData) -> PatientsBehind:
    """Return what an update of an arm is made of at a site.

    Steps draw their images without repeats until all were drawn. In the worst case they are those
    of the patients who have most.

    Args:
        arm: the experiment as the arm sees it.
        data: the site's.
    """
    rows = data.rows["train"]
    steps = steps_per_round(arm.local, len(rows))
    images = min(len(rows), steps * arm.local.batch)
    each = np.sort(np.unique(data.patient[rows], return_counts=True)[1])[::-1]
    patients = int(np.searchsorted(np.cumsum(each), images)) + 1 if images else 0
    return PatientsBehind(patients, len(each), steps, arm.local.batch, images)


def check_update(site: SiteFile, arm: Experiment, data: SiteData) -> None:
    """Check how many patients stand behind an update.

    Raises:
        PolicyError: they may be fewer than the policy allows. It tells steps and batch, which the
            coordinator knows, and not how many images a patient has.
    """
    found = patients_behind(arm, data)
    if found.patients < site.min_patients:
        most = found.steps * found.batch
        who = f"{most} at most" if most < site.min_patients else "which may be of fewer"
        times = f"{found.steps} step{'s' * (found.steps != 1)} of {found.batch}"
        asked = f"an update from {times} image{'s' * (found.batch != 1)}, {who}"
        raise policy_error(site.name, "min_patients", site.min_patients, asked)


def check_sites(site: SiteFile, arm: Experiment, config: Mapping[str, Any]) -> None:
    """Check how many sites a mean is made of: that of one is its own update.

    The number is the coordinator's word, and its quorum is the experiment's. A site sees no other.

    Args:
        site: whose policy it is.
        arm: the experiment as the arm sees it.
        config: of the message.

    Raises:
        PolicyError: fewer than the policy allows, or the message does not say how many.
    """
    if site.min_sites == 1:
        return
    told = config.get(SITES)
    if not isinstance(told, int) or isinstance(told, bool):
        raise policy_error(site.name, "min_sites", site.min_sites, f"a mean, without {SITES}")
    if told < site.min_sites:
        raise policy_error(site.name, "min_sites", site.min_sites, f"a mean of {told}")
    check_quorum(site, arm)


def check_quorum(site: SiteFile, arm: Experiment) -> None:
    """Check the sites that an experiment itself says will do for a mean.

    Raises:
        PolicyError: fewer than the policy allows.
    """
    for name, value in (("quorum", arm.quorum), ("sites_per_round", arm.sites_per_round)):
        if value is not None and value < site.min_sites:
            raise policy_error(site.name, "min_sites", site.min_sites, f"{name} {value}")


def risk_of(arm: Experiment, data: SiteData) -> str:
    """Return in words of how few patients an update is made, and what could be drawn from it."""
    found = patients_behind(arm, data)
    if not found.images:
        return "no training image stands behind an update: it tells nothing"
    times = f"{found.steps} step{'s' * (found.steps != 1)}"
    told = (
        f"an update is made of {found.patients} of {found.of} patients at least "
        f"({times} of {found.batch} image{'s' * (found.batch != 1)}); "
    )
    if arm.privacy is not None and split(arm.privacy, where="privacy")[0] != "none":
        return told + "what it tells of one patient is bounded by epsilon, if the noise is enough"
    if found.images == 1:
        return told + (
            "who sees it can compute the film: with an mlp pixel for pixel, with other networks by "
            "trying (Zhu et al., 2019)"
        )
    if found.steps == 1:
        return told + (
            "one step's update is the mean of its images' gradients: single films can be rebuilt "
            "from those of small batches (Geiping et al., 2020), and from any batch by a "
            "coordinator that sends weights made for it (Fowl et al., 2022)"
        )
    return told + (
        "its steps are mixed, which makes films hard to rebuild and rules nothing out: a "
        "coordinator that sends weights made for it can single out a film; only epsilon bounds that"
    )
