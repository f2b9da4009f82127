"""Ray's actors: the same bits as one process, whatever the number of actors and their fate."""

import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made import Told, experiment, federation, play, site
from on_ray import Arming, cluster_for, play_ray, results

import fedrad
from fedrad.data.sites import Federation
from fedrad.errors import ConfigError, MissingError
from fedrad.rounds.arm_rounds import RunSpec
from fedrad.runs import RunFolder
from fedrad.simulation.ray.cluster import Cluster

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with cluster_for(__name__) as found:
        yield found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    play(folder, workers=1)
    return folder


class Trap(dict[str, np.ndarray]):
    """A site's rows: an actor that reads those for training, while the mark is there, dies."""

    def __init__(self, rows: Mapping[str, np.ndarray], mark: Path, *, once: bool) -> None:
        super().__init__(rows)
        self.mark, self.once, self.driver = mark, once, os.getpid()

    def __getitem__(self, split: str) -> np.ndarray:
        if split == "train" and os.getpid() != self.driver and self.mark.exists():
            if self.once:
                self.mark.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(split)


def trapped(mark: Path, *, once: bool) -> Federation:
    """The three sites, of which ost kills."""
    sites = dict(federation().sites)
    sites["ost"] = replace(sites["ost"], rows=Trap(sites["ost"].rows, mark, once=once))
    return Federation(sites, ())


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_actors_gives_the_same_files(
    alone: Path, cluster: Cluster, tmp_path: Path, workers: int
) -> None:
    """All arms, also those with memory at the sites and with pooled data."""
    play_ray(tmp_path, cluster, workers=workers)
    assert results(tmp_path) == results(alone)


def test_with_more_sites_than_blocks_the_bits_are_the_same(
    cluster: Cluster, tmp_path: Path
) -> None:
    """70 sites are 32 blocks of up to 3, added up in the actors or in the driver."""
    sites = Federation({f"s{k:02d}": site(f"s{k:02d}", 4 + k % 5) for k in range(70)}, ())
    what = experiment(rounds=2)
    play(tmp_path / "alone", what, sites, arms=["fedavg", "tuned"])
    play_ray(tmp_path / "ray", cluster, what, sites, arms=["fedavg", "tuned"])
    assert results(tmp_path / "ray") == results(tmp_path / "alone")


def test_an_actor_killed_in_the_middle_changes_nothing(
    alone: Path, cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """kill -9 of the actor that trains ost in round 2, once; its block is played again."""
    mark = tmp_path / "mark"
    sites, told = trapped(mark, once=True), Arming(mark, after=1)
    play_ray(tmp_path / "run", cluster, None, sites, ["tuned"], told=told)
    assert caplog.text.count("a worker died") == 1
    assert results(tmp_path / "run") == results(alone, "tuned")


def test_a_site_that_kills_every_actor_is_given_up_with_its_name(
    cluster: Cluster, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    mark.touch()
    sites = trapped(mark, once=False)
    told = play_ray(tmp_path / "run", cluster, None, sites, ["fedavg"], workers=3)
    assert "2 of 3 sites answered" in told.stopped["fedavg"]
    assert "ost: SiteFailedError: 3 workers died" in told.stopped["fedavg"]


def test_images_in_a_file_are_mapped_by_the_actors_and_not_sent(
    alone: Path, cluster: Cluster, tmp_path: Path
) -> None:
    """Their bytes never enter the object store, and results are those of arrays in memory."""
    from fedrad.simulation.ray.serialization import (
        by_name,
        by_value,
        bytes_of_data,
        data_to_files,
        with_mapped_files,
    )

    sites = {}
    for name, data in federation().sites.items():
        np.save(tmp_path / f"{name}.npy", data.x)
        sites[name] = replace(data, x=np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    mapped = Federation(sites, ())
    images = sum(data.x.nbytes for data in sites.values())
    assert data_to_files(mapped) and not data_to_files(by_value(mapped))
    assert bytes_of_data(by_value(mapped)) - bytes_of_data(by_name(mapped)) == images
    again = with_mapped_files(by_name(mapped)).sites["ost"].x
    assert isinstance(again, np.memmap) and np.array_equal(again, sites["ost"].x)
    # A slice of a file does not say where in the file it begins.
    cut = Federation({"ost": replace(sites["ost"], x=sites["ost"].x[1:])}, ())
    assert not data_to_files(cut)
    play_ray(tmp_path / "run", cluster, None, mapped, ["fedavg"])
    assert results(tmp_path / "run") == results(alone, "fedavg")


def test_data_that_do_not_fit_the_object_store_name_the_flag(
    cluster: Cluster, tmp_path: Path
) -> None:
    large = replace(site("nord", 4), attributes={"age": np.zeros(12_000_000)})
    with pytest.raises(MissingError, match=r"holds 105 MB, and data of 96 MB .* --object-store"):
        play_ray(tmp_path, cluster, None, Federation({"nord": large}, ()), ["fedavg"])


def test_a_node_with_another_version_is_refused(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The actors have the fedrad that is installed; this process says that it has another."""
    monkeypatch.setattr(fedrad, "__version__", "9.9")
    with pytest.raises(MissingError, match=r"has fedrad 0.* this machine has fedrad 9\.9"):
        play_ray(tmp_path, cluster, arms=["fedavg"])


def test_more_workers_than_the_cluster_has_cpus_are_not_waited_for(
    alone: Path, cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    play_ray(tmp_path, cluster, arms=["fedavg"], workers=50)
    assert "50 workers asked for, the Ray cluster has 3 CPUs" in caplog.text
    assert results(tmp_path) == results(alone, "fedavg")


def test_actors_run_at_the_priority_of_this_process(
    cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Niceness 0: at Ray's own 15, whatever else runs starves the training."""
    import ray

    @ray.remote
    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, 0)

    with caplog.at_level(logging.INFO):
        play_ray(tmp_path, cluster, arms=["fedavg"])
    # On a busy machine the run may end before the second one has begun.
    assert caplog.text.count("began on") >= 1
    assert ray.get(priority.remote()) == os.getpriority(os.PRIO_PROCESS, 0)


def test_a_gpu_is_asked_for_without_its_number_and_must_be_there(
    cluster: Cluster, tmp_path: Path
) -> None:
    from fedrad.simulation.ray.grid import run_ray

    what, sites = experiment(), federation()
    chosen = RunSpec(what, ["fedavg"], what.seeds, (), RunFolder(tmp_path), Told())
    with pytest.raises(MissingError, match="with Ray say cuda"):
        run_ray(chosen, sites, torch.device("cuda:1"), cluster=cluster)
    if not torch.cuda.is_available():
        with pytest.raises(MissingError, match="no node of the Ray cluster has one"):
            run_ray(chosen, sites, torch.device("cuda"), cluster=cluster)


def test_without_ray_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingError, match=r"pip install 'fedrad\[ray\]'"):
        Cluster()


def test_an_object_store_that_cannot_be_is_refused_before_ray_starts() -> None:
    with pytest.raises(ConfigError, match="Ray takes 84 MB or more"):
        Cluster(object_store=10_000_000)
    # Bytes where megabytes are asked for.
    with pytest.raises(ConfigError, match=r"this machine has \d+ MB in all; the number is in MB"):
        Cluster(object_store=10**9 * 10**6)
    with pytest.raises(ConfigError, match="ray start --object-store-memory"):
        Cluster(address="auto", object_store=10**9)
