"""Garbage is searched for seldom while a program starts, and as ever from then on."""

import gc
from collections.abc import Iterator

import pytest

from fedrad.core.garbage import search_as_ever, search_seldom


@pytest.fixture
def restored() -> Iterator[tuple[int, int, int]]:
    before = gc.get_threshold()
    yield before
    gc.set_threshold(*before)
    gc.unfreeze()


def test_what_a_program_made_while_it_started_is_never_looked_at_again(
    restored: tuple[int, int, int],
) -> None:
    search_seldom()
    assert gc.get_threshold()[0] > 100 * restored[0]
    kept = [[] for _ in range(1000)]
    search_as_ever()
    assert gc.get_threshold() == restored
    assert gc.get_freeze_count() > len(kept)
    assert not any(one is kept for one in gc.get_objects())


def test_a_program_that_did_not_ask_for_it_keeps_its_own_settings(
    restored: tuple[int, int, int],
) -> None:
    """A library that froze its user's objects would keep their garbage for ever."""
    gc.set_threshold(5000, 20, 20)
    frozen = gc.get_freeze_count()
    search_as_ever()
    assert gc.get_threshold() == (5000, 20, 20) and gc.get_freeze_count() == frozen
