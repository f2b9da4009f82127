"""Privacy through the whole house: from the YAML to results, and what a hospital refuses."""

import json
from pathlib import Path

import pytest
import torch
from made import experiment, federation, play

from fedrad.assemble import check_arms, check_privacy, initial_state
from fedrad.config import Experiment, from_text
from fedrad.core.store import load_bundle
from fedrad.deployment.reply_spec import infer_reply_spec, specs_of
from fedrad.deployment.site.privacy_guard import GuardLedger
from fedrad.errors import ConfigError
from fedrad.privacy.accountant import compose_uses
from fedrad.privacy.ledger import Ledger
from fedrad.privacy.site_account import SiteAccount
from fedrad.report.privacy import privacy_of
from fedrad.report.results import write_results
from fedrad.rounds.client_app import client_app
from fedrad.rounds.records import bundle_of, numbers_of, pack
from fedrad.rounds.site_tasks import Known
from fedrad.runs import RunFolder
from fedrad.simulation.in_process import InProcessGrid
from fedrad.training.dp.private_arm import private_at

DP = {"name": "dp_sgd", "noise": 1.0, "clip": 1.0}
ARMS = {
    "open": {"algorithm": "fedavg"},
    "private": {"algorithm": "fedavg", "privacy": DP},
    "prox": {"algorithm": {"name": "fedprox", "mu": 0.1}, "privacy": DP},
    "tuned": {"algorithm": "fedavg", "wrap": [{"name": "finetune", "rounds": 1}], "privacy": DP},
    "half": {"algorithm": "fedavg", "wrap": ["float16_updates"], "privacy": DP},
    "alone": {"algorithm": "local", "privacy": DP},
    "pool": {"algorithm": "centralized", "privacy": DP},
    "central": {"algorithm": "fedavg", "wrap": [{"name": "central_dp", "repeatable": True}]},
}


def private(**changes: object) -> Experiment:
    """The made experiment with private arms, two rounds."""
    options: dict = {"arms": ARMS, "rounds": 2, "primary": {"arm": "private", "against": "open"}}
    return experiment(**options | changes)


def final(folder: Path, arm: str) -> dict:
    return load_bundle(folder / arm / "seed-0" / "state.safetensors")


def test_every_arm_that_may_be_private_plays_to_the_end(tmp_path: Path) -> None:
    """With fedprox, fine-tuning, alone and pooled; the record says what each site promises."""
    told = play(tmp_path, private())
    assert told.stopped == {}
    results = write_results(RunFolder(tmp_path), private(), federation(), command="", device="cpu")
    rows = json.loads((tmp_path / "results.json").read_text())["privacy"]["sites"]
    assert {(r["arm"], r["site"]) for r in rows} == {
        *(
            (a, s)
            for a in ("private", "prox", "tuned", "half", "alone")
            for s in ("nord", "ost", "sued")
        ),
        ("pool", "pooled"),
    }
    for row in rows:
        assert row["unit"] == "patient" and row["accountant"] == "prv"
        assert row["epsilon"] > 0 and 0 < row["delta"] <= 1e-5
    one = next(r for r in rows if (r["arm"], r["site"]) == ("private", "ost"))
    other = next(r for r in rows if (r["arm"], r["site"]) == ("private", "nord"))
    assert one["epsilon"] > other["epsilon"], "small sites pay more"
    page = (tmp_path / "report.html").read_text()
    assert "What was promised to a patient" in page and "take it off" in page
    assert "epsilon 6.57" in " ".join(results["privacy"]["statements"])


def test_a_simulated_private_run_has_the_same_bits_in_any_number_of_processes(
    tmp_path: Path,
) -> None:
    """Noise follows from run, site and round; without privacy the weights are others."""
    arms = {key: ARMS[key] for key in ("open", "private", "central")}
    for workers in (1, 2):
        play(tmp_path / f"{workers}", private(arms=arms), workers=workers)
    for arm in arms:
        one, other = (final(tmp_path / f"{n}", arm)["model"] for n in (1, 2))
        assert all(torch.equal(one[key], other[key]) for key in one)
    plain, noised = (final(tmp_path / "1", arm)["model"] for arm in ("open", "private"))
    assert not any(torch.equal(plain[key], noised[key]) for key in plain)


def _asked(account: object, action: str = "fit") -> object:
    """A hospital's answer to one message, with what its process charges to."""
    what, text = private(), private().text()
    app = client_app(Known(federation()), torch.device("cpu"), account=account)
    grid = InProcessGrid(app, {"nord": Path("unused")})
    content = pack(
        {"model": initial_state(what.arm("private"), 0)},
        config={
            "experiment": text,
            "arm": "private",
            "seed": 0,
            "server-round": 1,
            "action": action,
        },
    )
    node = next(iter(grid.get_node_ids()))
    return grid.answer(grid.create_message(content, "train", node, "1"))


def test_a_process_without_an_account_trains_nothing_private() -> None:
    """Predictable noise must be asked for by name, or a hospital might get it by default."""
    answer = _asked(None)
    assert answer.has_error()
    assert "keeps no account of epsilon" in answer.error.reason


def test_a_hospital_refuses_a_round_past_its_ceiling_and_has_spent_nothing(tmp_path: Path) -> None:
    """The same answer goes over gRPC; the reason travels, the data do not."""
    account = SiteAccount(Ledger(tmp_path), ceiling=0.1, delta=1e-5)
    answer = _asked(account)
    assert answer.has_error() and "ceiling is 0.1" in answer.error.reason
    assert Ledger(tmp_path).entries() == ()
    generous = SiteAccount(Ledger(tmp_path), ceiling=50, delta=1e-5)
    reply = _asked(generous)
    assert numbers_of(reply.content) == {"num-examples": 40.0, "steps": 5.0}
    assert [e.charge.round for e in Ledger(tmp_path).entries()] == [1]


def test_a_private_answer_is_what_guard_and_coordinator_expect(tmp_path: Path) -> None:
    """Both know it without training; a loss that is never told must not be waited for."""
    reply = _asked(SiteAccount(Ledger(tmp_path), ceiling=50, delta=1e-5))
    arm = private().arm("private")
    look = infer_reply_spec(arm, ["fit"], {"model": initial_state(arm, 0)}, {}, round=1)
    answered = specs_of(bundle_of(reply.content)), numbers_of(reply.content)
    assert look.difference(*answered) is None
    openly = private().arm("open")
    other = infer_reply_spec(openly, ["fit"], {"model": initial_state(openly, 0)}, {}, round=1)
    assert other.difference(*answered) == "number loss-sum is missing"


def test_the_guard_s_projection_is_what_training_then_books(tmp_path: Path) -> None:
    """Projecting writes nothing; what is not private costs infinitely; evaluations cost nothing."""
    account = SiteAccount(Ledger(tmp_path), ceiling=50, delta=1e-5)
    guard = GuardLedger(account, lambda _: federation().sites["nord"])
    arm, openly = private().arm("private"), private().arm("open")

    def project(which: Experiment, action: str) -> float:
        return guard.project(which, seed=0, round=1, action=action)

    expected = project(arm, "fit")
    assert account.spent().epsilon == 0 < expected
    assert project(openly, "fit") == project(arm, "count") == float("inf")
    assert project(arm, "validate") == 0 and project(openly, "share") == float("inf")
    _asked(account)
    assert account.spent().epsilon == expected < project(arm, "fit")


def test_a_private_site_says_its_size_to_the_nearest_ten() -> None:
    """Also before the first round, when the coordinator asks who is there."""
    for what, images in ((private(), 20.0), (experiment(), 24.0)):
        app = client_app(Known(federation()), torch.device("cpu"))
        grid = InProcessGrid(app, {"ost": Path("unused")})
        node = next(iter(grid.get_node_ids()))
        content = pack({}, config={"experiment": what.text(), "action": "describe"})
        reply = grid.answer(grid.create_message(content, "query", node, "0"))
        assert numbers_of(reply.content)["num-examples"] == images


@pytest.mark.parametrize("promised", [True, False])
def test_under_a_promise_an_experiment_without_noise_is_told_no_training_labels(
    promised: bool,
) -> None:
    """Else a second experiment would tell exactly what noise hides in the first."""
    app = client_app(Known(federation()), torch.device("cpu"), training_labels=lambda: not promised)
    grid = InProcessGrid(app, {"ost": Path("unused")})
    node = next(iter(grid.get_node_ids()))
    content = pack({}, config={"experiment": experiment().text(), "action": "describe"})
    reply = grid.answer(grid.create_message(content, "query", node, "0"))
    told = bundle_of(reply.content)["labels"]["train"][0].tolist()
    assert (told == [0, 0, 24]) == promised and sum(told) == 24


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"algorithm": "scaffold"}, r"dp_sgd goes with .*, not with scaffold: its corrections"),
        ({"wrap": [{"name": "keep_private"}]}, "not with keep_private"),
        ({"local": {"class_weights": "site"}}, "made of exact label counts"),
        ({"privacy": {"name": "dp_sgd"}}, r"arms\.private\.privacy: .*found neither|found neither"),
        ({"privacy": {"name": "dp_sdg"}}, r"did you mean 'dp_sgd'"),
    ],
)
def test_what_does_not_go_together_is_told_before_anything_is_read(
    change: dict, match: str
) -> None:
    """Closed by default: an algorithm that is not known to be covered is refused."""
    from fedrad.training.dp.private_arm import check_private

    arm = {"algorithm": "fedavg", "privacy": DP} | change
    what = private(arms={"open": {"algorithm": "fedavg"}, "private": arm})
    with pytest.raises(ConfigError, match=match):
        check_private(what.arm("private"), torch.nn.Linear(6, 1), where="arms.private.privacy")


def test_batch_norm_is_refused_when_the_arms_are_checked() -> None:
    """Before any data are read; the way out is in the message."""
    images = {
        "task": {"name": "binary", "labels": ["lesion"], "input": [1, 32, 32]},
        "model": {"name": "resnet18", "norm": "batch"},
        "arms": {"open": ARMS["open"], "private": ARMS["private"]},
    }
    with pytest.raises(ConfigError, match=r"BatchNorm2d.*say norm: group"):
        check_arms(private(**images))


def test_a_site_that_cannot_carry_the_epsilon_is_named_before_training() -> None:
    """Not after an hour, and not as a failed round."""
    arm = {"algorithm": "fedavg", "privacy": {"name": "dp_sgd", "epsilon": 0.001}}
    what = private(arms={"open": {"algorithm": "fedavg"}, "private": arm})
    with pytest.raises(ConfigError, match=r"arms\.private: nord: privacy: epsilon 0\.001 is below"):
        check_privacy(what, federation())


def test_an_arm_can_do_without_the_privacy_of_the_base() -> None:
    """By the name none; null would be lost in the text that travels."""
    what = private(privacy=DP, arms={"open": {"algorithm": "fedavg", "privacy": "none"},
        "private": {"algorithm": "fedavg", "privacy": {"noise": 3.0}}})  # fmt: skip
    again = from_text(what.text())
    data = federation().sites["nord"]
    assert private_at(again.arm("open"), data, None) is None
    assert again.arm("private").privacy == {**DP, "noise": 3.0}
    with pytest.raises(ValueError, match="say none for an arm without it"):
        private(arms={"open": {"algorithm": "fedavg", "privacy": None}, "private": ARMS["private"]})


def test_what_the_plan_says_is_what_a_run_spends(tmp_path: Path) -> None:
    """The epsilon of the record is that of the charges of all rounds, composed."""
    row = next(
        r for r in privacy_of(private(), federation())["sites"]
        if (r["arm"], r["site"]) == ("private", "nord")
    )  # fmt: skip
    account = SiteAccount(Ledger(tmp_path), ceiling=1e9, delta=row["delta"])
    for _ in range(2):
        _asked(account)
    uses = [e.charge.use for e in Ledger(tmp_path).entries()]
    assert compose_uses(uses, row["delta"]).epsilon == row["epsilon"]
