"""Whose row it is: ids in many spellings, ids in a part of a path, and none at all."""

from pathlib import Path

import numpy as np
import pytest

from fedrad.config import Task
from fedrad.data import ADAPTERS
from fedrad.data.base import Records, sites_of
from fedrad.data.checks.likely_overlap import likely_leaks
from fedrad.data.checks.overlap import check_overlap
from fedrad.data.patients import loose_form, strict_form
from fedrad.errors import ConfigError, DataError, DataLeakageError
from fedrad.registry import build

TASK = Task(name="binary", labels=("sick",), input=(1,))
CERTAIN = {
    "white space inside": ("P  7", "P 7"),
    "a space that does not break": ("P\u00a07", "P 7"),
    "a spreadsheet's decimals": ("12.0", "12"),
    "more of them": ("12.00", "12"),
    "full width": ("\uff11\uff12", "12"),
    "Arabic digits": ("\u0661\u0662", "12"),
    "composed and decomposed": ("M\u00fcller", "Mu\u0308ller"),
    "a joiner that nobody sees": ("12\u200d", "12"),
    "a byte order mark": ("\ufeff12", "12"),
    "a soft hyphen": ("AB\u00ad12", "AB12"),
}
LIKELY = {
    "case": ("P7", "p7"),
    "leading zeros": ("007", "7"),
    "zeros after letters": ("P007", "P7"),
    "zeros and decimals": ("007.0", "7"),
    "a hyphen": ("P-7", "P7"),
    "a space": ("P 7", "P7"),
    "long s": ("STRASSE 1", "stra\u00dfe 1"),
}
DIFFERENT = [("7", "70"), ("1-11", "11-1"), ("12.1", "12"), ("P7", "Q7"), ("1 11", "111")]


def written(folder: Path, ids: list[str], splits: list[str], header: str = "id") -> Path:
    rows = [
        f"{one},{k},{k % 2},nord,{split}"
        for k, (one, split) in enumerate(zip(ids, splits, strict=True))
    ]
    text = "\n".join([f"{header},age,sick,site,split", *rows])
    (folder / "t.csv").write_text(text, encoding="utf-8")
    return folder


def read(root: Path, **options: object) -> Records:
    known: dict[str, object] = {"name": "table", "csv": "t.csv", "features": ["age"]}
    known |= {"label": "sick", "site": "site", "split": "split", "patient": "id"}
    return build(ADAPTERS, known | options, TASK, root, where="data")


@pytest.mark.parametrize("kind", CERTAIN)
def test_an_id_in_two_certain_spellings_is_one_patient(kind: str, tmp_path: Path) -> None:
    """In two splits it stops the run with its rows, and without the id."""
    one, other = CERTAIN[kind]
    assert strict_form(one) == strict_form(other)
    leaky = read(written(tmp_path, [one, "x", other], ["train", "train", "test"]))
    with pytest.raises(DataLeakageError, match=r"1 patient in two splits .*rows 1, 3") as told:
        check_overlap(leaky)
    assert one not in str(told.value) and told.value.rows == (1, 3)


@pytest.mark.parametrize("kind", LIKELY)
def test_an_id_in_two_likely_spellings_is_told_with_its_rows(kind: str, tmp_path: Path) -> None:
    """They may be two people, so the run goes on; the warning names the rule that silences it."""
    one, other = LIKELY[kind]
    assert strict_form(one) != strict_form(other) and loose_form(one) == loose_form(other)
    records = read(written(tmp_path, [one, "x", other], ["train", "train", "test"]))
    check_overlap(records)
    (odd,) = likely_leaks(records)
    assert (odd.rule, odd.rows, odd.site) == ("patients-spelled-alike", (1, 3), "nord")
    assert "accept: [patients-spelled-alike]" in odd.mend and one not in odd.found + odd.mend


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_ids_of_different_people_stay_different(one: str, other: str, tmp_path: Path) -> None:
    assert loose_form(one) != loose_form(other)
    assert not likely_leaks(read(written(tmp_path, [one, other], ["train", "test"])))


def test_the_hash_of_an_ordinary_id_is_that_of_its_text() -> None:
    """Splits are drawn in the order of hashes: another hash would be another split."""
    for one in ("gz-NORMAL2-IM-0575", "TCGA_CS_4941", "00012", "Ann Lee", "12.5"):
        assert strict_form(one) == one


def test_equal_ids_at_two_sites_are_compared_only_where_they_mean_one_person(
    tmp_path: Path,
) -> None:
    rows = ["P7,1,0,nord,train", "p7,2,1,west,train"]
    (tmp_path / "t.csv").write_text("\n".join(["id,age,sick,site,split", *rows]))
    assert [odd.site for odd in likely_leaks(read(tmp_path))] == [""]
    assert not likely_leaks(read(tmp_path, patient_per_site=True))


@pytest.mark.parametrize("option", [{"part": 3}, {"part": -3}, {"pattern": r"patient(\d+)"}])
def test_the_patient_may_stand_in_a_part_of_a_path(option: dict, tmp_path: Path) -> None:
    """CheXpert's layout: CheXpert/train/patient00001/study1/view1.jpg."""
    paths = [f"x/train/patient0000{k // 2}/study1/v{k}.jpg" for k in range(4)]
    root = written(tmp_path, paths, ["train"] * 4, header="path")
    found = read(root, patient={"column": "path"} | option)
    assert found.patient[0] == found.patient[1] != found.patient[2]
    assert sites_of(found)["nord"].patients("train") == 2


def test_a_path_without_the_part_is_told_by_its_row(tmp_path: Path) -> None:
    root = written(tmp_path, ["a/b", "a"], ["train"] * 2)
    with pytest.raises(DataError, match=r"row 2: no patient's id is found in column 'id'") as told:
        read(root, patient={"column": "id", "part": 2})
    assert told.value.rows == (2,)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"part": 1}, r"patient.column: is missing"),
        ({"column": "id"}, "give one of part"),
        ({"column": "id", "part": 1, "pattern": "x"}, "give one of part"),
        ({"column": "id", "part": 0}, "1 is the first"),
        ({"column": "id", "pattern": "("}, r"patient.pattern: is no regular expression"),
    ],
)
def test_a_part_that_does_not_say_where_is_refused(
    option: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        read(written(tmp_path, ["a"], ["train"]), patient=option)


def test_patients_that_nobody_named_are_told_and_null_says_that_it_is_meant(
    tmp_path: Path,
) -> None:
    root = written(tmp_path, ["a", "a"], ["train", "test"])
    plain = {"name": "table", "csv": "t.csv", "features": ["age"], "label": "sick"}
    (odd,) = build(ADAPTERS, plain, TASK, root, where="data").oddities
    assert odd.rule == "patients-unnamed" and "2 rows" in odd.found and "null" in odd.mend
    silent = read(root, patient=None)
    assert not silent.oddities and len(np.unique(silent.patient)) == 2
