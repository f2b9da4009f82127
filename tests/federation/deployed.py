"""A federation of real processes on this machine: TLS, node keys, free ports, no fake anywhere."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from fedrad.config import POOLED, load_experiment, load_federation
from fedrad.deployment.kits.provision import provision
from fedrad.deployment.site.audit import AuditLog
from fedrad.privacy.ledger import Ledger
from fedrad.runs import ArmFolder

SITES = {
    "nord": {"patients": 110, "prevalence": 0.5},
    "sued": {"patients": 90, "prevalence": 0.5},
    "west": {"patients": 100, "prevalence": 0.4},
}
"""Enough that a kit's policy, ten patients in each split, lets them answer."""
EXPERIMENT = """
task: {name: binary, labels: [lesion], input: [1, 24, 24]}
model: {name: cnn, width: 4}
local: {epochs: 1, batch: 16, optimizer: {name: adam, lr: 0.002},
        augment: [{name: shift, pixels: 2}]}
rounds: 5
seeds: [0]
replicates: 100
metrics: [auroc, loss]
deadline: 300
arms:
  fedavg: {algorithm: fedavg}
  fedprox: {algorithm: {name: fedprox, mu: 0.01}}
  finetune: {algorithm: fedavg, wrap: [float16_updates, {name: finetune, rounds: 2}]}
primary: {arm: fedavg, against: fedprox, metric: auroc}
"""
SPLIT = """
task: {name: binary, labels: [lesion], input: [1, 24, 24]}
model: {name: cnn, width: 4}
local: {epochs: 10, batch: 8, optimizer: {name: adam, lr: 0.002}}
rounds: 2
validate_every: 0
seeds: [0]
replicates: 100
metrics: [auroc, loss]
deadline: 300
arms:
  splitnn: {algorithm: {name: splitnn, cut: layer1}}
  splitfed: {algorithm: {name: splitfed, version: 1, shape: u, cut: layer1}}
  fedavg: {algorithm: fedavg}
primary: {arm: splitnn, against: splitfed, metric: auroc}
"""
"""Arms whose network is cut, beside one whose network is not; visits of some seconds."""
FEDRAD = Path(sys.executable).with_name("fedrad")
# Without compiled files each of some sixty processes would compile torch for itself.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {
    "OMP_NUM_THREADS": "1",
    "COLUMNS": "200",
}
SAID_S = 240.0
"""A busy machine takes its time to load torch and Flower four times over."""


def same_weights(one: Path, other: Path, arm: str) -> bool:
    """Whether two runs ended with the same bits, and tested them the same at every site.

    Hospitals round what they tell to four digits, and draw from keys of their own; what they have
    together comes from cells of patients.
    """
    file = f"{arm}/seed-0/state.safetensors"
    if (one / file).read_bytes() != (other / file).read_bytes():
        return False
    a, b = (ArmFolder(run / arm / "seed-0").evaluation().cells for run in (one, other))
    places = [place for place in a if place[1] != POOLED]
    return a.keys() == b.keys() and all(
        abs(a[place][name][0] - b[place][name][0]) <= 5.1e-5
        for place in places
        for name in a[place]
    )


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class Deployed:
    """Kits, a coordinator and sites in a folder; nothing runs until it is started."""

    def __init__(
        self,
        folder: Path,
        sites: Sequence[str] = tuple(SITES),
        *,
        host: str = "localhost",
        within: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Make the kits.

        Args:
            folder: of everything.
            sites: their names.
            host: where sites reach the coordinator.
            within: site -> the command that its own is run by, such as `ip netns exec nord`.
        """
        self.folder, self.sites, self.within = folder, tuple(sites), dict(within or {})
        self.kits = folder / "kits"
        self._running: dict[str, subprocess.Popen] = {}
        for name in sites:
            data = {"name": "phantom", "hospitals": {name: SITES[name]}}
            self._write(f"{name}.yaml", {"name": name, "data": data})
        fleet, control, health, stream = free_ports(4)
        federation = {
            "name": "test",
            "coordinator": {
                "host": host,
                "also": ["127.0.0.1"],
                "fleet_port": fleet,
                "control_port": control,
                "health_port": health,
                "stream_port": stream,
            },
            "sites": {name: {"data_from": f"{name}.yaml"} for name in sites},
        }
        self._write("federation.yaml", federation)
        provision(load_federation(folder / "federation.yaml"), self.kits)
        for name in sites:
            # A new kit approves no experiment; tests change theirs by --set, so each would be new.
            own = self.kits / name / "site.yaml"
            text = own.read_text(encoding="utf-8")
            assert "\nexperiments: []\n" in text
            own.write_text(text.replace("experiments: []", "experiments: any"), encoding="utf-8")
        raw = {"name": "small", **yaml.safe_load(EXPERIMENT)}
        raw_sites = [f"{name}.yaml" for name in sites]
        self.experiment = self._write("small.yaml", raw | {"sites": raw_sites})
        self.split = self._write(
            "split.yaml", {"name": "split", **yaml.safe_load(SPLIT), "sites": raw_sites}
        )

    def allow_split(self, name: str) -> None:
        """Let a hospital take part in split learning, as its own people would: by its site file."""
        path = self.kits / name / "site.yaml"
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        raw["allow"]["algorithms"] += ["splitfed", "splitnn"]
        raw["allow"]["actions"] += ["split-test", "split-tune", "split-validate"]
        path.write_text(yaml.safe_dump(raw), encoding="utf-8")

    def _write(self, name: str, value: object) -> Path:
        path = self.folder / name
        path.write_text(yaml.safe_dump(value), encoding="utf-8")
        return path

    def log(self, name: str) -> str:
        """What a process has said."""
        path = self.folder / f"{name}.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def begin(
        self, name: str, *arguments: object, program: Sequence[str] = (str(FEDRAD),)
    ) -> subprocess.Popen:
        """Start a `fedrad` command, or another; what it says goes to NAME.log."""
        with (self.folder / f"{name}.log").open("ab") as file:
            self._running[name] = subprocess.Popen(
                [*self.within.get(name, ()), *program, *map(str, arguments)],
                cwd=self.folder,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=ENVIRONMENT,
            )
        return self._running[name]

    def start(self) -> None:
        """Start the coordinator and all sites, and wait until they are ready."""
        self.start_coordinator()
        for name in self.sites:
            self.start_site(name)
        for name in self.sites:
            self.wait_for(name, "connected to the coordinator")
            self.wait_for(name, ": ready")

    def start_coordinator(self) -> None:
        """Start the coordinator and wait until it is ready."""
        said = self.log("coordinator").count(" may connect\n")
        self.begin("coordinator", "coordinator", "start", self.kits / "coordinator")
        self.wait_for("coordinator", " may connect\n", more_than=said)

    def start_site(self, name: str) -> None:
        """Start a site."""
        self.begin(name, "site", "start", self.kits / name / "site.yaml")

    def wait_for(self, name: str, text: str, *, more_than: int = 0) -> None:
        """Wait until a process has said something, more often than it had before."""
        ends = time.monotonic() + SAID_S
        while self.log(name).count(text) <= more_than:
            process = self._running[name]
            if process.poll() is not None or time.monotonic() > ends:
                raise AssertionError(f"{name} (exit {process.poll()}): {self.log(name)[-3000:]}")
            time.sleep(0.1)

    def run(self, out: str, *arguments: str, file: Path | None = None) -> subprocess.Popen:
        """Start `fedrad run --on`; it says what it says in OUT.log."""
        kit = self.kits / "coordinator"
        where = self.folder / out
        what = file or self.experiment
        return self.begin(out, "run", what, "--on", kit, "--out", where, *arguments)

    def local(self, out: str, *arguments: str, file: Path | None = None) -> Path:
        """Play the same experiment in one process, undisturbed."""
        where = self.folder / out
        process = self.begin(
            out, "run", file or self.experiment, "--workers", "1", "--out", where, *arguments
        )
        assert process.wait() == 0, self.log(out)
        return where

    def wait(self, out: str) -> int:
        """Wait for a run to end, and return its exit code."""
        return self._running[out].wait()

    def rounds(self, out: str, arm: str) -> int:
        """How many rounds of an arm are recorded."""
        path = self.folder / out / arm / "seed-0" / "rounds.jsonl"
        return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0

    def wait_for_round(self, out: str, arm: str, number: int) -> None:
        """Wait until a round of an arm is recorded."""
        ends = time.monotonic() + SAID_S
        while self.rounds(out, arm) < number:
            assert self._running[out].poll() is None, self.log(out)
            assert time.monotonic() < ends, self.log(out)
            time.sleep(0.05)

    def audit(self, site: str) -> list[dict[str, Any]]:
        """The lines of a hospital's audit log."""
        log = AuditLog(self.kits / site / "state" / "audit.jsonl")
        return list(log.entries())

    def streams(self, site: str, arm: str) -> list[tuple[int, str]]:
        """Round and decision of each line of a hospital's log about training in a split run."""
        about = {
            "experiment": load_experiment(self.split, []).digest(),
            "arm": arm,
            "action": "fit",
        }
        lines = [one for one in self.audit(site) if about.items() <= one.items()]
        return [(one["round"], one["decision"]) for one in lines]

    def wait_for_stream(self, site: str, arm: str, number: int) -> None:
        """Wait until a hospital's frames of a round are on their way.

        The log has its line before the connection is made: a hospital that dies between the two is
        asked again as if nothing had been.
        """
        ends = time.monotonic() + SAID_S
        while self.streams(site, arm).count((number, "opened")) == 0:
            assert time.monotonic() < ends, self.log(site)
            time.sleep(0.02)
        worker = psutil.Process(self.pid(f"{site}/worker"))
        file = load_federation(self.kits / "coordinator" / "federation.yaml")
        port = file.coordinator.stream_port
        while not any(one.raddr and one.raddr.port == port for one in worker.net_connections()):
            assert time.monotonic() < ends, self.log(site)
            time.sleep(0.02)
        time.sleep(0.2)  # the handshake, and some frames

    def ledger(self, site: str) -> Ledger:
        """What a hospital has booked of its patients' privacy."""
        return Ledger(self.kits / site / "state")

    def variant(self, file: Path, **changes: object) -> Path:
        """Write an experiment with some keys replaced."""
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
        return self._write(f"{changes['name']}.yaml", raw | changes)

    def missing(self, out: str, arm: str) -> list[dict[str, str]]:
        """Who was missing in each round of an arm, and why."""
        path = self.folder / out / arm / "seed-0" / "rounds.jsonl"
        return [json.loads(line)["missing"] for line in path.read_text().splitlines()]

    def pid(self, role: str) -> int:
        """The process of a role: coordinator, superlink, run names, SITE, SITE/supernode, ..."""
        owner, _, child = role.partition("/")
        if role == "superlink":
            owner, child = "coordinator", "superlink"
        parent = self._running[owner].pid
        if not child:
            return parent
        modules = {"worker": "fedrad.deployment.site.worker"}
        wanted = modules.get(child, child)
        for place in Path("/proc").glob("[0-9]*"):
            try:
                stat = (place / "stat").read_text().rpartition(")")[2].split()
                line = (place / "cmdline").read_bytes().decode()
            except OSError:
                continue
            if int(stat[1]) == parent and wanted in line and stat[0] != "Z":
                return int(place.name)
        raise AssertionError(f"no process of {role}")

    def kill(self, role: str) -> None:
        """End a process with SIGKILL: it cannot tidy up."""
        os.kill(self.pid(role), signal.SIGKILL)
        if role in self._running:
            self._running[role].wait()

    def end(self, name: str) -> None:
        """Ask a process to end, and wait until it has."""
        self._running[name].terminate()
        self._running[name].wait(timeout=60)

    def stop(self) -> None:
        """End all processes that were started here."""
        for process in self._running.values():
            if process.poll() is None:
                process.terminate()
        for process in self._running.values():
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
