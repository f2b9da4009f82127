"""Rounds are written to the disk while the sites train on the next one."""

import logging
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

from fedrad.core.state import Bundle
from fedrad.runs import ArmFolder

__all__ = ["AsyncCheckpointWriter"]

log = logging.getLogger(__name__)


class AsyncCheckpointWriter:
    r"""Keeps an arm's rounds, one after the other, each while the next is run.

    A crash loses at most the round that was being written and the one that was being run; both
    are run again to the same bits. Nothing may change a state that was handed over.

    Args:
        folder: of the arm.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as place:
    ...     folder = ArmFolder(Path(place))
    ...     with AsyncCheckpointWriter(folder) as keeping:
    ...         keeping.keep(1, {}, {"seconds": 2.0})
    ...     (folder.path / "rounds.jsonl").read_text()
    '{"round":1,"seconds":2.0}\n'
    """

    def __init__(self, folder: ArmFolder) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="keeping")
        self._last: Future[None] | None = None

    def __enter__(self) -> "AsyncCheckpointWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown()
        if kind is None:
            self.settle()
        elif self._last is not None and (lost := self._last.exception()) is not None:
            # What is on its way is told; this is why the same command begins a round earlier.
            log.warning("the last round was not kept: %s", lost)

    def keep(self, number: int, state: Bundle, line: Mapping[str, Any]) -> None:
        """Begin to write a round, once the round before is on the disk.

        Raises:
            RunError: the round before could not be written.
        """
        self.settle()
        self._last = self._thread.submit(self._folder.keep, number, state, line)

    def settle(self) -> None:
        """Wait until the last round is on the disk.

        Raises:
            RunError: it could not be written.
        """
        if self._last is not None:
            self._last.result()
