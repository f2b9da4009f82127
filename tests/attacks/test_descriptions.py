"""The roll call: a site that says no, or nonsense, is named, and the others go on."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Error, Message, RecordDict
from hostile import MUTATIONS, sent
from made import Told as Heard
from made import experiment, play
from postbox import Letter, Postbox, letter
from test_replies import DATA, HOSTILE, NODES, SILENT, WHAT, check_named, honest

from fedrad.core.printable import printable
from fedrad.core.provenance import Provenance
from fedrad.deployment.coordinator import node_status as whereabouts
from fedrad.deployment.coordinator import pending_queries as questions
from fedrad.deployment.coordinator import site_discovery as rollcall
from fedrad.deployment.coordinator.network import NetworkGrid
from fedrad.deployment.coordinator.reply_checker import REFUSALS_KEY, ReplyChecker
from fedrad.deployment.coordinator.site_discovery import DiscoveredSites, discover_sites, refusals
from fedrad.deployment.packed_arrays import pack_arrays
from fedrad.errors import SiteFailedError
from fedrad.rounds.arm_rounds import ArmRounds, RunSpec
from fedrad.rounds.nodes import Node
from fedrad.rounds.records import bundle_of, config_of, numbers_of, pack
from fedrad.rounds.server import _unwilling
from fedrad.runs import RunFolder
from fedrad.simulation.in_process import InProcessGrid

Attack = Callable[[Message, RecordDict], list[Letter]]


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses."""
    InProcessGrid(None, {})  # type: ignore[arg-type]  # lets messages be made outside a runtime
    monkeypatch.setattr(rollcall, "_POLL_S", 0.0)
    monkeypatch.setattr(whereabouts, "_LOOK_S", 0.0)
    monkeypatch.setattr(questions, "_PAUSES_S", (0.0, 0.0))


def call(
    attack: Attack | None,
    *,
    quorum: int | None = 2,
    silent: bool = False,
    arms: tuple[str, ...] = (),
) -> DiscoveredSites:
    """Call the roll of three sites, one of them hostile."""
    what = WHAT.model_copy(update={"quorum": quorum})

    def answer(node: int, question: Message) -> list[Letter]:
        content = honest(node, question, "describe")
        if attack is not None and NODES[node] == HOSTILE:
            return attack(question, content)
        return [letter(question, pack_arrays(content))]

    expected = ReplyChecker(WHAT)
    grid = NetworkGrid(
        Postbox(NODES, answer),  # type: ignore[arg-type]
        deadline=0.0 if silent else 3600.0,
        patience=60.0,
        check=expected.check,
        limit=expected.limit,
        told=lambda waiting: None,
    )
    wait = 0.0 if silent else 3600.0
    return discover_sites(
        grid,
        what,
        set(NODES.values()),
        arms=arms or what.arm_names,
        seeds=what.seeds,
        wait=wait,
        say=lambda text: None,
    )


def check_others(met: DiscoveredSites) -> None:
    """The other sites are what they are, and the hostile one is as it is, or named."""
    assert set(met.failed) <= {HOSTILE} and set(met.nodes) == set(DATA)
    for name, data in met.data.items():
        for split in ("train", "val", "test"):
            assert data.images(split) == DATA[name].images(split)
            assert data.patients(split) == DATA[name].patients(split)
            rows = DATA[name].y[DATA[name].rows[split]]
            assert np.nansum(data.y[data.rows[split]]) == np.nansum(rows)
    for reason in met.failed.values():
        check_named(reason)


LIES = {"an_array_under_anothers_name"}
"""Counts of labels that are false, and could be true: nobody else has seen the site's data."""


@pytest.mark.parametrize("name", sorted(MUTATIONS.keys() - LIES))
def test_a_hostile_description_leaves_the_others_to_go_on(name: str) -> None:
    rng = Random(name)

    def attack(question: Message, content: RecordDict) -> list[Letter]:
        try:
            return MUTATIONS[name](rng, question, content)
        except (IndexError, ValueError, KeyError, RuntimeError):
            return [letter(question, Error(101, "no such thing"))]

    met = call(attack, silent=name in SILENT)
    assert {"nord", "sued"} <= set(met.data)
    check_others(met)


def told(**changes: Any) -> Attack:
    """A description with other settings, numbers or counts of labels."""

    def attack(question: Message, content: RecordDict) -> list[Letter]:
        config = config_of(content) | changes.get("config", {})
        numbers = numbers_of(content) | changes.get("numbers", {})
        bundle = bundle_of(content)
        bundle["labels"] = bundle["labels"] | changes.get("labels", {})
        return sent(question, pack(bundle, numbers, config))

    return attack


HUGE = torch.tensor([[2**39, 2**39, 0]])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"labels": {"train": HUGE}, "numbers": {"num-examples": 2.0**40}}, "more than 5000000"),
        ({"labels": {"test": HUGE}}, "more than 5000000"),
        ({"labels": {"val": torch.tensor([[2**62, 2**62, 2**62]])}}, "far too large"),
        ({"labels": {"val": torch.tensor([[-1, 5, 0]])}}, "labels do not fit"),
        ({"numbers": {"num-examples": 240.0}}, "240 training images and 24 labels"),
        ({"numbers": {"patients-train": 25.0}}, "tells 25 patients and 24 images"),
        ({"numbers": {"patients-test": 1e12}}, "tells 1000000000000 patients"),
        ({"numbers": {"patients-test": -1.0}}, "patients-test is negative"),
        ({"config": {"site": "nord"}}, "each site needs its own startup kit"),
        ({"config": {"site": "\x1b[2J" + "x" * 3000}}, "each site needs its own startup kit"),
        ({"config": {"fedrad": "9" * 1_000_000}}, "a setting is no text of up to 4000"),
        ({"config": {"colour": "blue"}}, "a setting that nobody asked for"),
        ({"config": {REFUSALS_KEY: "{"}}, "which arms it refuses cannot be read"),
        ({"config": {REFUSALS_KEY: "[" * 3000}}, "which arms it refuses cannot be read"),
        ({"config": {REFUSALS_KEY: '["fedavg"]'}}, "which arms it refuses cannot be read"),
        ({"config": {REFUSALS_KEY: '{"fedavg": 3}'}}, "which arms it refuses cannot be read"),
    ],
)
def test_a_description_that_cannot_be_true_is_named(changes: dict[str, Any], says: str) -> None:
    """Of 2^40 labels a stand-in of that size would be made: the count is looked at first."""
    met = call(told(**changes))
    assert says in met.failed[HOSTILE] and set(met.data) == {"nord", "sued"}
    check_others(met)


def test_where_all_are_needed_the_run_ends_before_it_begins_with_name_and_reason() -> None:
    attack = lambda question, content: [letter(question, Error(100, "PolicyError: not approved"))]  # noqa: E731
    with pytest.raises(
        SiteFailedError, match=r"needs 3 sites .*\(ost: PolicyError: not approved\)"
    ):
        call(attack, quorum=None)
    met = call(attack, quorum=2)
    assert met.failed == {HOSTILE: "PolicyError: not approved"}
    assert met.unasked() == {3: {"": "at the roll call: PolicyError: not approved"}}


def test_versions_are_told_in_letters_that_can_be_printed() -> None:
    """They are shown by fedrad status, whose terminal would take some for commands."""
    met = call(told(config={"device": "cpu\x1b]0;owned\x07\u202e", "machine": "m" * 500}))
    assert met.versions[HOSTILE]["device"] == "cpu ]0;owned"
    assert met.versions[HOSTILE]["machine"] == printable("m" * 500, 100)


def test_an_arm_that_a_site_refuses_is_named_and_the_others_are_not() -> None:
    """The roll call asks whether the whole run fits: the answer is per arm."""
    met = call(told(config={REFUSALS_KEY: json.dumps({"fedprox": "epsilon\n9", "unknown": "x"})}))
    assert met.refuses == {HOSTILE: {"fedprox": "epsilon 9"}}
    assert met.unasked() == {3: {"fedprox": "epsilon 9"}} and not met.failed
    assert refusals({}, ["fedprox"]) == {}
    assert met.refusals() == [f"{HOSTILE} refuses fedprox: epsilon 9"]


def test_a_refusal_of_an_arm_that_is_not_going_to_run_is_not_spoken_of() -> None:
    """`--arm fedavg` asks for that arm alone; who says more of others is not counted out."""
    asked: list[Message] = []
    reasons = told(config={REFUSALS_KEY: json.dumps({"fedprox": "epsilon 9"})})

    def answer(question: Message, content: RecordDict) -> list[Letter]:
        asked.append(question)
        return reasons(question, content)

    met = call(answer, arms=("fedavg",))
    assert met.refuses == {} == met.unasked() and met.refusals() == []
    (question,) = asked
    assert config_of(question.content)["arms"] == ["fedavg"]
    assert config_of(question.content)["seeds"] == list(WHAT.seeds)


class Refusing(InProcessGrid):
    """A grid at whose roll call a site has refused an arm: as over a network, it is not asked."""

    def answer(self, message: Message) -> Message:
        """Call the node that a message is for, unless it has refused."""
        refused = self.unasked.get(message.metadata.dst_node_id, {})
        if why := refused.get(str(config_of(message.content).get("arm", ""))):
            return Message(Error(1, why), reply_to=message)
        return super().answer(message)

    @property
    def unasked(self) -> dict[int, dict[str, str]]:
        """Node -> arm -> why it is not asked."""
        return {3: {"fedprox": "epsilon 9 of 3"}}


@pytest.mark.parametrize(("quorum", "begins"), [(None, False), (3, False), (2, True)])
def test_an_arm_is_not_begun_that_too_few_sites_are_willing_to_play(
    quorum: int | None, begins: bool, tmp_path: Any
) -> None:
    """Its first rounds would spend the others' privacy for nothing."""
    from test_replies import APP

    what = experiment(quorum=quorum)
    grid = Refusing(APP, {name: tmp_path / name for name in DATA})
    nodes = {name: Node(node, DATA[name].images("train")) for node, name in NODES.items()}
    one = RunSpec(what, ["fedavg", "fedprox"], [0], (), RunFolder(tmp_path), Heard())
    assert _unwilling(one, "fedavg", grid, nodes) is None
    reason = _unwilling(one, "fedprox", grid, nodes)
    assert (reason is None) == begins
    if reason:
        assert "2 of 3 sites are willing" in reason and "ost: epsilon 9 of 3" in reason
        assert "quorum: 2 in the experiment" in reason and "that hospital's policy" in reason


class Noting(Refusing):
    """Such a grid, which notes of how many sites each question to train says a mean is made."""

    def answer(self, message: Message) -> Message:
        """Call the node that a message is for."""
        config = config_of(message.content)
        if config.get("action") == "fit":
            self.told = {*getattr(self, "told", set()), config["training-sites"]}
        return super().answer(message)


@pytest.mark.parametrize(
    ("arm", "images", "training"),
    [("fedavg", 32, 3), ("fedprox", 32, 2), ("fedavg", 0, 2), ("fedprox", 0, 1)],
)
def test_a_mean_is_said_to_be_made_of_the_sites_that_will_train(
    arm: str, images: int, training: int, tmp_path: Path
) -> None:
    """A hospital's `min_sites` is held against it: who refuses or has no image adds nothing."""
    from test_replies import APP

    what = experiment(quorum=1)
    grid = Noting(APP, {name: tmp_path / name for name in DATA})
    nodes = {name: Node(node, 24, "digest") for node, name in NODES.items()}
    nodes["sued"] = Node(nodes["sued"].id, images, "digest")
    one = RunSpec(what, [arm], [0], (), RunFolder(tmp_path / "run"), Heard())
    claim = Provenance(what.arm(arm).text(), {})
    ArmRounds(one, arm, 0, grid, nodes, claim, torch.device("cpu")).run()
    assert grid.told == {training}


class Shown(Heard):
    """Progress that also remembers who did not answer."""

    def __init__(self) -> None:
        super().__init__()
        self.silent: list[list[str]] = []

    def round_done(self, arm: str, seed: int, round: int, **told: Any) -> None:
        """Remember who is said not to have answered."""
        super().round_done(arm, seed, round, **told)
        self.silent.append(told["missing"])


def test_a_site_that_refused_is_written_down_as_not_asked_and_no_byte_is_counted_for_it(
    tmp_path: Path,
) -> None:
    """It is neither silent nor late: nothing was ever sent to it, and the record says so."""
    from test_replies import APP

    what = experiment(quorum=2)
    told = Shown()
    nodes = {name: Node(node, DATA[name].images("train")) for node, name in NODES.items()}
    lines = {}
    for kind in (Refusing, InProcessGrid):
        place = tmp_path / kind.__name__
        grid = kind(APP, {name: place / name for name in DATA})
        one = RunSpec(what, ["fedprox"], [0], (), RunFolder(place / "run"), told)
        claim = Provenance(what.arm("fedprox").text(), {})
        ArmRounds(one, "fedprox", 0, grid, nodes, claim, torch.device("cpu")).run()
        lines[kind] = RunFolder(place / "run").arm("fedprox", 0).rounds()
    assert told.stopped == {} and not any(told.silent)
    for line, whole in zip(lines[Refusing], lines[InProcessGrid], strict=True):
        assert line["drawn"] == line["answered"] == ["nord", "sued"]
        assert line["missing"] == {HOSTILE: "was not asked: epsilon 9 of 3"}
        assert 3 * line["bytes_down"] == 2 * whole["bytes_down"] > 0
    found = RunFolder(tmp_path / "Refusing" / "run").arm("fedprox", 0).evaluation()
    assert set(found.reasons["global", HOSTILE].values()) == {
        "the site was not asked: epsilon 9 of 3"
    }


def test_a_simulation_knows_of_no_unwilling_site(tmp_path: Any) -> None:
    """Whoever simulates owns all data."""
    assert play(tmp_path, arms=["fedavg"]).stopped == {}
