"""Messages that wait for a worker: which go together, and what becomes of those that kill."""

import pytest
import torch
from flwr.app import Message, RecordDict
from made import federation

from fedrad.rounds.partial_aggregation import GROUP_SIZE
from fedrad.rounds.records import pack
from fedrad.simulation.in_process import InProcessGrid
from fedrad.simulation.message_queue import MessageQueue


@pytest.fixture
def grid(tmp_path_factory: pytest.TempPathFactory) -> InProcessGrid:
    """Makes messages; its nodes are never called."""
    folder = tmp_path_factory.mktemp("sites")
    return InProcessGrid(None, {name: folder / name for name in federation().sites})  # type: ignore[arg-type]


def messages(grid: InProcessGrid, count: int, elements: int = 2, **config: str) -> list[Message]:
    """So many messages with the same arrays."""
    arrays = pack({"model": {"w": torch.ones(elements)}})
    found = []
    for _ in range(count):
        content = RecordDict(dict(arrays))
        content["config"] = pack({}, config={"action": "test", **config})["config"]
        found.append(grid.create_message(content, "evaluate", 2, "1"))
    return found


def test_many_messages_to_single_sites_go_together_and_few_go_alone(grid: InProcessGrid) -> None:
    """A batch is at most half a worker's share of the queue, so the end stays even."""
    waiting = MessageQueue()
    waiting.push(messages(grid, 41))
    sizes = []
    while len(waiting):
        sizes.append(len(waiting.next(2)))
    assert sizes[:3] == [10, 7, 5] and sizes[-4:] == [1, 1, 1, 1] and sum(sizes) == 41


def test_blocks_of_a_large_network_go_one_by_one_and_those_of_a_small_one_together(
    grid: InProcessGrid,
) -> None:
    """A block's answer is as long as a network: several of a large one would be a burden."""
    for elements, sizes in ((300_000, [1, 1, 1]), (2, [4, 2, 1])):
        waiting = MessageQueue()
        waiting.push(messages(grid, 10, elements, **{GROUP_SIZE: "nord,ost"}))
        assert [len(waiting.next(1)) for _ in sizes] == sizes


def test_messages_with_other_arrays_do_not_go_together(grid: InProcessGrid) -> None:
    waiting = MessageQueue()
    waiting.push([*messages(grid, 2), *messages(grid, 40)])
    assert waiting.next(1) == ("1", "2")


def test_of_a_batch_that_killed_each_goes_alone_and_only_the_killer_is_given_up(
    grid: InProcessGrid,
) -> None:
    waiting = MessageQueue()
    waiting.push(messages(grid, 40))
    batch, behind = waiting.next(1), waiting.next(1)
    assert batch[:2] == ("1", "2")
    assert waiting.died([batch, behind]) == []
    assert waiting.next(1) == ("1",)
    assert waiting.died([("1",)]) == []
    assert waiting.next(1) == ("1",)
    assert waiting.died([("1",)]) == ["1"]
    assert waiting.next(1) == ("2",)


def test_messages_that_nobody_waits_for_are_forgotten(grid: InProcessGrid) -> None:
    waiting = MessageQueue()
    waiting.push(messages(grid, 3))
    waiting.drop_old({"3"})
    assert waiting.next(1) == ("3",) and len(waiting) == 0
