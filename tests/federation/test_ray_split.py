"""Cut networks on Ray: sites' halves in actors, the server's in this process, the same bits."""

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made import Told, federation, play
from split_arms import split_experiment

from fedrad.config import Experiment
from fedrad.data.sites import Federation
from fedrad.federation.cluster import Cluster
from fedrad.federation.rounds import Play
from fedrad.runs import RunFolder

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(workers=3, object_store=100 * 1024**2) as found:
        found.wait()
        # Actors cannot import this file; its classes travel with the objects.
        from ray import cloudpickle

        cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    play(folder, split_experiment(), workers=1)
    return folder


def play_ray(
    folder: Path,
    cluster: Cluster,
    arms: list[str],
    *,
    sites: Federation | None = None,
    workers: int = 2,
    told: Told | None = None,
    what: Experiment | None = None,
) -> Told:
    from fedrad.federation.ray import run_ray

    what, sites, told = what or split_experiment(), sites or federation(), told or Told()
    chosen = Play(what, arms, what.seeds, sites.held_out, RunFolder(folder), told, True)
    run_ray(chosen, sites, torch.device("cpu"), workers=workers, cluster=cluster)
    return told


def results(folder: Path, *arms: str) -> dict[str, bytes]:
    """Every state, memory and evaluation of some arms."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for pattern in ("*.safetensors", "evaluation.json")
        for path in sorted(folder.rglob(pattern))
        if any(arm in path.relative_to(folder).parts for arm in arms)
    }


def traffic(folder: Path) -> list[tuple[int, int]]:
    """Bytes up and down of each round of version 1."""
    lines = RunFolder(folder).arm("v1", 0).rounds()
    return [(line["bytes_up"], line["bytes_down"]) for line in lines]


class Rows(dict[str, np.ndarray]):
    """A site's rows: whoever reads those for training leaves its number, or dies at the mark."""

    def __init__(self, rows: Mapping[str, np.ndarray], mark: Path) -> None:
        super().__init__(rows)
        self.mark, self.driver = mark, os.getpid()

    def __getitem__(self, split: str) -> np.ndarray:
        if split == "train" and os.getpid() != self.driver:
            (self.mark.parent / f"reader-{os.getpid()}").touch()
            if self.mark.exists():
                self.mark.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(split)


def watched(mark: Path) -> Federation:
    """The three sites, each with rows that tell who reads them; ost's are deadly at the mark."""
    sites = dict(federation().sites)
    for name, data in sites.items():
        own = mark if name == "ost" else mark.parent / "never"
        sites[name] = replace(data, rows=Rows(data.rows, own))
    return Federation(sites, ())


@pytest.mark.parametrize("workers", [1, 3])
def test_every_split_arm_ends_with_the_bits_of_one_process(
    alone: Path, cluster: Cluster, tmp_path: Path, workers: int
) -> None:
    """Also with memory at the sites, relays, int8 on the wire, and noise."""
    arms = list(split_experiment().arm_names)
    play_ray(tmp_path, cluster, arms, workers=workers)
    assert results(tmp_path, *arms) == results(alone, *arms)
    assert traffic(tmp_path) == traffic(alone)


def test_the_sites_halves_are_computed_by_actors(cluster: Cluster, tmp_path: Path) -> None:
    """Their images are read there, and their steps are the actors' training."""
    play_ray(tmp_path / "run", cluster, ["v1"], sites=watched(tmp_path / "mark"))
    assert len(list(tmp_path.glob("reader-*"))) == 2
    line = RunFolder(tmp_path / "run").arm("v1", 0).rounds()[-1]
    assert 0 < line["efficiency"] <= 1


class Arming(Told):
    """Progress that sets a mark after a round."""

    def __init__(self, mark: Path, after: int) -> None:
        super().__init__()
        self.mark, self.after = mark, after

    def round_done(self, arm: str, seed: int, round: int, **more: object) -> None:
        super().round_done(arm, seed, round, **more)
        if round == self.after:
            self.mark.touch()


@pytest.mark.parametrize("arm", ["v1", "v3", "relay_batch"])
def test_a_round_whose_actor_is_killed_is_played_again(
    alone: Path, cluster: Cluster, tmp_path: Path, arm: str
) -> None:
    """kill -9 of the actor that reads ost's images in round 2: the half's graph is gone with it.

    Two sites would be a quorum; a worker's death is no site's silence, and nobody is left out.
    """
    told, what = Arming(tmp_path / "mark", after=1), split_experiment(quorum=2)
    sites = watched(tmp_path / "mark")
    play_ray(tmp_path / "run", cluster, [arm], sites=sites, told=told, what=what)
    assert results(tmp_path / "run", arm) == results(alone, arm)
    notes = [line.get("repeated", []) for line in RunFolder(tmp_path / "run").arm(arm, 0).rounds()]
    assert not notes[0] and "worker died" in notes[1][0]
