"""The doctor on data that look odd: what `fedrad check` says of all sites, of one."""

from pathlib import Path

import pytest

from fedrad.config import Task, load_site_file
from fedrad.deployment.preflight.check_result import CheckResult
from fedrad.deployment.preflight.data import check_data

TASK = Task(name="binary", labels=("disease",), input=(1,))
SITE = """
name: nord
data: {name: table, csv: t.csv, features: [age], label: sick, patient: id, split: part}
data_root: .
coordinator: {host: localhost, port: 9092}
min_patients: 1
max_upload_mb: 1
max_norm: null
"""


def examined(folder: Path, more: str = "") -> dict[str, CheckResult]:
    """Return the doctor's findings where P-7 and p7 stand in two splits, and an age is -9999."""
    ids = ["P-7", "p7", *(f"q{k}" for k in range(2, 20))]
    lines = [
        f"{id_},{-9999 if k == 4 else 40 + k},{k // 2 % 2},{('train', 'test')[k % 2]}"
        for k, id_ in enumerate(ids)
    ]
    (folder / "t.csv").write_text("\n".join(["id,age,sick,part", *lines]), encoding="utf-8")
    (folder / "site.yaml").write_text(SITE + more, encoding="utf-8")
    return {one.what: one for one in check_data(load_site_file(folder / "site.yaml"), TASK)}


def test_the_doctor_tells_what_may_be_a_leak_beside_odd_values(tmp_path: Path) -> None:
    """Before the first run, in which the same would stand in the site's log."""
    found = examined(tmp_path)
    assert found["leaks"].colour == "green"
    alike, sentinel = found["patients-spelled-alike"], found["feature-sentinel"]
    assert (alike.colour, "rows 1, 2" in alike.found) == ("amber", True)
    assert (sentinel.colour, "row 5" in sentinel.found) == ("amber", True)


@pytest.mark.parametrize("rule", ["patients-spelled-alike", "feature-sentinel"])
def test_what_a_site_accepts_its_doctor_does_not_tell(tmp_path: Path, rule: str) -> None:
    """The other rule is told on: accepting is by name."""
    rules = {"patients-spelled-alike", "feature-sentinel"}
    assert rules & examined(tmp_path, f"accept: [{rule}]\n").keys() == rules - {rule}
