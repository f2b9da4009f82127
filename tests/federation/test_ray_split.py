"""Cut networks on Ray: sites' halves in actors, the server's in this process, the same bits."""

import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made import federation, play
from on_ray import Arming, cluster_for, play_ray, results
from split_arms import split_experiment

from fedrad.data.sites import Federation
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
    play(folder, split_experiment(), workers=1)
    return folder


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
    play_ray(tmp_path, cluster, split_experiment(), arms=arms, workers=workers)
    assert results(tmp_path, *arms) == results(alone, *arms)
    assert traffic(tmp_path) == traffic(alone)


def test_the_sites_halves_are_computed_by_actors(cluster: Cluster, tmp_path: Path) -> None:
    """Their images are read there, and their steps are the actors' training."""
    play_ray(tmp_path / "run", cluster, split_experiment(), watched(tmp_path / "mark"), ["v1"])
    assert len(list(tmp_path.glob("reader-*"))) == 2
    line = RunFolder(tmp_path / "run").arm("v1", 0).rounds()[-1]
    assert 0 < line["efficiency"] <= 1


@pytest.mark.parametrize("arm", ["v1", "v3", "relay_batch"])
def test_a_round_whose_actor_is_killed_is_played_again(
    alone: Path, cluster: Cluster, tmp_path: Path, arm: str
) -> None:
    """kill -9 of the actor that reads ost's images in round 2: the half's graph is gone with it.

    Two sites would be a quorum; a worker's death is no site's silence, and nobody is left out.
    """
    told, what = Arming(tmp_path / "mark", after=1), split_experiment(quorum=2)
    sites = watched(tmp_path / "mark")
    play_ray(tmp_path / "run", cluster, what, sites, [arm], told=told)
    assert results(tmp_path / "run", arm) == results(alone, arm)
    notes = [line.get("repeated", []) for line in RunFolder(tmp_path / "run").arm(arm, 0).rounds()]
    assert not notes[0] and "worker died" in notes[1][0]
