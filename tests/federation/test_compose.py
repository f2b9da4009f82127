"""The compose file's documented commands, as far as they go without an engine."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml

from fedrad.config import load_experiment, load_federation, load_site_file
from fedrad.deployment.kits.provision import provision
from fedrad.deployment.preflight.machine import check_keys
from fedrad.deployment.site.supervisor import run_site
from fedrad.errors import MissingError

ROOT = Path(__file__).parents[2]
FILE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))

ONE_SITE = f"""
name: demo
coordinator: {{host: localhost}}
sites: {{nord: {{data_from: {ROOT}/sites/nord.yaml}}}}
"""


def mounted(service: str) -> dict[str, str]:
    """Where in a service's container which folder or volume lies."""
    found = FILE["services"][service]["volumes"]
    return {one.split(":")[1]: one.split(":")[0] for one in found}


def test_the_reports_folder_is_made_ready_before_the_researcher_writes_there() -> None:
    """Docker makes a folder that is not there as root, and the researcher's process is not root."""
    where = "./runs"
    assert where in mounted("researcher").values() and where in mounted("kits").values()
    ready = FILE["services"]["coordinator"]["depends_on"]["kits"]["condition"]
    assert ready == "service_completed_successfully"
    assert "coordinator" in FILE["services"]["researcher"]["depends_on"]


def test_the_compose_test_types_what_the_page_says_in_a_clone_and_makes_no_folder_there() -> None:
    text = (ROOT / "scripts" / "compose-test").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    prepared, demo = text.split("# ---- The demo, word for word.\n")
    for command in ("compose up -d\n", "compose run --rm"):
        assert f"docker {command}" in page and command in demo
    assert "git clone" in prepared and "docker compose build kits" in page
    assert "compose build kits" in prepared
    folders = [line for line in text.splitlines() if "mkdir" in line or "chmod" in line]
    # Where a hospital unpacks its kit, and the films that it has.
    assert [line.strip() for line in folders] == ['mkdir "$work/$federation"', "films.mkdir()"]


def test_two_federations_kits_do_not_take_each_others_place(tmp_path: Path) -> None:
    """By the folder's name compose would take them for one project, and replace a running site."""
    names = []
    for folder in ("one", "two"):
        federation = tmp_path / f"{folder}.yaml"
        federation.write_text(
            "{name: same, coordinator: {host: localhost}, sites: {nord: {}, Köln: {}, 東京: {}}}",
            encoding="utf-8",
        )
        provision(load_federation(federation), tmp_path / folder)
        for site in ("nord", "Köln", "東京"):
            text = (tmp_path / folder / site / ".env").read_text(encoding="utf-8")
            told = dict(line.split("=") for line in text.splitlines() if line[0] != "#")
            names.append(told["COMPOSE_PROJECT_NAME"])
            assert told["FEDRAD_UID"] == told["FEDRAD_GID"] == "1000"
    assert len(set(names)) == 6
    # What compose takes: the folder 東京 alone gives it an empty name, which is an error.
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) for name in names), names


def test_a_kits_service_writes_to_its_own_folder_alone(tmp_path: Path) -> None:
    federation = tmp_path / "federation.yaml"
    federation.write_text(ONE_SITE)
    provision(load_federation(federation), tmp_path)
    file = yaml.safe_load((tmp_path / "nord" / "docker-compose.yml").read_text(encoding="utf-8"))
    site = file["services"]["site"]
    assert site["read_only"] and site["cap_drop"] == ["ALL"]
    assert site["volumes"] == [".:/kit"] and site["tmpfs"] == ["/tmp"]
    assert load_site_file(tmp_path / "nord" / "site.yaml").state_dir == tmp_path / "nord" / "state"


@pytest.fixture
def another_users_kit() -> Iterator[Path]:
    """A kit as root unpacks it, seen by a user who does not own it."""
    with TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o755)
        federation = folder / "federation.yaml"
        federation.write_text(ONE_SITE)
        provision(load_federation(federation), folder)
        (folder / "nord").chmod(0o755)
        os.setresuid(65534, 65534, 0)
        try:
            yield folder / "nord"
        finally:
            os.setresuid(0, 0, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, as root can")
def test_a_kit_of_another_user_says_whose_it_is(another_users_kit: Path) -> None:
    """A container that runs as 1000 with a kit of root's: a new key would not help."""
    path = another_users_kit / "site.yaml"
    whose = "node.key belongs to user 0, and this is user 65534, who may not read it"
    with pytest.raises(MissingError, match=f"^nord: {whose}; .*FEDRAD_UID and FEDRAD_GID in .env"):
        run_site(path, print)
    found = {one.what: one for one in check_keys(load_site_file(path))}["keys"]
    assert found.colour == "red" and found.found == whose
    assert "keygen" not in found.cure and "FEDRAD_UID" in found.cure


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, as root can")
@pytest.mark.parametrize("there", [False, True])
def test_a_state_folder_that_cannot_be_written_is_named(
    another_users_kit: Path, there: bool
) -> None:
    os.setresuid(0, 0, 0)
    (another_users_kit / "node.key").chmod(0o644)
    if there:
        (another_users_kit / "state").mkdir(mode=0o755)
    os.setresuid(65534, 65534, 0)
    with pytest.raises(MissingError, match=r"^nord: state_dir .*/nord/state cannot be written by"):
        run_site(another_users_kit / "site.yaml", print)


@pytest.mark.deploy
@pytest.mark.skipif(os.geteuid() != 0, reason="gives folders to another user, as root does there")
def test_the_first_service_makes_kits_that_play_the_quickstart(tmp_path: Path) -> None:
    """Its own shell text, with this machine's folders: twice, since `up` may be said twice."""
    *_, text = FILE["services"]["kits"]["entrypoint"]
    text = text.replace("$$", "$").replace("fedrad: ", "1000:1000 ")
    for place in ("/kits", "/runs"):
        (tmp_path / place[1:]).mkdir()
        text = text.replace(place, str(tmp_path / place[1:]))
    text = text.replace("/sites/", f"{ROOT}/sites/").replace(
        "/experiments/", f"{ROOT}/experiments/"
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    # A run that root made before docker was tried: the report's folder is to be written again.
    (tmp_path / "runs" / "quickstart").mkdir()
    for _ in range(2):
        subprocess.run(["sh", "-ec", text], check=True, env={**os.environ, "PATH": path})
    digest = load_experiment(ROOT / "experiments" / "quickstart.yaml").digest()
    for site in ("nord", "sued", "west"):
        own = tmp_path / "kits" / site / "site.yaml"
        assert load_site_file(own).experiments == (digest,)
        assert own.stat().st_uid == 1000
    for folder in ("runs", "runs/quickstart"):
        assert (tmp_path / folder).stat().st_uid == 1000
