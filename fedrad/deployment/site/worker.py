"""The site's own worker: takes Flower's tasks one by one, and runs only the installed fedrad.

One warm process: torch is loaded once, data are read once. The bundle that comes with a run is not
looked at. Between Flower's runtime and the algorithm stands the hospital's guard.
"""

import logging
import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from math import inf
from pathlib import Path
from typing import Any

import httpx
import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import SubStatus
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullPendingTasksRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime.run_clientapp import push_message, push_task_output

from fedrad.assemble import device_of
from fedrad.config import Experiment, SiteFile, from_text, load_site_file
from fedrad.data.base import SiteData
from fedrad.data.sites import Federation, hospital_of
from fedrad.deployment.flower_process import die_with_parent, patch_intervals
from fedrad.deployment.kits.keys import write_secret
from fedrad.deployment.packed_arrays import pack_arrays, pack_into_one, unpack_arrays
from fedrad.deployment.site.guard import Answerer, guarded
from fedrad.deployment.site.privacy_guard import GuardLedger
from fedrad.deployment.site.site_memory import site_memory, stored_model
from fedrad.deployment.site.stream_guard import FrameFilter
from fedrad.deployment.site.task_pull import Superseded, pull_task
from fedrad.deployment.streams.client import streams_over_grpc
from fedrad.errors import ConfigError, FedradError, about_the_question, outward_of
from fedrad.metrics.site_result import hospital_disclosure
from fedrad.privacy.ledger import Ledger
from fedrad.privacy.promised import Promised
from fedrad.privacy.site_account import SiteAccount
from fedrad.rounds.client_app import client_app
from fedrad.rounds.records import config_of

__all__ = ["answering", "run_worker"]

log = logging.getLogger(__name__)

_DELTA = 1e-5
"""At which a hospital's ceiling is meant."""
_POLL_S = 0.1
_TASK_METHODS = frozenset(
    {"/flwr.proto.Runtime/AcquireTask", "/flwr.proto.Runtime/PullPendingTasks"}
)
_FEDRAD_ERROR = 100
_KEPT_ANSWERS = 2


class _Hospital:
    """The source of a process that has one hospital's data, read once for each experiment."""

    def __init__(self, site: SiteFile) -> None:
        self._site = site
        self._read: dict[str, Federation] = {}

    def federation(self, experiment: Experiment) -> Federation:
        """Return the hospital as a federation of one."""
        # An arm is another experiment, but on the same data.
        own = (experiment.task, experiment.split, experiment.shared_patients)
        key = repr((*own, experiment.held_out_sites))
        if key not in self._read:
            self._read = {key: hospital_of(experiment, self._site)}
            for odd in self._read[key].oddities:
                # Into the site's own log: what looks odd may tell of its patients.
                log.warning("%s: looks odd: %s To mend it: %s", odd.site, odd.found, odd.mend)
        return self._read[key]

    def data(self, experiment: Experiment) -> SiteData:
        """Return the hospital's data."""
        return self.federation(experiment).sites[self._site.name]


def answering(site: SiteFile) -> Answerer:
    """Return what answers a site's messages: the guard, around the installed app."""
    hospital = _Hospital(site)
    ledger = Ledger(Path(site.state_dir))
    # Without a ceiling all is booked, and nothing refused for what it costs.
    ceiling = inf if site.epsilon is None else site.epsilon
    account = SiteAccount(ledger, ceiling=ceiling, delta=_DELTA)
    secret, gate = _secret(Path(site.state_dir)), FrameFilter()
    app = client_app(
        hospital,
        device_of(site.device),
        account=account,
        secret=secret,
        invited=streams_over_grpc(gate),
        disclosure=hospital_disclosure(site.min_cell),
        # Of who is under a ceiling, or was trained on with noise, no experiment is told.
        training_labels=lambda: site.epsilon is None and not ledger.entries(),
    )
    rounds = _Rounds()

    def answer(message: Message, context: Context) -> Message:
        config = config_of(message.content)
        try:
            with about_the_question():
                rounds.check(message, config)
        except FedradError as error:
            return Message(Error(_FEDRAD_ERROR, outward_of(error)), reply_to=message)
        return app(message, _context(site, config, context))

    ledger_of = GuardLedger(account, hospital.data)
    own = partial(stored_model, Path(site.state_dir))
    promised = Promised(Path(site.state_dir), secret)
    return guarded(_once(answer), site, hospital, ledger_of, gate, unpack_arrays, own, promised)


def _secret(state_dir: Path) -> bytes:
    """Return the site's own key of digests, made when first asked for; it never leaves."""
    path = state_dir / "digest.key"
    if not path.is_file():
        write_secret(path, secrets.token_bytes(32))
    return path.read_bytes()


class _Rounds:
    """The newest round of each arm and seed in the run that is on."""

    def __init__(self) -> None:
        self._run = 0
        self._newest: dict[tuple[str, int], int] = {}

    def check(self, message: Message, config: Mapping[str, Any]) -> None:
        """Refuse a message of a round that is over.

        A run that was started again has another number: it may well repeat a round.
        """
        if message.metadata.run_id != self._run:
            self._run, self._newest = message.metadata.run_id, {}
        if "server-round" not in config:
            return
        place = str(config.get("arm")), int(config.get("seed", 0))
        number, newest = int(config["server-round"]), self._newest.get(place, 0)
        if number < newest:
            raise ConfigError(f"a message of round {number} came in round {newest}; it is dropped")
        self._newest[place] = number


def _context(site: SiteFile, config: Mapping[str, Any], context: Context) -> Context:
    """Return Flower's context with what the site itself says about itself."""
    text = str(config.get("experiment", ""))
    memory = site_memory(Path(site.state_dir), from_text(text).digest())
    return Context(
        run_id=context.run_id,
        node_id=context.node_id,
        node_config={"site": site.name, "state-dir": str(memory)},
        state=RecordDict(),
        run_config={},
    )


def _once(answer: Answerer) -> Answerer:
    """Answer a question that is asked again without working on it again.

    A coordinator that lost the answer asks again; the answer is the same, bit for bit.
    """
    kept: dict[tuple[int, str], Message] = {}

    def once(message: Message, context: Context) -> Message:
        key = message.metadata.run_id, sha256(message.content.object_id.encode()).hexdigest()
        if key not in kept:
            kept[key] = answer(message, context)
        while len(kept) > _KEPT_ANSWERS:
            del kept[next(iter(kept))]
        known = kept[key]
        if known.has_error():
            return Message(known.error, reply_to=message)
        return Message(known.content, reply_to=message)

    return once


def run_worker(site_file: Path, address: str, secret: Path) -> None:
    """Take tasks from this site's SuperNode until it is gone."""
    die_with_parent()
    patch_intervals()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # One thread wherever a site trains: the number of threads changes the order of float sums.
    torch.set_num_threads(1)
    site = load_site_file(site_file)
    answer = answering(site)
    client = _client(
        address,
        SuperExecAuthHttpInterceptor(
            master_secret=secret.read_bytes(),
            protected_methods=_TASK_METHODS,
        ),
    )

    def superseded() -> bool:
        return len(client.PullPendingTasks(PullPendingTasksRequest()).tasks) > 0

    request = AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP])
    sys.stdout.write(f"{site.name}: ready (fedrad {version('fedrad')}, {site.device})\n")
    sys.stdout.flush()
    while True:
        try:
            taken = client.AcquireTask(request)
        except httpx.HTTPError as error:
            log.debug("no task: %s", type(error).__name__)
            time.sleep(1)
            continue
        if taken.HasField("task") and taken.token:
            _work(address, str(taken.token), answer, superseded)
        else:
            time.sleep(_POLL_S)


def _work(address: str, token: str, answer: Answerer, superseded: Callable[[], bool]) -> None:
    client = _client(address, RuntimeTokenHttpInterceptor(token))
    beat = HeartbeatSender(_heartbeat(client))
    beat.start()
    try:
        message, context = pull_task(client, superseded)
        reply = _across(answer, message, context)
        push_message(client, reply, context)
        push_task_output(client, context, SubStatus.COMPLETED, "")
    except Superseded:
        log.warning("a message of a run that was ended is dropped")
        push_task_output(client, None, SubStatus.FAILED, "superseded")
    except httpx.HTTPError as error:
        # The SuperNode is gone or has given the task up; the coordinator will ask again.
        log.warning("an answer could not be handed over (%s)", type(error).__name__)
    except Exception as error:
        # What cannot even be put together is nobody's question; the next one may be.
        log.error("a message is dropped", exc_info=error)
        push_task_output(client, None, SubStatus.FAILED, type(error).__name__)
    finally:
        beat.stop()
        client.close()


def _across(answer: Answerer, message: Message, context: Context) -> Message:
    """Answer a message in the form in which it came: arrays in one, or a stock strategy's."""
    one = pack_into_one(message.content)
    reply = answer(message, context)
    if one and reply.has_content():
        reply.content = pack_arrays(reply.content)
    return reply


def _heartbeat(client: Any) -> Callable[[], bool]:
    def send() -> bool:
        # Flower's own sends SIGINT to this process when a task was given up.
        try:
            client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
        except httpx.HTTPError as error:
            log.debug("no heartbeat: %s", type(error).__name__)
        return True

    return send


def _client(address: str, interceptor: Any) -> Any:
    return RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=True,
        root_certificates=None,
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"),
            interceptor,
        ],
    )


if __name__ == "__main__":
    run_worker(Path(sys.argv[1]), sys.argv[2], Path(os.environ["FEDRAD_TASK_SECRET"]))
