"""The sites of a round, of which an algorithm may read the mean alone."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from fedrad.algorithms.base import Reply, Sites, Streams
from fedrad.core.state import Bundle
from fedrad.errors import ConfigError
from fedrad.training.server import ServerTask

__all__ = ["MeanOnly"]


@dataclass(frozen=True)
class MeanOnly:
    """Sites as a wrapper shows them that changes their mean (`algorithms.base.Sites`, but `mean`).

    Args:
        sites: of the round.
        reason: why single sites' replies cannot be read, beginning with the wrapper's name.
    """

    sites: Sites
    reason: str

    @property
    def names(self) -> tuple[str, ...]:
        """Return the sites of this round, sorted."""
        return self.sites.names

    @property
    def rounds(self) -> int:
        """Return the rounds of the whole run."""
        return self.sites.rounds

    @property
    def server(self) -> ServerTask:
        """Return what the server computes with."""
        return self.sites.server

    def note(self, key: str, value: object) -> None:
        """Write something into the round's record."""
        self.sites.note(key, value)

    def gather(self, action: str, send: Bundle) -> Iterator[tuple[str, Reply]]:
        """Refuse to read single replies."""
        raise ConfigError(self.reason)

    def stream(self, action: str, send: Mapping[str, Bundle]) -> AbstractContextManager[Streams]:
        """Refuse to open streams."""
        raise ConfigError(self.reason)

    def average(
        self, replies: Iterable[tuple[str, Reply]], *, weight: str = "num-examples"
    ) -> Reply:
        """Refuse to average single replies."""
        raise ConfigError(self.reason)
