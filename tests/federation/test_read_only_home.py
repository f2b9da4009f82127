"""A hospital's service may write to its own `state_dir` and to nothing else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedrad.config import from_text, load_site_file
from fedrad.data.sites import hospital_of
from fedrad.deployment.preflight import run_checks

QUESTION = """
{name: films, task: {name: binary, labels: [lesion], input: [1, 8, 8]}, model: cnn,
 local: {epochs: 1}, rounds: 1, algorithm: fedavg}
"""
SITE = """
name: nord
coordinator: {host: localhost, port: 9}
task: {name: binary, labels: [lesion], input: [1, 8, 8]}
data: {name: images, csv: films.csv, image: path, patient: id, label: finding, split: part}
data_root: films
allow: {algorithms: [fedavg], models: [cnn], actions: [fit]}
experiments: any
min_patients: 5
max_upload_mb: 5
max_norm: null
"""


def kit(folder: Path) -> Path:
    """A site file and sixty real images beside it."""
    films = folder / "films"
    films.mkdir(parents=True)
    draw, rows = np.random.default_rng(3), ["id,path,finding,part"]
    for n in range(60):
        pixels = draw.integers(0, 255, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(films / f"{n}.png")
        rows.append(f"p{n},{n}.png,{n // 3 % 2},{('train', 'val', 'test')[n % 3]}")
    (films / "films.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "site.yaml").write_text(SITE, encoding="utf-8")
    return folder / "site.yaml"


@pytest.fixture(autouse=True)
def _no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDRAD_CACHE", raising=False)
    # A file: no folder can be made under it, by root neither.
    monkeypatch.setenv("HOME", os.devnull)


def test_decoded_images_are_kept_in_the_sites_own_folder(tmp_path: Path) -> None:
    """The home of a service is read only, and may not be there at all."""
    site = load_site_file(kit(tmp_path))
    data = hospital_of(from_text(QUESTION), site).sites["nord"]
    assert data.images("train") == 20
    assert list((tmp_path / "state" / "cache").glob("*.npy"))


def test_a_folder_that_is_named_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDRAD_CACHE", str(tmp_path / "named"))
    hospital_of(from_text(QUESTION), load_site_file(kit(tmp_path)))
    assert list((tmp_path / "named").glob("*.npy")) and not (tmp_path / "state").exists()


def test_the_doctor_blames_the_folder_and_not_the_films(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDRAD_CACHE", "/dev/null/cache")
    found = {one.what: one for one in run_checks(kit(tmp_path))}["data"]
    assert found.colour == "red" and "decoded images cannot be kept" in found.found
    assert found.cure == "the machine's owner: make room there, or let this user write"


@pytest.mark.deploy
@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare"
)
def test_a_site_reads_its_films_where_all_else_is_read_only(tmp_path: Path) -> None:
    """As compose's `read_only: true` and systemd's `ProtectSystem=strict`: only the kit is open."""
    path = kit(tmp_path)
    code = (
        "from pathlib import Path; from fedrad.config import from_text, load_site_file\n"
        "from fedrad.data.sites import hospital_of\n"
        f"data = hospital_of(from_text('''{QUESTION}'''), load_site_file(Path('{path}')))\n"
        "print(data.sites['nord'].images('train'), 'read')\n"
        "try: open('/var/probe', 'w')\n"
        "except OSError as error: print(error.strerror)\n"
    )
    (tmp_path / "read.py").write_text(code, encoding="utf-8")
    shut = f"mount --bind {tmp_path} {tmp_path} && mount -o remount,bind,ro / && "
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{shut} exec {sys.executable} {tmp_path}/read.py"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HOME": "/root", "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=300,
    )
    assert done.stdout.splitlines() == ["20 read", "Read-only file system"], done.stderr[-2000:]
