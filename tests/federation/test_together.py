"""Sites trained at once give what one after the other gives, and a full memory only slows them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from flwr.app import Context, RecordDict
from made import experiment, federation, play, site
from together import close

from fedrad.config import Experiment
from fedrad.core.store import load_bundle
from fedrad.data.sites import Federation
from fedrad.errors import ConfigError, MissingError
from fedrad.rounds.arm_rounds import RunSpec
from fedrad.rounds.client_app import site_apps
from fedrad.rounds.progress import LoggedProgress
from fedrad.rounds.server import server_app
from fedrad.rounds.site_tasks import Known
from fedrad.runs import RunFolder
from fedrad.runtimes import Concurrency
from fedrad.simulation.batched_training import BatchedTrainer
from fedrad.simulation.in_process import InProcessGrid
from fedrad.training.devices import measured_concurrency as concurrency
from fedrad.training.devices.autotune import Memory
from fedrad.training.devices.concurrency_modes import ConcurrencyMode, Train, trainer_of
from fedrad.training.devices.deferred_training import TrainingCall
from fedrad.training.fit import Fitted

ARMS = ["fedavg", "tuned"]


def shapes(value: Any) -> Any:
    """What is recorded, without the numbers."""
    if isinstance(value, dict):
        return {key: shapes(one) for key, one in value.items()}
    return type(value).__name__


def rounds(folder: Path, arm: str) -> list[dict[str, Any]]:
    lines = (folder / arm / "seed-0" / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def same_run(one: Path, other: Path, arms: Sequence[str], atol: float) -> None:
    """The same models, at the server and at the sites, and records of the same shape."""
    for arm in arms:
        paths = [Path(arm) / "seed-0" / "state.safetensors"]
        paths += [p.relative_to(one) for p in sorted(one.glob(f"sites/*/{arm}/seed-0/*.safet*"))]
        for path in paths:
            ours, theirs = load_bundle(one / path), load_bundle(other / path)
            assert ours.keys() == theirs.keys()
            for name in ours:
                close(ours[name], theirs[name], atol=atol)
        told, alone = rounds(one, arm), rounds(other, arm)
        assert shapes(told) == shapes(alone) and len(told) == len(alone)
        for key in ("round", "steps", "bytes_up", "bytes_down", "missing"):
            assert [line[key] for line in told] == [line[key] for line in alone]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    play(folder, experiment(rounds=2), arms=[*ARMS, "local", "fedprox", "centralized"])
    return folder


def test_a_run_of_stacked_sites_is_the_ordinary_run(alone: Path, tmp_path: Path) -> None:
    """Sites of 5, 3 and 4 steps; also those that go on from weights and memory of their own."""
    arms = [*ARMS, "local", "fedprox", "centralized"]
    told = play(tmp_path, experiment(rounds=2), arms=arms, way=ConcurrencyMode.STACKED)
    same_run(tmp_path, alone, arms, 1e-5)
    assert len(told.notes) == 6 and "fedavg, fit: trained stacked, 3 sites" in told.notes[0]
    # The bits differ: else what is compared here would be the same way twice.
    kept = Path("fedavg/seed-0/state.safetensors")
    assert (tmp_path / kept).read_bytes() != (alone / kept).read_bytes()


class Full:
    """A device's trainers, of which one has room for so many sites only, and what they did."""

    def __init__(self, room: int, way: ConcurrencyMode = ConcurrencyMode.STACKED) -> None:
        self.room, self.way = room, way
        self.groups: list[int] = []

    def __call__(self, way: ConcurrencyMode) -> Train:
        train = trainer_of(way)

        def full(asked: Sequence[TrainingCall]) -> list[Fitted]:
            if len(asked) > self.room:
                raise torch.OutOfMemoryError("full")
            self.groups.append(len(asked))
            return train(asked)

        return full if way is self.way else train


def together(
    folder: Path,
    *,
    arms: Sequence[str] = ARMS,
    what: Experiment | None = None,
    sites: Federation | None = None,
    memory: Memory | None = None,
    trainers: Callable[[ConcurrencyMode], Train] = trainer_of,
    forced: ConcurrencyMode | None = None,
) -> list[str]:
    """Play on a device of whose memory a test says what it likes, and return what was noted."""
    what, sites, run = what or experiment(rounds=2), sites or federation(), RunFolder(folder)
    notes: list[str] = []
    group = BatchedTrainer(
        run, len(sites.sites), forced=forced, memory=memory, note=notes.append, trainers=trainers
    )
    app, door = site_apps(Known(sites), torch.device("cpu"), trainer=group.fit)
    folders = {name: run.site(name) for name in sites.sites}
    grid = InProcessGrid(app, folders, door=door, together=group)
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    server_app(RunSpec(what, arms, what.seeds, (), run, LoggedProgress()))(grid, context)
    return notes


@pytest.mark.parametrize("way", [ConcurrencyMode.GRAPH, ConcurrencyMode.STREAMS])
def test_what_a_gpu_does_otherwise_is_the_ordinary_run(
    alone: Path, tmp_path: Path, way: ConcurrencyMode
) -> None:
    """On a CPU the same code without a graph and without streams, in the place of stacks."""
    together(tmp_path, forced=ConcurrencyMode.STACKED, trainers=lambda _: trainer_of(way))
    same_run(tmp_path, alone, ARMS, 1e-5)


def test_a_full_memory_halves_the_sites_at_once_and_changes_no_result(
    alone: Path, tmp_path: Path
) -> None:
    full = Full(2)
    notes = together(tmp_path, forced=ConcurrencyMode.STACKED, trainers=full)
    same_run(tmp_path, alone, ARMS, 1e-5)
    assert notes[1].endswith("memory was full with 3 sites at once; it goes on with 1")
    assert full.groups == 2 * 2 * 3 * [1], "nobody is trained twice"


def test_where_not_one_site_fits_stacked_the_run_goes_on_one_by_one(
    alone: Path, tmp_path: Path
) -> None:
    """Bit for bit, as it is then the ordinary run."""
    notes = together(tmp_path, arms=["fedavg"], forced=ConcurrencyMode.STACKED, trainers=Full(0))
    same_run(tmp_path, alone, ["fedavg"], 0)
    assert notes[1].endswith("it goes on one site after the other")
    kept = json.loads((tmp_path / "concurrency.json").read_text(encoding="utf-8"))
    assert kept["fedavg/fit"]["way"] == "eager"


def test_the_measured_peak_of_one_site_says_how_many_go_at_once(tmp_path: Path) -> None:
    """Peak 1,000 and 2,600 free bytes, four fifths of them to plan with: 2 sites."""
    played = []

    def peak_of(play: Callable[[], object]) -> int:
        played.append(play())
        return 1_000

    full = Full(99)
    sites = Federation({f"s{k}": site(f"s{k}", 8 + k) for k in range(7)}, ())
    memory = Memory(lambda: 2_600, peak_of)
    (note,) = together(
        tmp_path,
        arms=["fedavg"],
        sites=sites,
        memory=memory,
        forced=ConcurrencyMode.STACKED,
        trainers=full,
    )
    assert "trained stacked, 2 sites at a time" in note and len(played) == 1
    assert full.groups == 2 * [2, 2, 2, 1]


def test_the_fastest_way_is_taken_and_taken_again_when_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ways differ within rounding, so what was chosen once is kept in the run's folder.

    The clock is the test's own: every way takes 50 ms on it, but for the stacked one.
    """
    tried, now = [], [0.0]
    monkeypatch.setattr(concurrency, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def trainers(way: ConcurrencyMode) -> Train:
        def train(asked: Sequence[TrainingCall]) -> list[Fitted]:
            tried.append(way)
            now[0] += 0.001 if way is ConcurrencyMode.STACKED else 0.05
            return trainer_of(way)(asked)

        return train

    (note,) = together(tmp_path, arms=["fedavg"], trainers=trainers)
    assert note.startswith("fedavg, fit: trained stacked, 3 sites at a time (the fastest of eager")
    assert tried.count(ConcurrencyMode.EAGER) == 4 * 3, (
        "three sites by themselves: once to compare, three for time"
    )
    state = tmp_path / "fedavg/seed-0/state.safetensors"
    before, tried[:] = state.read_bytes(), []
    for path in (tmp_path / "fedavg/seed-0").glob("evaluation.*"):
        path.unlink()
    (tmp_path / "fedavg/seed-0/server/round-000002.safetensors").unlink()
    assert together(tmp_path, arms=["fedavg"], trainers=trainers) == []
    assert set(tried) == {ConcurrencyMode.STACKED} and state.read_bytes() == before


def test_where_only_one_way_is_possible_the_note_says_why(alone: Path, tmp_path: Path) -> None:
    """Bit for bit the ordinary run; each site has a loss of its own."""
    local = experiment().local.model_copy(update={"class_weights": "site"})
    what = experiment(rounds=2, local=local.model_dump())
    (note,) = together(tmp_path, arms=["fedavg"], what=what)
    assert note.startswith("fedavg, fit: trained eager, one site at a time (the only way")
    assert "no stacked: each site has class weights of its own" in note
    assert "no graph: needs a CUDA device, found cpu" in note
    play(tmp_path / "alone", what, arms=["fedavg"])
    same_run(tmp_path, tmp_path / "alone", ["fedavg"], 0)


def test_a_site_that_diverges_is_named_as_in_the_ordinary_run(tmp_path: Path) -> None:
    local = experiment().local.model_dump() | {"optimizer": {"name": "sgd", "lr": 1e30}}
    what = experiment(rounds=2, local=local)
    one = play(tmp_path / "one", what, arms=["fedavg"])
    other = play(tmp_path / "other", what, arms=["fedavg"], way=ConcurrencyMode.STACKED)
    assert other.stopped == one.stopped and "round 1" in other.stopped["fedavg"]
    assert together(tmp_path / "auto", arms=["fedavg"], what=what) == []
    reason = json.loads((tmp_path / "auto/fedavg/seed-0/stopped.json").read_text(encoding="utf-8"))
    assert reason == {"reason": one.stopped["fedavg"]}


@pytest.mark.parametrize(
    ("way", "changes", "workers", "told"),
    [
        (ConcurrencyMode.GRAPH, {}, 1, "graph: needs a CUDA device, found --device cpu"),
        (ConcurrencyMode.STREAMS, {}, 1, "streams: needs a CUDA device"),
        (
            ConcurrencyMode.STACKED,
            {},
            2,
            "--workers 2: sites that are trained at once are in one process",
        ),
        (
            ConcurrencyMode.STACKED,
            {"model": {"name": "mlp", "hidden": [8], "dropout": 0.1}},
            1,
            "dropout",
        ),
        (
            ConcurrencyMode.STACKED,
            {"privacy": {"name": "dp_sgd", "epsilon": 8.0}},
            1,
            "differential privacy",
        ),
    ],
)
def test_a_way_that_cannot_be_had_is_refused(
    tmp_path: Path, way: ConcurrencyMode, changes: dict[str, Any], workers: int, told: str
) -> None:
    with pytest.raises((ConfigError, MissingError), match=told):
        play(tmp_path, experiment(**changes), arms=["fedavg"], way=way, workers=workers)


def test_the_command_names_the_ways_that_there_are() -> None:
    assert [one.value for one in Concurrency] == ["auto", *(way.value for way in ConcurrencyMode)]


@pytest.mark.gpu
@pytest.mark.parametrize(
    "way", [ConcurrencyMode.GRAPH, ConcurrencyMode.STREAMS, ConcurrencyMode.STACKED, None]
)
def test_a_run_on_a_gpu_is_the_ordinary_run_whatever_the_way(
    alone: Path, tmp_path: Path, way: ConcurrencyMode | None
) -> None:
    told = play(tmp_path, experiment(rounds=2), arms=[*ARMS, "fedprox"], device="cuda", way=way)
    same_run(tmp_path, alone, [*ARMS, "fedprox"], 1e-3)
    assert len(told.notes) == 4 and all("trained" in note for note in told.notes)
