"""A coordinator that moves a model by a little and asks again: at which step does one patient turn?

Accuracy is exact, so with any number of questions the bias at which it changes is a score.
"""

from pathlib import Path

import numpy as np
import pytest
import test_guard as guarded
from flwr.app import Message

from fedrad.algorithms.evaluation import RESULT
from fedrad.core.state import Bundle, clone
from fedrad.deployment.site.evaluation_limits import EvaluationLimits
from fedrad.errors import RunError
from fedrad.metrics.site_result import SiteResult
from fedrad.rounds.records import bundle_of

_runtime = guarded._runtime


def moved(by: float) -> Bundle:
    """Return the experiment's model, all log-odds moved by a number."""
    state = clone(guarded.model()["model"])
    bias = [name for name in state if name.endswith("bias")][-1]
    state[bias] = state[bias] + by
    return {"model": state}


def accuracy(reply: Message) -> float | None:
    if reply.has_error():
        return None
    found = SiteResult.from_state(bundle_of(reply.content)[RESULT])
    return float(found.parts["loss"][0, 0])


def asked(answer: guarded.Answerer, folder: Path, by: float, number: int = 2) -> float | None:
    message = guarded.question("validate", send=moved(by), number=number)
    return accuracy(answer(message, guarded.context(folder)))


def test_one_round_s_validation_is_of_three_models_at_most(tmp_path: Path) -> None:
    """Two hundred steps find every score to two digits; three find next to nothing."""
    answer = guarded.guard(tmp_path)
    told = [asked(answer, tmp_path, by) for by in np.linspace(-1, 1, 200)]
    assert [value is not None for value in told].count(True) == 3
    # The next round has its own; what was answered is answered again.
    assert asked(answer, tmp_path, 0.5, number=3) is not None
    assert asked(answer, tmp_path, -1.0) == told[0]


def test_a_restart_does_not_forget_what_was_evaluated(tmp_path: Path) -> None:
    """Else whoever makes a site start again could ask on."""
    first = guarded.guard(tmp_path)
    assert all(asked(first, tmp_path, by) is not None for by in (0.1, 0.2, 0.3))
    again = guarded.guard(tmp_path)
    assert asked(again, tmp_path, 0.4) is None
    assert asked(again, tmp_path, 0.2) is not None


def test_without_the_rule_the_same_questions_are_all_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is the rule that refuses, and nothing else."""
    monkeypatch.setattr(EvaluationLimits, "check", lambda *_: None)
    answer = guarded.guard(tmp_path)
    assert all(asked(answer, tmp_path, by) is not None for by in np.linspace(-1, 1, 20))


def test_the_refusal_says_how_many_are_the_most(tmp_path: Path) -> None:
    answer = guarded.guard(tmp_path)
    for by in (0.1, 0.2, 0.3):
        asked(answer, tmp_path, by)
    message = guarded.question("validate", send=moved(0.4), number=2)
    told = guarded.reason(answer(message, guarded.context(tmp_path)))
    expected = (
        "PolicyError: nord: evaluations: limit 3 models for one round's validate, asked one more"
    )
    assert told == expected


def test_a_damaged_memory_of_questions_stops_the_site(tmp_path: Path) -> None:
    """It would otherwise forget."""
    (tmp_path / "evaluated.jsonl").write_text('["a", "b"]\n{"half')
    with pytest.raises(RunError, match=r"evaluated\.jsonl is damaged"):
        EvaluationLimits(tmp_path / "evaluated.jsonl")
