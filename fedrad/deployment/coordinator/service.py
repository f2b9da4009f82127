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

import grpc  # type: ignore[import-untyped]
from flwr.common.constant import ISOLATION_MODE_PROCESS
from grpc_health.v1.health_pb2 import (  # type: ignore[import-untyped]
    HealthCheckRequest,
    HealthCheckResponse,
)
from grpc_health.v1.health_pb2_grpc import HealthStub  # type: ignore[import-untyped]

from fedrad.deployment.coordinator.kit import CoordinatorKit
from fedrad.deployment.coordinator.registration import Keys
from fedrad.deployment.flower_process import SECRET, start_flower
from fedrad.deployment.kits.keys import write_secret
from fedrad.deployment.process_utils import locked, stop, stop_signals
from fedrad.errors import ConfigError, MissingError, SiteFailedError
from fedrad.rounds.progress import Notify

__all__ = ["CoordinatorKit", "is_healthy", "serve"]

log = logging.getLogger(__name__)

_LOCAL = "127.0.0.1"
_KEYS_S = 5.0
"""Pause between two looks at which keys are in the kit."""
_START_S = 300.0
"""A busy machine takes its time to load Flower."""
_STARTS = 5
"""A server process that does not come up so often in a row cannot be started here."""
_LOG_BYTES = 20_000_000


def serve(kit: CoordinatorKit, say: Notify) -> None:
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


def _look_after(kit: CoordinatorKit, say: Notify) -> None:
    child: subprocess.Popen[bytes] | None = None
    stopping, keys, failures = stop_signals(), Keys(kit, say), 0
    try:
        while not stopping():
            if child is None or child.poll() is not None:
                if child is not None:
                    say(f"the server process died (exit {child.returncode}); starting it again")
                child = _superlink(kit)
                if not _waited_for(kit, child, stopping):
                    failures += 1
                    if not stopping():
                        _check_failures(kit, failures)
                    continue
                failures = 0
                say(f"ready; {len(keys.wanted())} sites may connect")
            keys.settle()
            _pause(_KEYS_S, child, stopping)
    finally:
        if child is not None:
            stop(child)


def _pause(seconds: float, child: subprocess.Popen[bytes], stopping: Callable[[], bool]) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and not stopping() and child.poll() is None:
        time.sleep(0.1)


def _check_failures(kit: CoordinatorKit, failures: int) -> None:
    """Raise if the server process cannot be started; one that was killed is tried again."""
    if failures >= _STARTS:
        raise MissingError(
            f"the server process did not start, {failures} times; its last words are in "
            f"{kit.state / 'superlink.log'}"
        )


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
        *(SECRET, str(kit.secret)),
        "--disable-runtime-dependency-installation",
        # Researchers work on this machine: nobody else can hand in a run.
        *("--host", _LOCAL, "--port", str(service.control_port)),
        *("--fleet-api-address", f"0.0.0.0:{service.fleet_port}"),
        *("--health-server-address", f"{_LOCAL}:{service.health_port}"),
    ]
    with path.open("ab") as file:
        return start_flower("superlink", options, kit.state / "flower", file.fileno())


def _waited_for(
    kit: CoordinatorKit, child: subprocess.Popen[bytes], stopping: Callable[[], bool]
) -> bool:
    """Wait until the server process answers; return whether it does."""
    link = kit.link(patience=1.0)
    ends = time.monotonic() + _START_S
    while child.poll() is None and not stopping():
        try:
            link.nodes()
            return True
        except SiteFailedError as error:
            if time.monotonic() > ends:
                log.warning("the server process does not answer: %s", error)
                stop(child)
    return False


def is_healthy(kit: CoordinatorKit) -> bool:
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
