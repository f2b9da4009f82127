"""Whatever one site sends, the mean is that of all sites, or that of the others, who name it.

More than three hundred answers, each from a seed; all but the SuperLink is the product's own.
"""

import resource
import tempfile
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random

import pytest
import torch
from flwr.app import Context, Error, Message, RecordDict
from hostile import MUTATIONS
from made import experiment, federation
from postbox import Letter, Postbox, letter

from fedrad.algorithms.base import Reply
from fedrad.assemble import initial_state, server_task
from fedrad.core.state import is_bit_identical, num_bytes
from fedrad.data.base import SPLITS
from fedrad.deployment.coordinator import node_status as whereabouts
from fedrad.deployment.coordinator import pending_queries as questions
from fedrad.deployment.coordinator.latecomers import Latecomers
from fedrad.deployment.coordinator.network import NetworkGrid
from fedrad.deployment.coordinator.plausibility import SiteClaims
from fedrad.deployment.coordinator.reply_checker import ReplyChecker
from fedrad.deployment.coordinator.site_discovery import DiscoveredSites
from fedrad.deployment.packed_arrays import pack_arrays, unpack_arrays
from fedrad.errors import SiteFailedError, TrainingDivergedError
from fedrad.rounds import flower_sites as exchange
from fedrad.rounds.client_app import client_app
from fedrad.rounds.flower_sites import FlowerSites
from fedrad.rounds.nodes import Node
from fedrad.rounds.records import bundle_of, config_of, numbers_of, pack
from fedrad.rounds.site_tasks import Known
from fedrad.simulation.in_process import InProcessGrid

pytestmark = pytest.mark.slow

SEEDS = 6
HOSTILE = "ost"
NODES = {2: "nord", 3: HOSTILE, 4: "sued"}
START = {"model": initial_state(experiment().arm("fedavg"), 0)}
WHAT = experiment()
DATA = federation().sites
APP = client_app(Known(federation()), torch.device("cpu"))
SERVER = server_task(WHAT.arm("fedavg"), seed=0, device=torch.device("cpu"))
OUTLINES = ReplyChecker(WHAT)
"""What answers must look like, worked out once."""
STATE = tempfile.mkdtemp()
"""Of the sites; a fit of this experiment keeps nothing there."""
MOST_BYTES = 3 << 30
"""Of address space beyond what is in use: a terabyte that a header claims cannot be had."""


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses: they bound how often is asked, not what comes of it."""
    InProcessGrid(None, {})  # type: ignore[arg-type]  # lets messages be made outside a runtime
    monkeypatch.setattr(exchange, "_POLL_S", 0.0)
    monkeypatch.setattr(whereabouts, "_LOOK_S", 0.0)
    monkeypatch.setattr(questions, "_PAUSES_S", (0.0, 0.0))


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """What a hostile header claims cannot be taken without an error."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


HONEST: dict[tuple[int, str], RecordDict] = {}


def honest(node: int, question: Message, action: str) -> RecordDict:
    """What a site really answers, worked out once."""
    if (node, action) not in HONEST:
        folder = f"{STATE}/{NODES[node]}"
        context = Context(1, node, {"site": NODES[node], "state-dir": folder}, RecordDict(), {})
        asked = Message(unpack_arrays(question.content), node, question.metadata.message_type)
        HONEST[node, action] = APP(asked, context).content
    return HONEST[node, action]


Attack = Callable[[Message, RecordDict], list[Letter]]


SILENT = {"nothing_at_all", "parts_that_never_come", "an_answer_to_another_question"}
"""Mutations after which nothing can be waited for but the end of the round."""


def sites(
    attack: Attack | None, action: str, *, quorum: int | None = 2, silent: bool = False
) -> FlowerSites:
    """Three sites at a SuperLink, one of them hostile; one that is silent has no time at all."""

    def answer(node: int, question: Message) -> list[Letter]:
        content = honest(node, question, action)
        if attack is not None and NODES[node] == HOSTILE:
            return attack(question, content)
        return [letter(question, pack_arrays(content))]

    expected = copy(OUTLINES)
    expected.told = {node: SiteClaims.of(DATA[name], private=False) for node, name in NODES.items()}
    grid = NetworkGrid(
        Postbox(NODES, answer),  # type: ignore[arg-type]
        deadline=0.0 if silent else 3600.0,
        patience=60.0,
        check=expected.check,
        limit=expected.limit,
        told=lambda waiting: None,
    )
    return FlowerSites(
        grid,
        {name: Node(node, DATA[name].images("train")) for node, name in NODES.items()},
        {"experiment": WHAT.text(), "arm": "fedavg", "seed": 0},
        number=1,
        rounds=4,
        server=SERVER,
        quorum=quorum,
        deadline=0.0 if silent else 3600.0,
    )


@cache
def mean(without: str = "") -> Reply:
    """The mean of all sites, or of all but one, which is silent."""
    silence = (lambda question, content: []) if without else None
    asked = sites(silence, "fit", silent=bool(without))
    found = asked.mean("fit", START)
    assert set(asked.missing) == ({without} if without else set())
    return found


def check_named(reason: str) -> None:
    """A reason is a short line that may be printed, and no surprise."""
    assert reason and reason.isprintable() and len(reason) < 2100
    surprises = ("MemoryError", "RecursionError", "AssertionError", "AttributeError")
    assert not any(word in reason for word in surprises), reason


def test_there_are_more_than_three_hundred_of_them() -> None:
    assert SEEDS * len(MUTATIONS) > 300


def test_honest_answers_make_the_mean_that_they_make_in_process(tmp_path: Path) -> None:
    """Otherwise what follows would hold of something else."""
    inner = InProcessGrid(APP, {name: tmp_path / name for name in DATA})
    ids = dict(zip(sorted(DATA), inner.get_node_ids(), strict=True))
    nodes = {name: Node(ids[name], DATA[name].images("train")) for name in DATA}
    asked = sites(None, "fit")
    local = FlowerSites(inner, nodes, asked.config, 1, 4, asked.server)
    found = local.mean("fit", START)
    assert is_bit_identical(found.arrays, mean().arrays) and found.numbers == mean().numbers
    assert not is_bit_identical(mean().arrays, mean(HOSTILE).arrays)


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_a_hostile_answer_to_fit_ends_bends_and_hangs_nobody(name: str) -> None:
    """It is as good as the honest one, or its site is named and the others' mean is as without."""
    for seed in range(SEEDS):
        rng = Random(f"{name} {seed}")

        def attack(question: Message, content: RecordDict, rng: Random = rng) -> list[Letter]:
            return MUTATIONS[name](rng, question, content)

        asked = sites(attack, "fit", silent=name in SILENT)
        found = asked.mean("fit", START)
        assert set(asked.missing) <= {HOSTILE}, f"seed {seed}"
        like = mean(HOSTILE) if asked.missing else mean()
        assert is_bit_identical(found.arrays, like.arrays), f"seed {seed}: {asked.missing}"
        assert found.numbers == like.numbers, f"seed {seed}"
        for reason in asked.missing.values():
            check_named(reason)


@pytest.mark.parametrize("name", sorted(MUTATIONS))
@pytest.mark.parametrize("action", ["validate", "count"])
def test_a_hostile_answer_to_a_question_about_a_site_is_that_sites_alone(
    name: str, action: str
) -> None:
    """Replies that are read one by one: the others' are what they are."""
    for seed in range(1):
        rng = Random(f"{name} {action} {seed}")

        def attack(question: Message, content: RecordDict, rng: Random = rng) -> list[Letter]:
            try:
                return MUTATIONS[name](rng, question, content)
            except (IndexError, ValueError, KeyError, RuntimeError):
                # This answer has no number, or no array, of the kind.
                return [letter(question, Error(101, "no such thing"))]

        asked = sites(attack, action, silent=name in SILENT)
        found = dict(asked.gather(action, START if action == "validate" else {}))
        assert set(asked.missing) <= {HOSTILE}
        assert set(found) == {"nord", HOSTILE, "sued"} - set(asked.missing)
        untouched = dict(sites(None, action).gather(action, START if action == "validate" else {}))
        for site in found:
            assert is_bit_identical(found[site].arrays, untouched[site].arrays), f"seed {seed}"
            assert found[site].numbers == untouched[site].numbers
        for reason in asked.missing.values():
            check_named(reason)


@pytest.mark.parametrize(
    ("words", "kind", "told"),
    [
        (
            "TrainingDivergedError: round 1: no number",
            TrainingDivergedError,
            "^round 1: no number$",
        ),
        (
            "RunError: its disk is full",
            SiteFailedError,
            "2 of 3 .*ost: at the site, RunError: its disk",
        ),
        (
            "PolicyError: not allowed",
            SiteFailedError,
            "2 of 3 sites answered, .*ost: PolicyError: not allowed",
        ),
    ],
)
def test_where_all_must_answer_the_arm_ends_with_the_sites_word(
    words: str, kind: type[Exception], told: str
) -> None:
    """A full disk of a hospital is no full disk here: it ends an arm, and not the run."""
    asked = sites(
        lambda question, content: [letter(question, Error(100, words))], "fit", quorum=None
    )
    with pytest.raises(kind, match=told):
        asked.mean("fit", START)


def test_diverged_is_one_sites_word_where_the_others_are_enough() -> None:
    error = Error(100, "TrainingDivergedError: round 1: no number")
    asked = sites(lambda question, content: [letter(question, error)], "fit")
    assert is_bit_identical(asked.mean("fit", START).arrays, mean(HOSTILE).arrays)
    assert asked.missing == {HOSTILE: "TrainingDivergedError: round 1: no number"}


def test_a_question_that_always_goes_astray_is_asked_a_bounded_number_of_times() -> None:
    asked = sites(lambda q, content: MUTATIONS["again_and_again"](Random(1), q, content), "fit")
    asked.mean("fit", START)
    box = asked.grid._link  # type: ignore[attr-defined]
    assert box.asked <= 2 + questions.MAX_LOSSES and "times" in asked.missing[HOSTILE]


def test_a_site_that_was_not_at_the_roll_call_has_told_nothing_to_be_held_against() -> None:
    """Else it could stay away from it, and then weigh what it likes."""
    asked = sites(None, "fit")
    expected: ReplyChecker = asked.grid._check.__self__  # type: ignore[attr-defined]
    expected.told = {node: told for node, told in expected.told.items() if NODES[node] != HOSTILE}
    assert is_bit_identical(asked.mean("fit", START).arrays, mean(HOSTILE).arrays)
    assert "was not there at the roll call" in asked.missing[HOSTILE]


def test_nothing_is_sent_to_a_site_that_refused_the_arm_and_no_byte_is_counted() -> None:
    """Three would be asked and counted; the mean is that of the two that are willing."""
    asked = sites(None, "fit")
    node = next(node for node, name in NODES.items() if name == HOSTILE)
    asked.grid.unasked = {node: {"fedavg": "epsilon 9 of 3"}}  # type: ignore[attr-defined]
    found = asked.mean("fit", START)
    assert asked.unasked == {HOSTILE: "epsilon 9 of 3"} == asked.missing
    assert asked.grid._link.asked == 2  # type: ignore[attr-defined]
    assert asked.traffic.down == 2 * num_bytes(START)
    assert is_bit_identical(found.arrays, mean(HOSTILE).arrays)
    stopped = replace(asked, quorum=3, missing={})
    with pytest.raises(
        SiteFailedError, match=r"the quorum is 3 .*; quorum: 2 in the experiment lets"
    ):
        stopped.mean("fit", START)


def late(
    description: Callable[[RecordDict], RecordDict],
    say: Callable[[str], None] = print,
    arms: tuple[str, ...] = ("fedavg", "fedprox"),
) -> FlowerSites:
    """Three sites of which one was away at the roll call; it comes when a fit is asked for."""
    asked = sites(None, "fit")
    box, expected = asked.grid._link, asked.grid._check.__self__  # type: ignore[attr-defined]
    answer = box.answer

    def first(node: int, question: Message) -> list[Letter]:
        if config_of(question.content)["action"] != "describe":
            return answer(node, question)
        return [letter(question, pack_arrays(description(honest(node, question, "describe"))))]

    box.answer = first
    expected.told = {node: told for node, told in expected.told.items() if NODES[node] != HOSTILE}
    there = {name: data for name, data in DATA.items() if name != HOSTILE}
    met = DiscoveredSites({name: Node(node, 0) for node, name in NODES.items()}, there, {})
    Latecomers(WHAT, arms, [0], met, asked.grid, expected, say)  # type: ignore[arg-type]
    return asked


def test_a_site_that_comes_after_the_roll_call_describes_itself_and_takes_part() -> None:
    """It is asked for nothing else before, and its numbers are held against what it told."""
    asked = late(lambda content: content)
    found = asked.mean("fit", START)
    assert asked.missing == {} and is_bit_identical(found.arrays, mean().arrays)
    grid = asked.grid
    assert grid.strangers == {}  # type: ignore[attr-defined]
    asked.mean("fit", START)
    assert grid._link.asked == 3 + 1 + 3  # type: ignore[attr-defined]


def test_a_site_that_comes_late_and_refuses_the_arm_is_told_of_and_not_asked() -> None:
    """Whoever watches the run learns who refuses what, as at the roll call."""

    def refusing(content: RecordDict) -> RecordDict:
        told = config_of(content) | {"refuses": '{"fedavg": "epsilon 9 of 3"}'}
        return pack(bundle_of(content), numbers_of(content), told)

    said: list[str] = []
    asked = late(refusing, said.append)
    found = asked.mean("fit", START)
    assert said == [f"{HOSTILE} refuses fedavg: epsilon 9 of 3"]
    assert asked.unasked == asked.missing == {HOSTILE: "epsilon 9 of 3"}
    assert is_bit_identical(found.arrays, mean(HOSTILE).arrays)


def test_a_site_that_comes_late_is_asked_of_the_arms_that_run_and_no_others() -> None:
    """What it refuses of an arm that nobody plays is not said."""

    def refusing(content: RecordDict) -> RecordDict:
        told = config_of(content) | {"refuses": '{"fedprox": "epsilon 9 of 3"}'}
        return pack(bundle_of(content), numbers_of(content), told)

    said: list[str] = []
    asked = late(refusing, said.append, arms=("fedavg",))
    (question,) = asked.grid.strangers.values()  # type: ignore[attr-defined]
    assert config_of(question)["arms"] == ["fedavg"] and config_of(question)["seeds"] == [0]
    asked.mean("fit", START)
    assert said == [] and asked.missing == {}


def test_a_site_that_comes_late_and_tells_nonsense_is_named_and_asked_for_nothing() -> None:
    def impostor(content: RecordDict) -> RecordDict:
        return pack(bundle_of(content), numbers_of(content), config_of(content) | {"site": "nord"})

    asked = late(impostor)
    found = asked.mean("fit", START)
    assert is_bit_identical(found.arrays, mean(HOSTILE).arrays)
    assert "when it came: the key of ost is used by a site" in asked.missing[HOSTILE]


def test_what_a_site_told_is_what_its_data_hold() -> None:
    """The numbers that answers are held against, known here by other means."""
    told = SiteClaims.of(DATA[HOSTILE], private=False)
    assert told.images == dict.fromkeys(SPLITS, 24) == told.patients
