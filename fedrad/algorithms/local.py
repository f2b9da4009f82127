"""Each hospital alone: the arm that federating has to beat."""

from fedrad.algorithms.base import (
    PERSONAL,
    Algorithm,
    Reply,
    Request,
    Sites,
    fitted_numbers,
    own_model,
)
from fedrad.core.state import Bundle, State

__all__ = ["local"]


def local() -> Algorithm:
    """Return training without exchange: every site starts from the same weights and keeps its own.

    Nothing but counts and sums of losses leaves a site, and nothing is sent to it.

    >>> local().personal, local().shared
    (True, False)
    """
    return Algorithm(init=_init, round=_round, handlers={"fit": _fit}, shared=False, personal=True)


def _init(model: State) -> Bundle:
    return {}


def _round(state: Bundle, number: int, sites: Sites) -> Bundle:
    sites.mean("fit", {})
    return state


def _fit(request: Request) -> tuple[Reply, Bundle]:
    start = request.memory.get(PERSONAL) or request.local.initial()
    fitted = request.local.fit(start, round=request.round)
    return Reply(numbers=fitted_numbers(fitted)), own_model(fitted)
