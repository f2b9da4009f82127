"""A site's answer, opened: whatever goes wrong in it is that site's failure, and no other's."""

import logging
from math import isfinite

from flwr.app import RecordDict

from fedrad.algorithms.base import Reply
from fedrad.core.state import Bundle
from fedrad.errors import FedradError, SiteFailedError
from fedrad.rounds.records import bundle_of, numbers_of

__all__ = ["arrays_and_numbers", "has_same_shapes"]

log = logging.getLogger(__name__)


def arrays_and_numbers(content: RecordDict, sent: Bundle) -> Reply:
    """Return the arrays and numbers of an answer.

    Args:
        content: of the site's message.
        sent: the arrays that it answers; those that come back have the same shapes.

    Raises:
        SiteFailedError: it cannot be read, a number is not finite, or an array has another shape
            than the one that was sent under its name.
    """
    try:
        reply = Reply(bundle_of(content), numbers_of(content))
        if not all(map(isfinite, reply.numbers.values())):
            raise SiteFailedError("a number is not finite")
        for name in reply.arrays.keys() & sent.keys():
            for key, value in reply.arrays[name].items():
                if key not in sent[name] or sent[name][key].shape != value.shape:
                    raise SiteFailedError("an array is not of the shape that was sent")
        return reply
    except FedradError as error:
        raise SiteFailedError(f"its answer does not fit: {error}") from None
    except Exception as error:
        # What this stumbles over is what came from the site.
        log.info("an answer cannot be read", exc_info=error)
        raise SiteFailedError(f"its answer cannot be read ({type(error).__name__})") from None


def has_same_shapes(one: Bundle, other: Bundle) -> bool:
    """Return whether two bundles have the same names and shapes.

    >>> import torch
    >>> has_same_shapes({"model": {"w": torch.zeros(2)}}, {"model": {"w": torch.ones(2)}})
    True
    >>> has_same_shapes({"model": {"w": torch.zeros(2)}}, {})
    False
    """
    return one.keys() == other.keys() and all(
        one[name].keys() == other[name].keys()
        and all(one[name][key].shape == other[name][key].shape for key in one[name])
        for name in one
    )
