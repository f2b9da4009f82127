"""A validation that rides along: where messages cost seconds, two questions go in one.

The model that a round starts from is the one that the round before ended with, so its validation
needs no message of its own: sites are asked "fit+validate", and answer with both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from flwr.app import RecordDict

from fedrad.algorithms.base import Reply
from fedrad.algorithms.evaluation import RESULT
from fedrad.core.state import Bundle
from fedrad.rounds.records import bundle_of, config_of, numbers_of, pack

__all__ = ["PIGGYBACK", "PiggybackedValidation"]

PIGGYBACK = "+validate"
_ALONE = frozenset({"count", "share", "validate"})
_ARRAYS, _NUMBER = RESULT, "patients"


@dataclass
class PiggybackedValidation:
    """The validation of the model that a round starts from.

    Args:
        send: what a validation by itself would send.
        asked: whether it has found an exchange to ride with.
        replies: site -> its answer.
    """

    send: Mapping[str, object]
    asked: bool = False
    replies: dict[str, Reply] = field(default_factory=dict)

    def attach(self, action: str, send: Bundle) -> bool:
        """Return whether it rides with an exchange: the first, if that sends the same model."""
        # By identity: equal arrays of another state would be a chance, and a comparison costs.
        same = all(send.get(name) is state for name, state in self.send.items())
        if self.asked or not same or action in _ALONE or (not self.send and "model" in send):
            return False
        self.asked = True
        return True

    def detach(self, site: str, content: RecordDict) -> RecordDict:
        """Keep a site's answer to the validation, and return its answer to the round."""
        arrays, numbers = bundle_of(content), numbers_of(content)
        self.replies[site] = Reply(
            {_ARRAYS: arrays.pop(_ARRAYS, {})}, {_NUMBER: numbers.pop(_NUMBER, 0.0)}
        )
        return pack(arrays, numbers, config_of(content))
