"""A CSV file's columns, and what a message may repeat of them."""

import numpy as np
import pytest

from fedrad.config import Task
from fedrad.data.adapters.images import images
from fedrad.data.adapters.table import table as table_adapter
from fedrad.data.reading.csv_table import CsvTable, read_columns
from fedrad.errors import ConfigError, DataError

IMAGES = Task(name="binary", labels=("sick",), input=(1, 32, 32))
ROWS = Task(name="binary", labels=("sick",), input=(1,))


def table(folder, text: str, **options):
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return read_columns(path, **options)


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_commas_semicolons_and_tabs_read_the_same(tmp_path, mark) -> None:
    """A German Excel writes semicolons."""
    found = table(tmp_path, f"\ufeffid{mark}age\r\n a {mark}5\r\n\r\nb{mark}6\r\n")
    assert found.cells == {"id": ["a", "b"], "age": ["5", "6"]}
    assert found.row.tolist() == [1, 2]


def test_a_file_without_a_header_gets_its_names_from_the_options(tmp_path) -> None:
    """The first line is a row then."""
    assert table(tmp_path, "1,2\n3,4\n", header=["a", "b"]).cells == {
        "a": ["1", "3"],
        "b": ["2", "4"],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "labels.csv: has no rows"),
        ("a,b\n", "labels.csv: has no rows"),
        ("a,b\n1,2\n1\n", "labels.csv row 2: 1 cells, the header has 2"),
        ("a,a\n1,2\n", r"columns 1 and 2 have one name; is its first line a header\?"),
    ],
)
def test_a_table_that_is_no_table_is_refused(tmp_path, text, message) -> None:
    """Where, and what was found."""
    with pytest.raises(DataError, match=message):
        table(tmp_path, text)


def test_a_missing_or_foreign_file_is_told_without_its_folders(tmp_path) -> None:
    """A folder's name can be a patient's."""
    with pytest.raises(DataError, match=r"^labels.csv: cannot be read \(No such file") as error:
        read_columns(tmp_path / "Mustermann" / "labels.csv")
    assert "Mustermann" not in str(error.value)
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="is no UTF-8 text"):
        read_columns(tmp_path / "labels.csv")


@pytest.mark.parametrize("name", ["a\0.csv", "."])
def test_a_path_that_is_no_files_is_told(tmp_path, name) -> None:
    with pytest.raises(DataError, match=r"cannot be read \((no path of a file|Is a directory)\)"):
        read_columns(tmp_path / name)


def test_a_missing_column_is_told_with_the_nearest(tmp_path) -> None:
    """Most are typing errors."""
    with pytest.raises(
        DataError, match=r"no column 'patient' \(did you mean 'patient_id'\?\); it has"
    ):
        table(tmp_path, "patient_id,x\n1,2\n", named=["patient", "x"]).column("patient", "patient")


def test_two_columns_of_one_name_are_told_by_name_where_the_header_is_one(tmp_path) -> None:
    with pytest.raises(DataError, match="two columns are named 'a'"):
        table(tmp_path, "a,a,id\n1,2,3\n", named=["id"])


def columns(private: set[str], **cells: list[str]) -> CsvTable:
    return CsvTable("a.csv", cells, np.arange(1, 7), frozenset(private))


def test_a_cell_is_quoted_only_where_the_column_is_a_list_of_words() -> None:
    """A column that was taken for the label by mistake may hold names."""
    words = columns(set(), sick=["yes", "no", "yes", "maybe", "no", "no"])
    assert words.found("sick", 3) == "'maybe'"
    names = columns(set(), sick=["Ann", "Bob", "Cat", "Ann", "Dan", "Eve"])
    assert names.found("sick", 0) == "a text"


def test_a_column_of_patients_is_never_quoted_however_often_each_is_seen() -> None:
    """Two patients of three films each: their ids are repeated words."""
    ids = ["p1", "p1", "p1", "p2", "p2", "p2"]
    assert columns(set(), patient=ids).words("patient") == ["p1", "p2"]
    assert columns({"patient"}, patient=ids).words("patient") == []


def test_a_column_that_names_each_patient_is_not_quoted_either() -> None:
    """A name beside the id has as many values as there are patients; a label has fewer."""
    ids, names = ["1", "1", "2", "2", "3", "3"], ["Ann", "Ann", "Bob", "Bob", "Cat", "Cat"]
    assert columns(set(), name=names).words("name") == ["Ann", "Bob", "Cat"]
    assert columns({"id"}, id=ids, name=names).words("name") == []


@pytest.mark.parametrize(
    ("option", "changes"),
    [
        ("label", {"label": "who"}),
        ("label", {"label": "film"}),
        ("site", {"site": "who"}),
        ("site", {"site": "who", "sites": ["Ann"]}),
        ("split", {"split": "film"}),
        ("age", {"age": "who"}),
        ("sex", {"sex": "who"}),
        ("view", {"view": "film"}),
    ],
)
def test_what_is_published_cannot_be_read_from_patients_or_paths(tmp_path, option, changes) -> None:
    """Sites' names, labels and attributes stand in messages and in the report."""
    (tmp_path / "all.csv").write_text("film,who,sick\na.png,Ann,1\nb.png,Ann,0\n")
    options = {"csv": "all.csv", "image": "film", "patient": "who", "label": "sick"} | changes
    with pytest.raises(ConfigError, match=f"^{option}: column '(who|film)' holds the patients"):
        images(IMAGES, tmp_path, **options)


def test_patients_may_be_kept_or_be_the_images(tmp_path) -> None:
    """`where` only selects, and each image may be its own patient."""
    found = table(tmp_path, "film\na.png\nb.png\n", private=["film"])
    for option in ("where", "patient", "image"):
        assert found.column("film", option) == ["a.png", "b.png"]


@pytest.mark.parametrize("adapter", ["table", "images"])
def test_a_first_line_that_may_be_a_patient_is_not_repeated(tmp_path, adapter) -> None:
    """Without a header line, the first line is somebody."""
    (tmp_path / "all.csv").write_text("Mustermann,51,1\nSchmidt,60,0\n")
    with pytest.raises(DataError, match=r"its first line has 3 cells and none of") as told:
        if adapter == "table":
            table_adapter(
                ROWS, tmp_path, csv="all.csv", features=["Alter"], label="sick", patient="Muster"
            )
        else:
            images(IMAGES, tmp_path, csv="all.csv", label="sick", patient="Muster")
    assert "Mustermann" not in str(told.value) and "51" not in str(told.value)


def test_a_label_that_does_not_fit_is_not_told_where_it_may_be_a_name(tmp_path) -> None:
    """Two patients with three rows each; the column of their names was taken for the label."""
    rows = [f"{who},{name},{age}" for who, name in (("1", "Ann"), ("2", "Bob")) for age in range(3)]
    (tmp_path / "all.csv").write_text("\n".join(["id,name,age", *rows]))
    with pytest.raises(DataError, match=r"row 1: label 'name' is a text; fits 0, 1") as told:
        table_adapter(ROWS, tmp_path, csv="all.csv", features=["age"], label="name", patient="id")
    assert "Ann" not in str(told.value) and "Bob" not in str(told.value)
