"""The table of ways in which a site's training may be made differentially private."""

from collections.abc import Callable, Mapping

from fedrad.privacy.dp_sgd import DpSgdConfig, dp_sgd, no_privacy

PRIVACY: Mapping[str, Callable[..., DpSgdConfig | None]] = {"dp_sgd": dp_sgd, "none": no_privacy}
