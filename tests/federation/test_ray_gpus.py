"""Ray's actors on GPUs: as many as their memory holds, and half as many when it is full.

The cluster says that it has two GPUs; actors compute on the CPU and read a made-up memory.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, RecordDict
from made import Told, experiment, federation, play
from on_ray import cluster_for, results
from split_arms import split_experiment

from fedrad.config import Experiment
from fedrad.data.sites import Federation
from fedrad.rounds.arm_rounds import RunSpec
from fedrad.rounds.client_app import site_apps
from fedrad.rounds.server import server_app
from fedrad.runs import RunFolder
from fedrad.simulation.ray.actor import ActorInfo, SiteActor
from fedrad.simulation.ray.cluster import Cluster
from fedrad.simulation.ray.placement import GpuMemory

pytestmark = pytest.mark.ray

GPU = torch.device("cuda")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Five CPUs and two GPUs: two actors may share one."""
    ray = pytest.importorskip("ray")
    plain = ray.init

    def with_gpus(**options: Any) -> object:
        return plain(**options | {"num_gpus": 2, "num_cpus": 5})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "init", with_gpus)
        with cluster_for(__name__) as found:
            yield found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    play(folder, arms=["tuned"], workers=1)
    return folder


def actor_that_reads(gauge: GpuMemory, seen: Path) -> type[SiteActor]:
    """An actor on the CPU, whose GPU says what is given; it leaves its own and its GPU's number."""

    class OnCpu(SiteActor):
        @staticmethod
        def gauge(device: torch.device) -> GpuMemory | None:
            import ray

            (gpu,) = ray.get_gpu_ids()
            (seen / f"{gpu}-{os.getpid()}").touch()
            return gauge

        def begin(self, *args: Any) -> ActorInfo:
            *others, device = args
            assert device == "cuda"
            return super().begin(*others, "cpu")

    return OnCpu


class Full(dict[str, Any]):
    """A site's rows, for which the device's memory is too small while the mark is there."""

    def __init__(self, rows: Any, mark: Path, *, once: bool) -> None:
        super().__init__(rows)
        self.mark, self.once, self.driver = mark, once, os.getpid()

    def __getitem__(self, split: str) -> Any:
        if split == "train" and os.getpid() != self.driver and self.mark.exists():
            if self.once:
                self.mark.unlink()
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().__getitem__(split)


def full(mark: Path, *, once: bool) -> Federation:
    mark.touch()
    sites = dict(federation().sites)
    sites["ost"] = replace(sites["ost"], rows=Full(sites["ost"].rows, mark, once=once))
    return Federation(sites, ())


@pytest.fixture
def on_gpus(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Told, list[str], int]]:
    """Play on four actors at most; return what was told, the GPUs of those that trained, and how
    many actors there were in the end.
    """

    def play_them(
        gauge: GpuMemory,
        sites: Federation | None = None,
        what: Experiment | None = None,
        arm: str = "tuned",
        *,
        measure: bool,
    ) -> Any:
        from fedrad.rounds.site_tasks import Known
        from fedrad.simulation.in_process import InProcessGrid
        from fedrad.simulation.ray import pool
        from fedrad.simulation.ray.grid import RayGrid

        monkeypatch.setattr(pool, "SiteActor", actor_that_reads(gauge, tmp_path))
        what, told, run = what or experiment(), Told(), RunFolder(tmp_path / "run")
        sites = sites or federation()
        folders = {name: run.site(name) for name in sites.sites}
        context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
        app, door = site_apps(Known(sites), GPU)
        inner = InProcessGrid(app, folders, door=door)
        with pool.ActorPool(sites, folders, GPU, 4, measure=measure, note=told.note) as actors:
            for actor in list(actors._actors):
                actors.begin(actor)  # waits, so that none misses so short a run
            chosen = RunSpec(what, [arm], what.seeds, (), run, told)
            server_app(chosen)(RayGrid(inner, actors), context)
            count = len(actors._actors)
        return told, sorted(path.name.split("-")[0] for path in tmp_path.glob("[01]-*")), count

    return play_them


def test_each_gpu_gets_as_many_actors_as_fit_beside_the_first(
    alone: Path, tmp_path: Path, on_gpus: Callable[..., Any]
) -> None:
    told, gpus, actors = on_gpus(GpuMemory(free=9_000_000, taken=2_000_000), measure=True)
    assert {note for note in told.notes if "GPU" in note} == {
        f"GPU {n} of 2: 2 workers at a time of 2 that its CPUs allow; one takes 2 MB, 9 MB are free"
        for n in (1, 2)
    }
    # Two at first, one on each; the others may come too late to train in so short a run.
    assert set(gpus) == {"0", "1"} and actors == 4
    assert results(tmp_path / "run") == results(alone)


def test_where_no_second_one_fits_there_is_none(
    alone: Path, tmp_path: Path, on_gpus: Callable[..., Any]
) -> None:
    told, gpus, actors = on_gpus(GpuMemory(free=2_000_000, taken=2_000_000), measure=True)
    assert gpus == ["0", "1"] and actors == 2
    assert sum("1 worker at a time of 2" in note for note in told.notes) == 2
    assert results(tmp_path / "run") == results(alone)


@pytest.mark.parametrize("measure", [True, False])
def test_halves_of_cut_networks_are_measured_and_meet_a_full_memory_too(
    tmp_path: Path, on_gpus: Callable[..., Any], measure: bool
) -> None:
    """The round in which it was full is played again from its start, to the same bits."""
    what = split_experiment()
    sites = federation() if measure else full(tmp_path / "mark", once=True)
    told, _, actors = on_gpus(GpuMemory(9, 1), sites, what, "v1", measure=measure)
    (note, *_) = [note for note in told.notes if "GPU" in note]
    assert ("2 workers at a time" if measure else "it goes on with 1") in note
    assert actors == (4 if measure else 3)
    play(tmp_path / "alone", what, arms=["v1"])
    assert results(tmp_path / "run") == results(tmp_path / "alone")


def test_a_full_memory_halves_the_workers_there_and_the_site_is_played_again(
    alone: Path, tmp_path: Path, on_gpus: Callable[..., Any]
) -> None:
    """Two workers share each GPU, as was asked for; one of them meets a full memory, once."""
    sites = full(tmp_path / "mark", once=True)
    told, _, actors = on_gpus(GpuMemory(1, 1), sites, measure=False)
    assert actors == 3
    (note,) = [note for note in told.notes if "GPU" in note]
    assert note.endswith("of 2: its memory was full with 2 workers; it goes on with 1")
    assert told.stopped == {}
    assert results(tmp_path / "run") == results(alone)


def test_a_site_that_does_not_fit_alone_fails_with_its_name(
    tmp_path: Path, on_gpus: Callable[..., Any]
) -> None:
    sites = full(tmp_path / "mark", once=False)
    told, _, _ = on_gpus(GpuMemory(1, 1), sites, measure=False)
    assert "2 of 3 sites answered" in told.stopped["tuned"]
    assert "ost: OutOfMemoryError: the network and a batch do not fit" in told.stopped["tuned"]
    assert "make local.batch smaller" in told.stopped["tuned"]
