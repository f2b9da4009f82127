"""Flower's servers as processes of our own, which die with the process that started them.

`python -m fedrad.deployment.flower_process superlink|supernode OPTIONS...` runs Flower's own
command with these changes: no telemetry and no look for updates, shorter pauses between
looks for work, a control port only for who can read the kit, SIGKILL from the kernel when the
parent is gone, so that no orphan holds a port, and the whole process ends with its main thread, so
that the parent sees it.
"""

import atexit
import ctypes
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import IO, NoReturn

__all__ = [
    "SECRET",
    "die_with_parent",
    "ended_by",
    "environment",
    "patch_intervals",
    "run_server",
    "start_flower",
]

SECRET = "--superexec-auth-secret-file"
"""Option of Flower's commands: the file of the secret that lets a process take tasks."""

POLL_S = 0.2
"""Longest pause between two looks for work; Flower's own are 3 s and 0.5 s."""
RETRY_S = 3
"""Longest pause between two attempts to reach the coordinator; Flower's own is 20 s."""
BEAT_S = 15
"""Heartbeats' interval; Flower's own is 30 s."""
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2), Linux


def start_flower(
    name: str, options: Sequence[str], home: Path, log: IO[bytes] | int
) -> "subprocess.Popen[bytes]":
    """Start `superlink` or `supernode` as a child that does not outlive this process.

    Args:
        name: superlink or supernode.
        options: of Flower's command.
        home: folder for what Flower writes about itself.
        log: takes what it prints.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "fedrad.deployment.flower_process", name, *options],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment(home),
    )


def environment(home: Path) -> dict[str, str]:
    """Return the environment of Flower's processes: nothing is told to anybody else.

    >>> environment(Path("/tmp"))["FLWR_TELEMETRY_ENABLED"]
    '0'
    """
    local = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1", "localhost"]))
    return os.environ | {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        # An upload that was cut off goes on with the piece that was: 4 s at 4 Mbit/s.
        "FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE": str(2 << 20),
        # A proxy of the hospital's is for other machines, never for this one's own ports.
        "NO_PROXY": local,
        "no_proxy": local,
        "PYTHONUNBUFFERED": "1",
        "FEDRAD_PARENT": str(os.getpid()),
    }


def run_server(name: str, options: Sequence[str]) -> None:
    """Become Flower's server."""
    die_with_parent()
    sys.argv = [f"flower-{name}", *options]
    ended_by(_superlink if name == "superlink" else _supernode)


def ended_by(main: Callable[[], None]) -> NoReturn:
    """Run a server's main function, and end the process as soon as it returns or fails.

    Flower's servers have threads that keep a process alive whose main thread is dead: it would be
    there for whoever looks after it, and do nothing.
    """
    code = 1
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    # As the interpreter would, but without waiting for threads.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _superlink() -> None:
    from fedrad.deployment.control_key import KitOnly

    secret = Path(sys.argv[sys.argv.index(SECRET) + 1])
    # By its full name: its package shows the function of the same name in its place.
    module = import_module("flwr.superlink.cli.flower_superlink")
    # Flower itself loads another check only from its commercial package.
    vars(module)["load_control_authn_plugin"] = lambda: KitOnly(secret.read_bytes())
    module.flower_superlink()


def _supernode() -> None:
    from flwr.supercore.retry import grpc_retry
    from flwr.supernode import start_client_internal
    from flwr.supernode.cli.flower_supernode import flower_supernode

    patch_intervals()
    # Flower has no option for these pauses; both names are looked up when they are used.
    pause = SimpleNamespace(sleep=lambda seconds: time.sleep(min(seconds, POLL_S)))
    vars(start_client_internal)["time"] = pause
    vars(grpc_retry)["MAX_RETRY_DELAY"] = RETRY_S
    flower_supernode()


def patch_intervals() -> None:
    """Let this process's heartbeats, and what it takes for a lost one, be twice as fast.

    A process that was killed is missed after twice the interval, and only then asked again.
    """
    from flwr.client.grpc_rere_client import connection
    from flwr.supercore import heartbeat
    from flwr.supercore.corestate import in_memory_corestate

    for module in (connection, heartbeat, in_memory_corestate):
        vars(module)["HEARTBEAT_DEFAULT_INTERVAL"] = BEAT_S


def die_with_parent() -> None:
    """Ask the kernel to kill this process as soon as the one that started it is gone."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    parent = os.environ.get("FEDRAD_PARENT")
    if parent and int(parent) != os.getppid():
        sys.exit("the process that started this one is gone")


if __name__ == "__main__":
    run_server(sys.argv[1], sys.argv[2:])
