"""A stop watch with one hand a purpose."""

import time

import pytest

from fedrad.core.timing import PhaseTimer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, as the test sets it."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_what_begins_within_another_purpose_is_counted_once(clock: list[float]) -> None:
    """10 s in all, of which 3 s are data within training within messages: 2 + 5 + 3 = 10."""
    meter = PhaseTimer()
    with meter.spent("messages"):
        clock[0] += 1
        with meter.spent("training"):
            clock[0] += 5
            with meter.spent("data"):
                clock[0] += 3
        clock[0] += 1
    clock[0] += 100  # nothing has begun
    found = {name: seconds for name, seconds in meter.take().items() if seconds}
    assert found == {"messages": 2, "training": 5, "data": 3}
    assert not any(meter.seconds.values())


def test_making_an_item_is_counted_and_using_it_is_not(clock: list[float]) -> None:
    meter = PhaseTimer()

    def items() -> object:
        for number in range(3):
            clock[0] += 2
            yield number

    for _ in meter.each("data", items()):
        clock[0] += 10
    assert meter.seconds["data"] == 6


def test_a_purpose_that_ends_with_an_error_is_over(clock: list[float]) -> None:
    meter = PhaseTimer()
    with pytest.raises(KeyError), meter.spent("training"):
        clock[0] += 1
        raise KeyError
    clock[0] += 1
    assert meter.seconds["training"] == 1


def test_a_generators_own_time_is_counted_and_that_of_its_partner_is_not(
    clock: list[float],
) -> None:
    """Two halves of a network take turns: each half's meter must not run while the other works."""
    meter = PhaseTimer()

    def half() -> object:
        clock[0] += 2
        answer = yield "question"
        clock[0] += 3
        return answer

    talk = meter.during("training", half())  # type: ignore[arg-type]
    assert next(talk) == "question"
    clock[0] += 100
    with pytest.raises(StopIteration) as end:
        talk.send("answer")
    assert end.value.value == "answer"
    assert meter.seconds["training"] == 5
