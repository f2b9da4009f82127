"""Across real processes: the same weights as in one, whatever dies on the way."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from deployed import Deployed

pytestmark = pytest.mark.deploy

ARMS = ("fedavg", "fedprox", "finetune")


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """A coordinator and three hospitals that run."""
    deployed = Deployed(tmp_path_factory.mktemp("deployed"))
    try:
        deployed.start()
        yield deployed
    finally:
        deployed.stop()


@pytest.fixture(scope="module")
def undisturbed(federation: Deployed) -> Path:
    """The same experiment in one process."""
    return federation.local("undisturbed")


def same_weights(one: Path, other: Path, arm: str) -> bool:
    """Whether two runs ended with the same bits, and tested them the same."""
    files = [f"{arm}/seed-0/{name}.safetensors" for name in ("state", "evaluation")]
    return all((one / file).read_bytes() == (other / file).read_bytes() for file in files)


def test_across_processes_every_arm_ends_with_the_bits_of_one_process(
    federation: Deployed, undisturbed: Path
) -> None:
    """Same YAML, same seeds, same model in every runtime; curves and report as well."""
    run = federation.run("grpc")
    assert run.wait() == 0, federation.log("grpc")
    where = federation.folder / "grpc"
    for arm in ARMS:
        assert same_weights(where, undisturbed, arm), arm
    assert (where / "report.html").is_file()
    assert curves(where) == curves(undisturbed)


def curves(where: Path) -> list[list[object]]:
    """The validation values of every round."""
    import json

    return [
        [json.loads(line)["validation"] for line in (file).read_text().splitlines()]
        for arm in ARMS
        for file in [where / arm / "seed-0" / "rounds.jsonl"]
    ]


@pytest.mark.parametrize(
    ("victim", "arm"),
    [
        ("run", "fedavg"),
        ("superlink", "fedprox"),
        ("nord/worker", "finetune"),
        ("nord/supernode", "fedavg"),
        ("nord", "finetune"),
        ("coordinator", "fedprox"),
    ],
)
def test_a_process_killed_in_the_middle_of_a_run_changes_no_bit(
    federation: Deployed, undisturbed: Path, victim: str, arm: str
) -> None:
    """Killed with SIGKILL after round 2; what was lost is asked again, memory is on the disk."""
    out = f"killed-{victim.replace('/', '-')}"
    run = federation.run(out, "--arm", arm)
    federation.wait_for_round(out, arm, 2)
    federation.kill(out if victim == "run" else victim)
    if victim == "run":
        run = federation.run(out, "--arm", arm)
    elif victim == "coordinator":
        federation.start_coordinator()
    elif victim == "nord":
        federation.start_site("nord")
    assert run.wait(timeout=280) == 0, federation.log(out)
    assert same_weights(federation.folder / out, undisturbed, arm)
