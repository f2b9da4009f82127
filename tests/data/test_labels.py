import numpy as np
import pytest

from fedrad.config import Task
from fedrad.data.reading.columns import CsvTable
from fedrad.data.reading.labels import drop_rows, label_rule, labels_of
from fedrad.errors import ConfigError, DataError

BINARY = Task(name="binary", labels=("sick",), input=(1,))
CLASSES = Task(name="multiclass", labels=("none", "mass", "haze"), input=(1,))
FINDINGS = Task(name="multilabel", labels=("mass", "haze"), input=(1,))


def table(**cells: str) -> CsvTable:
    """CsvTable from texts of words."""
    columns = {name: ["" if w == "-" else w for w in text.split()] for name, text in cells.items()}
    n = len(next(iter(columns.values())))
    return CsvTable("labels.csv", columns, np.arange(1, n + 1))


def y_of(task: Task, cells: CsvTable, *, label=None, labels=None, **options) -> list:
    y = labels_of(cells, label_rule(task, label=label, labels=labels, **options))
    assert y.dtype == np.float32 and y.shape == (len(cells), task.columns)
    return [[None if np.isnan(v) else v for v in row] for row in y.tolist()]


def test_zeros_and_ones_are_read_however_they_are_written_and_empty_is_not_read() -> None:
    """A table of numbers saved by other software says 1.0."""
    assert y_of(BINARY, table(l="0 1 1.0 -"), label="l") == [[0], [1], [1], [None]]


def test_words_are_read_by_values_and_null_is_not_read() -> None:
    """What "uncertain" means is the researcher's choice, not ours."""
    values = {"normal": 0, "pneumonia": 1, "unsure": None}
    assert y_of(BINARY, table(l="pneumonia unsure normal -"), label="l", values=values) == [
        [1], [None], [0], [None],
    ]  # fmt: skip


def test_yaml_numbers_name_texts() -> None:
    """YAML reads `3: 1` with a number as key."""
    assert y_of(BINARY, table(l="3 0"), label="l", values={3: 1, 0: 0}) == [[1], [0]]


def test_a_threshold_makes_a_finding_of_a_number() -> None:
    """Above, not at."""
    assert y_of(BINARY, table(l="0 1 4 0.5 -"), label="l", threshold=0.5) == [
        [0], [1], [1], [0], [None],
    ]  # fmt: skip


def test_classes_are_read_by_name_by_index_or_by_values() -> None:
    """One column, the index of the class."""
    assert y_of(CLASSES, table(l="mass 0 haze 2"), label="l") == [[1], [0], [2], [2]]
    values = {"nodule": "mass", "clear": 0}
    assert y_of(CLASSES, table(l="nodule clear"), label="l", values=values) == [[1], [0]]


def test_findings_come_from_columns_of_their_own_in_the_tasks_order() -> None:
    """The order of the YAML's mapping does not matter."""
    cells = table(H="1 0", M="0 -")
    assert y_of(FINDINGS, cells, labels={"haze": "H", "mass": "M"}) == [[0, 1], [None, 0]]
    assert y_of(FINDINGS, table(haze="1", mass="0"), labels=["haze", "mass"]) == [[0, 1]]


def test_rows_are_dropped_by_label() -> None:
    """Some labels are no part of the question."""
    kept = drop_rows(
        table(l="0 other 1"), label_rule(BINARY, label="l", labels=None, drop=["other"])
    )
    assert kept.row.tolist() == [1, 3]


def test_a_label_that_does_not_fit_is_told_with_the_row_and_what_fits() -> None:
    """And quoted, because the column is a short list of words."""
    cells = table(l="0 1 0 1 2 1")
    with pytest.raises(
        DataError, match=r"labels.csv row 5: label 'l' is '2'; fits 0, 1, null .*'0', '1', '2'"
    ):
        y_of(BINARY, cells, label="l")
    with pytest.raises(DataError, match=r"row 1: label 'l' is '0'; fits 1 \(of values\)"):
        y_of(BINARY, cells, label="l", values={"1": 1})
    with pytest.raises(DataError, match=r"row 1: label 'l' is a text; fits a number"):
        y_of(BINARY, table(l="x"), label="l", threshold=0)


@pytest.mark.parametrize("cell", ["nan", "inf", "-1", "0.5", "2"])
def test_only_zero_and_one_are_a_finding(cell) -> None:
    """float() reads more than a label can be."""
    with pytest.raises(DataError, match="fits 0, 1"):
        y_of(BINARY, table(l=cell), label="l")


def test_a_column_of_names_taken_for_the_label_is_not_quoted() -> None:
    """The message may travel."""
    with pytest.raises(DataError) as error:
        y_of(BINARY, table(l="Ann Bob Cat"), label="l")
    assert "Ann" not in str(error.value)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        (BINARY, {}, "label, labels: give one of them"),
        (BINARY, {"label": "l", "labels": ["sick"]}, "label, labels: give one of them"),
        (FINDINGS, {"label": "l"}, "the task has 2 findings; use labels"),
        (CLASSES, {"labels": ["none"]}, "one column; use label"),
        (FINDINGS, {"labels": ["mass"]}, "labels: found mass; the task's are mass, haze"),
        (BINARY, {"label": "l", "values": {"x": 2}}, "values.x: found 2"),
        (
            BINARY,
            {"label": "l", "values": {"x": "sick"}},
            "values.x: found 'sick'; fits 0, 1, null",
        ),
        (CLASSES, {"label": "l", "values": {"x": "mas"}}, "found 'mas'; fits none, mass, haze"),
        (
            BINARY,
            {"label": "l", "values": {"x": 1}, "threshold": 0},
            "threshold: .* without values",
        ),
        (CLASSES, {"label": "l", "threshold": 0}, "threshold: is for findings"),
    ],
)
def test_options_that_do_not_fit_the_task_are_refused(task, options, message) -> None:
    """Before a row is read."""
    with pytest.raises(ConfigError, match=message):
        label_rule(task, **{"label": None, "labels": None} | options)


NUMBERED = Task(name="multiclass", labels=("1", "2", "3"), input=(1,))
LISTED = Task(name="multilabel", labels=("Effusion", "Mass"), input=(1,))


def test_a_number_is_a_classs_name_where_classes_are_named_by_numbers() -> None:
    """pandas writes "1.0" at the site that has an empty cell; it is class '1', the first."""
    assert y_of(NUMBERED, table(l="1 1.0 2.0 03 3 -"), label="l") == [
        [0], [0], [1], [2], [2], [None],
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"row 1: .* fits 1, 2, 3, null for not read"):
        y_of(NUMBERED, table(l="0 1 1 0 2"), label="l")
    assert y_of(NUMBERED, table(l="a b"), label="l", values={"a": 1, "b": "3"}) == [[0], [2]]


def test_names_from_0_keep_their_places() -> None:
    """Name and index are one there, as in most tables."""
    classes = Task(name="multiclass", labels=("0", "1", "2"), input=(1,))
    assert y_of(classes, table(l="0 1.0 2"), label="l") == [[0], [1], [2]]


@pytest.mark.parametrize("how", [{"label": "l"}, {"labels": {"Effusion": "l", "Mass": "l"}}])
def test_a_cell_may_list_findings_with_a_separator(how) -> None:
    """NIH ChestX-ray14's "Finding Labels"; what is not asked for may stand in the list too."""
    cells = table(l="Effusion|Mass Mass NoFinding Hernia|Effusion -")
    assert y_of(LISTED, cells, **how, separator="|") == [
        [1, 1], [0, 1], [0, 0], [1, 0], [None, None],
    ]  # fmt: skip


def test_a_finding_that_is_spelled_otherwise_in_a_list_is_refused_and_not_read_as_absent() -> None:
    with pytest.raises(DataError, match=r"row 2: .* fits names with '\|' between them"):
        y_of(LISTED, table(l="Mass effusion|Mass"), label="l", separator="|")
    with pytest.raises(DataError, match=r"row 1: .* if a cell lists several findings, say separ"):
        y_of(LISTED, table(l="None Mass|x Mass"), labels={"Effusion": "l", "Mass": "l"})
    with pytest.raises(ConfigError, match="separator: is for findings"):
        label_rule(CLASSES, label="l", labels=None, separator="|")
    with pytest.raises(ConfigError, match=r"goes without values"):
        label_rule(LISTED, label="l", labels=None, separator="|", values={"a": 1})


def test_all_rows_with_a_label_that_does_not_fit_are_told() -> None:
    with pytest.raises(DataError, match=r"row 2: .* 3 such rows: 2, 3, 4$") as told:
        y_of(BINARY, table(l="0 2 2 2 1"), label="l")
    assert (told.value.rule, told.value.rows) == ("label-unknown", (2, 3, 4))


@pytest.mark.parametrize(
    "cell", ["Effusion;Mass", "Effusion, Mass", "Hernia / mass", "Mass+x|Hernia"]
)
def test_a_label_beside_another_mark_than_the_separator_is_an_error(cell: str) -> None:
    """Both findings were read as not there, in every row that lists two."""
    cells = CsvTable("a.csv", {"l": ["Effusion", "Hernia", cell]}, np.arange(1, 4))
    told = r"a\.csv row 3: label 'l' is .*fits names with '\|' between them"
    with pytest.raises(DataError, match=told):
        y_of(LISTED, cells, label="l", separator="|")


def test_a_label_whose_own_name_has_a_mark_is_read() -> None:
    """ "Enlarged, left" is a name where the task says so."""
    task = Task(name="multilabel", labels=("Enlarged, left", "Mass"), input=(2,))
    cells = CsvTable("a.csv", {"l": ["Enlarged, left|Mass", "Mass"]}, np.arange(1, 3))
    assert y_of(task, cells, label="l", separator="|") == [[1, 1], [0, 1]]
