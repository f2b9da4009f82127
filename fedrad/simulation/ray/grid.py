"""Flower's Grid over Ray actors: processes that stay, on this machine or on a cluster's nodes.

What a round sends is put into Ray's object store once, and read there by all processes of a node.
An actor that is free takes the next block of sites, those with the most images first, and answers
with the block's sum. The run's folder on this machine holds the sites' memory: to actors on other
nodes it goes with the work, and comes back with the answer. So any actor may run any site, and
what an actor or a node was doing when it died is run again elsewhere, with the same result.
"""

import logging
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import ray
import torch
from flwr.app import Context, Error, Message, RecordDict
from ray.exceptions import RayError, RayTaskError

from fedrad.assemble import algorithm_of
from fedrad.config import POOLED
from fedrad.core.state import num_bytes
from fedrad.core.timing import PhaseTimer
from fedrad.data.sites import Federation
from fedrad.errors import MissingError, SiteFailedError
from fedrad.privacy.account import Simulated
from fedrad.rounds.arm_rounds import RunSpec
from fedrad.rounds.client_app import site_apps
from fedrad.rounds.partial_aggregation import GROUP_SIZE
from fedrad.rounds.records import arrays_in, bundle_of, config_of, pack
from fedrad.rounds.server import server_app
from fedrad.rounds.site_tasks import Known
from fedrad.rounds.worker_time import WorkerTime
from fedrad.simulation.cores import worker_count
from fedrad.simulation.in_process import InProcessGrid
from fedrad.simulation.message_queue import MAX_WORKER_CRASHES, arrays_of
from fedrad.simulation.queued_grid import QueuedGrid
from fedrad.simulation.ray.actor import ActorRequest, ActorResponse, own_folder
from fedrad.simulation.ray.cluster import Cluster
from fedrad.simulation.ray.pool import Actor, ActorPool
from fedrad.simulation.ray.serialization import copied, files_in, set_files, to_object_store
from fedrad.simulation.ray.streams import ActorStep, ActorStreams
from fedrad.training.process import set_up_process

__all__ = ["RayGrid", "run_ray"]

log = logging.getLogger(__name__)

_LOOK_S = 1.0
"""So often a round looks whether its deadline has passed."""


class RayGrid(QueuedGrid):
    """A Grid whose nodes are run by Ray actors.

    Args:
        inner: the same sites in this process.
        pool: the actors.
    """

    def __init__(self, inner: InProcessGrid, pool: ActorPool) -> None:
        super().__init__(inner)
        self._pool = pool
        self._folders = pool.folders
        self._names = dict(zip(inner.get_node_ids(), sorted(pool.folders), strict=True))
        self.spent = WorkerTime([{} for _ in pool.awaited()], inner.meter)
        self._sent: Any = None
        self._sent_key: tuple[int, ...] = ()
        self._kept: list[Any] = []

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Wait a second at most for an answer, and return all answers that were asked for.

        Raises:
            MissingError: no actor can be started, or one has other versions of what it runs.
        """
        wanted = set(message_ids)
        self._waiting.drop_old(wanted)
        self._feed(wanted)
        awaited = list(self._pool.awaited())
        # num_returns=1 says when to stop waiting; the second call finds what else has come.
        ready, _ = ray.wait(awaited, num_returns=1, timeout=_LOOK_S)
        ready, _ = ray.wait(awaited, num_returns=len(awaited), timeout=0) if ready else ([], [])
        answers = [message for ref in ready for message in self._take(ref, wanted)]
        self._pool.check()
        self._feed(wanted)
        return answers

    @contextmanager
    def streams(
        self, messages: Mapping[str, Message], *, deadline: float
    ) -> Iterator[ActorStreams]:
        """Open streams to halves that actors run; the server's halves are in this process."""
        yield ActorStreams(
            self._pool,
            messages,
            opened=lambda actor, message: (self._job(actor, message), self._stored(message)),
            answered=self._answer,
            told=self._tell,
            deadline=deadline,
        )

    def _tell(self, told: ActorStep) -> None:
        actor, seconds, first = told
        self.spent.add(actor.number, seconds, first)

    def _feed(self, wanted: Container[str]) -> None:
        """Give each actor the next message, and a second one while many wait.

        With a second one it need not wait for this process between the two; the last ones are
        better taken by whoever is free first. An actor that is still busy with what nobody waits
        for any more may hang, and gets nothing.
        """
        begun = [actor for actor in self._pool.begun if _is_in_time(actor, wanted)]
        for depth in (1, 2):
            for actor in begun:
                if len(actor.jobs) < depth and len(self._waiting) > (depth - 1) * 2 * len(begun):
                    self._submit(actor, self._waiting.next(len(begun)))

    def _submit(self, actor: Actor, numbers: tuple[str, ...]) -> None:
        jobs = [self._job(actor, self._waiting[number]) for number in numbers]
        arrays = self._stored(self._waiting[numbers[0]])
        actor.jobs[actor.handle.answer.remote(jobs, arrays)] = numbers

    def _job(self, actor: Actor, message: Message) -> ActorRequest:
        config = config_of(message.content)
        node = message.metadata.dst_node_id
        sites = tuple(str(config.get(GROUP_SIZE, self._names[node])).split(","))
        away = sites if self._pool.is_away(actor) else ()
        return ActorRequest(
            kind=message.metadata.message_type,
            node=node,
            group=message.metadata.group_id,
            config=config,
            sites=sites,
            memory={site: files_in(self._folders[site] / own_folder(config)) for site in away},
        )

    def _stored(self, message: Message) -> Any:
        """Return a reference to a message's arrays; all messages of an exchange share them."""
        key = arrays_of(message)
        if self._sent is None or key != self._sent_key:
            bundle = bundle_of(message.content)
            # Twice: what was sent before may still be read.
            self._pool.check_store(2 * num_bytes(bundle), "two rounds' weights")
            self._sent, self._sent_key = ray.put(to_object_store(bundle)), key
            # Held, so that no other record can come to have the same id.
            self._kept = list(arrays_in(message.content).values())
        return self._sent

    def _take(self, ref: Any, wanted: set[str]) -> list[Message]:
        """Return the answers that came; none where an actor began, died or was too late."""
        actor = self._pool.awaited().get(ref)
        if actor is None:
            return []  # of an actor that was found dead a moment ago
        if actor.begun is ref:
            self._pool.begin(actor)
            return []
        try:
            answers, (seconds, first, gauge) = ray.get(ref)
            self.spent.add(actor.number, seconds, first)
        except RayTaskError as error:
            # Not a site's error, which comes as an answer.
            log.error("%s", error)
            failed = ActorResponse(error=(100, type(error.cause).__name__))
            answers, gauge = [failed] * len(actor.jobs[ref]), None
        except RayError as error:
            return self._replaced(actor, type(error).__name__)
        if any(done.full for done in answers) and (ended := self._pool.fewer(actor)):
            batches = [actor.jobs.pop(ref), *(jobs for one in ended for jobs in one.jobs.values())]
            self._waiting.again([number for batch in batches for number in batch])
            return []
        self._pool.measured(actor, gauge)
        numbers = actor.jobs.pop(ref)
        messages = [self._waiting.pop(number) for number in numbers]
        return [
            self._answer(message, done)
            for message, done in zip(messages, answers, strict=True)
            # The memory of one that comes too late would be put over newer memory.
            if message.metadata.message_id in wanted
        ]

    def _answer(self, message: Message, done: ActorResponse) -> Message:
        for site, files in done.memory.items():
            set_files(self._folders[site] / own_folder(config_of(message.content)), files)
        if done.error:
            return Message(Error(*done.error), reply_to=message)
        # Copied: sums go on in the first of them, and Ray's memory is to be read only.
        content = pack(copied(done.arrays), done.numbers, done.config)
        return Message(content, reply_to=message)

    def _replaced(self, actor: Actor, reason: str) -> list[Message]:
        """Queue again what an actor was doing; give up what has killed too many."""
        batches = list(actor.jobs.values())
        self._pool.replace(actor)
        given_up = self._waiting.died(batches)
        if not given_up:
            log.warning("a worker died (%s); its sites are run again", reason)
        told = f"{SiteFailedError.__name__}: {MAX_WORKER_CRASHES} workers died of it ({reason})"
        return [
            Message(Error(100, told), reply_to=self._waiting.pop(number)) for number in given_up
        ]


def _is_in_time(actor: Actor, wanted: Container[str]) -> bool:
    return all(number in wanted for numbers in actor.jobs.values() for number in numbers)


def run_ray(
    spec: RunSpec,
    federation: Federation,
    device: torch.device,
    *,
    workers: int | None = None,
    address: str | None = None,
    object_store: int | None = None,
    dashboard: bool = False,
    cluster: Cluster | None = None,
) -> None:
    """Execute a run on Ray's actors, with the same bits as `run_local` on the same kind of CPU.

    Args:
        spec: what is run, and where it is recorded.
        federation: the sites' data.
        device: where models live; "cuda" is each actor's share of a GPU.
        workers: actors of one thread each; None is one a core of the machine or the cluster, and on
            GPUs as many as are measured to fit.
        address: of a running cluster, as for `Cluster`, which is made here unless given.
        object_store: bytes, as for `Cluster`.
        dashboard: as for `Cluster`.
        cluster: one that was made before, so that Ray starts while torch is imported and data are
            read; the caller closes it.

    Raises:
        RunError: the folder belongs to another experiment, or the disk is full.
        MissingError: Ray is not installed, does not start or does not answer, its nodes have other
            versions, or its object store is too small.
        ConfigError: the object store does not fit.
    """
    set_up_process()
    if ":" in str(device):
        raise MissingError(f"--device {device}: with Ray say cuda, each worker gets its share")
    sites = {name: spec.folder.site(name) for name in federation.sites}
    if any(algorithm_of(spec.experiment.arm(arm)).pooled for arm in spec.arms):
        sites[POOLED] = spec.folder.site(POOLED)
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    trained = len(federation.training)
    started = cluster or Cluster(
        workers=None if address else worker_count(workers, trained),
        address=address,
        object_store=object_store,
        dashboard=dashboard,
    )
    with nullcontext() if cluster else started:
        started.wait()
        actors = _actor_count(workers, trained)
        meter = PhaseTimer()
        app, door = site_apps(
            Known(federation), device, meter=meter, account=Simulated(), simulated=True
        )
        inner = InProcessGrid(app, sites, meter, door)
        pool = ActorPool(
            federation,
            sites,
            device,
            actors,
            # Who says how many share a GPU is believed, until its memory is full.
            measure=workers is None,
            note=spec.progress.note,
        )
        with pool:
            server_app(spec, torch.device(device.type))(RayGrid(inner, pool), context)


def _actor_count(asked: int | None, sites: int) -> int:
    cpus = int(ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]
    if asked is not None and asked > cpus:
        log.warning("%d workers asked for, the Ray cluster has %d CPUs", asked, cpus)
    return max(1, min(asked or cpus, cpus, sites))
