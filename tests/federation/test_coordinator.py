"""The coordinator serves on, whatever happens to keys, nodes and its server process."""

import dataclasses
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployed import Deployed

from fedrad.deployment.coordinator.kit import CoordinatorKit
from fedrad.deployment.coordinator.status import WITHDRAWN, site_statuses
from fedrad.deployment.coordinator.superlink import SuperLinkClient
from fedrad.errors import SiteFailedError


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """A coordinator, and no site."""
    found = Deployed(tmp_path_factory.mktemp("coordinator"))
    try:
        found.start_coordinator()
        found.wait_for("coordinator", "west may connect")
        yield found
    finally:
        found.stop()


def said(deployed: Deployed, text: str) -> int:
    """How often the coordinator has said something."""
    return deployed.log("coordinator").count(text)


def kit(deployed: Deployed) -> CoordinatorKit:
    """The coordinator's kit."""
    return CoordinatorKit.load(deployed.kits / "coordinator")


def states(deployed: Deployed) -> dict[str, str]:
    """What fedrad status tells of each site."""
    return {site.name: site.state for site in site_statuses(kit(deployed)) or []}


@pytest.mark.deploy
def test_the_control_port_opens_only_for_who_can_read_the_kit(deployed: Deployed) -> None:
    """Anybody with an account on the machine could else register a key, or take one away."""
    link = kit(deployed).link()
    assert {info.name for info in link.nodes()} >= {"nord", "sued", "west"}
    other = SuperLinkClient(dataclasses.replace(link.door, secret=b"x" * 32), patience=2.0)
    for call in (other.nodes, lambda: other.register("ost", b""), lambda: other.open("")):
        with pytest.raises(SiteFailedError, match="does not take this kit's secret"):
            call()
    place = deployed.kits / "coordinator" / "state"
    assert place.stat().st_mode & 0o077 == 0


@pytest.mark.deploy
def test_a_key_that_is_moved_away_and_back_lets_its_site_in_again(deployed: Deployed) -> None:
    """Flower takes no key twice, so the site would be refused for ever."""
    file = deployed.kits / "coordinator" / "sites" / "nord.pub"
    for _ in range(2):
        out, back = said(deployed, "nord may not connect any more"), said(deployed, "nord may conn")
        shutil.move(file, deployed.folder / "nord.pub")
        deployed.wait_for("coordinator", "nord may not connect any more", more_than=out)
        # A site that is gone from the table would not be missed.
        assert states(deployed)["nord"] == WITHDRAWN
        shutil.move(deployed.folder / "nord.pub", file)
        deployed.wait_for("coordinator", "nord may connect", more_than=back)
        assert states(deployed) == dict.fromkeys(("nord", "sued", "west"), "registered")


@pytest.mark.deploy
def test_a_key_that_is_damaged_is_told_once_and_the_site_stays(deployed: Deployed) -> None:
    file = deployed.kits / "coordinator" / "sites" / "west.pub"
    whole = file.read_bytes()
    file.write_bytes(b"nonsense")
    deployed.wait_for("coordinator", "the key that west had before still holds")
    file.write_bytes(whole)
    assert said(deployed, "west may not connect") == 0


@pytest.mark.deploy
def test_a_node_that_somebody_unregistered_is_let_in_again(deployed: Deployed) -> None:
    link, before = kit(deployed).link(), said(deployed, "sued may connect")
    (node,) = [i for i in link.nodes() if i.name == "sued" and i.status != "unregistered"]
    link.unregister(node.node_id)
    deployed.wait_for("coordinator", "sued may connect", more_than=before)
    assert states(deployed)["sued"] == "registered"
    (again,) = [i for i in link.nodes() if i.name == "sued" and i.status != "unregistered"]
    assert again.node_id != node.node_id


@pytest.mark.deploy
def test_a_server_process_killed_while_it_starts_is_started_again(deployed: Deployed) -> None:
    """The second and third kill come before it listens."""
    ready = said(deployed, "ready;")
    for _ in range(3):
        kill(deployed)
        time.sleep(0.5)
    deployed.wait_for("coordinator", "ready;", more_than=ready)
    assert said(deployed, "starting it again") == 3
    assert len(kit(deployed).link().nodes()) >= 3


def kill(deployed: Deployed) -> None:
    """Kill the server process, as soon as there is one."""
    while True:
        try:
            return deployed.kill("superlink")
        except AssertionError:
            time.sleep(0.05)


MAIN = """
import threading, time
from fedrad.deployment.flower_process import ended_by
def main():
    threading.Thread(target=time.sleep, args=(600,)).start()
    {ends}
ended_by(main)
"""


@pytest.mark.parametrize(
    ("ends", "code"),
    [("raise RuntimeError('gone')", 1), ("pass", 0), ("raise SystemExit(3)", 3)],
)
def test_a_server_whose_main_thread_is_dead_ends_with_all_its_threads(ends: str, code: int) -> None:
    """Whoever looks after a process sees that it is gone only if it is gone."""
    done = subprocess.run(
        [sys.executable, "-c", MAIN.format(ends=ends)],
        env=dict(os.environ),
        timeout=100,
        capture_output=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == code
