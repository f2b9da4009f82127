"""What every site answers whatever the algorithm: how good a model is, and counts of labels.

Scores never leave a site, and neither do sums over resamples, from which scores can be computed:
`metrics.site_result` says what does.
"""

from collections.abc import Mapping

import numpy as np
import torch

from fedrad.algorithms.base import PERSONAL, Handler, Reply, Request
from fedrad.core.state import Bundle, State
from fedrad.metrics.base import Array
from fedrad.training.local import LocalTask

__all__ = ["RESULT", "THRESHOLDS", "as_state", "evaluation", "of_state", "result_reply"]

RESULT = "result"
"""The name, in a reply, of what a site tells of a model."""
THRESHOLDS = "thresholds"
"""The name, in a message, of the log-odds from which images are called positive."""
_NEEDED = {"tune": ("cells", "size"), "validate": ("parts/", "told/", "denominators/", "size")}
_NONE = 1000.0
"""In a message: there is no threshold. No log-odds of a probability in double are so large."""


def evaluation(draws: int) -> Mapping[str, Handler]:
    """Return the handlers that evaluate a model, hand out a personal one, and count labels.

    Args:
        draws: of the test patients' influence on each metric, beside what was observed.

    `test` and `tune` (on validation images, for thresholds) take the model that is sent, or, when
    none is, the site's own; `validate`, for curves, takes the model in use: the site's own as soon
    as it has one. A site that never trained has no model of its own, and tells nothing. `share` is
    what a site x site matrix of personal models needs; a hospital may forbid it.

    >>> sorted(evaluation(100))
    ['count', 'share', 'test', 'tune', 'validate']
    """

    def test(request: Request) -> tuple[Reply, Bundle]:
        model = _model(request)
        if model is None:
            return _nothing(), request.memory
        sent = request.arrays.get(THRESHOLDS)
        edges = _own(request.local, model) if sent is None else of_state(sent)
        scores = request.local.predict(model, split="test")
        reply = result_reply(
            request.local, scores, "test", action="test", draws=draws, thresholds=edges
        )
        return reply, request.memory

    return {
        "count": _count,
        "share": _share,
        "test": test,
        "tune": _tune,
        "validate": _validate,
    }


def result_reply(
    local: LocalTask,
    scores: Array,
    split: str,
    *,
    action: str,
    draws: int = 0,
    thresholds: Mapping[str, Array] | None = None,
) -> Reply:
    """Return the reply that tells of a model's scores for a split.

    Args:
        local: the site's task.
        scores: as from `LocalTask.predict`.
        split: "val" or "test".
        action: "test" tells all that a site tells; "validate" values alone, "tune" cells alone.
        draws: of the patients' influence.
        thresholds: metric -> [outputs] log-odds.
    """
    found = local.tell(scores, split=split, draws=draws, thresholds=thresholds)
    numbers = {"num-examples": float(found.images), "patients": float(found.patients)}
    state = found.as_state(local.disclosure.most_cells)
    needed = _NEEDED.get(action, ("",))
    return Reply({RESULT: {k: v for k, v in state.items() if k.startswith(needed)}}, numbers)


def as_state(thresholds: Mapping[str, Array]) -> State:
    """Return thresholds as a message carries them: finite numbers.

    >>> of_state(as_state({"sensitivity": np.array([0.5, np.nan])}))
    {'sensitivity': array([0.5, nan])}
    """
    return {n: torch.from_numpy(np.nan_to_num(a, nan=_NONE)) for n, a in thresholds.items()}


def of_state(state: State) -> dict[str, Array]:
    """Return the thresholds that `as_state` made arrays of."""
    found = {name: tensor.cpu().numpy().astype(np.float64) for name, tensor in state.items()}
    return {name: np.where(array >= _NONE, np.nan, array) for name, array in found.items()}


def _tune(request: Request) -> tuple[Reply, Bundle]:
    model = _model(request)
    if model is None:
        return _nothing(), request.memory
    scores = request.local.predict(model, split="val")
    return result_reply(request.local, scores, "val", action="tune"), request.memory


def _validate(request: Request) -> tuple[Reply, Bundle]:
    model = request.memory.get(PERSONAL) or _model(request)
    if model is None:
        return _nothing(), request.memory
    scores = request.local.predict(model, split="val")
    edges = request.local.thresholds(scores, split="val")
    reply = result_reply(request.local, scores, "val", action="validate", thresholds=edges)
    return reply, request.memory


def _own(local: LocalTask, model: State) -> dict[str, Array]:
    """Return the thresholds of a model on the site's own validation images."""
    if all(metric.specificity is None for metric in local.metrics):
        return {}
    return local.thresholds(local.predict(model, split="val"), split="val")


def _nothing() -> Reply:
    return Reply(numbers={"num-examples": 0.0, "patients": 0.0})


def _model(request: Request) -> State | None:
    return request.arrays.get("model") or request.memory.get(PERSONAL)


def _share(request: Request) -> tuple[Reply, Bundle]:
    model = _model(request)
    if model is None:
        return Reply({}), request.memory
    edges = as_state(_own(request.local, model))
    return Reply({"model": model, THRESHOLDS: edges} if edges else {"model": model}), request.memory


def _count(request: Request) -> tuple[Reply, Bundle]:
    return Reply({"counts": {"train": request.local.told_label_counts()}}), request.memory
