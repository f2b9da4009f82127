from pathlib import Path

import numpy as np
import pytest

from fedrad.data.columns import (
    attributes_of,
    found_in,
    patient_of,
    read_columns,
    selected,
    site_of,
    split_of,
)
from fedrad.errors import ConfigError, DataError


def table(folder: Path, text: str, **options):
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
        ("a,a\n1,2\n", "two columns are named 'a'"),
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


def test_a_missing_column_is_told_with_the_nearest(tmp_path) -> None:
    """Most are typing errors."""
    with pytest.raises(
        DataError, match=r"no column 'patient' \(did you mean 'patient_id'\?\); it has"
    ):
        table(tmp_path, "patient_id,x\n1,2\n").column("patient", "patient")


def test_rows_are_selected_by_cells_and_sites_and_keep_their_numbers(tmp_path) -> None:
    """Numbers in YAML are texts in a table."""
    found = table(tmp_path, "site,view,icu\nn,PA,1\nn,AP,1\nw,PA,0\nw,PA,1\n")
    kept = selected(found, where={"view": "PA", "icu": [1]}, site="site", sites=["w"])
    assert kept.row.tolist() == [4]
    assert kept.where(0) == "labels.csv row 4"


def test_selecting_nothing_or_an_unknown_site_is_refused(tmp_path) -> None:
    """An empty site would pass for one that has nothing to say."""
    found = table(tmp_path, "site,view\nnord,PA\nwest,PA\n")
    with pytest.raises(DataError, match="none of its 2 rows is left"):
        selected(found, where={"view": "LL"}, site=None, sites=None)
    with pytest.raises(ConfigError, match=r"no row of site 'nrd' \(did you mean 'nord'"):
        selected(found, where=None, site="site", sites=["nrd"])
    with pytest.raises(ConfigError, match="sites: needs a site column"):
        selected(found, where=None, site=None, sites=["nord"])


def test_a_cell_is_quoted_only_where_the_column_is_a_list_of_words() -> None:
    """A column that was taken for the label by mistake may hold names."""
    assert found_in(["yes", "no", "yes", "maybe", "no", "no"], 3) == "'maybe'"
    assert found_in(["Ann", "Bob", "Cat", "Ann"], 0) == "a text"


def test_patients_are_hashed_rows_are_patients_without_ids_and_numbers_may_be_a_sites_own(
    tmp_path,
) -> None:
    """Patient 1 of nord and patient 1 of west are one person or two: only the user knows."""
    found = table(tmp_path, "id,site\n1,nord\n1,west\n1,nord\n")
    site = site_of(found, "site")
    common = patient_of(found, "id", site, per_site=False)
    own = patient_of(found, "id", site, per_site=True)
    rows = patient_of(found, None, site, per_site=False)
    assert [len(np.unique(ids)) for ids in (common, own, rows)] == [1, 2, 3]
    assert common.dtype == np.uint64
    assert (patient_of(found, "id", None, per_site=True) == common).all()


def test_an_empty_patient_or_site_is_refused(tmp_path) -> None:
    """All rows without a patient would become one patient."""
    found = table(tmp_path, "id,site\n1,\n,nord\n")
    with pytest.raises(DataError, match=r"row 2: the patient \(column 'id'\) is empty"):
        patient_of(found, "id", None, per_site=False)
    with pytest.raises(DataError, match="row 1: the site"):
        site_of(found, "site")


def test_splits_have_synonyms_and_no_others(tmp_path) -> None:
    """Each source has its own word for validation."""
    found = table(tmp_path, "s\ntrain\nValidation\ntest\ndev\n")
    assert split_of(found, "s").tolist() == ["train", "val", "test", "val"]
    with pytest.raises(DataError, match="row 2: found a text; fits train, val or test"):
        split_of(table(tmp_path, "s\ntrain\nholdout\n"), "s")


def test_ages_are_years_whatever_they_are_written_in(tmp_path) -> None:
    """DICOM PS3.5, value representation AS: nnnD, nnnW, nnnM, nnnY."""
    found = attributes_of(table(tmp_path, "a,s\n58.5,F\n058Y,M\n018M,\n,F\n"), age="a", sex="s")
    np.testing.assert_allclose(found["age"], [58.5, 58, 1.5, np.nan])
    assert found["sex"].tolist() == ["F", "M", "", "F"]
    with pytest.raises(DataError, match="fits a number of years"):
        attributes_of(table(tmp_path, "a,b\nold,1\n"), age="a")
