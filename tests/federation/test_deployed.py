"""Across real processes: the same weights as in one, and each site its own master."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from deployed import ENVIRONMENT, SITES, Deployed, same_weights

pytestmark = pytest.mark.deploy

ARMS = ("fedavg", "fedprox", "finetune")


@pytest.fixture(scope="module")
def across(federation: Deployed) -> Path:
    """The experiment across the processes; the next two tests look at it."""
    run = federation.run("grpc")
    assert run.wait() == 0, federation.log("grpc")
    return federation.folder / "grpc"


def test_across_processes_every_arm_ends_with_the_bits_of_one_process(
    across: Path, undisturbed: Path
) -> None:
    """Same YAML, same seeds, same model in every runtime; curves and report as well.

    With updates in float16, too, which are rounded at the sites: the last arm's.
    """
    for arm in ARMS:
        assert same_weights(across, undisturbed, arm), arm
    assert (across / "report.html").is_file()
    # What hospitals tell is rounded to four digits.
    assert curves(across) == pytest.approx(curves(undisturbed), abs=5.1e-5)


def test_status_and_health_say_who_is_there(federation: Deployed, across: Path) -> None:
    """Each site's connection, version, device and patients; no path and no key."""
    kit = federation.kits / "coordinator"
    assert federation.begin("health", "coordinator", "health", kit).wait() == 0
    assert federation.log("health") == "well\n"
    assert federation.begin("status", "status", kit, "--json").wait() == 0
    told = json.loads(federation.log("status"))
    assert [(site["name"], site["state"]) for site in told["sites"]] == [
        (name, "online") for name in sorted(SITES)
    ]
    assert {site["told"]["device"] for site in told["sites"]} == {"cpu"}
    assert [site["told"]["patients"] for site in told["sites"]] == [
        SITES[name]["patients"] for name in sorted(SITES)
    ]
    assert told["run"]["process"] is None and told["run"]["round"] == 5
    assert federation.begin("table", "status", kit).wait() == 0
    assert "The last run, small, ended" in federation.log("table")


def curves(where: Path) -> dict[tuple[object, ...], float]:
    """The validation values of every arm, round, site and metric."""
    return {
        (arm, line["round"], site, name): value
        for arm in ARMS
        for text in (where / arm / "seed-0" / "rounds.jsonl").read_text().splitlines()
        for line in [json.loads(text)]
        for site, values in line["validation"].items()
        for name, value in values.items()
    }


def stranger(federation: Deployed, folder: Path, *, trusts: bool) -> Deployed:
    """A site with a kit of another federation, which calls this federation's coordinator."""
    folder.mkdir()
    other = Deployed(folder, ("nord",))
    site = other.kits / "nord" / "site.yaml"
    raw = yaml.safe_load(site.read_text(encoding="utf-8"))
    ours = yaml.safe_load((federation.kits / "nord" / "site.yaml").read_text(encoding="utf-8"))
    raw["coordinator"] = ours["coordinator"]
    site.write_text(yaml.safe_dump(raw), encoding="utf-8")
    if trusts:
        shutil.copy(federation.kits / "nord" / "ca.crt", other.kits / "nord" / "ca.crt")
    return other


@pytest.mark.parametrize(
    ("trusts", "says"),
    [
        (False, "is not this federation's, or is too old"),
        (True, "does not let this site in"),
    ],
    ids=["another authority", "a key that is not registered"],
)
def test_a_stranger_is_told_what_is_wrong_and_stays_out(
    federation: Deployed, tmp_path: Path, trusts: bool, says: str
) -> None:
    """A site must not send anything to a coordinator it does not know, nor be let in by one."""
    other = stranger(federation, tmp_path / "stranger", trusts=trusts)
    try:
        other.start_site("nord")
        other.wait_for("nord", says)
        assert "connected to the coordinator" not in other.log("nord")
    finally:
        other.stop()


def test_a_site_without_a_coordinator_starts_its_connection_again_and_says_so_once(
    tmp_path: Path,
) -> None:
    """Each line begins with the site's name, once, also where a process of its own has ended."""
    alone = Deployed(tmp_path, ("nord",))
    try:
        alone.start_site("nord")
        alone.wait_for("nord", "does not answer; this site waits")
        alone.kill("nord/supernode")
        alone.wait_for("nord", "nord: its connection process ended; starting it again")
        assert "nord: nord:" not in alone.log("nord")
    finally:
        alone.stop()


def test_a_second_coordinator_and_a_taken_port_are_errors(
    federation: Deployed, tmp_path: Path
) -> None:
    """Both would otherwise look like a coordinator that runs."""
    again = federation.begin("again", "coordinator", "start", federation.kits / "coordinator")
    assert again.wait() == 2
    assert "another coordinator runs with this kit" in federation.log("again")
    other = tmp_path / "coordinator"
    shutil.copytree(federation.kits / "coordinator", other, ignore=shutil.ignore_patterns("state"))
    taken = federation.begin("taken", "coordinator", "start", other)
    assert taken.wait() == 2
    assert "is in use by another program" in federation.log("taken")


def test_a_run_without_a_coordinator_says_how_to_start_one(tmp_path: Path) -> None:
    """And an experiment of nothing but pooled data says where it can be played."""
    alone = Deployed(tmp_path)
    try:
        assert alone.run("down").wait() == 2
        assert "run fedrad coordinator start" in " ".join(alone.log("down").split())
    finally:
        alone.stop()


def test_a_site_that_sends_garbage_is_left_out_by_name_and_asked_again(
    federation: Deployed,
) -> None:
    """With the quorum met the round goes on; the sums hold nothing of what was spoilt."""
    federation.end("nord")
    rogue = (sys.executable, str(Path(__file__).with_name("rogue.py")))
    ready = federation.log("nord").count(": ready")
    federation.begin("nord", federation.kits / "nord" / "site.yaml", program=rogue)
    try:
        federation.wait_for("nord", ": ready", more_than=ready)
        run = federation.run("rogue", "--arm", "fedavg", "--set", "quorum=2")
        assert run.wait(timeout=280) == 0, federation.log("rogue")
    finally:
        federation.end("nord")
        federation.start_site("nord")
    missing = federation.missing("rogue", "fedavg")
    assert [sorted(one) for one in missing] == [[], ["nord"], [], ["nord"], []]
    assert "not finite" in missing[1]["nord"]
    assert "nord" in federation.log("rogue")


def test_a_hostile_site_is_named_in_every_round_and_the_mean_is_that_of_the_others(
    federation: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a real server: a weight of 10^12, no bytes, 2^40 elements, a zip, and the like."""
    rogue = (sys.executable, str(Path(__file__).with_name("rogue.py")))
    monkeypatch.setitem(ENVIRONMENT, "ROGUE", "all")
    federation.end("nord")
    ready = federation.log("nord").count(": ready")
    federation.begin("nord", federation.kits / "nord" / "site.yaml", program=rogue)
    try:
        federation.wait_for("nord", ": ready", more_than=ready)
        options = ("--arm", "fedavg", "--set", "quorum=2", "--set", "validate_every=0")
        run = federation.run("hostile", *options, "--set", "rounds=6")
        assert run.wait(timeout=280) == 0, federation.log("hostile")
    finally:
        monkeypatch.undo()
        federation.end("nord")
        federation.start_site("nord")
    missing = federation.missing("hostile", "fedavg")
    assert [sorted(one) for one in missing] == [["nord"]] * 6
    says = ["at the roll call it told", "no .npy file", "is 1099511627776 bytes; found 0",
            "no .npy file", "steps is negative", "a record that nobody asked for"]  # fmt: skip
    for one, told in zip(missing, says, strict=True):
        assert told in one["nord"]
    log = federation.log("hostile")
    assert "Traceback" not in log and "nord" in log


def test_a_site_whose_ceiling_a_private_round_would_pass_refuses_and_spends_nothing(
    federation: Deployed,
) -> None:
    """The run says so by the site's name, and the others go on; their ledgers are charged."""
    path = federation.kits / "nord" / "site.yaml"
    open_ended = path.read_text(encoding="utf-8")
    path.write_text(open_ended.replace("epsilon: null", "epsilon: 0.05"), encoding="utf-8")
    assert path.read_text(encoding="utf-8") != open_ended
    arms = {
        "private": {
            "algorithm": "fedavg",
            "privacy": {"name": "dp_sgd", "noise": 1.0, "clip": 1.0},
        },
        "open": {"algorithm": "fedavg"},
    }
    primary = {"arm": "private", "against": "open", "metric": "auroc"}
    what = federation.variant(federation.split, name="private", arms=arms, primary=primary)
    ready = federation.log("nord").count(": ready")
    federation.end("nord")
    federation.start_site("nord")
    try:
        federation.wait_for("nord", ": ready", more_than=ready)
        run = federation.run("private", "--arm", "private", "--set", "quorum=2", file=what)
        assert run.wait(timeout=280) == 0, federation.log("private")
    finally:
        path.write_text(open_ended, encoding="utf-8")
        federation.end("nord")
        federation.start_site("nord")
    for missing in federation.missing("private", "private"):
        assert list(missing) == ["nord"]
        assert missing["nord"].startswith(
            "was not asked: PolicyError: nord: epsilon: limit 0.05, asked "
        )
    said = federation.log("private")
    assert "nord refuses private: epsilon: limit 0.05, asked " in said
    assert "no answer from" not in said
    booked = {name: federation.ledger(name).entries() for name in SITES}
    assert booked["nord"] == ()
    assert [len(booked[name]) for name in ("sued", "west")] == [2, 2]


def test_a_coordinator_may_be_an_ipv6_address(tmp_path: Path) -> None:
    """Messages and streams, over [::1]: the kit, the certificate and both of gRPC's targets fit."""
    box = Deployed(tmp_path, ("nord", "sued"), host="[0:0:0:0:0:0:0:1]")
    for name in box.sites:
        box.allow_split(name)
    try:
        box.start()
        chosen = ("--arm", "splitnn", "--arm", "fedavg")
        small = ("--set", "local={epochs: 1, batch: 16}", "--set", "rounds=1")
        run = box.run("six", *chosen, *small, file=box.split)
        assert run.wait() == 0, box.log("six")
        assert "connected to the coordinator at [::1]:" in box.log("nord")
        kinds = {line["decision"] for line in box.audit("nord")}
        assert "opened" in kinds and "refused" not in kinds
    finally:
        box.stop()
