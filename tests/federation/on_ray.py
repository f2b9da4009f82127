"""Playing on Ray in tests: one cluster for a file's tests, and what a run of them left behind."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from made import Told, experiment, federation

from fedrad.config import Experiment
from fedrad.data.sites import Federation
from fedrad.rounds.arm_rounds import RunSpec
from fedrad.runs import RunFolder
from fedrad.simulation.ray.cluster import Cluster


@contextmanager
def cluster_for(module: str) -> Iterator[Cluster]:
    """One Ray for all tests of a file, with room for three actors and 100 MB of arrays."""
    with Cluster(workers=3, object_store=100 * 1024**2) as found:
        found.wait()
        # Actors cannot import the file; its classes travel with the objects.
        from ray import cloudpickle

        cloudpickle.register_pickle_by_value(sys.modules[module])
        yield found


def play_ray(
    folder: Path,
    cluster: Cluster,
    what: Experiment | None = None,
    sites: Federation | None = None,
    arms: list[str] | None = None,
    *,
    workers: int = 2,
    told: Told | None = None,
) -> Told:
    """Play an experiment on Ray and return what was told."""
    from fedrad.simulation.ray.grid import run_ray

    what, sites, told = what or experiment(), sites or federation(), told or Told()
    names = arms or list(what.arm_names)
    chosen = RunSpec(what, names, what.seeds, sites.held_out, RunFolder(folder), told)
    run_ray(chosen, sites, torch.device("cpu"), workers=workers, cluster=cluster)
    return told


def results(folder: Path, *arms: str) -> dict[str, bytes]:
    """Every state, memory and evaluation of a run's folder, or of some of its arms."""
    found = {
        path.relative_to(folder): path.read_bytes()
        for pattern in ("*.safetensors", "evaluation.json")
        for path in sorted(folder.rglob(pattern))
    }
    return {
        str(path): content
        for path, content in found.items()
        if not arms or any(arm in path.parts for arm in arms)
    }


class Arming(Told):
    """Progress that sets a mark after a round."""

    def __init__(self, mark: Path, after: int) -> None:
        super().__init__()
        self.mark, self.after = mark, after

    def round_done(self, arm: str, seed: int, round: int, **more: object) -> None:
        super().round_done(arm, seed, round, **more)
        if round == self.after:
            self.mark.touch()
