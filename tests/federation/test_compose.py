"""The compose file's documented commands, as far as they go without an engine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fedrad.config import load_experiment, load_site_file

ROOT = Path(__file__).parents[2]
FILE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


def mounts(service: str) -> dict[str, str]:
    """Where in a service's container which folder or volume lies."""
    found = FILE["services"][service]["volumes"]
    return {one.split(":")[1]: one.split(":")[0] for one in found}


def test_the_reports_folder_is_made_ready_before_the_researcher_writes_there() -> None:
    """Docker makes a folder that is not there as root, and the researcher's process is not root."""
    where = "./runs"
    assert where in mounts("researcher").values() and where in mounts("kits").values()
    ready = FILE["services"]["coordinator"]["depends_on"]["kits"]["condition"]
    assert ready == "service_completed_successfully"
    assert "coordinator" in FILE["services"]["researcher"]["depends_on"]
    text = (ROOT / "scripts" / "compose-test").read_text(encoding="utf-8")
    assert "mkdir" not in text and "chmod" not in text, "the test must not help the commands along"


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
    for _ in range(2):
        subprocess.run(["sh", "-ec", text], check=True, env={**os.environ, "PATH": path})
    digest = load_experiment(ROOT / "experiments" / "quickstart.yaml").digest()
    for site in ("nord", "sued", "west"):
        own = tmp_path / "kits" / site / "site.yaml"
        assert load_site_file(own).experiments == (digest,)
        assert own.stat().st_uid == 1000
    assert (tmp_path / "runs").stat().st_uid == 1000
