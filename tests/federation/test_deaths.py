"""A worker ends with the process that forked it."""

import os
import signal
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
from made import play

from fedrad.training.local import LocalTask


def parent(folder: Path, arms: list[str]) -> None:
    """Play with two workers that leave their process ids in a folder and work for ten minutes."""

    def fit(task: LocalTask, *args: object, **kwargs: object) -> None:
        (folder / str(os.getpid())).touch()
        time.sleep(600)

    LocalTask.fit = fit
    play(folder / "run", arms=arms, workers=2)


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and is not yet collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def waited(condition, seconds: float) -> bool:
    ends = time.monotonic() + seconds
    while not condition() and time.monotonic() < ends:
        time.sleep(0.05)
    return condition()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
@pytest.mark.parametrize("arms", [["fedavg"], ["fedavg", "local"]])
def test_workers_of_a_killed_parent_stop_in_the_middle_of_their_work(
    tmp_path: Path, arms: list[str]
) -> None:
    """kill -9 leaves no time to tell anyone; a worker that trains would go on for hours.

    Of one arm the workers play sites, of two arms an arm each.
    """
    playing = get_context("fork").Process(target=parent, args=(tmp_path, arms))
    playing.start()
    try:
        assert waited(lambda: len([p for p in tmp_path.iterdir() if p.name.isdigit()]) == 2, 300)
        workers = [int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()]
        assert all(alive(worker) for worker in workers)
        playing.kill()
        playing.join()
        # Their work takes 600 s; that it ends before is what is asked, not how soon.
        assert waited(lambda: not any(alive(worker) for worker in workers), 300)
    finally:
        playing.kill()
        for name in [p.name for p in tmp_path.iterdir() if p.name.isdigit()]:
            if alive(int(name)):
                os.kill(int(name), signal.SIGKILL)
