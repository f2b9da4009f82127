"""From an experiment to its sites: names, patients of several files, and numbers that fit."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedrad.config import Experiment, from_text
from fedrad.data.sites import federation_of
from fedrad.errors import ConfigError, DataError, DataLeakageError

TABLE = """
name: tiny
task: {name: binary, labels: [disease], input: [1]}
data: {name: table, csv: all.csv, features: [age], label: sick, patient: id, site: place}
split: {val: 0.2, test: 0.2}
model: mlp
local: {epochs: 1}
rounds: 2
algorithm: fedavg
"""
PLAIN = from_text(TABLE)

FILES = """
name: tiny
task: {name: binary, labels: [disease], input: [1]}
sites: [nord.yaml, west.yaml]
split: {val: 0.2, test: 0.2}
model: mlp
local: {epochs: 1}
rounds: 2
algorithm: fedavg
"""


def lines(place: str, first: int = 0, number: int = 10) -> list[str]:
    return [f"{first + k},{50 + k},{k % 2},{place}" for k in range(number)]


def one_table(folder: Path, rows: list[str], **changes: object) -> Experiment:
    (folder / "all.csv").write_text("\n".join(["id,age,sick,place", *rows]), encoding="utf-8")
    return Experiment.model_validate(PLAIN.model_dump() | changes)


def site_files(folder: Path, *, per_site: bool = False, **changes: object) -> Experiment:
    """Two hospitals that both number their patients from 0."""
    for name in ("nord", "west"):
        (folder / f"{name}.csv").write_text("\n".join(["id,age,sick,place", *lines(name)]))
        (folder / f"{name}.yaml").write_text(
            f"name: {name}\ndata: {{name: table, csv: {name}.csv, features: [age], label: sick, "
            f"patient: id, patient_per_site: {str(per_site).lower()}}}\n"
        )
    paths = tuple(str(folder / f"{name}.yaml") for name in ("nord", "west"))
    return Experiment.model_validate(from_text(FILES).model_dump() | {"sites": paths} | changes)


@pytest.mark.parametrize("name", ["Klinik Süd (2)", "東京_3", "St. Anna"])
def test_a_sites_name_may_be_of_any_language(tmp_path: Path, name: str) -> None:
    found = federation_of(one_table(tmp_path, [*lines("nord"), *lines(name, 10)]), tmp_path)
    assert set(found.sites) == {"nord", name}


@pytest.mark.parametrize("name", ["../../Mustermann", "/tmp/x", "a|b", ".hidden", "x" * 101])
def test_a_sites_name_that_is_no_folder_is_told_by_its_row_and_not_repeated(
    tmp_path: Path, name: str
) -> None:
    """Sites keep their memory in folders of their names; a wrong column may hold persons."""
    experiment = one_table(tmp_path, [*lines("nord"), *lines(name, 10)])
    with pytest.raises(DataError, match=r"^row 11: a site cannot have the name") as told:
        federation_of(experiment, tmp_path)
    assert name not in str(told.value)


def test_equal_numbers_in_two_hospitals_files_are_two_people(tmp_path: Path) -> None:
    """Each hospital counts its patients from 0; nobody visits both unless the experiment says."""
    found = federation_of(site_files(tmp_path), tmp_path)
    patients = [set(one.patient.tolist()) for one in found.sites.values()]
    assert len(patients[0]) == len(patients[1]) == 10
    assert not patients[0] & patients[1]


def test_shared_patients_are_the_same_in_all_files_and_get_one_split(tmp_path: Path) -> None:
    experiment = site_files(tmp_path, shared_patients=True, split=None)
    for name in ("nord", "west"):
        rows = [f"{line},{'test' if k < 5 else 'train'}" for k, line in enumerate(lines(name))]
        (tmp_path / f"{name}.csv").write_text("\n".join(["id,age,sick,place,split", *rows]))
        path = tmp_path / f"{name}.yaml"
        path.write_text(path.read_text().replace("label:", "split: split, label:"))
    found = federation_of(experiment, tmp_path)
    patients = [set(one.patient.tolist()) for one in found.sites.values()]
    assert patients[0] == patients[1]


def test_patient_per_site_needs_no_site_column_in_a_hospitals_own_file(tmp_path: Path) -> None:
    """The file is the site's."""
    assert federation_of(site_files(tmp_path, per_site=True), tmp_path).training == ("nord", "west")


def test_a_patients_split_at_a_site_does_not_depend_on_the_other_sites_files(
    tmp_path: Path,
) -> None:
    experiment = site_files(tmp_path)
    alone = experiment.model_copy(update={"sites": experiment.sites[:1]})
    both = federation_of(experiment, tmp_path).sites["nord"].rows
    for split, rows in federation_of(alone, tmp_path).sites["nord"].rows.items():
        np.testing.assert_array_equal(rows, both[split])


@pytest.mark.parametrize("key", ["quorum", "sites_per_round"])
def test_more_sites_than_there_are_is_told_before_anything_is_trained(
    tmp_path: Path, key: str
) -> None:
    rows = [*lines("nord"), *lines("west", 10), *lines("ost", 20)]
    fits = one_table(tmp_path, rows, **{key: 3})
    assert len(federation_of(fits, tmp_path).training) == 3
    with pytest.raises(ConfigError, match=rf"^{key}: found 3, but 2 sites train: nord, west$"):
        federation_of(one_table(tmp_path, rows, **{key: 3, "held_out_sites": ["ost"]}), tmp_path)


def with_images(folder: Path, name: str, seed: int) -> str:
    """A site file of ten random images; equal seeds make equal images."""
    rng = np.random.default_rng(seed)
    (folder / name).mkdir()
    for k in range(10):
        pixels = rng.integers(0, 255, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name / f"{k}.png")
    rows = [f"{k}.png,{k},{k % 2}" for k in range(10)]
    (folder / name / "all.csv").write_text("\n".join(["image,id,sick", *rows]))
    path = folder / f"{name}.yaml"
    path.write_text(
        f"name: {name}\ndata: {{name: images, csv: {name}/all.csv, patient: id, label: sick}}\n"
    )
    return str(path)


def test_a_site_without_images_does_not_switch_off_the_check_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nord and west hold the same films; ost's adapter knows no pixels."""
    from dataclasses import replace

    from fedrad.data import ADAPTERS, images, sites

    def blind(*given: object, csv: str, patient: str, label: str) -> object:
        return replace(images(*given, csv=csv, patient=patient, label=label), pixels=None)

    monkeypatch.setattr(sites, "ADAPTERS", {**ADAPTERS, "blind": blind})
    files = [with_images(tmp_path, n, seed) for n, seed in (("nord", 1), ("west", 1), ("ost", 2))]
    ost = Path(files[2])
    ost.write_text(ost.read_text().replace("name: images", "name: blind"))
    experiment = Experiment.model_validate(
        from_text(FILES).model_dump()
        | {"sites": files, "task": {"name": "binary", "labels": ["x"], "input": [1, 32, 32]}}
    )
    with pytest.raises(DataLeakageError, match=r"images in two splits \(nord"):
        federation_of(experiment, tmp_path)
    apart = experiment.model_copy(update={"sites": (files[0], files[2])})
    assert federation_of(apart, tmp_path).training == ("nord", "ost")
