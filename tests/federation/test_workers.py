"""Forked workers: the same bits as one process, whatever the number of workers and their fate."""

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from made import experiment, federation, play, site

from fedrad.core.state import is_bit_identical
from fedrad.data.sites import Federation
from fedrad.errors import MissingError
from fedrad.rounds import flower_sites as exchange
from fedrad.rounds.flower_sites import FlowerSites
from fedrad.runs import RunFolder
from fedrad.simulation.cores import worker_count
from fedrad.simulation.message_queue import MessageQueue
from fedrad.simulation.shared_memory import SharedArea
from fedrad.simulation.worker_processes import WorkersGrid
from fedrad.training.local import LocalTask

MANY = experiment(rounds=2, quorum=20, validate_every=0)


def many() -> Federation:
    """24 sites, each a block of its own."""
    return Federation({f"s{k:02d}": site(f"s{k:02d}", 4 + k % 5) for k in range(24)}, ())


def results(folder: Path) -> dict[str, bytes]:
    """Every state, memory and evaluation of a run's folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for pattern in ("*.safetensors", "evaluation.json")
        for path in sorted(folder.rglob(pattern))
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    play(folder, workers=1)
    return folder


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_gives_the_same_files(
    alone: Path, tmp_path: Path, workers: int
) -> None:
    """All arms, also those with memory at the sites and with pooled data.

    One at a time: several at once would each have one worker (`test_crews.py`).
    """
    for arm in experiment().arm_names:
        play(tmp_path, arms=[arm], workers=workers)
    assert results(tmp_path) == results(alone)


def test_with_more_sites_than_blocks_the_bits_are_the_same(tmp_path: Path) -> None:
    """33 sites are 17 blocks of up to 2, added up in the workers or in the parent."""
    sites = Federation({f"s{k:02d}": site(f"s{k:02d}", 4 + k % 5) for k in range(33)}, ())
    what = experiment(rounds=2)
    for workers in (1, 2):
        play(tmp_path / str(workers), what, sites, arms=["fedavg", "tuned"], workers=workers)
    assert results(tmp_path / "1") == results(tmp_path / "2")


def test_of_blocks_that_go_together_only_the_one_that_fails_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """24 sites: a worker takes up to six at once, and answers for each."""
    taken, next_ones, plain = [], MessageQueue.next, LocalTask.fit

    def remembered(waiting: MessageQueue, workers: int | None = None) -> tuple[str, ...]:
        taken.append(next_ones(waiting, workers))
        return taken[-1]

    def fit(task: LocalTask, *args: object, **kwargs: object) -> object:
        if task.site == "s03":
            raise RuntimeError("damaged")
        return plain(task, *args, **kwargs)

    monkeypatch.setattr(MessageQueue, "next", remembered)
    monkeypatch.setattr(LocalTask, "fit", fit)
    for workers in (1, 2):
        play(tmp_path / str(workers), MANY, many(), arms=["fedavg"], workers=workers)
    assert max(map(len, taken)) > 3
    assert results(tmp_path / "1") == results(tmp_path / "2")
    lines = RunFolder(tmp_path / "2").arm("fedavg", 0).rounds()
    assert [line["missing"] for line in lines] == 2 * [{"s03": "RuntimeError"}]


def deadly(monkeypatch: pytest.MonkeyPatch, site: str) -> None:
    """Have every process but this one die where it trains a site."""
    parent, plain = os.getpid(), LocalTask.fit

    def fit(task: LocalTask, *args: object, **kwargs: object) -> object:
        if task.site == site and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(task, *args, **kwargs)

    monkeypatch.setattr(LocalTask, "fit", fit)


def test_of_blocks_that_go_together_only_the_one_that_kills_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly(monkeypatch, "s03")
    play(tmp_path, MANY, many(), arms=["fedavg"], workers=2)
    for line in RunFolder(tmp_path).arm("fedavg", 0).rounds():
        assert list(line["missing"]) == ["s03"]
        assert "workers died of it" in line["missing"]["s03"]


def test_a_worker_killed_in_the_middle_changes_nothing(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 of the worker that trains ost in round 2, once; its block is played again."""
    parent, plain, mark = os.getpid(), LocalTask.fit, tmp_path / "killed"

    def fit(task: LocalTask, *args: object, **kwargs: object) -> object:
        if (
            task.site == "ost"
            and kwargs["round"] == 2
            and os.getpid() != parent
            and not mark.exists()
        ):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(task, *args, **kwargs)

    monkeypatch.setattr(LocalTask, "fit", fit)
    play(tmp_path / "run", arms=["tuned"], workers=2)
    assert mark.exists()
    expected = {k: v for k, v in results(alone).items() if "tuned" in k}
    assert results(tmp_path / "run") == expected


def test_a_worker_killed_while_it_had_nothing_to_do_changes_nothing(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The out-of-memory killer does not wait for work; the closed pipe is met when work comes."""
    plain, killed = WorkersGrid.push_messages, []

    def push(grid: WorkersGrid, messages: object) -> object:
        if len(killed) < 3:
            worker = grid._pool[0].process
            killed.append(worker.pid)
            worker.kill()
            worker.join()
        return plain(grid, messages)

    monkeypatch.setattr(WorkersGrid, "push_messages", push)
    play(tmp_path / "run", arms=["tuned"], workers=2)
    assert len(set(killed)) == 3
    expected = {k: v for k, v in results(alone).items() if "tuned" in k}
    assert results(tmp_path / "run") == expected


def test_a_site_that_kills_every_worker_is_given_up_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly(monkeypatch, "ost")
    told = play(tmp_path, arms=["fedavg"], workers=2)
    assert "2 of 3 sites answered" in told.stopped["fedavg"]
    assert "ost: SiteFailedError: 3 workers died" in told.stopped["fedavg"]


def test_with_a_quorum_the_round_goes_on_and_names_who_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = LocalTask.fit

    def fit(task: LocalTask, *args: object, **kwargs: object) -> object:
        if task.site == "ost" and kwargs["round"] == 2:
            raise RuntimeError("/home/patients/Doe, John.png")
        return plain(task, *args, **kwargs)

    monkeypatch.setattr(LocalTask, "fit", fit)
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        play(folder, experiment(quorum=2), arms=["fedavg"], workers=workers)
        lines = (folder / "fedavg" / "seed-0" / "rounds.jsonl").read_text()
        assert '"missing":{"ost":"RuntimeError"}' in lines and "Doe" not in lines
    assert results(tmp_path / "1") == results(tmp_path / "2")


def test_a_worker_that_is_late_is_ended_and_the_next_round_has_all_sites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ost hangs for good in round 2; the round goes on without it, and nobody waits for it.

    The clock is the test's: the deadline is over as soon as both others have answered.
    """
    plain, received, answered = LocalTask.fit, FlowerSites._received, []

    def fit(task: LocalTask, *args: object, **kwargs: object) -> object:
        if task.site == "ost" and kwargs["round"] == 2:
            time.sleep(1000)
        return plain(task, *args, **kwargs)

    def noted(sites: FlowerSites, key: str, *args: object) -> object:
        if sites.number == 2:
            answered.append(key)
        return received(sites, key, *args)

    clock = SimpleNamespace(
        monotonic=lambda: 601.0 if len(answered) == 2 else 0.0, sleep=time.sleep
    )
    monkeypatch.setattr(LocalTask, "fit", fit)
    monkeypatch.setattr(FlowerSites, "_received", noted)
    monkeypatch.setattr(exchange, "time", clock)
    what = experiment(quorum=2, deadline=600.0, rounds=3, validate_every=0)
    play(tmp_path, what, arms=["fedavg"], workers=2)
    missing = [line["missing"] for line in RunFolder(tmp_path).arm("fedavg", 0).rounds()]
    assert missing == [{}, {"ost": "no answer within 600 s"}, {}]
    assert sorted(answered) == ["nord", "sued"]


def test_a_shared_area_grows_and_keeps_every_kind_of_array() -> None:
    area = SharedArea("test")
    small = {"a": {"w": torch.ones(3)}}
    assert is_bit_identical(area.read(area.write(small)), small)
    large = {"a": {"w": torch.randn(1000), "n": torch.tensor(5)}, "b": {"e": torch.zeros(0, 2)}}
    assert is_bit_identical(area.read(area.write(large)), large)


def test_workers_after_cuda_has_started_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(MissingError, match="workers need fork"):
        play(tmp_path, workers=2)


def test_one_worker_a_core_and_never_more_than_sites(caplog: pytest.LogCaptureFixture) -> None:
    cores = len(os.sched_getaffinity(0))
    assert worker_count(None, sites=1000) == cores
    assert worker_count(None, sites=1) == 1
    assert not caplog.records
    assert worker_count(cores + 1, sites=1000) == cores + 1
    assert "will wait for one another" in caplog.text


def test_no_worker_outlives_its_run(tmp_path: Path) -> None:
    import multiprocessing

    play(tmp_path, arms=["fedavg"], workers=2)
    assert multiprocessing.active_children() == []
    assert federation().training == ("nord", "ost", "sued")
