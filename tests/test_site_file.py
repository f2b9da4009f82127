"""A hospital's own file: closed unless it says otherwise, and a slip never opens it."""

from pathlib import Path

import pytest

from fedrad.config import from_text, load_site, load_site_file
from fedrad.data.sites import federation_of, hospital_of
from fedrad.errors import ConfigError

TEXT = """
name: nord
coordinator: {host: fl.example.org, port: 9092}
data: {name: images, csv: films.csv, label: lesion}
data_root: films
allow: {algorithms: [fedavg], models: [cnn], actions: [fit]}
min_patients: 10
max_upload_mb: 50
max_norm: null
"""
QUESTION = """
name: tiny
task: {name: binary, labels: [lesion], input: [1, 8, 8]}
data: {name: phantom}
model: cnn
local: {epochs: 1}
rounds: 1
algorithm: fedavg
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "site.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_is_not_named_is_not_allowed(tmp_path: Path) -> None:
    """Closed by default: a file without a policy allows nothing and approves nothing."""
    text = TEXT.replace("allow: {algorithms: [fedavg], models: [cnn], actions: [fit]}\n", "")
    site = load_site_file(written(tmp_path, text))
    assert site.allow.algorithms == site.allow.models == site.allow.actions == ()
    assert site.experiments == ()
    assert site.min_cell == 5


def test_paths_are_from_the_files_own_folder(tmp_path: Path) -> None:
    """A service is started from anywhere; a kit is unpacked anywhere."""
    site = load_site_file(written(tmp_path, TEXT))
    assert site.state_dir == tmp_path / "state"
    assert site.certificates.private_key == tmp_path / "node.key"
    assert site.data_root == str(tmp_path / "films")


def test_a_deployed_sites_file_can_be_simulated(tmp_path: Path) -> None:
    """One file for both: what is tried in a simulation is what runs at the hospital."""
    path = written(tmp_path, TEXT)
    assert load_site(path) == load_site_file(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("min_patients: 10\n", "", r"min_patients: is missing"),
        ("max_upload_mb: 50\n", "", r"max_upload_mb: is missing"),
        ("max_norm: null\n", "", r"max_norm: is missing"),
        ("max_norm: null", "max_nrom: 3", r"max_nrom: unknown key; .*did you mean 'max_norm'"),
        ("models: [cnn]", "modles: [cnn]", r"allow\.modles: .*did you mean 'models'"),
        ("min_patients: 10", "min_patients: 0", r"min_patients: must be greater than 0"),
        ("min_patients: 10", "min_patients: 10\nmin_cell: 0", r"min_cell: must be great"),
        ("port: 9092", "port: 90920", r"coordinator\.port: must be less than 65536"),
        ("host: fl.example.org", "host: 'a b'", r"coordinator\.host: needs a host's name or an IP"),
        ("max_norm: null", "max_norm: null\nexperiments: all", r"needs any, or a list of appr"),
        ("max_norm: null", "max_norm: null\nexperiments: [abc]", r"'abc' is no experiment's dig"),
        (
            "max_norm: null",
            "max_norm: null\ndevice: gpu",
            r"device: needs cpu, cuda or cuda:1, found",
        ),
        ("name: nord", "name: pooled", r"no site may be named 'pooled'"),
    ],
)
def test_a_slip_in_the_policy_is_an_error_and_never_a_rule_less(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in TEXT
    with pytest.raises(ConfigError, match=message):
        load_site_file(written(tmp_path, TEXT.replace(old, new)))


def test_a_site_without_a_folder_of_data_is_told_so_without_the_path(tmp_path: Path) -> None:
    """The message may travel to the coordinator, and a folder's name may hold a person's."""
    question = from_text(QUESTION)
    without = load_site_file(written(tmp_path, TEXT.replace("data_root: films\n", "")))
    with pytest.raises(ConfigError, match="nord: data_root: is missing; adapter images reads"):
        hospital_of(question, without)
    with pytest.raises(ConfigError, match="nord: data_root: is no folder") as told:
        hospital_of(question, load_site_file(written(tmp_path, TEXT)))
    assert str(tmp_path) not in str(told.value)


def test_a_hospital_alone_has_the_rows_it_has_in_a_simulation(tmp_path: Path) -> None:
    """Equal weights over gRPC and in a simulation begin with equal rows and splits."""
    text = TEXT.replace(
        "data: {name: images, csv: films.csv, label: lesion}\ndata_root: films",
        "data: {name: phantom, hospitals: {nord: {patients: 12}}}",
    )
    found = hospital_of(from_text(QUESTION), load_site_file(written(tmp_path, text)))
    data = found.sites["nord"]
    assert found.held_out == () and data.patients("train") > data.patients("val") > 0


def test_an_experiment_for_hospitals_names_no_data(tmp_path: Path) -> None:
    """Across hospitals every site reads its own; a made-up `data:` would only mislead."""
    what = from_text(QUESTION.replace("data: {name: phantom}\n", ""))
    assert "data" not in what.text() and from_text(what.text()) == what
    film = {"name": "phantom", "hospitals": {"nord": {"patients": 12}}}
    text = TEXT.replace("data: {name: images, csv: films.csv, label: lesion}", f"data: {film}")
    site = load_site_file(written(tmp_path, text.replace("data_root: films\n", "")))
    assert list(hospital_of(what, site).sites) == ["nord"]
    with pytest.raises(ConfigError, match=r"names neither data nor sites: .* --on KIT"):
        federation_of(what, tmp_path)


def test_a_partition_needs_something_to_deal_out() -> None:
    text = QUESTION.replace("data: {name: phantom}\n", "partition: dirichlet\n")
    with pytest.raises(ConfigError, match="partition: deals out one source, and data names none"):
        from_text(text)
