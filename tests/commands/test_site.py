"""The commands of a hospital's own people, as they meet them."""

import json
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fedrad.cli import app
from fedrad.config import load_experiment, load_federation, load_site_file
from fedrad.deployment.kits.provision import provision
from fedrad.errors import FedradError, RunError

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "experiments" / "quickstart.yaml"


def call(*words: object) -> Result:
    """Run a command; a mistake is raised, as `main` would tell it."""
    ran = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(ran.exception, FedradError):
        raise ran.exception
    return ran


@pytest.fixture
def nord(tmp_path: Path) -> Path:
    provision(load_federation(ROOT / "sites" / "federation.yaml"), tmp_path)
    return tmp_path / "nord"


def test_provision_tells_what_it_made_and_a_second_time_that_all_was_there(tmp_path: Path) -> None:
    made = call("provision", ROOT / "sites" / "federation.yaml", "--out", tmp_path / "kits")
    assert made.exit_code == 0 and "nord.tar.gz" in made.stdout
    again = call("provision", ROOT / "sites" / "federation.yaml", "--out", tmp_path / "kits")
    assert "0 files made" in again.stdout
    assert "PRIVATE KEY" not in made.output + again.output


def test_keygen_makes_a_key_once_and_never_shows_it(tmp_path: Path) -> None:
    made = call("site", "keygen", "--out", tmp_path, "--name", "nord")
    assert made.exit_code == 0 and "PRIVATE KEY" not in made.output
    assert stat.S_IMODE((tmp_path / "node.key").stat().st_mode) == 0o600
    assert (tmp_path / "node.pub").read_text(encoding="utf-8").endswith(" nord\n")
    with pytest.raises(RunError, match="never overwritten"):
        call("site", "keygen", "--out", tmp_path)


def test_approving_closes_the_site_to_everything_else(nord: Path) -> None:
    file = nord / "site.yaml"
    file.chmod(0o640)
    before = file.read_text(encoding="utf-8").splitlines()
    digest = load_experiment(QUICKSTART).digest()
    assert digest in call("site", "approve", QUICKSTART, "--site", file).stdout
    assert load_site_file(file).experiments == (digest,)
    assert "approved already" in call("site", "approve", QUICKSTART, "--site", file).stdout
    added = set(file.read_text(encoding="utf-8").splitlines()) - set(before)
    assert added == {"experiments:", f"  - {digest}  # quickstart"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_canonical_text_is_approved_as_it_is(nord: Path, tmp_path: Path) -> None:
    """A text with site files would otherwise get other paths, and so another digest."""
    text = load_experiment(QUICKSTART).model_copy(
        update={"data": None, "sites": ("sites/nord.yaml",)}
    )
    file = nord / "site.yaml"
    (tmp_path / "text.yaml").write_text(text.text(), encoding="utf-8")
    call("site", "approve", tmp_path / "text.yaml", "--site", file)
    assert load_site_file(file).experiments == (text.digest(),)


def test_a_preview_names_every_array_and_connects_to_nothing(
    nord: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("it connected")

    call("site", "approve", QUICKSTART, "--site", nord / "site.yaml")
    monkeypatch.setattr("socket.socket.connect", refuse)
    ran = call("site", "preview", nord / "site.yaml", QUICKSTART)
    assert ran.exit_code == 0, ran.output
    assert "stem.0.weight" in ran.stdout and "centralized is never asked" in ran.stdout
    told = json.loads(call("site", "preview", nord / "site.yaml", QUICKSTART, "--json").stdout)
    assert {one["policy"] for one in told} == {"allowed"}
    fit = next(one for one in told if one["arm"] == "fedavg" and "fit" in one["action"])
    assert fit["update"].startswith("an update is made of ")
    assert "fedavg: an update is made of" in " ".join(ran.stdout.split())
    assert fit["arrays"]["model/stem.0.weight"] == {"shape": [16, 1, 5, 5], "kind": "float32"}


def test_the_doctors_exit_code_says_whether_anything_is_red(nord: Path) -> None:
    """Nobody listens on the demo's port here, so the way is red."""
    file = nord / "site.yaml"
    text = file.read_text(encoding="utf-8").replace("port: 9092", "port: 1")
    file.write_text(text, encoding="utf-8")
    ran = call("site", "doctor", file, "--json")
    assert ran.exit_code == 1
    reds = [one["what"] for one in json.loads(ran.stdout) if one["colour"] == "red"]
    assert reds == ["TCP"]
    told = " ".join(call("site", "doctor", file).stdout.split())
    assert "is the coordinator running" in told


def test_an_audit_log_is_shown_and_verified(nord: Path) -> None:
    from fedrad.deployment.site.audit import AuditEntry, AuditLog

    log = AuditLog(nord / "state" / "audit.jsonl")
    log.append(AuditEntry(7, "ab12", "fedavg", 0, 3, "fit", 100, 200, "cd34", "sent"))
    assert "fit" in call("site", "audit", nord / "site.yaml").stdout
    long = AuditEntry(
        7, "ab12", "a" * 90, 0, 3, "split-validate", 10**12, 10**12, "", "refused", "y " * 99
    )
    log.append(long)
    shown = call("site", "audit", nord / "site.yaml").stdout.splitlines()
    assert max(map(len, shown)) <= 80 and any("refused" in one for one in shown)
    told = json.loads(call("site", "audit", nord / "site.yaml", "--json").stdout)
    assert [one["decision"] for one in told] == ["sent", "refused"]
    assert "2 lines" in call("site", "audit", nord / "site.yaml", "--verify").stdout
    log.path.write_bytes(log.path.read_bytes().replace(b"200", b"300"))
    with pytest.raises(RunError, match="line 1: was changed"):
        call("site", "audit", nord / "site.yaml", "--verify")


def test_a_rounds_minutes_follow_from_its_bytes() -> None:
    """8 bits a byte over 4 million bits a second: fedavg's 0.391 MB, down and up."""
    ran = CliRunner().invoke(app, ["check", str(QUICKSTART), "--mbit", "4"], env={"COLUMNS": "160"})
    assert ran.exit_code == 0, ran.output
    line = next(one for one in ran.stdout.splitlines() if one.split()[:2] == ["fedavg", "0.391"])
    assert line.split()[2] == "0.391"
    assert float(line.split()[3]) == pytest.approx((0.391 + 0.391) * 8 / 4 / 60, rel=0.02)
