"""The terminal says what the page says: who took part, steps that differ, the pooled score."""

import io
import shutil
from pathlib import Path

import pytest
from made import experiment, federation, play
from rich.console import Console

from fedrad.data.sites import Federation
from fedrad.report.page import render
from fedrad.report.participation import participation_of, took_part
from fedrad.report.results import results_of
from fedrad.report.tables import results_tables
from fedrad.runs import RunFolder

ARMS = {name: dict(experiment().arms)[name] for name in ("local", "centralized", "fedavg")}
DRAWN = experiment(arms=ARMS, sites_per_round=1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    play(folder, DRAWN)
    return folder


def results(folder: Path, what=DRAWN, sites: Federation | None = None) -> dict:
    sites = sites or federation()
    return results_of(RunFolder(folder), what, sites, command="x", device="cpu")


def terminal(found: dict) -> str:
    console = Console(file=io.StringIO(), width=400)
    for part in results_tables(found):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_who_was_drawn_is_told_on_the_page_and_in_the_terminal(finished: Path) -> None:
    """The counts are those of the record: one site a round, and at home all of them."""
    lines = RunFolder(finished).arm("fedavg", 0).rounds()
    counts = [sum(site in line["answered"] for line in lines) for site in ("nord", "ost", "sued")]
    assert sum(counts) == 4 and all(len(line["drawn"]) == 1 for line in lines)
    told = (
        "Took part: local: all 3 sites in every round; fedavg: "
        "nord in {}, ost in {}, sued in {} of 4 rounds.".format(*counts)
    )
    found = results(finished)
    assert took_part(found) == [told]
    assert told in terminal(found) and told in render(found)
    page = render(found)
    assert "Who took part in each round" in page
    assert found["arms"][2]["participation"]["by_round"]["0"][0]["answered"] == lines[0]["answered"]


def test_a_site_that_did_not_answer_is_named_with_its_rounds_and_reason() -> None:
    every = ["nord", "ost"]
    lines = [
        {"round": n, "drawn": every, "answered": every[:1] if n == 3 else every,
         "missing": {"ost": "no answer within 9 s"} if n == 3 else {}}
        for n in range(1, 6)
    ]  # fmt: skip
    known = participation_of({0: lines})
    assert known is not None
    assert [(s["first"], s["last"]) for s in known["by_round"]["0"]] == [(1, 2), (3, 3), (4, 5)]
    sites = [{"name": name, "held_out": False} for name in every]
    arms = [{"name": "fedavg", "participation": known}]
    assert took_part({"sites": sites, "arms": arms}) == [
        "Took part: fedavg: nord in 5, ost in 4 of 5 rounds (ost was asked 5 times)."
    ]


def test_a_site_that_refused_the_arm_was_not_asked_and_is_not_called_silent() -> None:
    """ "Was asked 3 times" would say that it failed, and that something was sent to it."""
    why = {"ost": "was not asked: PolicyError: ost: epsilon: limit 3, asked 9"}
    lines = [
        {"round": n, "drawn": ["nord"], "answered": ["nord"], "missing": why} for n in range(1, 4)
    ]
    known = participation_of({0: lines})
    assert known is not None and known["drawn"] == {"nord": 3} and known["not_asked"] == why
    sites = [{"name": name, "held_out": False} for name in ("nord", "ost")]
    assert took_part({"sites": sites, "arms": [{"name": "fedavg", "participation": known}]}) == [
        "Took part: fedavg: nord in 3, ost in 0 of 3 rounds "
        "(ost was not asked: PolicyError: ost: epsilon: limit 3, asked 9)."
    ]


def test_of_many_sites_the_range_is_told_and_rounds_are_not_listed() -> None:
    names = [f"s{k:02d}" for k in range(30)]
    lines = [
        {"round": n, "drawn": names[n : n + 20], "answered": names[n : n + 20], "missing": {}}
        for n in range(1, 11)
    ]
    known = participation_of({0: lines})
    assert known is not None and known["by_round"] is None
    sites = [{"name": name, "held_out": False} for name in names]
    told = took_part({"sites": sites, "arms": [{"name": "fedavg", "participation": known}]})
    assert told == ["Took part: fedavg: each of 30 sites in 0 to 10 of 10 rounds."]


def test_a_record_of_an_older_version_says_nothing_of_who_took_part(
    finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    record = tmp_path / "run" / "fedavg" / "seed-0" / "rounds.jsonl"
    record.write_text(record.read_text().replace('"drawn"', '"earlier"'))
    found = results(tmp_path / "run")
    assert found["arms"][2]["participation"] is None and "fedavg" not in took_part(found)[0]
    assert render(found)


def test_steps_that_differ_are_told_arm_by_arm_in_the_terminal_too(finished: Path) -> None:
    found = results(finished)
    budget = found["experiment"]["budget"]
    assert "local 48" in budget and budget in terminal(found) and budget in render(found)


def test_equal_budgets_need_no_sentence_in_the_terminal(tmp_path: Path) -> None:
    what = experiment(arms=ARMS)
    play(tmp_path, what)
    assert "gradient steps" not in terminal(results(tmp_path, what))


def test_the_pooled_score_stands_beside_the_mean_where_the_data_were_dealt_out(
    finished: Path,
) -> None:
    """Sites of a partition are nobody's hospitals: papers tell the score of all test images."""
    found = results(finished)
    assert "all test images" not in terminal(found) and found["partition"]["name"] is None
    found["partition"]["name"] = "dirichlet"
    arm = found["arms"][2]["columns"]["auroc"]
    lines = terminal(found).splitlines()
    top = next(n for n, line in enumerate(lines) if line.startswith("arm "))
    heading, row = lines[top], next(one for one in lines[top:] if one.startswith("fedavg "))
    assert heading.index("mean over sites") < heading.index("all test images")
    assert heading.index("all test images") < heading.index("worst site")
    shown = [f"{arm[key]['value']:.3f}" for key in ("mean", "pooled")]
    assert row.index(shown[0]) < row.index(shown[1])
    page = render(found)
    assert "dealt out to artificial sites (dirichlet)" in page
    assert page.count("All test<br>images pooled") == 2
