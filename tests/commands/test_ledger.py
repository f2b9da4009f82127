"""`fedrad site ledger`, as a hospital's people meet it."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedrad.cli import app
from fedrad.errors import PrivacyError
from fedrad.privacy.account import Charge
from fedrad.privacy.accountant import Use
from fedrad.privacy.ledger import Ledger


def booked(folder: Path) -> Ledger:
    """Two experiments on one data set, one of single images on a newer one."""
    ledger = Ledger(folder)
    for n in (1, 2):
        use = Use(0.05, 2.0, 20)
        ledger.record(Charge("a" * 64, "chest", "1" * 64, n, "dp_sgd", "patient", use))
    ledger.record(Charge("a" * 64, "spine", "2" * 64, 1, "dp_sgd", "patient", Use(0.1, 3.0, 9)))
    images = Use(0.05, 8.0, 20, units=3)
    ledger.record(Charge("b" * 64, "chest", "3" * 64, 1, "dp_sgd", "image", images))
    return ledger


def told(*arguments: str) -> str:
    found = CliRunner().invoke(app, ["site", "ledger", *arguments], env={"COLUMNS": "200"})
    assert found.exit_code == 0, found.output
    return found.stdout


def test_spent_and_left_are_told_by_data_set_and_experiment(tmp_path: Path) -> None:
    """With how the columns count together, and what an image's epsilon means for a patient."""
    booked(tmp_path)
    text = told(str(tmp_path), "--ceiling", "8")
    for part in ("chest", "spine", "111111111111", "bbbbbbbbbbbb", "do not add up", "Left below",
                 "2 data sets were used. A patient may be in all", "has up to 3"):  # fmt: skip
        assert part in text
    spent = float(text.split("over all experiments: epsilon ")[1].split()[0])
    left = float(text.split("ceiling of 8: ")[1].split(";")[0])
    assert spent + left == pytest.approx(8, abs=0.01)


def test_a_new_ledger_says_so(tmp_path: Path) -> None:
    """An empty table would look like a fault."""
    assert told(str(tmp_path)) == "Nothing is spent yet.\n"


def test_verify_counts_the_entries_and_finds_tampering(tmp_path: Path) -> None:
    """The head's hash is told so that it can be noted elsewhere."""
    ledger = booked(tmp_path)
    assert told(str(tmp_path), "--verify").splitlines()[0].startswith("4 entries, each bound")
    assert ledger.head in told(str(tmp_path), "--verify")
    text = ledger.path.read_text().replace('"noise":3.0', '"noise":9.0')
    ledger.path.write_text(text)
    found = CliRunner().invoke(app, ["site", "ledger", str(tmp_path), "--verify"])
    assert isinstance(found.exception, PrivacyError)
    assert "the chain is broken at entry 3" in str(found.exception)
