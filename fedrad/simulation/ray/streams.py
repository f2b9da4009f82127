"""Streams to sites' halves that Ray's actors run: a frame is an argument of a remote call.

A half stays with the actor that began it, where its network and its graph of autograd are. An actor
runs its sites one after the other, since one network serves them all; only a relay, which hands
the weights on with every frame, has several halves in one actor. An actor that dies takes its
halves with it: the round is run again (`rounds.retry`).
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ray
from flwr.app import Error, Message
from ray.exceptions import RayError, RayTaskError

from fedrad.algorithms.base import Frame
from fedrad.errors import SiteFailedError
from fedrad.rounds.metered_streams import StreamBroken
from fedrad.rounds.site_streams import LOST, FrameStream
from fedrad.simulation.ray.actor import ActorRequest, ActorResponse, SerializedFrame
from fedrad.simulation.ray.pool import Actor, ActorPool

__all__ = ["ActorStreams"]

_LOOK_S = 1.0

ActorStep = tuple[Actor, Mapping[str, float], float | None]
"""An actor, its seconds by purpose, and when its first step began."""


class ActorStreams:
    """The streams of a round (`rounds.site_streams.Channels`).

    Args:
        pool: of actors.
        messages: site -> the message that opens its stream.
        opened: returns what an actor needs to open one: its job, and a reference to its arrays.
        answered: returns a site's reply, of the message and what the actor made of it.
        told: takes what an actor spent.
        deadline: seconds in all.
    """

    def __init__(
        self,
        pool: ActorPool,
        messages: Mapping[str, Message],
        *,
        opened: Callable[[Actor, Message], tuple[ActorRequest, Any]],
        answered: Callable[[Message, ActorResponse], Message],
        told: Callable[[ActorStep], None],
        deadline: float,
    ) -> None:
        self._pool, self._opened, self._answered, self._told = pool, opened, answered, told
        self._deadline, self._ends = deadline, time.monotonic() + deadline
        self._channels = {site: _Channel(site, messages[site], self) for site in sorted(messages)}

    def __getitem__(self, site: str) -> FrameStream:
        """Return the stream to a site."""
        return self._channels[site]

    def arriving(self) -> Iterator[tuple[str, Frame | Message]]:
        """Yield what comes, from whichever site, until every stream has ended with a reply."""
        waiting = list(self._channels.values())
        asked: dict[Any, _Channel] = {}
        while waiting or asked:
            busy = {channel.actor for channel in asked.values()}
            for actor in [one for one in self._pool.begun if one not in busy][: len(waiting)]:
                channel = waiting.pop(0)
                asked[channel.ask(actor)] = channel
            for ref in self._ready(list(asked)):
                channel = asked.pop(ref)
                came = channel.take(ref)
                yield channel.site, came
                if isinstance(came, Frame):
                    asked[channel.ask()] = channel

    def receive(self, channel: "_Channel") -> Frame | Message:
        """Wait for what comes next from one site."""
        ref = channel.ask(None if channel.actor else self._next_actor(channel.site))
        while not (ready := self._ready([ref])):
            pass
        return channel.take(ready[0])

    def came(self, channel: "_Channel", ref: Any) -> Frame | Message:
        """Return what an actor answered; an error's message where it could not, or is too late.

        Raises:
            StreamBroken: the actor died.
        """
        assert channel.actor is not None
        if not ray.wait([ref], timeout=0)[0]:
            self._lose(channel.actor)
            return channel.failed(LOST, f"no answer within {self._deadline:g} s")
        try:
            answer, (seconds, first, gauge) = ray.get(ref)
        except RayTaskError as error:
            # Not a site's error, which comes as an answer.
            return channel.failed(100, type(error.cause).__name__)
        except RayError as error:
            self._lose(channel.actor)
            # Not the site's failure, so no quorum is to go on without it.
            told = f"{channel.site}: its worker died ({type(error).__name__})"
            raise StreamBroken(told) from None
        if self._pool.has(channel.actor):
            self._told((channel.actor, seconds, first))
            self._pool.measured(channel.actor, gauge)
        if isinstance(answer, ActorResponse) and answer.full and self._pool.fewer(channel.actor):
            raise StreamBroken(f"{channel.site}: the GPU's memory was full")
        if isinstance(answer, SerializedFrame):
            return answer.frame()
        return self._answered(channel.message, answer)

    def open(self, actor: Actor, message: Message) -> Any:
        """Return a reference to the first frame of a half that an actor begins."""
        return actor.handle.open.remote(*self._opened(actor, message))

    def _ready(self, refs: list[Any]) -> list[Any]:
        """Wait a second at most; return what has come, and all that is asked when it is too late.

        Actors that have begun meanwhile are taken among those that work.
        """
        begins = {ref: actor for ref, actor in self._pool.awaited().items() if not actor.hello}
        ready, _ = ray.wait([*refs, *begins], num_returns=1, timeout=_LOOK_S)
        for ref in ready:
            if ref in begins:
                self._pool.begin(begins[ref])
        self._pool.check()
        if time.monotonic() > self._ends:
            return refs
        return [ref for ref in ready if ref not in begins]

    def _next_actor(self, site: str) -> Actor:
        while not self._pool.begun:
            self._ready([])
        begun = self._pool.begun
        return begun[sorted(self._channels).index(site) % len(begun)]

    def _lose(self, actor: Actor) -> None:
        """Replace an actor, once: its other halves find out as they are asked."""
        if self._pool.has(actor):
            self._pool.replace(actor)


class _Channel:
    def __init__(self, site: str, message: Message, channels: ActorStreams) -> None:
        self.site, self.message, self._channels = site, message, channels
        self.actor: Actor | None = None
        self._answer: Frame | None = None
        self._ended = False

    def receive(self) -> Frame | Message:
        return self._channels.receive(self)

    def send(self, frame: Frame) -> None:
        self._answer = frame

    def ask(self, actor: Actor | None = None) -> Any:
        """Return a reference to what comes next; an actor is named with the first question."""
        if actor is not None:
            self.actor = actor
            return self._channels.open(actor, self.message)
        if self._ended or self._answer is None or self.actor is None:
            raise SiteFailedError(f"{self.site}: its stream waits for no frame")
        answer, self._answer = SerializedFrame.of(self._answer), None
        return self.actor.handle.step.remote(self.site, answer)

    def take(self, ref: Any) -> Frame | Message:
        came = self._channels.came(self, ref)
        self._ended = isinstance(came, Message)
        return came

    def failed(self, code: int, reason: str) -> Message:
        return Message(Error(code, reason), reply_to=self.message)
