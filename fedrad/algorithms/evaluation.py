"""What every site answers whatever the algorithm: counts, and sums of a model's errors.

Scores never leave a site; sums do (`metrics/`).
"""

from collections.abc import Mapping

from fedrad.algorithms.base import PERSONAL, Handler, Reply, Request
from fedrad.core.state import Bundle, State

__all__ = ["evaluation"]


def evaluation(replicates: int) -> Mapping[str, Handler]:
    """Return the handlers that evaluate a model, hand out a personal one, and count labels.

    Args:
        replicates: bootstrap resamples of a test set's patients, whose sums go with the observed.

    `test` and `tune` (on validation images) take the model that is sent, or, when none is, the
    site's own; `validate`, for curves, takes the model in use: the site's own as soon as it has
    one. A site that never trained has no model of its own, and answers without sums. `share` is
    what a site x site matrix of personal models needs; a hospital may forbid it.

    >>> sorted(evaluation(100))
    ['count', 'share', 'test', 'tune', 'validate']
    """

    def test(request: Request) -> tuple[Reply, Bundle]:
        return _evaluate(request, _model(request), "test", replicates), request.memory

    return {
        "count": _count,
        "share": _share,
        "test": test,
        "tune": _tune,
        "validate": _validate,
    }


def _tune(request: Request) -> tuple[Reply, Bundle]:
    return _evaluate(request, _model(request), "val", 0), request.memory


def _validate(request: Request) -> tuple[Reply, Bundle]:
    model = request.memory.get(PERSONAL) or _model(request)
    return _evaluate(request, model, "val", 0), request.memory


def _evaluate(request: Request, model: State | None, split: str, replicates: int) -> Reply:
    if model is None:
        return Reply(numbers={"num-examples": 0.0, "patients": 0.0})
    sums = request.local.evaluate(model, split=split, replicates=replicates)
    patients = float(request.local.data.patients(split))
    images = float(request.local.data.images(split))
    return Reply({"sums": sums}, {"num-examples": images, "patients": patients})


def _model(request: Request) -> State | None:
    return request.arrays.get("model") or request.memory.get(PERSONAL)


def _share(request: Request) -> tuple[Reply, Bundle]:
    model = _model(request)
    return Reply({} if model is None else {"model": model}), request.memory


def _count(request: Request) -> tuple[Reply, Bundle]:
    return Reply({"counts": {"train": request.local.label_counts()}}), request.memory
