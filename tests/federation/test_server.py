"""Who takes part in a round, what a quorum allows, and what stops a run."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made import experiment, federation, play

from fedrad.core.store import Versions
from fedrad.data.sites import Federation
from fedrad.errors import ConfigError, RunError
from fedrad.runs import Evaluation, RunFolder
from fedrad.training.local import LocalTask

SITES = ("nord", "ost", "sued")


def evaluation(folder: Path, arm: str) -> Evaluation:
    return RunFolder(folder).arm(arm, 0).evaluation()


def kept(folder: Path, arm: str, site: str) -> list[int]:
    """The rounds after which a site kept something."""
    return Versions(RunFolder(folder).site(site) / arm / "seed-0").rounds()


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Every (round, site) that was trained."""
    seen: list[tuple[int, str]] = []
    plain = LocalTask.fit

    def fit(task: LocalTask, *args: object, **kwargs: object) -> object:
        seen.append((int(str(kwargs["round"])), task.site))
        return plain(task, *args, **kwargs)

    monkeypatch.setattr(LocalTask, "fit", fit)
    return seen


def test_alone_every_site_trains_in_every_round_however_few_are_drawn(
    tmp_path: Path, trained: list[tuple[int, str]]
) -> None:
    """A draw saves the common model's traffic; a hospital alone has no reason to pause."""
    play(tmp_path, experiment(sites_per_round=1), arms=["local"])
    assert sorted(trained) == [(number, site) for number in range(1, 5) for site in SITES]
    play(tmp_path / "all", experiment(), arms=["local"])
    for place, cell in evaluation(tmp_path, "local").cells.items():
        other = evaluation(tmp_path / "all", "local").cells[place]
        assert all(np.array_equal(cell[name], other[name]) for name in cell)


def test_fine_tuning_is_at_every_site_and_the_rounds_before_it_are_drawn(
    tmp_path: Path, trained: list[tuple[int, str]]
) -> None:
    """A site that was never drawn starts its own model from the common one."""
    tuned = {"algorithm": "fedavg", "wrap": [{"name": "finetune", "rounds": 2}]}
    arms = experiment().arms | {"tuned": tuned}
    play(tmp_path, experiment(sites_per_round=1, arms=arms), arms=["tuned"])
    by_round = [sorted(site for at, site in trained if at == number) for number in range(1, 5)]
    assert [len(sites) for sites in by_round[:2]] == [1, 1]
    assert by_round[2:] == [list(SITES), list(SITES)]
    assert all(kept(tmp_path, "tuned", site) == [3, 4] for site in SITES)
    assert {f"personal:{site}" for site in SITES} <= {
        model for model, _ in evaluation(tmp_path, "tuned").cells
    }


def failing(monkeypatch: pytest.MonkeyPatch, name: str, when: Callable[[LocalTask], bool]) -> None:
    """Have a method of a site's task fail, with a text that must not leave the site."""
    plain = getattr(LocalTask, name)

    def broken(task: LocalTask, *args: object, **kwargs: object) -> object:
        if when(task) and kwargs.get("split", "test") == "test":
            raise RuntimeError("/home/patients/Doe, John.png")
        return plain(task, *args, **kwargs)

    monkeypatch.setattr(LocalTask, name, broken)


@pytest.mark.parametrize("workers", [1, 2])
def test_with_a_quorum_the_last_word_is_over_those_that_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """The absent site's cells say why; all others, also the pooled ones, are as if it was not."""
    failing(monkeypatch, "predict", lambda task: task.site == "ost")
    for arm, models in (("fedavg", ["global"]), ("local", ["personal:ost"])):
        told = play(tmp_path, experiment(quorum=2), arms=[arm], workers=workers)
        assert told.stopped == {}
        found = evaluation(tmp_path, arm)
        for model in models:
            assert all(np.isnan(values).all() for values in found.cells[model, "ost"].values())
            assert found.reasons[model, "ost"] == dict.fromkeys(
                ("auroc", "brier"),
                "the site did not answer the final evaluation (RuntimeError)",
            )
        own = {"fedavg": "global", "local": "personal:nord"}[arm]
        assert not np.isnan(found.cells[own, "nord"]["brier"][0])
        assert found.facts["absent"] == {"ost": "RuntimeError"}
        assert "ost" not in found.counts and "nord" in found.counts


def test_without_a_quorum_the_last_word_needs_every_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, "predict", lambda task: task.site == "ost")
    told = play(tmp_path, arms=["fedavg"])
    assert "2 of 3 sites answered" in told.stopped["fedavg"]


def test_fewer_than_the_quorum_have_no_last_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, "predict", lambda task: task.site != "nord")
    told = play(tmp_path, experiment(quorum=2), arms=["fedavg"])
    assert "1 of 3 sites answered" in told.stopped["fedavg"]


def test_a_held_out_site_that_is_absent_costs_its_own_cell_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, "predict", lambda task: task.site == "sued")
    what = experiment(quorum=2, held_out_sites=["sued"])
    play(tmp_path / "absent", what, federation("sued"), arms=["fedavg"])
    monkeypatch.undo()
    play(tmp_path / "present", what, federation("sued"), arms=["fedavg"])
    absent, present = (evaluation(tmp_path / name, "fedavg") for name in ("absent", "present"))
    assert np.isnan(absent.cells["global", "sued"]["auroc"]).all()
    for place in (("global", "nord"), ("global", "ost"), ("global", "pooled")):
        for metric, values in absent.cells[place].items():
            np.testing.assert_array_equal(values, present.cells[place][metric])


def test_a_quorum_counts_among_the_sites_that_were_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the two that were drawn may be missing with a quorum of one; none with two."""
    plain = LocalTask.fit

    def fit(task: LocalTask, *args: object, **kwargs: object) -> object:
        if task.site == "ost":
            raise RuntimeError
        return plain(task, *args, **kwargs)

    monkeypatch.setattr(LocalTask, "fit", fit)
    drawn = experiment(sites_per_round=2, quorum=1)
    assert play(tmp_path / "one", drawn, arms=["fedavg"]).stopped == {}
    lines = (tmp_path / "one" / "fedavg" / "seed-0" / "rounds.jsonl").read_text().splitlines()
    missing = [sorted(json.loads(line)["missing"]) for line in lines]
    assert ["ost"] in missing and [] in missing
    told = play(tmp_path / "two", experiment(sites_per_round=2, quorum=2), arms=["fedavg"])
    assert "1 of 2 sites answered" in told.stopped["fedavg"]


@pytest.mark.parametrize("key", ["quorum", "sites_per_round"])
def test_a_number_of_sites_that_cannot_be_is_told_before_the_first_round(
    tmp_path: Path, key: str
) -> None:
    """Deployed, the sites are known only once they have come."""
    with pytest.raises(ConfigError, match=f"{key}: found 4, but 3 sites train: nord, ost, sued"):
        play(tmp_path, experiment(**{key: 4}))
    assert not tmp_path.joinpath("fedavg").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_at_a_site_stops_the_run_with_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """The sites' folders are the run's in a simulation: who started it makes room and goes on."""

    def full(*_: object) -> None:
        raise RunError("round-000001.safetensors could not be written (No space left on device)")

    with monkeypatch.context() as patch:
        patch.setattr(Versions, "write", full)
        with pytest.raises(
            RunError, match=r"round 1, fit: .*nord, ost, sued: RunError: .*No space"
        ):
            play(tmp_path, arms=["local"], workers=workers)
    assert play(tmp_path, arms=["local"], workers=workers).stopped == {}


def test_one_site_alone_with_a_full_disk_is_done_without_where_a_quorum_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = LocalTask.fit

    def fit(task: LocalTask, *args: object, **kwargs: object) -> object:
        if task.site == "ost":
            raise RunError("round-000001.safetensors could not be written (No space left)")
        return plain(task, *args, **kwargs)

    monkeypatch.setattr(LocalTask, "fit", fit)
    assert play(tmp_path, experiment(quorum=2), arms=["fedavg"]).stopped == {}


def test_a_federation_of_one_needs_no_draw(tmp_path: Path) -> None:
    alone = Federation({"nord": federation().sites["nord"]}, ())
    assert play(tmp_path, experiment(sites_per_round=1), alone, arms=["fedavg"]).stopped == {}
