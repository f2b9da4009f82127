"""The table of ways in which a site's training may be made differentially private."""

from collections.abc import Callable, Mapping

from fedrad.privacy.dp_sgd import Asked, dp_sgd, no_privacy

PRIVACY: Mapping[str, Callable[..., Asked | None]] = {"dp_sgd": dp_sgd, "none": no_privacy}
