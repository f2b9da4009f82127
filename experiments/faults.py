# python experiments/faults.py
"""Kill every process of a federation, cut its lines, and compare the weights: docs/faults.md.

Real processes with TLS and node keys. For the lines, sites live in network namespaces of their own
(needs root and Debian's iproute2); what the kernel does not offer is listed with the reason. Where
it cannot delay packets, a relay in front of the coordinator's port does.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "federation"))

from deployed import SITES, Deployed  # noqa: E402 - the tests' own federation of processes
from slow_network import SlowNetwork  # noqa: E402

NETWORK = "10.77.31"
CABLE_S = 60
DELAY_S = 0.1
"""Each way: there and back it is twice as long."""
LONG_LINE = "200 ms there and back on nord's line"
IN_NORD = ["ip", "netns", "exec", "fedrad-nord"]


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong after a round is recorded.

    Args:
        what: in words.
        arm: that is played meanwhile.
        round: after which it happens.
        act: does it; returns the process of the run, a new one if that was killed.
    """

    what: str
    arm: str
    round: int
    act: Callable[[Deployed, str], None]


def kill(role: str, again: Callable[[Deployed, str], None] | None = None) -> Callable:
    """Return what kills a process, and starts again what has no supervisor of its own."""

    def act(federation: Deployed, out: str) -> None:
        federation.kill(out if role == "run" else role)
        if again:
            again(federation, out)

    return act


def repeat(federation: Deployed, out: str) -> None:
    """Give the researcher's command again."""
    federation.run(out, "--arm", out.split("-")[0])


PROCESSES = [
    Fault("the run's process (`fedrad run`), command repeated", "fedavg", 2, kill("run", repeat)),
    Fault("the run's process, command repeated", "finetune", 4, kill("run", repeat)),
    Fault("the SuperLink", "fedavg", 1, kill("superlink")),
    Fault("the SuperLink", "fedprox", 3, kill("superlink")),
    Fault(
        "the coordinator (`fedrad coordinator start`) and with it the SuperLink, started again",
        "finetune",
        2,
        kill("coordinator", lambda f, _: f.start_coordinator()),
    ),
    Fault("nord's SuperNode", "fedavg", 2, kill("nord/supernode")),
    Fault("nord's SuperNode", "finetune", 4, kill("nord/supernode")),
    Fault("nord's worker", "fedprox", 2, kill("nord/worker")),
    Fault("nord's worker", "finetune", 4, kill("nord/worker")),
    Fault(
        "all of nord (`fedrad site start`), started again",
        "finetune",
        3,
        kill("nord", lambda f, _: f.start_site("nord")),
    ),
]


def main() -> None:
    """Play the undisturbed runs, then every fault, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "faults.md")
    parser.add_argument("--only", default="", help="play only faults whose words hold this")
    chosen = parser.parse_args()
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        rows += processes(Path(folder) / "processes", chosen.only)
    with tempfile.TemporaryDirectory() as folder:
        rows += lines(Path(folder) / "lines", chosen.only)
    if LONG_LINE not in {row[0] for row in rows} and chosen.only in LONG_LINE:
        with tempfile.TemporaryDirectory() as folder:
            rows += relayed(Path(folder))
    chosen.out.write_text(document(rows), encoding="utf-8")
    print(document(rows))
    if any(row[-1] == "NO" for row in rows):
        sys.exit(1)


def processes(folder: Path, only: str) -> Iterator[tuple[str, ...]]:
    """Yield a row for every process that was killed."""
    faults = [fault for fault in PROCESSES if only in fault.what]
    if faults:
        folder.mkdir()
        yield from played(Deployed(folder), faults)


def lines(folder: Path, only: str) -> Iterator[tuple[str, ...]]:
    """Yield a row for every line that was disturbed."""
    if shutil.which("ip") is None or subprocess.run(["ip", "netns", "list"]).returncode:
        yield ("network namespaces", "", "", "skipped: needs root and iproute2", "", "")
        return
    folder.mkdir()
    with namespaces() as within:
        wanted, skipped = [], []
        for fault, missing in disturbances():
            if only not in fault.what:
                continue
            if missing:
                skipped.append((fault.what, fault.arm, "", f"skipped: {missing}", "", ""))
            else:
                wanted.append(fault)
        if wanted:
            yield from played(Deployed(folder, host=f"{NETWORK}.1", within=within), wanted)
        yield from skipped


def disturbances() -> Iterator[tuple[Fault, str]]:
    """Yield each fault of a line, and what this machine lacks for it."""
    yield Fault(f"nord's cable pulled for {CABLE_S} s", "finetune", 2, pull_cable), ""
    lost = "2 % of nord's packets lost, each way"
    missing = "" if lose_packets() else "no iptables with random matches"
    calm()
    yield Fault(lost, "fedavg", 1, lambda *_: lose_packets()), missing
    for what, queue in (
        (LONG_LINE, ["netem", "delay", f"{DELAY_S * 1000:g}ms"]),
        ("4 Mbit/s on nord's line", ["tbf", "rate", "4mbit", "burst", "32k", "latency", "400ms"]),
    ):
        missing = "" if offered(queue) else f"this kernel has no {queue[0]}"
        calm()
        if missing and what == LONG_LINE:
            continue  # `relayed` makes the delay.
        yield Fault(what, "fedavg", 1, lambda f, out, queue=queue: slow_line(queue)), missing


def relayed(folder: Path) -> Iterator[tuple[str, ...]]:
    """Yield a row for a long line of nord's that a relay makes: TLS goes through it untouched."""
    federation = Deployed(folder)
    path = federation.kits / "nord" / "site.yaml"
    site = yaml.safe_load(path.read_text(encoding="utf-8"))
    with SlowNetwork(site["coordinator"]["port"]) as network:
        site["coordinator"]["port"] = network.port
        path.write_text(yaml.safe_dump(site), encoding="utf-8")

        def slow(*_: object) -> None:
            network.delay = DELAY_S

        told = f"{LONG_LINE} (by a relay in front of the coordinator's port)"
        yield from played(federation, [Fault(told, "fedavg", 1, slow)])


def pull_cable(federation: Deployed, out: str) -> None:
    """Take nord's line away for a minute."""
    ip("link", "set", "fedrad-nord", "down")
    time.sleep(CABLE_S)
    ip("link", "set", "fedrad-nord", "up")


def lose_packets() -> bool:
    """Drop packets of both directions at nord's end; return whether this machine can."""
    if shutil.which("iptables") is None:
        return False
    dropped = ["-m", "statistic", "--mode", "random", "--probability", "0.02", "-j", "DROP"]
    done = [
        subprocess.run([*IN_NORD, "iptables", "-A", chain, *dropped], capture_output=True)
        for chain in ("INPUT", "OUTPUT")
    ]
    return not any(one.returncode for one in done)


def slow_line(queue: list[str]) -> None:
    """Make both directions of nord's line worse."""
    for prefix, device in (([], "fedrad-nord"), (IN_NORD, "line")):
        subprocess.run(
            [*prefix, "tc", "qdisc", "replace", "dev", device, "root", *queue], check=True
        )


def offered(queue: list[str]) -> bool:
    """Return whether the kernel offers a queueing discipline."""
    tried = ["tc", "qdisc", "replace", "dev", "fedrad-nord", "root", *queue]
    found = subprocess.run(tried, capture_output=True).returncode == 0
    calm()
    return found


def calm() -> None:
    """Take away what makes nord's line worse."""
    for prefix, device in (([], "fedrad-nord"), (IN_NORD, "line")):
        subprocess.run([*prefix, "tc", "qdisc", "del", "dev", device, "root"], capture_output=True)
    if shutil.which("iptables") is not None:
        subprocess.run([*IN_NORD, "iptables", "-F"], capture_output=True)


@contextmanager
def namespaces() -> Iterator[dict[str, list[str]]]:
    """Give each site a host of its own, joined to the coordinator's by a bridge."""
    ip("link", "add", "fedrad", "type", "bridge")
    try:
        ip("addr", "add", f"{NETWORK}.1/24", "dev", "fedrad")
        ip("link", "set", "fedrad", "up")
        within = {}
        for number, site in enumerate(SITES, start=2):
            name = f"fedrad-{site}"
            inside = ["netns", "exec", name, "ip"]
            ip("netns", "add", name)
            ip("link", "add", name, "type", "veth", "peer", "name", "line", "netns", name)
            ip("link", "set", name, "master", "fedrad", "up")
            ip(*inside, "addr", "add", f"{NETWORK}.{number}/24", "dev", "line")
            ip(*inside, "link", "set", "line", "up")
            ip(*inside, "link", "set", "lo", "up")
            within[site] = ["ip", "netns", "exec", name]
        yield within
    finally:
        for site in SITES:
            subprocess.run(["ip", "netns", "del", f"fedrad-{site}"], capture_output=True)
        subprocess.run(["ip", "link", "del", "fedrad"], capture_output=True)


def ip(*arguments: str) -> None:
    """Run iproute2."""
    subprocess.run(["ip", *arguments], check=True)


def played(federation: Deployed, faults: list[Fault]) -> Iterator[tuple[str, ...]]:
    """Yield a row for each fault: what, when, what happened, how long, equal or not."""
    try:
        undisturbed = federation.local("undisturbed")
        federation.start()
        for number, fault in enumerate(faults):
            row = one(federation, fault, f"{fault.arm}-{number}", undisturbed)
            print(" | ".join(row), flush=True)
            yield row
    finally:
        federation.stop()


def one(federation: Deployed, fault: Fault, out: str, undisturbed: Path) -> tuple[str, ...]:
    """Play one run with a fault in it."""
    start = time.monotonic()
    federation.run(out, "--arm", fault.arm)
    federation.wait_for_round(out, fault.arm, fault.round)
    fault.act(federation, out)
    code = federation.wait(out)
    calm_if_there()
    weights = f"{fault.arm}/seed-0/state.safetensors"
    tests = f"{fault.arm}/seed-0/evaluation.safetensors"
    same = code == 0 and all(
        (federation.folder / out / file).read_bytes() == (undisturbed / file).read_bytes()
        for file in (weights, tests)
    )
    missing = any(federation.missing(out, fault.arm))
    happened = "went on" if code == 0 else f"stopped (exit {code})"
    if missing:
        happened += ", a round without nord"
    seconds = f"{time.monotonic() - start:.0f} s"
    return (fault.what, fault.arm, f"after round {fault.round}", happened, seconds,
            "yes" if same else "NO")  # fmt: skip


def calm_if_there() -> None:
    """Take away what a fault left on nord's line."""
    if shutil.which("tc") is not None:
        calm()


def document(rows: list[tuple[str, ...]]) -> str:
    """Return the table in Markdown."""
    head = ("killed or cut", "arm", "when", "what happened", "whole run", "weights equal")
    body = "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * 6, *rows))
    return f"""# What happens when something dies

Made by `python experiments/faults.py` (real processes, TLS, node keys, three sites, five rounds).
Processes are killed with SIGKILL. "Weights equal": the final weights and the sums on the test sets
are, bit for bit, those of an undisturbed run in one process.

{body}

Not in the table, because the moment is too short to hit on purpose: the coordinator dies between a
message's head and its arrays. The next server does not know its content, and the question is asked
again (`tests/federation/test_network.py`, `test_a_question_that_the_server_lost_...`). The deploy
tier met this once by chance, when it still ended the run.
"""


if __name__ == "__main__":
    main()
