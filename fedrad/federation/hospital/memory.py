"""Where a hospital keeps what it knows of an experiment, and the model of its own that is there."""

from pathlib import Path

from fedrad.algorithms.base import PERSONAL
from fedrad.core.state import State
from fedrad.core.store import Versions
from fedrad.federation.client import memory_folder
from fedrad.federation.hospital.asked import Task

__all__ = ["memory_of", "own_model"]


def memory_of(state_dir: Path, digest: str) -> Path:
    """Return the folder of an experiment, by its digest: another one starts from nothing.

    >>> memory_of(Path("state"), "0123456789abcdef" * 4).as_posix()
    'state/memory/0123456789abcdef'
    """
    return state_dir / "memory" / digest[:16]


def own_model(state_dir: Path, task: Task) -> State:
    """Return the model that a site itself has in an arm before a round; {} without one."""
    folder = memory_folder(memory_of(state_dir, task.digest), task.arm, task.seed)
    return Versions(folder).before(task.round).get(PERSONAL, {})
