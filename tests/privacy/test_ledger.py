"""The hospital's ledger: what it counts, what it refuses, and what it notices."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fedrad.errors import PrivacyError
from fedrad.privacy.account import Charge
from fedrad.privacy.accountant import Use, compose_uses, renyi
from fedrad.privacy.ledger import Ledger, LedgerEntry, _hash
from fedrad.privacy.site_account import SiteAccount

DELTA = 1e-5


def charge(round: int = 1, *, data: str = "first", name: str = "chest", **use: float) -> Charge:
    """Twenty steps at 5 % with noise 1."""
    options: dict = {"rate": 0.05, "noise": 1.0, "steps": 20} | use
    return Charge(data, name, f"digest of {name}", round, "dp_sgd", "patient", Use(**options))


def booked(folder: Path, count: int = 3) -> Ledger:
    """A ledger with some rounds."""
    ledger = Ledger(folder)
    for number in range(1, count + 1):
        ledger.record(charge(number))
    return ledger


def lines(ledger: Ledger) -> list[str]:
    return ledger.path.read_text(encoding="utf-8").splitlines(keepends=True)


def test_what_was_booked_is_there_after_a_restart(tmp_path: Path) -> None:
    """Another process reads the same entries, and goes on with the chain."""
    before = booked(tmp_path)
    after = Ledger(tmp_path)
    assert after.entries() == before.entries() and after.head == before.head
    after.record(charge(4))
    assert [e.charge.round for e in Ledger(tmp_path).entries()] == [1, 2, 3, 4]
    before.record(charge(5))  # the first process notices the other's entry
    assert [e.number for e in Ledger(tmp_path).entries()] == [1, 2, 3, 4, 5]


def test_spend_composes_over_experiments_and_is_no_sum(tmp_path: Path) -> None:
    """PRV while all uses are alike; RDP once they differ; far less than the epsilons added."""
    ledger = booked(tmp_path)
    found = ledger.project(charge(4), DELTA)
    assert (
        found.after == compose_uses([Use(0.05, 1.0, 80)], DELTA) and found.after.accountant == "prv"
    )
    assert found.before == compose_uses([Use(0.05, 1.0, 60)], DELTA)
    other = ledger.project(charge(name="spine", noise=2.0), DELTA).after
    assert other.accountant == "rdp" and other.epsilon > found.before.epsilon
    one = compose_uses([Use(0.05, 1.0, 20)], DELTA).epsilon
    assert found.after.epsilon < 0.6 * 4 * one
    assert len(ledger.entries()) == 3, "a projection writes nothing"


def test_new_patients_start_a_column_and_do_not_wash_the_old_spend_away(tmp_path: Path) -> None:
    """A patient may be in both data sets: refreshing a table must not reset an account."""
    ledger = booked(tmp_path)
    new = ledger.project(charge(1, data="second"), DELTA)
    assert new.after == ledger.project(charge(1), DELTA).after
    ledger.record(charge(1, data="second"))
    assert [e.charge.data for e in ledger.entries()] == ["first"] * 3 + ["second"]


def test_a_round_past_the_ceiling_is_refused_before_it_is_booked(tmp_path: Path) -> None:
    """The hospital can say no, in words that name no patient, and nothing is spent by it."""
    per_round = compose_uses([Use(0.05, 1.0, 20)], DELTA).epsilon
    account = SiteAccount(Ledger(tmp_path), ceiling=per_round + 0.01, delta=DELTA)
    account.spend(charge(1))
    with pytest.raises(PrivacyError, match=r"round 2 of chest: .* epsilon .* ceiling is .* spent"):
        account.spend(charge(2))
    assert len(Ledger(tmp_path).entries()) == 1
    with pytest.raises(PrivacyError, match="ceiling"):
        account.spend(charge(1, name="another", noise=0.0))


def test_spend_over_a_resumed_run_is_never_less_than_uninterrupted(tmp_path: Path) -> None:
    """A crash after the entry and before training: the round is booked again."""
    straight, resumed = Ledger(tmp_path / "a"), Ledger(tmp_path / "b")
    for number in (1, 2, 3):
        straight.record(charge(number))
    for number in (1, 2, 2, 3):
        resumed.record(charge(number))
    one, other = (ledger.project(charge(4), DELTA).before for ledger in (straight, resumed))
    assert other.epsilon > one.epsilon


@pytest.mark.parametrize(
    "tampered",
    [
        lambda all: [all[0], all[1].replace('"noise":1.0', '"noise":9.0'), all[2]],
        lambda all: [all[0], all[2]],
        lambda all: [all[1], all[0], all[2]],
        lambda all: all[:2],
        lambda all: [],
        lambda all: [*all[:2], "{}\n"],
        lambda all: [*all[:2], "no json\n"],
        lambda all: [*all, all[2]],
    ],
    ids=["changed", "removed", "swapped", "cut", "emptied", "empty", "text", "repeated"],
)
def test_a_ledger_that_was_tampered_with_stops_the_training(
    tmp_path: Path, tampered: Callable[[list[str]], list[str]]
) -> None:
    """Whatever was done to it, nobody trains until an operator has looked."""
    ledger = booked(tmp_path)
    ledger.path.write_text("".join(tampered(lines(ledger))), encoding="utf-8")
    with pytest.raises(PrivacyError, match="training stops here until the hospital's operator"):
        Ledger(tmp_path)
    with pytest.raises(PrivacyError):
        ledger.verify()


def test_a_line_that_a_crash_cut_off_is_no_entry(tmp_path: Path) -> None:
    """It was not on the disk whole, so nothing was trained on it; the next one takes its place."""
    ledger = booked(tmp_path)
    half = ledger.path.read_bytes() + lines(ledger)[0].encode()[:50]
    ledger.path.write_bytes(half)
    again = Ledger(tmp_path)
    assert len(again.entries()) == 3
    again.record(charge(4))
    assert len(Ledger(tmp_path).entries()) == 4


def test_a_crash_between_an_entry_and_the_head_counts_the_entry(tmp_path: Path) -> None:
    """The entry may have been trained on."""
    ledger = booked(tmp_path, 2)
    old = (ledger.folder / "head.json").read_bytes()
    ledger.record(charge(3))
    (ledger.folder / "head.json").write_bytes(old)
    assert len(Ledger(tmp_path).entries()) == 3
    first = booked(tmp_path / "new", 1)
    (first.folder / "head.json").unlink()
    assert len(Ledger(tmp_path / "new").entries()) == 1


def test_a_clock_set_back_is_refused(tmp_path: Path) -> None:
    """Within a minute it is the clock's own synchronisation."""
    now = 1_000_000.0
    ledger = Ledger(tmp_path, clock=lambda: now)
    ledger.record(charge(1))
    now -= 30
    assert ledger.record(charge(2)).time == 1_000_000.0
    now -= 3600
    with pytest.raises(PrivacyError, match="the clock is 3630 s behind the last entry"):
        ledger.record(charge(3))
    assert len(Ledger(tmp_path).entries()) == 2


def test_a_full_disk_stops_the_round_and_keeps_the_ledger_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training does not start on an entry that may not be on the disk."""
    ledger = booked(tmp_path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with (
        monkeypatch.context() as patch,
        pytest.raises(
            PrivacyError,
            match=r"could not be written \(No space left on device\); training does not",
        ),
    ):
        patch.setattr(os, "fsync", full)
        ledger.record(charge(4))
    assert len(Ledger(tmp_path).entries()) >= 3
    ledger.record(charge(5))
    assert [e.charge.round for e in Ledger(tmp_path).entries()][-1] == 5


def test_two_processes_cannot_spend_the_same_rest_twice(tmp_path: Path) -> None:
    """The ceiling is checked while no other process can book."""
    per_round = compose_uses([Use(0.05, 1.0, 20)], DELTA).epsilon
    accounts = [SiteAccount(Ledger(tmp_path), per_round + 0.01, DELTA) for _ in range(2)]
    accounts[0].spend(charge(1))
    with pytest.raises(PrivacyError, match="ceiling"):
        accounts[1].spend(charge(1))


def test_a_hospital_draws_a_new_key_each_time(tmp_path: Path) -> None:
    """The run's seed travels in the coordinator's own message."""
    account = SiteAccount(Ledger(tmp_path), 1.0, DELTA)
    assert len({account.key(7) for _ in range(10)}) == 10 and len(account.key(7)) == 32


def test_ten_thousand_entries_are_projected_with_one_integral_for_each_mechanism(
    tmp_path: Path,
) -> None:
    """A hospital's life of training, in a hundred experiments of different noise: 101 integrals."""
    _write(Ledger(tmp_path), 10_000)
    before = renyi.cache_info().misses
    opened = Ledger(tmp_path)
    found = opened.project(charge(1), DELTA)
    assert renyi.cache_info().misses - before <= 101
    assert len(opened.entries()) == 10_000 and found.after.accountant == "rdp"


def _write(ledger: Ledger, count: int) -> None:
    """Write entries as `record` does, the head only once."""
    text, previous = [], ledger.head
    for number in range(1, count + 1):
        one = charge(number, noise=1.0 + number // 100 / 50)
        at = float(number)
        entry = LedgerEntry(number, at, one, previous, _hash(number, at, one, previous))
        told = {**vars(entry), "charge": {**vars(one), "use": vars(one.use)}}
        text.append(json.dumps(told, separators=(",", ":"), sort_keys=True) + "\n")
        previous = entry.hash
    ledger.folder.mkdir(parents=True)
    ledger.path.write_text("".join(text), encoding="utf-8")
    (ledger.folder / "head.json").write_text(json.dumps({"entries": count, "hash": previous}))
