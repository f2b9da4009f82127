"""Says who is waited for in a round, so that nobody takes a run that waits for one that hangs."""

from collections.abc import Callable, Collection, Mapping

from fedrad.core.names import listed

__all__ = ["WaitReports", "duration_text"]

_FIRST_S = 3.0
"""A site that is away is spoken of after so long: a connection that is made anew takes less."""
_AGAIN_S = 60.0
"""And again, each time so much longer."""
_AT_WORK_S = 600.0
"""A site that is connected is spoken of whenever it has taken so much longer."""


class WaitReports:
    """Is told at each look how long each site has been waited for, and says so at long intervals.

    It reads no clock: all seconds are those that it is told.

    Args:
        say: is told a sentence.
        patience: seconds that a site which is away is waited for.
        deadline: seconds that a site which is connected is waited for.

    Attributes:
        names: of the nodes; of others nothing is said.

    >>> waits = WaitReports(print, patience=120, deadline=3600)
    >>> waits.names = {3: "ost"}
    >>> waits.look({3: 2.0}, away=[3])
    >>> waits.look({3: 4.0}, away=[3])
    waits for ost, which is not connected, for up to 116 s more
    """

    def __init__(self, say: Callable[[str], None], *, patience: float, deadline: float) -> None:
        self._say, self._patience, self._deadline = say, patience, deadline
        self._before: Mapping[int, float] = {}
        self._next: dict[tuple[int, bool], float] = {}
        self.names: Mapping[int, str] = {}

    def look(self, seconds: Mapping[int, float], *, away: Collection[int]) -> None:
        """Say who is waited for, if it is time to.

        Args:
            seconds: node -> how long it has been waited for.
            away: nodes that are not connected.
        """
        known = {node: waited for node, waited in seconds.items() if node in self.names}
        # Of who answered, went or came back, the next time is the first again.
        self._next = {
            (node, gone): at
            for (node, gone), at in self._next.items()
            if node in known and known[node] >= self._before[node] and (node in away) == gone
        }
        self._before = known
        for gone, first, pause in ((True, _FIRST_S, _AGAIN_S), (False, _AT_WORK_S, _AT_WORK_S)):
            due = [
                node
                for node, waited in known.items()
                if (node in away) == gone and waited >= self._next.get((node, gone), first)
            ]
            if due:
                self._tell(due, max(known[node] for node in due), gone)
                self._next |= {(node, gone): known[node] + pause for node in due}

    def _tell(self, due: Collection[int], waited: float, gone: bool) -> None:
        names = sorted(self.names[node] for node in due)
        how = f"{'is' if len(names) == 1 else 'are'} {'not connected' if gone else 'at work'}"
        left = max((self._patience if gone else self._deadline) - waited, 0.0)
        self._say(f"waits for {listed(names)}, which {how}, for up to {duration_text(left)} more")


def duration_text(seconds: float) -> str:
    """Return a time to wait in words.

    >>> duration_text(42.3), duration_text(3600)
    ('42 s', '60 min')
    """
    return f"{seconds:.0f} s" if seconds < 180 else f"{seconds / 60:.0f} min"
