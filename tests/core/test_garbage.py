"""Garbage is searched for seldom while a program starts, and as ever from then on."""

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fedrad.core.gc_tuning import raise_gc_threshold, restore_gc_threshold


@pytest.fixture
def restored() -> Iterator[tuple[int, int, int]]:
    before = gc.get_threshold()
    yield before
    gc.set_threshold(*before)
    gc.unfreeze()


def test_what_a_program_made_while_it_started_is_never_looked_at_again(
    restored: tuple[int, int, int],
) -> None:
    raise_gc_threshold()
    assert gc.get_threshold()[0] > 100 * restored[0]
    kept = [[] for _ in range(1000)]
    restore_gc_threshold()
    assert gc.get_threshold() == restored
    assert gc.get_freeze_count() > len(kept)
    assert not any(one is kept for one in gc.get_objects())


def test_a_program_that_did_not_ask_for_it_keeps_its_own_settings(
    restored: tuple[int, int, int],
) -> None:
    """A library that froze its user's objects would keep their garbage for ever."""
    gc.set_threshold(5000, 20, 20)
    frozen = gc.get_freeze_count()
    restore_gc_threshold()
    assert gc.get_threshold() == (5000, 20, 20) and gc.get_freeze_count() == frozen


HELD = """
import os
from fedrad.core.gc_tuning import restore_gc_threshold, raise_gc_threshold

class Held:
    def __init__(self):
        self.itself = self  # only a search ends a cycle

    def __del__(self, write=os.write):
        write(1, b"collected")

raise_gc_threshold()
held = Held()
restore_gc_threshold()
"""


def test_what_was_frozen_is_collected_when_the_program_ends() -> None:
    """Triton's bindings print what is alive at the end as leaked, in thirty lines a run."""
    ended = subprocess.run([sys.executable, "-c", HELD], capture_output=True, check=True)
    assert ended.stdout == b"collected"
