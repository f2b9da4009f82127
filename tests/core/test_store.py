"""What is on the disk is whole: the old file or the new one."""

import os
import resource
import signal
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from fedrad.core import store
from fedrad.core.state import is_bit_identical
from fedrad.core.store import Versions, load_bundle, save_bundle, write_atomic
from fedrad.errors import RunError

BUNDLE = {
    "model": {"w": torch.arange(6.0).view(2, 3), "n": torch.tensor(3)},
    "c": {"w": torch.ones(1)},
}


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    save_bundle(tmp_path / "a.safetensors", BUNDLE)
    assert is_bit_identical(load_bundle(tmp_path / "a.safetensors"), BUNDLE)


def test_equal_bundles_are_equal_files(tmp_path: Path) -> None:
    """Nothing but state is in a file: no time, no name, no order of insertion."""
    save_bundle(tmp_path / "a.safetensors", BUNDLE)
    backwards = {
        name: dict(reversed(list(BUNDLE[name].items()))) for name in reversed(list(BUNDLE))
    }
    save_bundle(tmp_path / "b.safetensors", backwards)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """A real full disk: a process whose files may not grow past 4 kB writes over an old file."""
    path = tmp_path / "state.safetensors"
    save_bundle(path, BUNDLE)
    before = path.read_bytes()
    told, tell = get_context("fork").Pipe(duplex=False)

    def full() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            save_bundle(path, {"model": {"w": torch.zeros(100_000)}})
        except RunError as error:
            tell.send(str(error))

    process = get_context("fork").Process(target=full)
    process.start()
    process.join()
    assert process.exitcode == 0 and told.poll()
    sentence = told.recv()
    assert "could not be written" in sentence and "the old one stands" in sentence
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["state.safetensors"]


@pytest.mark.parametrize("damage", [b"", b"no safetensors", None])
def test_a_damaged_or_missing_file_is_an_error_of_its_own(
    tmp_path: Path, damage: bytes | None
) -> None:
    path = tmp_path / "a.safetensors"
    if damage is not None:
        path.write_bytes(damage)
    with pytest.raises(RunError, match=r"a\.safetensors is missing or damaged"):
        load_bundle(path)


def test_a_truncated_file_is_damaged(tmp_path: Path) -> None:
    save_bundle(tmp_path / "a.safetensors", BUNDLE)
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(whole[:-1])
    with pytest.raises(RunError, match="damaged"):
        load_bundle(tmp_path / "a.safetensors")


def test_a_repeated_round_starts_from_what_was_known_before_it(tmp_path: Path) -> None:
    """The site kept round 3, the server crashed before it did: round 3 runs again, from round 2."""
    kept = Versions(tmp_path)
    for number in (1, 2, 3):
        kept.write(number, {"m": {"w": torch.tensor(float(number))}})
    assert kept.before(3)["m"]["w"].item() == 2.0
    kept.write(3, {"m": {"w": torch.tensor(30.0)}})
    assert kept.rounds() == [2, 3] and kept.before(4)["m"]["w"].item() == 30.0


def test_a_history_that_is_repeated_forgets_its_old_future(tmp_path: Path) -> None:
    kept = Versions(tmp_path)
    for number in (4, 5):
        kept.write(number, {"m": {"w": torch.tensor(float(number))}})
    kept.write(4, {"m": {"w": torch.tensor(40.0)}})
    assert kept.rounds() == [4] and kept.before(9)["m"]["w"].item() == 40.0


def test_write_atomic_makes_its_folder(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "b.txt", b"x")
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"x"


def test_a_file_in_the_place_of_a_folder_is_told_as_that(tmp_path: Path) -> None:
    """Clearing away what was not written fails for the same reason, and must not hide it."""
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(RunError, match=r"b\.txt could not be written \((Not a dir|File exists)"):
        write_atomic(tmp_path / "a" / "b.txt", b"x")


def test_arrays_that_do_not_fit_on_the_disk_leave_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """safetensors has an error of its own for it, which nobody above this file knows."""
    path = tmp_path / "a.safetensors"
    save_bundle(path, BUNDLE)

    def full(_: object, place: Path) -> None:
        place.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(store, "save_file", full)
    with pytest.raises(RunError, match=r"a\.safetensors could not be written .*No space left"):
        save_bundle(path, {"model": {"w": torch.zeros(9)}})
    assert is_bit_identical(load_bundle(path), BUNDLE) and os.listdir(tmp_path) == ["a.safetensors"]
