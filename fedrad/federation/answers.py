"""A site's answer, opened: whatever goes wrong in it is that site's failure, and no other's."""

import logging
from math import isfinite

from flwr.app import RecordDict

from fedrad.algorithms.base import Reply
from fedrad.core.state import Bundle
from fedrad.errors import FedradError, SiteFailed
from fedrad.federation.records import bundle_of, numbers_of

__all__ = ["alike", "opened"]

log = logging.getLogger(__name__)


def opened(content: RecordDict, sent: Bundle) -> Reply:
    """Return the arrays and numbers of an answer.

    Args:
        content: of the site's message.
        sent: the arrays that it answers; those that come back have the same shapes.

    Raises:
        SiteFailed: it cannot be read, a number is not finite, or an array has another shape than
            the one that was sent under its name.
    """
    try:
        reply = Reply(bundle_of(content), numbers_of(content))
        if not all(map(isfinite, reply.numbers.values())):
            raise SiteFailed("a number is not finite")
        for name in reply.arrays.keys() & sent.keys():
            for key, value in reply.arrays[name].items():
                if key not in sent[name] or sent[name][key].shape != value.shape:
                    raise SiteFailed("an array is not of the shape that was sent")
        return reply
    except FedradError as error:
        raise SiteFailed(f"its answer does not fit: {error}") from None
    except Exception as error:
        # What this stumbles over is what came from the site.
        log.info("an answer cannot be read", exc_info=error)
        raise SiteFailed(f"its answer cannot be read ({type(error).__name__})") from None


def alike(one: Bundle, other: Bundle) -> bool:
    """Return whether two bundles have the same names and shapes.

    >>> import torch
    >>> alike({"model": {"w": torch.zeros(2)}}, {"model": {"w": torch.ones(2)}})
    True
    >>> alike({"model": {"w": torch.zeros(2)}}, {})
    False
    """
    return one.keys() == other.keys() and all(
        one[name].keys() == other[name].keys()
        and all(one[name][key].shape == other[name][key].shape for key in one[name])
        for name in one
    )
