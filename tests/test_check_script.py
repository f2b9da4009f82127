"""`scripts/check`: what one check finds does not hide what the next would have found."""

import os
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Each program writes how it was called, and ends with the code that the environment names for it.
PROGRAM = """#!/bin/sh
echo "$(basename "$0") $*" >> "$CALLS"
case "$*" in *"$HALTS"*) kill -INT $PPID ;; esac
eval "exit \\${$(basename "$0")_CODE:-0}"
"""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    for name in ("ruff", "mypy", "pytest"):
        (tmp_path / name).write_text(PROGRAM, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    return tmp_path


def check(
    programs: Path, *words: str, halts: str = "nowhere", **codes: int
) -> tuple[int, list[str], list[str]]:
    """Return the script's exit code, the calls that it made, and the lines that it printed."""
    calls = programs / "calls"
    known = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "CALLS": str(calls)}
    ran = subprocess.run(
        [ROOT / "scripts" / "check", *words],
        env=known | {"HALTS": halts} | {f"{name}_CODE": str(code) for name, code in codes.items()},
        capture_output=True, text=True, check=False, timeout=60,
        # Of a job in the background SIGINT is ignored, and a shell cannot trap what was ignored.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    return ran.returncode, calls.read_text(encoding="utf-8").splitlines(), ran.stdout.splitlines()


def test_a_check_that_fails_hides_none_after_it_and_the_worst_code_is_returned(
    programs: Path,
) -> None:
    code, calls, lines = check(programs, ruff=1, mypy=2)
    assert code == 2
    assert [call.split()[0] for call in calls] == ["ruff", "ruff", "mypy"] + ["pytest"] * 4
    assert [line.split("  ")[0] for line in lines] == (
        ["failed (1)", "failed (1)", "failed (2)"] + ["passed"] * 4
    )
    # Each line ends with the command that it is about.
    assert all(line.endswith(call.strip()) for line, call in zip(lines, calls, strict=True))


def test_where_all_checks_pass_the_code_is_0(programs: Path) -> None:
    code, _, lines = check(programs)
    assert code == 0 and len(lines) == 7


def test_arguments_go_to_one_call_of_pytest_and_stay_whole(programs: Path) -> None:
    code, calls, _ = check(programs, "-k", "one or two", pytest=5)
    assert code == 5
    assert calls[-1] == "pytest -k one or two" and len(calls) == 4


def test_ctrl_c_ends_the_whole(programs: Path) -> None:
    """Pytest takes Ctrl-C for itself and ends as if it had failed; nobody wants the rest then."""
    code, calls, lines = check(programs, halts="not slow", pytest=2)
    assert code == 130 and len(calls) == 4 and lines == []
