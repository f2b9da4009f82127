"""A running Ray cluster: two nodes as processes of this machine, joined by their address."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from made import Told, experiment, federation, play

from fedrad.data.sites import Federation
from fedrad.errors import MissingError
from fedrad.rounds.arm_rounds import RunSpec
from fedrad.runs import RunFolder
from fedrad.simulation.ray.cluster import Cluster
from fedrad.simulation.ray.serialization import files_in, set_files

pytestmark = pytest.mark.ray


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Node:
    """One `ray start --block`, and all processes under it."""

    def __init__(self, *options: str) -> None:
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", *options]
        self._process = subprocess.Popen(
            [*command, "--num-cpus=1", f"--object-store-memory={100 * 1024**2}"],
            # Dead nodes are noticed within two seconds, not twenty.
            env=os.environ | {"RAY_health_check_period_ms": "500", "RAY_worker_niceness": "0"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    @property
    def raylet(self) -> int:
        """The process whose children play sites."""
        under = psutil.Process(self._process.pid).children(recursive=True)
        return next(one.pid for one in under if one.name() == "raylet")

    def kill(self) -> None:
        """Do kill -9 to all of the node at once, as a power cut would."""
        if self._process.poll() is not None:
            return
        node = psutil.Process(self._process.pid)
        for one in [*node.children(recursive=True), node]:
            one.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[str, list[Node]]]:
    """Two nodes of one CPU each, and their cluster's address."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    # Not under tmp_path: sockets' paths are short.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        head = Node(
            "--head",
            f"--port={port}",
            f"--temp-dir={folder}",
            "--node-ip-address=127.0.0.1",
            "--include-dashboard=false",
            "--disable-usage-stats",
        )
        found = [head]
        try:
            wait_for(lambda: answers(port))
            found.append(Node(f"--address={address}", "--node-ip-address=127.0.0.1"))
            yield address, found
        finally:
            for node in reversed(found):
                node.kill()


def answers(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0


def wait_for(what: object, seconds: float = 30) -> None:
    ends = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.1)


class Fuse(dict[str, np.ndarray]):
    """A site's rows: read for training on one node, while it is armed, they end that node.

    Files in a folder tell who has the data (`has-*`), that the node trained (`trained`), and arm
    the fuse (`armed`).
    """

    def __init__(self, rows: Mapping[str, np.ndarray], folder: Path, raylet: int) -> None:
        super().__init__(rows)
        self.folder, self.raylet = folder, raylet

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        (self.folder / f"has-{os.getpid()}").touch()

    def __getitem__(self, split: str) -> np.ndarray:
        if split == "train" and os.getppid() == self.raylet:
            (self.folder / "trained").touch()
            if (self.folder / "armed").exists():
                (self.folder / "armed").unlink()
                os.kill(self.raylet, signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(split)


class Arming(Told):
    """Progress that waits for both actors, and arms the fuse after a round of the first arm."""

    def __init__(self, folder: Path, after: int | None) -> None:
        super().__init__()
        self.folder, self.after = folder, after

    def arm_started(self, arm: str, seed: int, first_round: int) -> None:
        wait_for(lambda: len(list(self.folder.glob("has-*"))) > 1)

    def round_done(self, arm: str, seed: int, round: int, **more: object) -> None:
        super().round_done(arm, seed, round, **more)
        if (arm, round) == ("local", self.after):
            (self.folder / "armed").touch()


def results(folder: Path) -> dict[str, bytes]:
    """Every state, memory and evaluation of a run's folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for pattern in ("*.safetensors", "evaluation.json")
        for path in sorted(folder.rglob(pattern))
    }


def test_two_nodes_give_the_same_files_also_when_one_of_them_dies(
    nodes: tuple[str, list[Node]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """kill -9 of the other node as it trains in a round; sites' memory lies with this process."""
    address, (_, second) = nodes
    # `local` starts each round from the site's own memory.
    what, arms = experiment(rounds=8), ["local", "tuned"]
    play(tmp_path / "alone", what, arms=arms)
    # "auto" asks the environment first.
    monkeypatch.setenv("RAY_ADDRESS", address)
    with Cluster(address="auto") as cluster:
        cluster.wait()
        import ray

        from fedrad.simulation.ray.grid import run_ray

        wait_for(lambda: ray.cluster_resources().get("CPU") == 2)
        # Actors cannot import this file; its classes travel with the objects.
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        for name, after in (("both", None), ("one", 3)):
            seen = tmp_path / f"seen-{name}"
            seen.mkdir()
            sites = {
                site: replace(data, rows=Fuse(data.rows, seen, second.raylet))
                for site, data in federation().sites.items()
            }
            folder, told = RunFolder(tmp_path / name), Arming(seen, after)
            chosen = RunSpec(what, arms, what.seeds, (), folder, told)
            run_ray(chosen, Federation(sites, ()), torch.device("cpu"), cluster=cluster)
            assert (seen / "trained").exists() and not (seen / "armed").exists()
            assert caplog.text.count("a worker died") == (after is not None)
            assert results(tmp_path / name) == results(tmp_path / "alone")


def test_an_address_where_nobody_listens_is_told_within_the_deadline() -> None:
    cluster = Cluster(address=f"127.0.0.1:{free_port()}", deadline=1)
    with cluster, pytest.raises(MissingError, match="no Ray cluster answered within 1 s"):
        cluster.wait()


def test_an_address_that_takes_the_call_and_is_silent_is_told_within_the_deadline() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        cluster = Cluster(address=f"127.0.0.1:{silent.getsockname()[1]}", deadline=1)
        with cluster, pytest.raises(MissingError, match=r"within 1 s.*ray start --head"):
            cluster.wait()


def test_a_folder_holds_the_files_that_came_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"1")
    files = {"a/round-000002.safetensors": b"2", "b": b"3"}
    set_files(tmp_path, files)
    assert files_in(tmp_path) == files
    set_files(tmp_path, {})
    assert files_in(tmp_path) == {}
