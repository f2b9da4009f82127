"""The coordinator: Flower's SuperLink as a child, the sites' keys let in, and both looked after.

What is the coordinator's alone lies in its kit's `state` folder: the SuperLink's messages, a secret
that lets this machine take a run's task, logs.
"""

import logging
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc  # type: ignore[import-untyped]
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)
from flwr.common.constant import ISOLATION_MODE_PROCESS
from grpc_health.v1.health_pb2 import (  # type: ignore[import-untyped]
    HealthCheckRequest,
    HealthCheckResponse,
)
from grpc_health.v1.health_pb2_grpc import HealthStub  # type: ignore[import-untyped]

from fedrad.config import FederationFile, load_federation
from fedrad.config.names import site_in
from fedrad.errors import ConfigError, MissingError, SiteFailed
from fedrad.federation.child import start
from fedrad.federation.coordinator.superlink import Door, Link
from fedrad.federation.daemon import locked, stop, stop_signals
from fedrad.federation.kits.keys import read_public_key, write_secret

__all__ = ["CoordinatorKit", "coordinate", "is_well"]

log = logging.getLogger(__name__)

_LOCAL = "127.0.0.1"
_KEYS_S = 5.0
"""Pause between two looks at which keys are in the kit."""
_START_S = 300.0
"""A busy machine takes its time to load Flower."""
_LOG_BYTES = 20_000_000

Say = Callable[[str], None]


@dataclass(frozen=True)
class CoordinatorKit:
    """A coordinator's startup kit, as `provision` makes it."""

    folder: Path
    federation: FederationFile

    @staticmethod
    def load(folder: Path) -> "CoordinatorKit":
        """Read a kit.

        Raises:
            ConfigError: the folder is no coordinator's kit.
        """
        needed = ("federation.yaml", "ca.crt", "server.pem", "server.key")
        missing = [name for name in needed if not (folder / name).is_file()]
        if missing:
            raise ConfigError(
                f"{folder}: is no coordinator's kit, {', '.join(missing)} is missing; "
                "fedrad provision makes one"
            )
        return CoordinatorKit(folder.resolve(), load_federation(folder / "federation.yaml"))

    @property
    def state(self) -> Path:
        """Return the folder of what the coordinator keeps for itself."""
        return self.folder / "state"

    @property
    def secret(self) -> Path:
        """Return the file of the secret that lets a process of this machine take a run's task."""
        return self.state / "task.secret"

    def public_keys(self) -> dict[str, bytes]:
        """Return who may connect: site -> public key as PEM, which Flower knows a node by."""
        found = sorted((self.folder / "sites").glob("*.pub"))
        return {
            site_in(path.stem): load_ssh_public_key(read_public_key(path)).public_bytes(
                Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
            )
            for path in found
        }

    def link(self, *, patience: float = 30.0) -> Link:
        """Return the door to this kit's SuperLink.

        Raises:
            SiteFailed: the coordinator was never started.
        """
        if not self.secret.is_file():
            raise SiteFailed(
                f"{self.folder.name}: the coordinator was never started here; "
                f"run fedrad coordinator start {self.folder}"
            )
        service = self.federation.coordinator
        ca = (self.folder / "ca.crt").read_bytes()
        address = f"{_LOCAL}:{service.control_port}"
        return Link(Door(address, service.host, ca, self.secret.read_bytes()), patience=patience)


def coordinate(kit: CoordinatorKit, say: Say) -> None:
    """Run a coordinator until it is stopped; a SuperLink that dies is started again.

    Args:
        kit: whose coordinator this is.
        say: is told in plain sentences what happens.

    Raises:
        ConfigError: a port is taken, or another coordinator runs with this kit.
    """
    kit.state.mkdir(mode=0o700, exist_ok=True)
    if not kit.secret.exists():
        write_secret(kit.secret, secrets.token_bytes(32))
    with locked(kit.state / "coordinator.lock", "another coordinator runs with this kit"):
        _check_ports(kit)
        service = kit.federation.coordinator
        say(f"federation {kit.federation.name}: sites connect to port {service.fleet_port}")
        _look_after(kit, say)


def _look_after(kit: CoordinatorKit, say: Say) -> None:
    child: subprocess.Popen[bytes] | None = None
    stopping = stop_signals()
    try:
        while not stopping():
            if child is None or child.poll() is not None:
                if child is not None:
                    say(f"the server process died (exit {child.returncode}); starting it again")
                child = _superlink(kit)
                _wait_for(kit, child)
                say(f"ready; {len(kit.public_keys())} sites may connect")
            _register(kit, say)
            ends = time.monotonic() + _KEYS_S
            while time.monotonic() < ends and not stopping() and child.poll() is None:
                time.sleep(0.1)
    finally:
        if child is not None:
            stop(child)


def _superlink(kit: CoordinatorKit) -> subprocess.Popen[bytes]:
    service = kit.federation.coordinator
    path = kit.state / "superlink.log"
    if path.exists() and path.stat().st_size > _LOG_BYTES:
        os.replace(path, path.with_suffix(".log.1"))
    options = [
        *("--ssl-ca-certfile", str(kit.folder / "ca.crt")),
        *("--ssl-certfile", str(kit.folder / "server.pem")),
        *("--ssl-keyfile", str(kit.folder / "server.key")),
        "--enable-supernode-auth",
        *("--database", str(kit.state / "superlink.db")),
        *("--isolation", ISOLATION_MODE_PROCESS),
        *("--superexec-auth-secret-file", str(kit.secret)),
        "--disable-runtime-dependency-installation",
        # Researchers work on this machine: nobody else can hand in a run.
        *("--host", _LOCAL, "--port", str(service.control_port)),
        *("--fleet-api-address", f"0.0.0.0:{service.fleet_port}"),
        *("--health-server-address", f"{_LOCAL}:{service.health_port}"),
    ]
    with path.open("ab") as file:
        return start("superlink", options, kit.state / "flower", file.fileno())


def _wait_for(kit: CoordinatorKit, child: subprocess.Popen[bytes]) -> None:
    link = kit.link(patience=1.0)
    ends = time.monotonic() + _START_S
    while True:
        try:
            link.nodes()
            return
        except SiteFailed:
            if child.poll() is not None or time.monotonic() > ends:
                raise MissingError(
                    "the server process did not start; its last words are in "
                    f"{kit.state / 'superlink.log'}"
                ) from None


def _register(kit: CoordinatorKit, say: Say) -> None:
    """Let in the sites whose keys are in the kit, and no others."""
    wanted = kit.public_keys()
    try:
        link = kit.link(patience=5.0)
        known = {info.public_key: info for info in link.nodes() if info.status != "unregistered"}
        for key, info in known.items():
            if wanted.get(info.name) != key:
                link.unregister(info.node_id)
                say(f"{info.name or 'a site without a name'} may not connect any more")
        for name, key in wanted.items():
            if key not in known:
                link.register(name, key)
                say(f"{name} may connect")
    except SiteFailed as error:
        log.info("keys: %s", error)


def is_well(kit: CoordinatorKit) -> bool:
    """Return whether the health port says that the coordinator serves."""
    address = f"127.0.0.1:{kit.federation.coordinator.health_port}"
    with grpc.insecure_channel(address) as channel:
        try:
            answer = HealthStub(channel).Check(HealthCheckRequest(), timeout=3)
        except grpc.RpcError:
            return False
    return bool(answer.status == HealthCheckResponse.SERVING)


def _check_ports(kit: CoordinatorKit) -> None:
    service = kit.federation.coordinator
    hosts = {"fleet_port": "0.0.0.0", "control_port": _LOCAL, "health_port": _LOCAL}
    for name, host in hosts.items():
        port = getattr(service, name)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                raise ConfigError(
                    f"federation.yaml: coordinator.{name}: port {port} is in use by another "
                    "program on this machine; stop that, or choose another port and provision again"
                ) from None
