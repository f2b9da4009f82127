"""A hospital's process: Flower's SuperNode and the site's own worker, both looked after.

The SuperNode connects out to the coordinator, by TLS and with the site's key; nothing is opened
inbound. The worker is the only one that sees data. Whichever dies is started again.
"""

import os
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from fedrad.config import SiteFile, load_site_file
from fedrad.core.files import write_atomic
from fedrad.deployment.flower_process import environment, start_flower
from fedrad.deployment.kits.keys import closed
from fedrad.deployment.process_utils import locked, stop, stop_signals
from fedrad.deployment.streams.invitation import address_of
from fedrad.errors import ConfigError, MissingError
from fedrad.rounds.progress import Notify

__all__ = ["run_site"]

_LOCAL = "127.0.0.1"
_AGAIN_S = 2.0
"""Pause before a process that died is started again."""


_MET = "SuperNode ID: "
_GONE = "terminated gracefully"
_CLOCKS = (
    "the coordinator at {place} refuses this site's signature; do the two clocks differ? "
    "Set both by a time server"
)
"""Flower's SuperNode ends without a word when its signature is too old, or from the future."""

_SENTENCES = (
    (_MET, "connected to the coordinator at {place}"),
    (r"Connection successful", "the coordinator at {place} answers again"),
    (
        r"retrying in|Failed to connect|UNAVAILABLE",
        "the coordinator at {place} does not answer; this site waits and tries again",
    ),
    (
        r"handshake failed|SSL/TLS handshake error|CERTIFICATE_VERIFY_FAILED",
        "the certificate that {place} shows is not this federation's, or is too old, or the "
        "connection is intercepted; fedrad site doctor tells more",
    ),
    (
        r"Failed to initialize the connection|could not be activated",
        "the coordinator at {place} does not let this site in: its key is not registered there, "
        "or its last connection is not yet over; trying again",
    ),
)
"""What Flower's SuperNode prints, in a hospital's words."""


def run_site(path: Path, say: Notify) -> None:
    """Run a site until it is stopped, and reconnect for as long as it takes.

    Args:
        path: of the hospital's site.yaml.
        say: is told in plain sentences what happens.

    Raises:
        ConfigError: the site file does not fit, a key is missing, or the site runs already.
        MissingError: this user may not read the key, or not write to `state_dir`.
    """
    site = load_site_file(path)
    _check_keys(site)
    _check_state(site)
    problem = f"{site.name} runs already on this machine"
    with locked(site.state_dir / "site.lock", problem):
        _look_after(site, path, say)


def _look_after(site: SiteFile, path: Path, say: Notify) -> None:
    stopping = stop_signals()
    # Not known beforehand to anybody else on this machine: it lets a process take tasks.
    secret = site.state_dir / "task.secret"
    write_atomic(secret, secrets.token_bytes(32))
    secret.chmod(0o600)
    port = _free_port()
    children: dict[str, subprocess.Popen[bytes]] = {}
    starts: dict[str, Callable[[], subprocess.Popen[bytes]]] = {
        "connection": lambda: _supernode(site, port, secret, say, stopping),
        "worker": lambda: _worker(site, path, port, secret),
    }
    since: dict[str, float] = {}
    try:
        while not stopping():
            for name, begin in starts.items():
                child = children.get(name)
                if child is not None and child.poll() is None:
                    continue
                if time.monotonic() - since.get(name, float("-inf")) < _AGAIN_S:
                    continue
                if child is not None:
                    say(f"its {name} process ended; starting it again")
                children[name], since[name] = begin(), time.monotonic()
            time.sleep(0.2)
    finally:
        for child in children.values():
            stop(child)


def _supernode(
    site: SiteFile, port: int, secret: Path, say: Notify, stopping: Callable[[], bool]
) -> subprocess.Popen[bytes]:
    place = address_of(site.coordinator.host, site.coordinator.port)
    options = [
        *("--superlink", place),
        *("--root-certificates", str(site.certificates.ca)),
        *("--auth-supernode-private-key", str(site.certificates.private_key)),
        *("--isolation", "process"),
        *("--superexec-auth-secret-file", str(secret)),
        *("--host", _LOCAL, "--port", str(port)),
    ]
    child = start_flower("supernode", options, site.state_dir / "flower", subprocess.PIPE)
    reader = threading.Thread(
        target=_listen,
        args=(child, site.state_dir / "supernode.log", place, say, stopping),
        daemon=True,
    )
    reader.start()
    return child


def _listen(
    child: subprocess.Popen[bytes],
    path: Path,
    place: str,
    say: Notify,
    stopping: Callable[[], bool],
) -> None:
    """Keep what the SuperNode prints, and say what a hospital's people need to know."""
    last, met = "", False
    assert child.stdout is not None
    with path.open("ab") as file:
        for line in child.stdout:
            file.write(line)
            file.flush()
            text = line.decode(errors="replace")
            met = met or bool(re.search(_MET, text))
            if _GONE in text and not met and not stopping():
                say(_CLOCKS.format(place=place))
            for pattern, sentence in _SENTENCES:
                if re.search(pattern, text):
                    if sentence != last:
                        say(sentence.format(place=place))
                    last = sentence
                    break


def _worker(site: SiteFile, path: Path, port: int, secret: Path) -> subprocess.Popen[bytes]:
    home = site.state_dir / "flower"
    return subprocess.Popen(
        [sys.executable, "-m", "fedrad.deployment.site.worker", str(path), f"{_LOCAL}:{port}"],
        stdin=subprocess.DEVNULL,
        env=environment(home) | {"FEDRAD_TASK_SECRET": str(secret)},
    )


def _check_keys(site: SiteFile) -> None:
    for what, path in (
        ("ca", site.certificates.ca),
        ("private_key", site.certificates.private_key),
    ):
        if not path.is_file():
            raise ConfigError(
                f"{site.name}: certificates.{what}: {path.name} is not there; it is in the "
                "startup kit, or made by fedrad site keygen"
            )
        if problem := closed(path):
            raise MissingError(f"{site.name}: {problem}")


def _check_state(site: SiteFile) -> None:
    try:
        site.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        may, reason = os.access(site.state_dir, os.W_OK | os.X_OK), "Permission denied"
    except OSError as error:
        may, reason = False, str(error.strerror)
    if not may:
        raise MissingError(
            f"{site.name}: state_dir {site.state_dir} cannot be written by user {os.geteuid()} "
            f"({reason}); start as the one who owns the kit, chown it, or open the folder to the "
            "service (docker: FEDRAD_UID and a volume; systemd: ReadWritePaths)"
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOCAL, 0))
        return int(probe.getsockname()[1])
