# python experiments/benchmarks/deploy.py
"""What a round across hospitals costs beside the training: seconds, bytes, memory.

Real processes on this machine, with TLS and node keys: a coordinator and three hospitals.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "federation"))

from deployed import SITES, Deployed  # noqa: E402 - the tests' own federation of processes

from fedrad.assemble import initial_state  # noqa: E402
from fedrad.config import load_experiment  # noqa: E402
from fedrad.core.state import num_bytes  # noqa: E402
from fedrad.deployment.coordinator.service import CoordinatorKit  # noqa: E402

IDLE = {"name": "mlp", "hidden": [8]}
LARGE = {"name": "mlp", "hidden": [5200, 5200]}
"""30.0 million parameters on 24 x 24 pixels."""
ROUNDS = 12


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("idle", "large"), default=None)
    only = parser.parse_args().only
    rows: list[tuple[str, str, str]] = []
    if only != "large":
        rows += idle()
    if only != "idle":
        rows += large()
    for row in rows:
        print("{:<58} {:>16}   {}".format(*row), flush=True)


def idle() -> Iterator[tuple[str, str, str]]:
    """Yield what a round costs that trains next to nothing."""
    with running(tuple(SITES)) as federation:
        seconds = [line["seconds"] for line in play(federation, "idle", IDLE, ROUNDS)]
        # The first round also makes data, model and memory of each site.
        middle, worst = statistics.median(seconds[1:]), max(seconds[1:])
        yield "seconds a round, idle model, 3 sites, median", f"{middle:.2f}", "at most 4"
        yield "the same, worst of the rounds after the first", f"{worst:.2f}", ""


def large() -> Iterator[tuple[str, str, str]]:
    """Yield bytes and memory of a model of 30 million parameters, for 1 and for 3 sites."""
    peaks = {}
    for sites in (("nord",), tuple(SITES)):
        with running(sites) as federation:
            lines = play(federation, "large", LARGE, 3, watch=(watched := Peak(federation)))
            peaks[len(sites)] = watched.peak
            if len(sites) == 1:
                continue
            model = bytes_of(federation)
            down, up = CoordinatorKit.load(federation.kits / "coordinator").link().traffic()
            # Three rounds, and the model once more for the last validation, tune and test.
            yield "bytes to a site per model sent", f"{down / model / len(sites) / 6:.3f}", "<= 1.3"
            yield "bytes from a site per model", f"{up / model / len(sites) / 3:.3f}", "<= 1.3"
            yield "seconds a round, 30 M parameters", f"{lines[-1]['seconds']:.1f}", ""
    for who in ("run", "superlink"):
        one, three = (peaks[n][who] / 1e6 for n in (1, 3))
        growth = f"x {three / one:.2f}, at most 1.2"
        yield f"peak memory of the {who}, MB, 1 site -> 3", f"{one:.0f} -> {three:.0f}", growth


class running:
    """A federation that runs inside a `with` block."""

    def __init__(self, sites: tuple[str, ...]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._federation = Deployed(Path(self._folder.name), sites)

    def __enter__(self) -> Deployed:
        for site in self._federation.sites:
            path = self._federation.kits / site / "site.yaml"
            text = path.read_text(encoding="utf-8")
            # 30 million parameters are 120 MB a round and direction.
            path.write_text(text.replace("max_upload_mb: 250", "max_upload_mb: 1000"))
        self._federation.start()
        return self._federation

    def __exit__(self, *_: object) -> None:
        self._federation.stop()
        self._folder.cleanup()


class Peak:
    """The most memory that the run's and the SuperLink's process held, in bytes."""

    def __init__(self, federation: Deployed) -> None:
        self._federation = federation
        self.peak: dict[str, int] = {}

    def look(self, run: str) -> None:
        """Look once."""
        for who, role in (("run", run), ("superlink", "superlink")):
            try:
                text = Path(f"/proc/{self._federation.pid(role)}/status").read_text()
            except (OSError, AssertionError):
                continue
            lines = [line for line in text.splitlines() if line.startswith("VmHWM")]
            if lines:
                self.peak[who] = int(lines[0].split()[1]) * 1024


def play(
    federation: Deployed,
    name: str,
    model: dict[str, object],
    rounds: int,
    watch: Peak | None = None,
) -> list[dict[str, float]]:
    """Play FedAvg with a model; return the recorded rounds."""
    raw = yaml.safe_load(federation.experiment.read_text(encoding="utf-8"))
    raw |= {"name": name, "model": model, "rounds": rounds, "primary": None}
    raw |= {"local": {"steps": 1, "batch": 4, "optimizer": {"name": "sgd", "lr": 0.001}}}
    raw |= {"arms": {"fedavg": {"algorithm": "fedavg"}}}
    federation.experiment.write_text(yaml.safe_dump(raw), encoding="utf-8")
    process = federation.run(name)
    while process.poll() is None:
        if watch is not None:
            watch.look(name)
        time.sleep(0.1)
    if process.returncode:
        sys.exit(federation.log(name))
    path = federation.folder / name / "fedavg" / "seed-0" / "rounds.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def bytes_of(federation: Deployed) -> int:
    """Return the bytes of the experiment's model."""
    experiment = load_experiment(federation.experiment)
    return num_bytes({"model": initial_state(experiment.arm("fedavg"), 0)})


if __name__ == "__main__":
    main()
