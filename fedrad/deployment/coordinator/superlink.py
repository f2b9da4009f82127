"""The coordinator's own door to its SuperLink: sites' keys, runs, and the token of a run's task.

Flower 1.39 speaks protobuf over HTTPS here, on the coordinator's machine only. Its clients end the
process when a token is too old; these calls wait or raise instead, so that a run can go on.
"""

import io
import logging
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypeVar

import httpx
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.common.serde import user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.fab_pb2 import Fab
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity

from fedrad.core.printable import printable
from fedrad.deployment.control_key import control_token
from fedrad.errors import SiteFailedError

__all__ = ["RunLost", "SuperLinkClient", "SuperLinkEndpoint"]

log = logging.getLogger(__name__)
T = TypeVar("T")

_HEARTBEAT_S = 5.0
_RETRY_S = 0.5
_CONTROL = "/v1/control/"
_LONGEST = 200
_TASK_METHODS = frozenset({"/flwr.proto.Runtime/AcquireTask"})
_BUNDLE = """
[project]
name = "fedrad"
version = "{version}"
description = "Nothing to run: a site runs the fedrad that its own people installed."
license = "Apache-2.0"
[tool.flwr.app]
publisher = "fedrad"
[tool.flwr.app.components]
serverapp = "fedrad.deployment.flower_app:server"
clientapp = "fedrad.deployment.flower_app:client"
[tool.flwr.app.config]
experiment = ""
"""


class RunLost(Exception):
    """The SuperLink no longer knows this process's run; another one has to be opened."""


@dataclass(frozen=True)
class SuperLinkEndpoint:
    """Where the SuperLink listens for its own coordinator.

    Args:
        address: host:port of its HTTPS interface.
        name: that its certificate holds for.
        ca: PEM of the federation's own certificate authority.
        secret: that lets a process take a run's task.
    """

    address: str
    name: str
    ca: bytes
    secret: bytes


class _Named:
    """Checks the certificate for the coordinator's name: the address is this machine's own."""

    def __init__(self, name: str) -> None:
        self._name = name

    def intercept(self, context: Any, call_next: Any) -> httpx.Response:
        """Send a request that asks for the name."""
        context.request.extensions["sni_hostname"] = self._name
        answer: httpx.Response = call_next(context)
        return answer


class _Bearer:
    """Shows the token that opens the control port."""

    def __init__(self, token: str) -> None:
        self._token = token

    def intercept(self, context: Any, call_next: Any) -> httpx.Response:
        """Send a request that bears the token."""
        context.request.headers["authorization"] = f"Bearer {self._token}"
        answer: httpx.Response = call_next(context)
        return answer


class SuperLinkClient:
    """Calls to the SuperLink. One run at a time is open.

    Args:
        door: where it listens.
        patience: seconds that a call waits for a SuperLink that does not answer.
    """

    def __init__(self, door: SuperLinkEndpoint, *, patience: float = 30.0) -> None:
        self.door = door
        self._patience = patience
        self._control = self._client(ControlHttpClient, _Bearer(control_token(door.secret)))
        secret = SuperExecAuthHttpInterceptor(
            master_secret=door.secret, protected_methods=_TASK_METHODS
        )
        self._tasks = self._client(RuntimeHttpClient, secret)
        self._stopped = threading.Event()
        self._text = ""
        self.runtime: Any = None
        self.run_id = 0

    def _client(self, kind: Any, *interceptors: Any) -> Any:
        # No retry of Flower's own: it sends SIGINT to this process when a token is too old.
        named = RuntimeVersionHttpInterceptor(component_name="flwr-serverapp")
        return kind.from_server_address(
            server_address=self.door.address,
            insecure=False,
            root_certificates=self.door.ca,
            interceptors=[_Named(self.door.name), named, *interceptors],
        )

    def call(self, ask: Callable[[], T]) -> T:
        """Return a call's answer; wait for a SuperLink that is being started again.

        Raises:
            RunLost: the token of the run's task is no longer known.
            SiteFailedError: nobody answered for too long, or the server says no.
        """
        ends = time.monotonic() + self._patience
        while True:
            try:
                return ask()
            except httpx.HTTPStatusError as error:
                _check_status(error, self.door.address)
            except httpx.TransportError as error:
                if "CERTIFICATE_VERIFY_FAILED" in str(error):
                    raise SiteFailedError(
                        f"the coordinator's server at {self.door.address} shows a certificate "
                        "of another federation, or one that is too old; see fedrad provision"
                    ) from None
            if time.monotonic() > ends:
                raise SiteFailedError(
                    f"the coordinator's server at {self.door.address} does not answer; "
                    "start it with fedrad coordinator start, then repeat this command"
                ) from None
            time.sleep(_RETRY_S)

    def nodes(self) -> list[NodeInfo]:
        """Return the registered nodes, whether or not they are connected."""
        return list(self.call(lambda: self._control.ListNodes(ListNodesRequest())).nodes_info)

    def register(self, name: str, public_key: bytes) -> None:
        """Let a site in; its public key is what it is known by."""
        request = RegisterNodeRequest(public_key=public_key, name=name)
        self.call(lambda: self._control.RegisterNode(request))

    def unregister(self, node: int) -> None:
        """Let a site in no longer."""
        self.call(lambda: self._control.UnregisterNode(UnregisterNodeRequest(node_id=node)))

    def open(self, experiment: str | None = None) -> None:
        """Open a run and take its task; runs that an earlier process left behind are ended.

        Args:
            experiment: its text, for whoever looks at the SuperLink; None is that of the last run.
        """
        self.close()
        self._stop_runs()
        self._text = self._text if experiment is None else experiment
        config = user_config_to_proto({"experiment": self._text})
        request = StartRunRequest(fab=Fab(content=_bundle()), override_config=config)
        self.run_id = int(self.call(lambda: self._control.StartRun(request)).run_id)
        token = self._token()
        self.runtime = self._client(RuntimeHttpClient, RuntimeTokenHttpInterceptor(token))
        task = self.call(lambda: self.runtime.PullTaskInput(PullTaskInputRequest()))
        # Flower makes messages only inside a task of its own runtimes; see inprocess.py.
        TaskIdentity.run_id, TaskIdentity.task_id = self.run_id, task.task_id
        TaskIdentity.node_id = SUPERLINK_NODE_ID
        self._stopped = threading.Event()
        beat = threading.Thread(target=self._beat, args=(token, self._stopped), daemon=True)
        beat.start()

    def traffic(self) -> tuple[int, int]:
        """Return the bytes that went to the sites and came from them in the newest run."""
        runs = self.call(lambda: self._control.ListRuns(ListRunsRequest())).run_dict.values()
        newest = max(runs, key=lambda run: str(run.pending_at))
        return int(newest.bytes_sent), int(newest.bytes_recv)

    def _token(self) -> str:
        request = AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP])
        while True:
            taken = self.call(lambda: self._tasks.AcquireTask(request))
            if taken.HasField("task") and taken.task.run_id == self.run_id:
                return str(taken.token)
            time.sleep(_RETRY_S)

    def _stop_runs(self) -> None:
        runs = self.call(lambda: self._control.ListRuns(ListRunsRequest())).run_dict
        for run in runs.values():
            if run.status.status != "finished":
                self._stop(int(run.run_id))

    def _stop(self, run_id: int) -> None:
        self.call(lambda: self._control.StopRun(StopRunRequest(run_id=run_id)))

    def _beat(self, token: str, stopped: threading.Event) -> None:
        client = self._client(RuntimeHttpClient, RuntimeTokenHttpInterceptor(token))
        while not stopped.wait(_HEARTBEAT_S):
            try:
                client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
            except httpx.HTTPError as error:
                log.debug("no heartbeat: %s", type(error).__name__)
        client.close()

    def close(self) -> None:
        """End the open run, if there is one."""
        self._stopped.set()
        if self.runtime is None:
            return
        done = PushTaskOutputRequest(sub_status="completed", details="")
        try:
            self.runtime.PushTaskOutput(done)
        except httpx.HTTPError as error:
            log.debug("the run was not ended: %s", type(error).__name__)
        self.runtime.close()
        self.runtime = None


def _check_status(error: httpx.HTTPStatusError, address: str) -> None:
    """Return where a call may be tried again.

    Raises:
        RunLost: the token of the run's task is no longer known.
        SiteFailedError: the server says no.
    """
    code = error.response.status_code
    if code in (502, 503, 504):
        return
    if code in (401, 403) and not error.request.url.path.startswith(_CONTROL):
        raise RunLost from None
    if code in (401, 403):
        raise SiteFailedError(
            f"the coordinator's server at {address} does not take this kit's secret; it was "
            "started with another one: stop it, and start it again with this kit"
        ) from None
    told = printable(error.response.text, _LONGEST)
    raise SiteFailedError(f"the coordinator's server at {address} answers {code}: {told}") from None


def _bundle() -> bytes:
    """Return the smallest Flower bundle that a SuperLink takes: no code is in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        entry = zipfile.ZipInfo("pyproject.toml", date_time=(1980, 1, 1, 0, 0, 0))
        file.writestr(entry, _BUNDLE.format(version=version("fedrad")))
    return buffer.getvalue()
