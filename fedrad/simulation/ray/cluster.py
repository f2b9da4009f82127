"""Ray, started or joined in a thread of its own while this process imports torch and reads data.

Importing this module loads neither torch nor Ray.
"""

import logging
import os
from importlib.util import find_spec
from threading import Event, Thread
from typing import Any

from fedrad.errors import ConfigError, MissingError

__all__ = ["Cluster"]

log = logging.getLogger(__name__)

_START_S = 90.0
_LEAST_STORE = 80 * 1024**2
_DIRECT = 4 * 1024**2
"""Answers up to so many bytes come with the message, not by the object store: a small network's."""
_PRELOADED = ["torch", "fedrad.simulation.ray.actor"]
"""Ray starts its processes before there is work for them; so they import meanwhile."""


class Cluster:
    """A Ray cluster: one of our own on this machine, or one that is running.

    Ray starts when this is made, and nobody waits for it before `wait`.

    Args:
        workers: processes that a cluster of our own is started with; None is one a core.
        address: of a running cluster, "auto" or host:port; None starts one of our own.
        object_store: bytes of shared memory that a cluster of our own gets; None is Ray's default.
        dashboard: whether a cluster of our own shows its web page.
        deadline: seconds within which an address must answer.

    Raises:
        MissingError: Ray is not installed.
        ConfigError: the object store is too small for Ray or too large for this machine, or is
            asked for with an address.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        address: str | None = None,
        object_store: int | None = None,
        dashboard: bool = False,
        deadline: float = 15.0,
    ) -> None:
        if find_spec("ray") is None:
            raise MissingError("--runtime ray: Ray is not installed; pip install 'fedrad[ray]'")
        _check_store(object_store, address)
        self.address = address
        self._workers = workers
        self._store = object_store
        self._dashboard = dashboard
        self._deadline = deadline
        self._opened, self._closing = Event(), Event()
        self._error: BaseException | None = None
        # Linux kills a thread's children when the thread ends (Ray asks it to): so it lives on.
        self._thread = Thread(target=self._live, name="ray", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self) -> None:
        """Wait until Ray is there.

        Raises:
            MissingError: it does not start, or the address does not answer.
        """
        patience = self._deadline + 5 if self.address else _START_S
        if not self._opened.wait(patience):
            raise MissingError(self._silent() if self.address else "Ray does not start")
        if isinstance(self._error, MissingError):
            raise self._error
        if self._error is not None:
            told = " ".join(str(self._error).split())[:300]
            what = f"joined at {self.address}" if self.address else "started"
            raise MissingError(f"Ray could not be {what}: {type(self._error).__name__}: {told}")

    def close(self) -> None:
        """Stop a cluster of our own, leave any other."""
        self._closing.set()
        if self._opened.is_set():
            self._thread.join()

    def _live(self) -> None:
        try:
            self._open()
        except BaseException as error:
            self._error = error
        self._opened.set()
        self._closing.wait()
        if self._error is None:
            import ray

            ray.shutdown()

    def _open(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Without it Ray warns that it hides the GPUs from processes that asked for none.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        if self.address and self.address != "auto":
            self._probe(self.address)
        import ray

        # It would warn that it sets no handler of signals outside the main thread.
        logging.getLogger("ray").setLevel(logging.ERROR)
        shared: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if self.address:
                ray.init(address=self.address, **shared)
                return
        except ConnectionError:
            raise MissingError(
                f"--ray-address {self.address}: no Ray cluster runs here; "
                "start one with `ray start --head`"
            ) from None
        ray.init(
            # "local": None would join what the environment's RAY_ADDRESS names.
            address="local",
            num_cpus=self._workers,
            object_store_memory=self._store,
            include_dashboard=self._dashboard,
            _system_config={
                # Ray's processes are at niceness 15 otherwise, so its own polling starves them.
                "worker_niceness": 0,
                "preload_python_modules": _PRELOADED,
                "max_direct_call_object_size": _DIRECT,
            },
            **shared,
        )

    def _probe(self, address: str) -> None:
        """Say at once what Ray would try for minutes: nobody speaks gRPC at the address."""
        import grpc  # type: ignore[import-untyped]

        with grpc.insecure_channel(address) as channel:
            try:
                grpc.channel_ready_future(channel).result(timeout=self._deadline)
            except grpc.FutureTimeoutError:
                raise MissingError(self._silent()) from None

    def _silent(self) -> str:
        return (
            f"--ray-address {self.address}: no Ray cluster answered within {self._deadline:g} s; "
            "it is the address that `ray start --head` prints, and this machine must be one of "
            "the cluster's nodes"
        )


def _check_store(asked: int | None, address: str | None) -> None:
    if asked is None:
        return
    if address:
        raise ConfigError(
            "--object-store: a running cluster has its own; "
            "set it where it is started, with ray start --object-store-memory"
        )
    if asked < _LEAST_STORE:
        raise ConfigError(
            f"--object-store {asked / 1e6:.0f} MB: Ray takes {_LEAST_STORE / 1e6:.0f} MB or more"
        )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if asked >= memory:
        raise ConfigError(
            f"--object-store {asked / 1e6:.0f} MB: this machine has {memory / 1e6:.0f} MB in all; "
            "the number is in MB, and workers need most of the memory"
        )
