"""Who was trained on with noise is not tested on afterwards, whatever experiment asks for it."""

from collections.abc import Sequence

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from fedrad.config import Experiment, SiteFile
from fedrad.data.base import SiteData, hashes
from fedrad.deployment.site.policy import SPLIT_OF, UNMEASURED, ReadSiteData, policy_error
from fedrad.privacy.promised import Promised
from fedrad.rounds.records import bundle_of, config_of, numbers_of, pack
from fedrad.rounds.site_summary import without_labels
from fedrad.training.dp.private_arm import dp_config_of

__all__ = ["check_promised", "hold_back_labels", "record_promise"]


def check_promised(
    site: SiteFile,
    promised: Promised | None,
    experiment: Experiment,
    actions: Sequence[str],
    data: ReadSiteData,
) -> None:
    """Refuse to evaluate on patients who were trained on under a promise of privacy.

    Args:
        site: whose policy it is.
        promised: to whom a promise was made; None keeps none.
        experiment: the whole of it, or an arm.
        actions: asked for in one message.
        data: reads the site's own.

    Raises:
        PolicyError: some of the patients are among them; not how many.
    """
    if promised is None:
        return
    for action in actions:
        part = SPLIT_OF.get(action)
        if part in ("val", "test") and promised.any_of(_patients(experiment, data(), part)):
            limit = "patients whom no arm was trained on under dp_sgd"
            raise policy_error(site.name, "privacy", limit, f"{action} on some ({part})")


def hold_back_labels(
    content: RecordDict, promised: Promised | None, experiment: Experiment, data: ReadSiteData
) -> RecordDict:
    """Return a description without the labels of splits that hold who was promised privacy.

    Args:
        content: of the description.
        promised: to whom a promise was made; None keeps none.
        experiment: the whole of it.
        data: reads the site's own.
    """
    if promised is None:
        return content
    found = bundle_of(content)
    for part in ("val", "test"):
        if promised.any_of(_patients(experiment, data(), part)):
            labels = {part: without_labels(data().images(part), experiment.task)}
            found["labels"] = {**found["labels"], **labels}
    return pack(found, numbers_of(content), config_of(content))


def record_promise(
    promised: Promised | None, arm: Experiment, actions: Sequence[str], data: ReadSiteData
) -> None:
    """Remember whom an arm is about to be trained on under a promise of privacy.

    Args:
        promised: is added to.
        arm: the experiment as the arm sees it.
        actions: asked for in one message.
        data: reads the site's own.

    Raises:
        PrivacyError: it cannot be written.
    """
    if promised is None or not set(actions) - UNMEASURED or dp_config_of(arm) is None:
        return
    promised.add(_patients(arm, data(), "train"))


def _patients(experiment: Experiment, data: SiteData, part: str) -> NDArray[np.uint64]:
    """Return a split's patients, the same whether or not they are shared between sites."""
    found = np.unique(data.patient[data.rows[part]])
    if not experiment.shared_patients:
        return found
    # As `data.sites` makes a site's own ids of them: another word in the text is nobody else.
    return hashes(f"{data.site}\x1f{one}" for one in found)
