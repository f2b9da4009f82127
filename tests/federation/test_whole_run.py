"""At the roll call a site says which arms it will not play to their end."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made
import pytest
import torch
from leaving import POLICY, context, in_flowers_runtime, question, site_file

from fedrad.config import Experiment, SiteFile
from fedrad.deployment.site.audit import AuditLog
from fedrad.deployment.site.guard import guarded
from fedrad.deployment.site.privacy_guard import GuardLedger
from fedrad.privacy.ledger import Ledger
from fedrad.privacy.site_account import SiteAccount
from fedrad.rounds.client_app import client_app
from fedrad.rounds.records import config_of
from fedrad.rounds.site_tasks import Known

DP = {"name": "dp_sgd", "noise": 1.0}
ALLOW = POLICY["allow"] | {"algorithms": ["fedavg", "local"]}


@pytest.fixture(autouse=True)
def _runtime() -> Iterator[None]:
    in_flowers_runtime()
    yield


def refused(
    folder: Path, what: Experiment, asked: dict[str, Any] | None = None, **policy: Any
) -> dict[str, str]:
    """What nord says at the roll call; {} where it says nothing of refusals."""
    site, source = site_file(folder, data="phantom", **policy), Known(made.federation())
    app = client_app(source, torch.device("cpu"))
    answer = guarded(app, site, source, account(folder, site))
    reply = answer(question(what, "describe", **(asked or {})), context(folder))
    assert not reply.has_error(), reply.error.reason
    return json.loads(str(config_of(reply.content).get("refuses", "{}")))


def account(folder: Path, site: SiteFile) -> GuardLedger:
    ledger = Ledger(site.state_dir)
    own = SiteAccount(ledger, ceiling=site.epsilon or 1e9, delta=1e-5)
    return GuardLedger(own, lambda _: made.federation().sites["nord"])


def test_a_run_that_fits_is_not_spoken_of(tmp_path: Path) -> None:
    """An absent key is a yes; arms that pool the data are never asked of a site."""
    assert refused(tmp_path, made.experiment()) == {}


def test_each_arm_that_a_rule_refuses_is_named_with_the_rule(tmp_path: Path) -> None:
    found = refused(tmp_path, made.experiment(), allow=ALLOW)
    assert set(found) == {"fedprox", "tuned", "half"}
    assert found["fedprox"] == (
        "PolicyError: nord: allow.algorithms: limit fedavg, local, asked fedprox"
    )


def test_the_hospitals_log_says_which_arms_it_refused_and_why(tmp_path: Path) -> None:
    """Its people learn it at home, and not from the coordinator's report."""
    refused(tmp_path, made.experiment(), allow=ALLOW)
    log = AuditLog(site_file(tmp_path, data="phantom").state_dir / "audit.jsonl")
    (line,) = log.entries()
    assert (line["action"], line["decision"]) == ("describe", "sent")
    why = "nord refuses fedprox: allow.algorithms: limit fedavg, local, asked fedprox"
    assert why in line["reason"] and "nord refuses half: " in line["reason"]
    refused(tmp_path / "fits", made.experiment())
    log = AuditLog(site_file(tmp_path / "fits", data="phantom").state_dir / "audit.jsonl")
    assert [line["reason"] for line in log.entries()] == [""]


def test_an_update_of_too_few_patients_is_known_at_the_roll_call(tmp_path: Path) -> None:
    local = {"steps": 1, "batch": 2}
    found = refused(tmp_path, made.experiment(local=local))
    assert "min_patients: limit 5, asked an update from 1 step of 2" in found["fedavg"]
    # What an arm trains at home leaves at the end, as the site's own model.
    assert "min_patients" in found["local"]


def private(rounds: int, seeds: list[int]) -> Experiment:
    arms = {
        "one": {"algorithm": "fedavg", "privacy": DP},
        "two": {"algorithm": "fedavg", "privacy": {**DP, "noise": 1.5}},
    }
    actions = {"rounds": rounds, "seeds": seeds, "arms": arms}
    return made.experiment(**actions, primary={"arm": "one", "against": "two"})


def spent(folder: Path, what: Experiment, arms: list[str]) -> float:
    site = site_file(folder, data="phantom")
    asked = [what.arm(name) for name in arms]
    return account(folder, site).project_run(asked, seeds=len(what.seeds))


def test_all_rounds_and_seeds_of_all_arms_are_held_against_the_ceiling(tmp_path: Path) -> None:
    """A first round that fits says nothing: in mid-run a refusal costs all others their epsilon."""
    what = private(rounds=6, seeds=[0, 1])
    first, both = spent(tmp_path, what, ["one"]), spent(tmp_path, what, ["one", "two"])
    assert spent(tmp_path, private(1, [0]), ["one"]) < first < both
    plain = {
        "allow": POLICY["allow"] | {"actions": ["describe", "fit", "test", "tune", "validate"]}
    }
    for ceiling, names in ((both + 0.01, set()), (both - 0.01, {"two"}), (first - 0.01, {"one"})):
        found = refused(tmp_path / f"{ceiling}", what, epsilon=ceiling, **plain)
        assert names <= set(found), (ceiling, found)
        assert names or not found
    assert "epsilon: limit" in found["one"] and "after all rounds and seeds" in found["one"]


def test_only_the_arms_and_seeds_that_are_going_to_run_are_held_against_the_ceiling(
    tmp_path: Path,
) -> None:
    """With --arm two, a ceiling that `two` fits under is not passed by what `one` would take."""
    what = private(rounds=6, seeds=[0, 1])
    two = spent(tmp_path, what, ["two"])
    seed = spent(tmp_path, private(6, [0]), ["two"])
    allow = {
        "allow": POLICY["allow"] | {"actions": ["describe", "fit", "test", "tune", "validate"]}
    }
    assert seed < two < spent(tmp_path, what, ["one", "two"])
    for name, ceiling, asked, refuses in (
        ("all", two + 0.01, {}, True),
        ("arm", two + 0.01, {"arms": ["two"]}, False),
        ("less", two - 0.01, {"arms": ["two"]}, True),
        ("seed", seed + 0.01, {"arms": ["two"], "seeds": [1]}, False),
        ("rule", two + 0.01, {"arms": ["one"]}, True),
    ):
        found = refused(tmp_path / name, what, asked, epsilon=ceiling, **allow)
        assert bool(found) == refuses, (name, found)
        assert set(found) <= set(asked.get("arms", ["one", "two"]))


def test_whoever_names_fewer_arms_than_it_plays_gains_nothing(tmp_path: Path) -> None:
    """Each message that trains is held against the ledger, whatever was said at the roll call."""
    what = private(rounds=6, seeds=[0])
    ceiling = spent(tmp_path, what, ["two"]) + 0.01
    site, source = site_file(tmp_path, data="phantom", epsilon=ceiling), Known(made.federation())
    guard = account(tmp_path, site)
    app = client_app(source, torch.device("cpu"), account=guard.account)
    answer = guarded(app, site, source, guard)
    told = answer(question(what, "describe", arms=["two"], seeds=[0]), context(tmp_path))
    assert "refuses" not in config_of(told.content)
    replies = [
        answer(question(what, "fit", arm=arm, number=number), context(tmp_path))
        for arm in ("one", "two")
        for number in range(1, 7)
    ]
    assert not replies[0].has_error() and replies[-1].has_error()
    assert replies[-1].error.reason.startswith("PolicyError: nord: epsilon")
    assert guard.account.spent().epsilon <= ceiling


@pytest.mark.parametrize(
    "asked",
    [
        {"arms": []},
        {"arms": ["three"]},
        {"arms": ["one", "one"]},
        {"arms": "one"},
        {"seeds": [7]},
        {"seeds": [True]},
        {"seeds": 0},
    ],
)
def test_arms_and_seeds_that_are_not_the_experiments_are_no_question(
    tmp_path: Path, asked: dict[str, Any]
) -> None:
    """What is asked means one thing to all, or nothing is answered."""
    site, source = site_file(tmp_path, data="phantom"), Known(made.federation())
    app = client_app(source, torch.device("cpu"))
    answer = guarded(app, site, source, account(tmp_path, site))
    reply = answer(question(private(1, [0, 1]), "describe", **asked), context(tmp_path))
    assert "are not some of the experiment's" in (reply.error.reason or "")


def test_rounds_that_are_booked_count_once_when_a_run_goes_on(tmp_path: Path) -> None:
    """Three of four rounds are in the ledger: the run has one before it, and fits as it did."""
    what = private(rounds=4, seeds=[0])
    site = site_file(tmp_path, data="phantom")
    guard = account(tmp_path, site)
    whole = guard.project_run([what.arm("one")], seeds=1)
    from fedrad.training.dp.private_arm import private_at

    data, arm = made.federation().sites["nord"], what.arm("one")
    own = private_at(arm, data, guard.account)
    assert own is not None
    for number in (1, 2, 3):
        guard.account.spend(own.charge(data, round=number, steps=own.plan.steps))
    again = account(tmp_path, site).project_run([arm], seeds=1)
    assert again == pytest.approx(whole, rel=1e-6)


def test_reasons_are_of_bounded_length(tmp_path: Path) -> None:
    arms = {f"a{'x' * 60}{n}": {"algorithm": "fedprox"} for n in range(80)}
    arms = {name: {"algorithm": {"name": "fedprox", "mu": 0.1}} for name in arms}
    first, second, *_ = arms
    what = made.experiment(arms=arms, primary={"arm": first, "against": second})
    found = refused(tmp_path, what, allow=ALLOW)
    assert len(found) == 64 and all(len(why) <= 200 for why in found.values())


def test_a_site_that_is_held_out_is_asked_only_whether_it_tests(tmp_path: Path) -> None:
    """It trains nothing, so no rule about training refuses an arm there."""
    policy = {"allow": POLICY["allow"] | {"actions": ["describe", "test"]}, "epsilon": 0.001}
    held_out = made.experiment(held_out_sites=("nord",), privacy=DP)
    assert refused(tmp_path, made.experiment(privacy=DP), **policy) != {}
    assert refused(tmp_path, held_out, **policy) == {}
