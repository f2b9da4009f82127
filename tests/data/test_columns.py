from pathlib import Path

import numpy as np
import pytest

from fedrad.data.patients import patients_of
from fedrad.data.reading.columns import (
    attributes_of,
    row_sites,
    selected_rows,
    split_of,
)
from fedrad.data.reading.csv_table import read_columns
from fedrad.errors import ConfigError, DataError


def table(folder: Path, text: str, **options):
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return read_columns(path, **options)


def test_rows_are_selected_by_cells_and_sites_and_keep_their_numbers(tmp_path) -> None:
    """Numbers in YAML are texts in a table."""
    found = table(tmp_path, "site,view,icu\nn,PA,1\nn,AP,1\nw,PA,0\nw,PA,1\n")
    kept = selected_rows(found, where={"view": "PA", "icu": [1]}, site="site", sites=["w"])
    assert kept.row.tolist() == [4]
    assert kept.where(0) == "labels.csv row 4"


def test_selecting_nothing_or_an_unknown_site_is_refused(tmp_path) -> None:
    """An empty site would pass for one that has nothing to say."""
    found = table(tmp_path, "site,view\n" + 2 * "nord,PA\nwest,PA\n")
    with pytest.raises(DataError, match="none of its 4 rows is left"):
        selected_rows(found, where={"view": "LL"}, site=None, sites=None)
    with pytest.raises(ConfigError, match=r"no row of site 'nrd' \(did you mean 'nord'"):
        selected_rows(found, where=None, site="site", sites=["nrd"])
    with pytest.raises(ConfigError, match="sites: needs a site column"):
        selected_rows(found, where=None, site=None, sites=["nord"])


def test_a_hint_is_no_way_to_read_a_column_of_names(tmp_path) -> None:
    """The column of names was taken for the sites': the nearest of them must not be told."""
    found = table(tmp_path, "site,view\nMustermann,PA\nMuster,PA\n")
    with pytest.raises(ConfigError, match=r"no row of site 'Mustermenn'$"):
        selected_rows(found, where=None, site="site", sites=["Mustermenn"])


def test_patients_are_hashed_rows_are_patients_without_ids_and_numbers_may_be_a_sites_own(
    tmp_path,
) -> None:
    """Patient 1 of nord and patient 1 of west are one person or two: only the user knows."""
    found = table(tmp_path, "id,site\n1,nord\n1,west\n1,nord\n")
    site = row_sites(found, "site")
    common = patients_of(found, "id", site, per_site=False).hashed
    own = patients_of(found, "id", site, per_site=True).hashed
    rows = patients_of(found, None, site, per_site=False).hashed
    assert [len(np.unique(ids)) for ids in (common, own, rows)] == [1, 2, 3]
    assert common.dtype == np.uint64
    assert (patients_of(found, "id", None, per_site=True).hashed == common).all()


def test_an_empty_patient_or_site_is_refused(tmp_path) -> None:
    """All rows without a patient would become one patient."""
    found = table(tmp_path, "id,site\n1,\n,nord\n")
    with pytest.raises(DataError, match=r"row 2: the patient \(column 'id'\) is empty"):
        patients_of(found, "id", None, per_site=False)
    with pytest.raises(DataError, match="row 1: the site"):
        row_sites(found, "site")


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
