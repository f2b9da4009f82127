"""Not one question of an honest run is refused for its place, its thresholds or its number."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import made
import pytest
import torch
from flwr.app import ConfigRecord, Context, Error, Message
from split_arms import split_experiment
from test_guard import _runtime as _runtime  # messages need Flower's task
from test_guard import context, lines, site

from fedrad.algorithms.base import PERSONAL
from fedrad.config import Experiment, SiteFile
from fedrad.core.state import State
from fedrad.core.store import Versions
from fedrad.data.sites import Federation
from fedrad.deployment.frame_spec import infer_frame_spec
from fedrad.deployment.handshake import version_info
from fedrad.deployment.site.evaluation_limits import EvaluationLimits
from fedrad.deployment.site.evaluation_places import check_place
from fedrad.deployment.site.guard import guarded
from fedrad.deployment.site.message_checks import check_thresholds
from fedrad.deployment.site.parsed_message import TaskRequest
from fedrad.deployment.site.stream_guard import FrameFilter
from fedrad.errors import FedradError, outward_of
from fedrad.metrics.site_result import hospital_disclosure
from fedrad.rounds.arm_rounds import RunSpec
from fedrad.rounds.client_app import client_app, memory_folder, site_apps
from fedrad.rounds.records import bundle_of, config_of
from fedrad.rounds.server import server_app
from fedrad.runs import RunFolder
from fedrad.simulation.in_process import InProcessGrid
from fedrad.simulation.launch import Known

CPU = torch.device("cpu")
HOSPITAL = hospital_disclosure()
METRICS = ("auroc", {"name": "sensitivity", "specificity": 0.9})
ARMS = ["local", "fedavg", "tuned"]
Silent = Mapping[str, tuple[str, int]]
"""Site -> the action, and the round from which on, that it does not answer."""


def hospital(folder: Path, name: str) -> SiteFile:
    return site(folder / "hospitals" / name, name=name, max_upload_mb=20)


def run(
    folder: Path,
    what: Experiment,
    sites: Federation,
    arms: list[str] = ARMS,
    *,
    out: str = "run",
    silent: Silent | None = None,
) -> made.Told:
    """A whole run in process, a guard around every site, as a hospital has it."""
    kept, known, off = RunFolder(folder / out), Known(sites), silent or {}

    def own(name: str, task: TaskRequest) -> State:
        memory = Versions(memory_folder(kept.site(name), task.arm, task.seed))
        return memory.before(task.round).get(PERSONAL, {})

    guards = {
        name: guarded(
            client_app(known, CPU, disclosure=HOSPITAL),
            hospital(folder, name),
            known,
            own=lambda task, name=name: own(name, task),
        )
        for name in sites.sites
    }

    def app(message: Message, node: Context) -> Message:
        name, config = str(node.node_config["site"]), config_of(message.content)
        action, since = off.get(name, ("", 0))
        if config["action"] == action and int(config["server-round"]) >= since:
            return Message(Error(1, "gone"), reply_to=message)
        message.content["config"] = ConfigRecord({**config, **version_info()})
        return guards[name](message, node)

    told = made.Told()
    grid = InProcessGrid(app, {name: kept.site(name) for name in sites.sites})  # type: ignore[arg-type]
    play = RunSpec(what, arms, what.seeds, sites.held_out, kept, told)
    server_app(play)(grid, context(folder))
    return told


def remembered(folder: Path, name: str) -> str:
    return (hospital(folder, name).state_dir / "evaluated.jsonl").read_text()


def answered(folder: Path, name: str) -> int:
    """How many tests a site has answered."""
    found = lines(folder / "hospitals" / name)
    return sum((line["action"], line["decision"]) == ("test", "sent") for line in found)


def refusals(folder: Path, name: str) -> list[str]:
    return [
        line["reason"]
        for line in lines(folder / "hospitals" / name)
        if line["decision"] in ("refused", "failed")
    ]


@pytest.mark.parametrize(
    ("changes", "held_out"),
    [
        ({}, ()),
        ({"metrics": METRICS}, ()),
        ({"validate_every": 3, "metrics": METRICS}, ()),
        ({"validate_every": 0}, ()),
        ({"metrics": METRICS, "held_out_sites": ("sued",)}, ("sued",)),
        ({"seeds": (0, 1)}, ()),
    ],
    ids=["plain", "thresholds", "some rounds", "no validation", "held out", "two seeds"],
)
def test_a_run_with_a_matrix_is_answered_to_its_end(
    tmp_path: Path, changes: dict[str, Any], held_out: tuple[str, ...]
) -> None:
    """Local and fine-tuned arms have each site test each other's model."""
    sites = made.federation(*held_out)
    told = run(tmp_path, made.experiment(**changes), sites)
    assert told.stopped == {}
    for name in sites.sites:
        assert refusals(tmp_path, name) == []
        actions = {line["action"] for line in lines(tmp_path / "hospitals" / name)}
        assert "test" in actions


def test_an_arm_that_is_trained_anew_by_other_sites_is_answered_again_and_no_third_time(
    tmp_path: Path,
) -> None:
    """The last round ends in another model each time, and so do all metrics."""
    what = made.experiment(metrics=METRICS, quorum=2)
    played = {"one": {"sued": ("fit", 4)}, "two": {"ost": ("fit", 4)}, "three": {}}
    stopped = {
        out: run(tmp_path, what, made.federation(), ["fedavg"], out=out, silent=silent).stopped
        for out, silent in played.items()
        if out != "three"
    }
    assert stopped == {"one": {}, "two": {}}
    assert refusals(tmp_path, "nord") == []
    third = run(tmp_path, what, made.federation(), ["fedavg"], out="three").stopped
    assert "evaluations: limit 2 models for one round's tune, asked one more" in third["fedavg"]


def test_a_run_that_goes_on_after_a_crash_asks_the_same(tmp_path: Path) -> None:
    """Its last round is forgotten, as by a crash before it was written, and played again."""
    what, sites = made.experiment(metrics=METRICS), made.federation()
    run(tmp_path, what, sites, ARMS)
    seen = {
        n: (hospital(tmp_path, n).state_dir / "evaluated.jsonl").read_text() for n in sites.sites
    }
    for arm in ARMS:
        folder = tmp_path / "run" / arm / "seed-0"
        for name in ("state.safetensors", "evaluation.json", "evaluation.safetensors"):
            (folder / name).unlink(missing_ok=True)
        (folder / "server" / "round-000004.safetensors").unlink(missing_ok=True)
        kept = (folder / "rounds.jsonl").read_text().splitlines(keepends=True)
        (folder / "rounds.jsonl").write_text("".join(kept[:-1]))
    told = run(tmp_path, what, sites, ARMS)
    assert {number for _, _, number in told.rounds} == {4} and told.stopped == {}
    for name in sites.sites:
        assert refusals(tmp_path, name) == []
        assert remembered(tmp_path, name) == seen[name]


def test_a_site_lost_in_the_last_evaluation_is_no_harm(
    tmp_path: Path,
) -> None:
    """With a quorum all are asked once more without it; also where the arm is trained anew."""
    what, sites = made.experiment(metrics=METRICS, quorum=2), made.federation()
    lost, anew = {"sued": ("test", 5)}, {"ost": ("fit", 4)}
    told = run(tmp_path, what, sites, ["fedavg"], silent=lost)
    assert told.stopped == {} and refusals(tmp_path, "nord") == []
    assert answered(tmp_path, "nord") == 2
    told = run(tmp_path, what, sites, ["fedavg"], silent=anew, out="anew")
    assert told.stopped == {} and refusals(tmp_path, "nord") == []
    assert answered(tmp_path, "nord") == 3


@pytest.mark.parametrize("arm", ["v1", "v2", "v3", "relay", "narrow", "tuned"])
def test_a_cut_network_s_run_is_answered_to_its_end_and_asks_the_same_again(
    tmp_path: Path, arm: str
) -> None:
    """A stream that broke is played again; so is a whole run, whose frames are the same bits."""
    what, sites = split_experiment(metrics=METRICS), made.federation()
    files = {name: hospital(tmp_path, name) for name in sites.sites}
    asked: list[str] = []
    refused: list[str] = []

    def seen(name: str) -> EvaluationLimits:
        return EvaluationLimits(files[name].state_dir / "evaluated.jsonl")

    for out in ("one", "two"):
        questions = {name: seen(name) for name in sites.sites}
        kept = RunFolder(tmp_path / out)
        app, door = site_apps(Known(sites), CPU, disclosure=HOSPITAL)

        def checked(message: Message, node: Context, heard: str | None) -> None:
            config = config_of(message.content)
            name, action = str(node.node_config["site"]), str(config["action"])
            part, sent = what.arm(str(config["arm"])), bundle_of(message.content)
            number = int(config["server-round"])
            task = TaskRequest(1, 0, what, what.digest(), arm, 0, number, action, sent)
            memory = Versions(memory_folder(kept.site(name), arm, 0)).before(number)  # noqa: B023
            try:
                check_place(files[name], part, task.actions, number)
                check_thresholds(files[name], part, task.actions, sent)
                own = memory.get(PERSONAL, {})
                questions[name].check(files[name], part, task, lambda _: own, heard)  # noqa: B023
            except FedradError as error:
                refused.append(outward_of(error))
            asked.append(action)

        def watched(message: Message, node: Context) -> Any:
            config = config_of(message.content)
            name, gate = str(node.node_config["site"]), FrameFilter()
            streamed = infer_frame_spec(
                what.arm(arm), str(config["action"]), sites.sites[name].images
            )
            assert streamed is not None
            gate.allow(name, streamed, lambda: None)
            reply = yield from gate(door(message, node))  # noqa: B023
            checked(message, node, gate.heard)
            return reply

        def plain(message: Message, node: Context) -> Message:
            if "arm" in config_of(message.content):
                checked(message, node, None)
            return app(message, node)  # noqa: B023

        folders = {name: kept.site(name) for name in sites.sites}
        grid = InProcessGrid(plain, folders, door=watched)  # type: ignore[arg-type]
        server_app(RunSpec(what, [arm], what.seeds, (), kept, made.Told()))(grid, context(tmp_path))
    assert refused == []
    wanted = {"test", "validate"} if arm == "tuned" else {"split-test", "split-tune"}
    assert wanted <= set(asked)
    places = (files["nord"].state_dir / "evaluated.jsonl").read_text().splitlines()
    assert len(places) == len(set(places)) > 3
