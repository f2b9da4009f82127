"""The hospital's guard over streams: where they may go, and what may leave in them.

A stream carries what a site computes from its images, so it goes to the coordinator of the site's
own file and nowhere else, whatever a message says. Frames are looked at one by one on their way.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from fedrad.algorithms.base import Frame
from fedrad.config import SiteFile
from fedrad.core.state import num_bytes
from fedrad.core.wire import to_bytes
from fedrad.deployment.frame_spec import FrameSpec
from fedrad.deployment.reply_spec import ArraySpec, specs_of
from fedrad.deployment.site.policy import policy_error
from fedrad.deployment.streams.invitation import Invitation, address_of
from fedrad.errors import ConfigError
from fedrad.rounds.site_streams import ClientCoroutine

__all__ = ["FrameFilter", "check_invitation"]

_NUMBERS = {"ready": frozenset({"steps"})}
"""Plain values in frames: before a relay the site says how many steps it will take."""


def check_invitation(site: SiteFile, config: Mapping[str, Any]) -> bool:
    """Return whether a message invites the site to a stream, and check where it is to go.

    Raises:
        PolicyError: it is not the coordinator that the site's own file names, or it would be
            trusted by another authority than the kit's.
        SiteFailedError: a part of the invitation is missing.
    """
    invitation = Invitation.of(config)
    if invitation is None:
        return False
    port = site.coordinator.stream_port
    if port is None:
        # The number that is asked for is not repeated: only the organiser's is to be taken.
        raise policy_error(site.name, "coordinator.stream_port", "none", "a stream")
    own = address_of(site.coordinator.host, port)
    if invitation.address != own:
        limit = "the address in the site's own file"
        raise policy_error(
            site.name, "coordinator.stream_port", limit, "a stream to another address"
        )
    if invitation.ca.split() != _authority(site).split():
        raise policy_error(site.name, "certificates.ca", "the kit's own", "another authority")
    return True


def _authority(site: SiteFile) -> str:
    try:
        return site.certificates.ca.read_text(encoding="ascii")
    except (OSError, ValueError):
        raise ConfigError(
            f"{site.name}: certificates.ca: cannot be read; it is in the startup kit"
        ) from None


@dataclass
class _Passage:
    """What the guard has let in, until its stream begins."""

    site: str
    streamed: FrameSpec
    opened: Callable[[], None]


class FrameFilter:
    """Stands in a site's streams: a frame that is not what was asked for does not leave.

    The guard allows one stream, for the message that it has just let in; the app that answers the
    message passes its half of the stream through here.
    """

    def __init__(self) -> None:
        self._passage: _Passage | None = None
        self._digest = sha256()
        self._frames = self._bytes = 0
        self._heard: Any = None

    @property
    def heard(self) -> str | None:
        """Return a digest of all that came in the last stream; None if none was opened."""
        return None if self._heard is None else str(self._heard.hexdigest())

    def allow(self, site: str, streamed: FrameSpec, opened: Callable[[], None]) -> None:
        """Allow one stream.

        Args:
            site: its name.
            streamed: what may leave in it.
            opened: is called before the first frame leaves.
        """
        self._passage = _Passage(site, streamed, opened)
        self._digest, self._frames, self._bytes, self._heard = sha256(), 0, 0, None

    def close(self) -> str:
        """Allow no stream any more; return in words what has left in one since the last time."""
        self._passage = None
        frames, self._frames = self._frames, 0
        if not frames:
            return ""
        return f"{frames} frames, {self._bytes} bytes, SHA-256 {self._digest.hexdigest()}"

    def __call__(self, half: ClientCoroutine) -> ClientCoroutine:
        """Return a site's half of a stream with the gate in it.

        Raises:
            ConfigError: the guard allowed no stream.
            PolicyError: a frame holds what nobody asked for, or too much.
        """
        passage, self._passage = self._passage, None
        try:
            if passage is None:
                raise ConfigError("a stream was opened that the guard has not let in")
            passage.opened()
            self._heard = sha256()
            answer: Frame | None = None
            while True:
                try:
                    frame = next(half) if answer is None else half.send(answer)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]
                self._check(passage, frame)
                answer = yield frame
                _add(self._heard, answer)
        finally:
            half.close()

    def _check(self, passage: _Passage, frame: Frame) -> None:
        wrong = _fault_of(frame, passage.streamed)
        self._bytes += num_bytes({"frame": frame.arrays})
        if wrong is None and self._bytes > passage.streamed.bytes:
            wrong = f"more than the {passage.streamed.bytes} bytes that were asked for"
        if wrong:
            raise policy_error(passage.site, "stream", "what was asked for", wrong)
        self._frames += 1
        _add(self._digest, frame)


def _add(digest: Any, frame: Frame) -> None:
    """Add a frame's arrays to a digest."""
    for name, array in sorted(frame.arrays.items()):
        kind, shape, raw = to_bytes(array)
        digest.update(f"{name}\x1f{kind}\x1f{shape}\x1e".encode())
        digest.update(raw)


def _fault_of(frame: Frame, streamed: FrameSpec) -> str | None:
    """Return what of a frame is not what was asked for, or None; names are not repeated."""
    wanted = streamed.frames.get(frame.kind)
    if wanted is None:
        return "a frame of another kind"
    if set(frame.numbers) - _NUMBERS.get(frame.kind, frozenset()):
        return f"a number that nobody asked for, in a frame of kind {frame.kind}"
    for name, shape in specs_of({"frame": frame.arrays})["frame"].items():
        if name not in wanted:
            return f"an array that nobody asked for, in a frame of kind {frame.kind}"
        if not _fits(shape, wanted[name]):
            return f"{name} {shape}, of {wanted[name]}"
    return None


def _fits(shape: ArraySpec, most: ArraySpec) -> bool:
    """Return whether an array is of a shape and kind; the first axis may be shorter."""
    same = shape.kind == most.kind and shape.shape[1:] == most.shape[1:]
    return same and len(shape.shape) == len(most.shape) and shape.shape[:1] <= most.shape[:1]
