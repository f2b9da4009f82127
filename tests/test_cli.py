"""The command line as a user meets it: by what it prints and returns."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import pytest

from fedrad.cli import main

SMALL = """
task: {name: binary, labels: [lesion], input: [1, 32, 32]}
data: {name: phantom, hospitals: {nord: {patients: 40}, ost: {patients: 30}}}
model: {name: cnn, width: 4}
local: {steps: 2, batch: 8}
rounds: 2
replicates: 100
metrics: [auroc, brier]
arms:
  local: {algorithm: local}
  fedavg: {algorithm: fedavg}
primary: {arm: fedavg, against: local}
"""


def fedrad(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder and a process of its own, as a user does."""
    code = "import sys; from fedrad.cli import main; sys.argv[0] = 'fedrad'; main()"
    known = {k: v for k, v in os.environ.items() if k not in ("FEDRAD_DATA", "COLUMNS")}
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=cwd, env=known | {"COLUMNS": "100"},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@dataclass
class Ran:
    """What a command returned and printed."""

    returncode: int
    stdout: str
    stderr: str


Call = Callable[..., Ran]


@pytest.fixture
def call(small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The command in this process: the same, without importing torch anew."""
    monkeypatch.chdir(small)
    monkeypatch.delenv("FEDRAD_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*words: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["fedrad", *words])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        told = capsys.readouterr()
        return Ran(code, told.out, told.err)

    return run


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(SMALL, encoding="utf-8")
    return tmp_path


def test_a_run_ends_with_the_table_and_the_path_of_the_page(call: Call, small: Path) -> None:
    ran = call("run", "small.yaml")
    assert ran.returncode == 0, ran.stderr
    assert "fedavg" in ran.stdout and "local" in ran.stdout
    assert ran.stdout.strip().endswith("Report: runs/small/report.html")
    assert "\x1b" not in ran.stdout
    results = json.loads((small / "runs" / "small" / "results.json").read_text())
    assert [arm["status"] for arm in results["arms"]] == ["finished", "finished"]
    assert "<html" in (small / "runs" / "small" / "report.html").read_text()

    again = call("run", "small.yaml")
    assert again.returncode == 0
    assert again.stdout.count("finished before") == 2


def test_one_arm_and_one_changed_key(call: Call, small: Path) -> None:
    ran = call("run", "small.yaml", "--arm", "fedavg", "--set", "rounds=1", "--out", "here")
    assert ran.returncode == 0, ran.stderr
    assert (small / "here" / "fedavg" / "seed-0" / "state.safetensors").is_file()
    results = json.loads((small / "here" / "results.json").read_text())
    status = {arm["name"]: (arm["status"], arm["reason"]) for arm in results["arms"]}
    assert status == {"local": ("missing", "not run yet"), "fedavg": ("finished", None)}
    assert results["experiment"]["rounds"] == 1


def test_a_seed_that_finished_as_asked_is_no_failure(call: Call, small: Path) -> None:
    """A script that plays seed by seed stops at the first exit code that is not 0."""
    seeds = ("run", "small.yaml", "--set", "seeds=[0,1]")
    first = call(*seeds, "--seed", "0", "--arm", "fedavg")
    assert first.returncode == 0, first.stderr
    told = " ".join(first.stdout.split())
    assert "All that was asked for is finished: fedavg with seed 0." in told
    assert "Left of the experiment: local seeds 0, 1, fedavg seed 1; the same command" in told
    results = json.loads((small / "runs" / "small" / "results.json").read_text())
    status = {arm["name"]: (arm["status"], arm["reason"]) for arm in results["arms"]}
    assert status["fedavg"] == ("incomplete", "seed 1 not run yet")
    rest = call(*seeds)
    assert rest.returncode == 0 and "Left of the experiment" not in rest.stdout


def test_check_runs_nothing_and_tells_what_would_run(call: Call, small: Path) -> None:
    ran = call("check", "small.yaml")
    assert ran.returncode == 0, ran.stderr
    for told in ("2 arms x 1 seeds x 2 rounds", "parameters", "nord", "±0.", "Jensen-Shannon"):
        assert told in ran.stdout
    assert not (small / "runs").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "none.yaml"], "none.yaml: cannot be read"),
        (["run", "small.yaml", "--set", "ronds=3"], "did you mean 'rounds'?"),
        (["run", "small.yaml", "--arm", "fedagv"], "did you mean 'fedavg'?"),
        (
            ["run", "small.yaml", "--seed", "7"],
            "--seed 7 is not one of the experiment's seeds 0; --set 'seeds=[0, 7]' adds it",
        ),
        (["run", "small.yaml", "--set", "model=cmn"], "did you mean 'cnn'?"),
        (["run", "small.yaml", "--set", "local.optimizer={name: sgd, lr: fast}"], "found 'fast'"),
        (["check", "small.yaml", "--set", "held_out_sites=[nrod]"], "did you mean 'nord'?"),
        (
            ["check", "small.yaml", "--set", "data={name: images, csv: none.csv, label: x}"],
            "--data-root",
        ),
        (["list", "modles"], "did you mean 'models'?"),
        (["check", "small.yaml", "--set", "rounds=["], "--set rounds:1: expected the node content"),
        (["check", "small.yaml", "--set", "arms.fedavg={local: 5}"], "arms.fedavg.local: needs"),
        (["check", "small.yaml", "--set", "arms.sites={algorithm: local}"], "arms.sites: an arm"),
        (["check", "small.yaml", "--set", "metrics=[]"], "metrics: needs one metric or more"),
        (["check", "small.yaml", "--set", "model.width=1000000000"], "any computer's memory"),
        (["check", "small.yaml", "--set", "quorum=3"], "quorum: found 3, but 2 sites train"),
        (["check", "small.yaml", "--set", "held_out_sites=[nord, nord]"], "'nord' stands twice"),
        (["check", "small.yaml", "--set", "deadline=.inf"], "deadline: must be a finite"),
        (
            ["check", "small.yaml", "--set", "data.hospitals={a/b: {patients: 30}}"],
            "a site cannot have the name that stands here: it holds solidus",
        ),
        (
            ["check", "small.yaml", "--set", "data.hospitals={nord: {patients: 1000000000000}}"],
            "films and 4,000,000,000 bytes are the most, since all of them are held in memory",
        ),
        (
            [
                "check",
                "small.yaml",
                "--set",
                "data.hospitals={nord: {patients: 100, images_per_patient: 1000000}, ost: {}}",
            ],
            "films of 1,024 bytes; 10,000,000 films and",
        ),
        (
            ["check", "small.yaml", "--set", "data.hospitals=100000000"],
            "hospitals: found 100,000,000; 10,000 are the most, since the films",
        ),
        (
            ["check", "small.yaml", "--set", "rounds=1000000000"],
            "rounds: found 1,000,000,000; 1,000,000 are the most, since each writes a line",
        ),
        (
            ["check", "small.yaml", "--set", f"seeds={list(range(1001))}"],
            "seeds: found 1,001; 1,000 are the most, since each is a training of every arm",
        ),
        (
            ["check", "small.yaml", "--set", "local.batch=1000000000000"],
            "or equal to 1000000, found",
        ),
        (["check", "small.yaml", "--set", "local.steps=10000000000"], "equal to 1000000000, found"),
        (
            ["check", "small.yaml", "--set", "task.input=[1, 1000000, 1000000]"],
            "input: has 1,000,000,000,000 numbers; 1,000,000,000 are the most, since a batch",
        ),
        *(
            (
                ["check", "small.yaml", "--set", f"partition={{name: {name}}}"],
                "found 100000000; fits",
            )
            for name in (
                "iid, sites: 100000000",
                "dirichlet, alpha: 1, sites: 100000000",
                "quantity, alpha: 1, sites: 100000000",
                "prevalence, low: 0.1, high: 0.5, sites: 100000000",
            )
        ),
        (
            ["check", "small.yaml", "--set", "arms.fedavg.wrap=[{name: finetune, rounds: 2}]"],
            "2 rounds at home of 2 in all leave none to federate",
        ),
        (["run", "small.yaml", "--device", "foo"], "--device foo: say cpu, cuda, or cuda:1"),
        (["run", "small.yaml", "--out", "small.yaml"], "--out small.yaml: is a file; results need"),
        (["run", "small.yaml", "--out", "small.yaml/x"], "x cannot be written (Not a d"),
    ],
)
def test_a_mistake_is_one_sentence_and_no_traceback(
    call: Call, small: Path, words: list[str], told: str
) -> None:
    ran = call(*words)
    assert ran.returncode == 2 and told in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1
    assert not (small / "runs").exists()


def test_the_device_is_asked_for_before_the_data_are_read(call: Call, small: Path) -> None:
    """Data may take minutes to read."""
    ran = call("run", "small.yaml", "--device", "foo", "--set", "data={name: table, csv: none.csv}")
    assert "--device foo" in ran.stderr


def test_the_results_name_the_very_command_that_made_them(call: Call, small: Path) -> None:
    """With its overrides: a reader types it again and gets the same."""
    words = ["run", "small.yaml", "--arm", "fedavg", "--set", "local={steps: 1}", "--out", "a b"]
    assert call(*words).returncode == 0
    results = json.loads((small / "a b" / "results.json").read_text())
    told = "fedrad run small.yaml --arm fedavg --set 'local={steps: 1}' --out 'a b'"
    assert results["experiment"]["command"] == told


def test_a_gpu_that_is_not_there_is_an_error_and_never_a_silent_cpu(
    call: Call, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    ran = call("run", "small.yaml", "--device", "cuda")
    assert ran.returncode == 2 and "no CUDA device is available" in ran.stderr
    assert not (small / "runs").exists()


def test_names_are_listed_with_their_options(call: Call) -> None:
    ran = call("list", "algorithms")
    assert ran.returncode == 0 and "fedprox" in ran.stdout and "mu=0.01" in ran.stdout


def test_help_needs_no_heavy_import(call: Call) -> None:
    """Half a second is the promise; what makes it true is that none of these is imported."""
    code = (
        "import sys, fedrad.cli; print([m for m in ('torch', 'ray', 'flwr', 'numpy', 'pydantic')"
        " if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
    assert "Example" in call("run", "--help").stdout


def test_what_the_first_batch_does_not_need_is_not_imported(small: Path) -> None:
    """Three seconds to the first batch is the promise; each of these takes a part of a second."""
    code = (
        "import sys; from fedrad.cli import main; import fedrad.training.local as local\n"
        "def fit(*_, **__):\n"
        "    names = ('torch._dynamo', 'torchvision', 'opacus', 'sympy', 'ray', 'jinja2')\n"
        "    print('loaded', [name for name in names if name in sys.modules])\n"
        "    sys.stdout.flush(); import os; os._exit(0)\n"
        "local.fit = fit\n"
        "sys.argv = ['fedrad', 'run', 'small.yaml', '--arm', 'fedavg', '--workers', '1']; main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=small, capture_output=True, text=True, timeout=120
    )
    assert "loaded []" in ran.stdout, ran.stdout + ran.stderr


def test_ctrl_c_says_that_the_same_command_goes_on(small: Path) -> None:
    """As a terminal sends it: to every process of the group; none of them goes on training."""
    said, out = os.pipe()

    def run() -> None:
        os.setsid()
        # A process in the background is born deaf to Ctrl-C, and so are its children.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Plain lines: a bar would need a terminal.
        sys.stdout = os.fdopen(out, "w", buffering=1)
        sys.stderr = (small / "stderr").open("w")
        sys.argv = ["fedrad", "run", str(small / "small.yaml"), "--set", "rounds=1000"]
        sys.argv += ["--set", "local.steps=1", "--set", "validate_every=0"]
        sys.argv += ["--out", str(small / "out")]
        main()

    # Forked: a new interpreter would import torch and Flower anew, for seconds.
    process = get_context("fork").Process(target=run)
    process.start()
    os.close(out)
    assert process.pid is not None
    with os.fdopen(said) as lines:
        assert any("round 100/1000" in line for line in lines)
        os.killpg(process.pid, signal.SIGINT)
        process.join()
    assert process.exitcode == 130
    told = (small / "stderr").read_text()
    assert told.strip() == "Stopped. The same command goes on from the last finished round."
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def test_a_run_that_diverges_says_so_and_returns_an_error(call: Call, small: Path) -> None:
    wild = "arms.wild={algorithm: fedavg, local: {optimizer: {name: sgd, lr: 1.0e+30}}}"
    ran = call("run", "small.yaml", "--set", wild)
    assert ran.returncode == 1
    assert "Not finished: wild seed 0: nord: round 1" in " ".join(ran.stdout.split())
    results = json.loads((small / "runs" / "small" / "results.json").read_text())
    wild_arm = next(arm for arm in results["arms"] if arm["name"] == "wild")
    assert wild_arm["status"] == "stopped" and "round 1" in wild_arm["reason"]
    assert next(a for a in results["arms"] if a["name"] == "fedavg")["status"] == "finished"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--ray-address", "auto"], "--ray-address is for --runtime ray"),
        (["--object-store", "500"], "--object-store is for --runtime ray"),
        (["--dashboard"], "--dashboard is for --runtime ray"),
        (["--runtime", "ray", "--object-store", "10"], "--object-store 10 MB: Ray takes 84 MB"),
        (
            ["--runtime", "ray", "--ray-address", "auto", "--object-store", "500"],
            "ray start --object-store-memory",
        ),
        (["--runtime", "ray", "--concurrency", "graph"], "--concurrency is for --runtime local"),
        (["--concurrency", "graph"], "--concurrency graph: needs a CUDA device"),
        (["--device", "gpu"], "--device gpu: say cpu, cuda, or cuda:1"),
    ],
)
def test_a_runtime_that_does_not_fit_is_one_sentence(
    call: Call, small: Path, words: list[str], told: str
) -> None:
    ran = call("run", "small.yaml", *words)
    assert ran.returncode == 2 and told in ran.stderr
    assert not (small / "runs").exists()


def test_sites_are_trained_together_where_it_is_asked_for(call: Call, small: Path) -> None:
    ran = call("run", "small.yaml", "--concurrency", "stacked", "--arm", "fedavg")
    assert "fedavg, fit: trained stacked, 2 sites at a time (as asked for)" in ran.stdout


def test_ray_that_is_not_installed_says_what_to_install(
    call: Call, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    ran = call("run", "small.yaml", "--runtime", "ray")
    assert ran.returncode == 2 and "pip install 'fedrad[ray]'" in ran.stderr


def test_the_third_of_two_gpus_is_not_there(
    call: Call, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    ran = call("run", "small.yaml", "--device", "cuda:2")
    assert ran.returncode == 2 and "this machine has 2 CUDA devices" in ran.stderr


def test_more_workers_than_cores_are_warned_about_once(
    call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    """Two arms are played by the same workers: one sentence, not one an arm."""
    ran = call("run", "small.yaml", "--workers", "99", "--set", "rounds=1")
    assert ran.returncode == 0, ran.stderr
    assert caplog.text.count("they will wait for one another") == 1


@pytest.mark.ray
def test_ray_plays_the_same_run_as_local(small: Path) -> None:
    """The same YAML and seeds give the same model in every runtime, bit for bit."""
    for runtime in ("local", "ray"):
        ran = fedrad("run", "small.yaml", "--runtime", runtime, "--out", runtime, cwd=small)
        assert ran.returncode == 0, ran.stderr
    states = [small / where / "fedavg/seed-0/state.safetensors" for where in ("local", "ray")]
    assert states[0].read_bytes() == states[1].read_bytes()


@pytest.mark.ray
def test_a_cluster_that_does_not_answer_is_one_sentence(small: Path) -> None:
    ran = fedrad("run", "small.yaml", "--runtime", "ray", "--ray-address", "127.0.0.1:9", cwd=small)
    assert ran.returncode == 2
    assert "--ray-address 127.0.0.1:9: no Ray cluster answered within 15 s" in ran.stderr
    assert "Traceback" not in ran.stderr
