"""How a run across hospitals stands, on the coordinator's disk for whoever asks.

The run's process writes it; `fedrad status` reads it together with what the SuperLink knows.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flwr.proto.node_pb2 import NodeInfo

from fedrad.core.files import write_atomic
from fedrad.deployment.coordinator.kit import CoordinatorKit
from fedrad.deployment.coordinator.site_discovery import DiscoveredSites
from fedrad.deployment.process_utils import is_locked
from fedrad.errors import SiteFailedError
from fedrad.rounds.arm_rounds import RunSpec

__all__ = ["WITHDRAWN", "RunStatus", "SiteStatus", "run_status", "site_statuses"]

WITHDRAWN = "key withdrawn"
"""The state of a site that was let in once, and whose key is not in the kit any more."""
_WRITE_S = 1.0
_PATIENCE = 2
"""Flower takes a node for connected until it has missed so many heartbeats."""


class RunStatus:
    """Progress that also writes down where the run is; everything is told on to the display.

    Args:
        path: of the file.
        run: whose progress it is.
    """

    def __init__(self, path: Path, spec: RunSpec) -> None:
        self._path = path
        self._progress = spec.progress
        self._names: dict[int, str] = {}
        self._written = 0.0
        self._state: dict[str, Any] = {
            "process": os.getpid(),
            "experiment": spec.experiment.name,
            "digest": spec.experiment.digest(),
            "rounds": spec.experiment.rounds,
            "started": _now(),
            "sites": {},
            "waiting": {},
        }
        self._write()

    def met(self, met: DiscoveredSites) -> None:
        """Take note of what the sites told about themselves."""
        self._names = {node.id: name for name, node in met.nodes.items()}
        self._state["sites"] = {
            name: {
                **met.versions[name],
                "patients": sum(data.patients(split) for split in data.rows),
                "images": sum(data.images(split) for split in data.rows),
            }
            for name, data in met.data.items()
        }
        self._write()

    def waiting(self, seconds: Mapping[int, float]) -> None:
        """Take note of the nodes that are waited for, and for how long."""
        if time.monotonic() - self._written > _WRITE_S:
            named = {self._names.get(node, "?"): round(s) for node, s in seconds.items()}
            self._state["waiting"] = named
            self._write()

    def ended(self) -> None:
        """Take note that the run's process is done."""
        self._state |= {"process": None, "waiting": {}, "ended": _now()}
        self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        write_atomic(self._path, json.dumps(self._state | {"written": _now()}).encode())

    def start(self, arms: list[str], seeds: list[int], rounds: int) -> None:
        """Tell on what will be run."""
        self._progress.start(arms, seeds, rounds)

    def arm_started(self, arm: str, seed: int, first_round: int) -> None:
        """Tell on and write down which arm begins."""
        self._state |= {"arm": arm, "seed": seed, "round": first_round}
        self._write()
        self._progress.arm_started(arm, seed, first_round)

    def round_done(
        self,
        arm: str,
        seed: int,
        round: int,
        *,
        loss: float | None,
        value: float | None,
        seconds: float,
        missing: list[str],
        pace: str = "",
    ) -> None:
        """Tell on and write down a finished round."""
        last = {"seconds": seconds, "missing": missing}
        self._state |= {"arm": arm, "seed": seed, "round": min(round + 1, self._state["rounds"])}
        self._state["last"] = last
        self._write()
        self._progress.round_done(
            arm, seed, round, loss=loss, value=value, seconds=seconds, missing=missing, pace=pace
        )

    def arm_done(self, arm: str, seed: int, seconds: float) -> None:
        """Tell on that an arm is finished."""
        self._progress.arm_done(arm, seed, seconds)

    def arm_stopped(self, arm: str, seed: int, reason: str) -> None:
        """Tell on why an arm cannot go on."""
        self._progress.arm_stopped(arm, seed, reason)

    def skipped(self, arm: str, seed: int) -> None:
        """Tell on that an arm was finished before."""
        self._progress.skipped(arm, seed)

    def note(self, text: str) -> None:
        """Tell on a sentence."""
        self._progress.note(text)


@dataclass(frozen=True)
class SiteStatus:
    """What is known of a site.

    Args:
        name: as registered.
        state: online, offline, registered (never connected), or "key withdrawn".
        since: of the connection, ISO 8601, or "".
        seen: of the last sign of life, ISO 8601, or "".
        told: version, device, patients, as of the last run.
        late: seconds that the run waits for it, or 0.
    """

    name: str
    state: str
    since: str
    seen: str
    told: Mapping[str, Any]
    late: int


def run_status(kit: CoordinatorKit) -> dict[str, Any] | None:
    """Return what the last run's process wrote down, or None; `process` is None if it is gone."""
    path = kit.state / "run.json"
    if not path.is_file():
        return None
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    # By its lock, not its number: it may run in another container, or be gone without a word.
    if told["process"] is not None and not is_locked(kit.state / "run.lock"):
        told["process"] = None
    return told


def site_statuses(kit: CoordinatorKit) -> list[SiteStatus] | None:
    """Return what is known of each site, sorted by name; None if the coordinator is down."""
    run = run_status(kit) or {"process": None, "sites": {}, "waiting": {}}
    try:
        infos = kit.link(patience=2.0).nodes()
    except SiteFailedError:
        return None
    waiting = run["waiting"] if run["process"] is not None else {}
    known = [
        SiteStatus(
            info.name,
            info.status,
            info.last_activated_at,
            _seen(info),
            run["sites"].get(info.name, {}),
            int(waiting.get(info.name, 0)),
        )
        for info in infos
        if info.status != "unregistered"
    ]
    return sorted([*known, *_withdrawn(infos, run["sites"])], key=lambda site: site.name)


def _withdrawn(infos: Sequence[NodeInfo], told: Mapping[str, Any]) -> list[SiteStatus]:
    """Return the sites that were let in once, and whose keys are not in the kit any more."""
    left = {info.name: info for info in infos if info.status == "unregistered" and info.name}
    for info in infos:
        if info.status != "unregistered":
            left.pop(info.name, None)
    return [
        SiteStatus(name, WITHDRAWN, "", _seen(info), told.get(name, {}), 0)
        for name, info in left.items()
    ]


def _seen(info: NodeInfo) -> str:
    if not info.online_until:
        return ""
    # The SuperLink keeps when it would lose patience, not when it heard.
    heard = info.online_until - _PATIENCE * info.heartbeat_interval
    return datetime.fromtimestamp(heard, UTC).isoformat(timespec="seconds")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
