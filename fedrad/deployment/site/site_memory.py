"""Where a hospital keeps what it knows of an experiment, and the model of its own that is there."""

from pathlib import Path

from fedrad.algorithms.base import PERSONAL
from fedrad.core.state import State
from fedrad.core.store import Versions
from fedrad.deployment.site.parsed_message import TaskRequest
from fedrad.rounds.client_app import memory_folder

__all__ = ["site_memory", "stored_model"]


def site_memory(state_dir: Path, digest: str) -> Path:
    """Return the folder of an experiment, by its digest: another one starts from nothing.

    >>> site_memory(Path("state"), "0123456789abcdef" * 4).as_posix()
    'state/memory/0123456789abcdef'
    """
    return state_dir / "memory" / digest[:16]


def stored_model(state_dir: Path, task: TaskRequest) -> State:
    """Return the model that a site itself has in an arm before a round; {} without one."""
    folder = memory_folder(site_memory(state_dir, task.digest), task.arm, task.seed)
    return Versions(folder).before(task.round).get(PERSONAL, {})
