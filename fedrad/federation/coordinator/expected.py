"""What a site's answer must look like before it may be added to anything.

A reply with a missing or extra array, another shape or kind, or a number that is not finite is
named and left out for the round.
"""

import logging
from math import isfinite

from flwr.app import Message

from fedrad.config import Experiment
from fedrad.core.state import all_finite
from fedrad.errors import FedradError
from fedrad.federation.client import COUNTS
from fedrad.federation.outline import Outline, outline_of, shapes_of
from fedrad.federation.records import bundle_of, config_of, numbers_of

__all__ = ["Expected"]

log = logging.getLogger(__name__)


class Expected:
    """Knows what an experiment's sites answer.

    Args:
        experiment: its arms, models and statistics.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._outlines: dict[tuple[str, ...], Outline | None] = {}

    def check(self, question: Message, reply: Message) -> str | None:
        """Return what is wrong with a site's reply, or None."""
        config = config_of(question.content)
        action = str(config["action"])
        arrays, numbers = bundle_of(reply.content), numbers_of(reply.content)
        outline = None if action == "describe" else self._outline(question, action)
        # First the shapes: a number that is not finite is only looked for where one may be.
        wrong = outline and outline.difference(shapes_of(arrays), numbers)
        if wrong is None and not all_finite(arrays):
            wrong = "an array holds a number that is not finite"
        if wrong is None and not all(map(isfinite, numbers.values())):
            wrong = "a number is not finite"
        if wrong is None and numbers.get("num-examples", 0.0) < 0:
            wrong = "num-examples is negative"
        return f"its answer to {action} does not fit: {wrong}" if wrong else None

    def _outline(self, question: Message, action: str) -> Outline | None:
        config, sent = config_of(question.content), bundle_of(question.content)
        sent.pop(COUNTS, None)
        key = (str(config["arm"]), action, *sorted(sent))
        if key not in self._outlines:
            arm = self._experiment.arm(key[0])
            number = max(int(config["server-round"]), 1)
            try:
                self._outlines[key] = outline_of(arm, action.split("+"), sent, {}, round=number)
            except (FedradError, LookupError) as error:
                # What cannot be foreseen here was foreseen by the site's own guard.
                log.warning("%s, %s: only finite numbers are checked (%s)", key[0], action, error)
                self._outlines[key] = None
        return self._outlines[key]
