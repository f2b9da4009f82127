import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fedrad.data import cache
from fedrad.data.cache import Misfits, decoded, folder, key_of
from fedrad.data.reading.decode import Decoded
from fedrad.errors import DataError, MissingError

SHAPE = (600, 1, 2, 3)


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDRAD_CACHE", str(tmp_path / "cache"))


def image(row: int) -> Decoded:
    small = np.full((3, 32, 32), row % 100, np.int8)
    return Decoded(np.full(SHAPE[1:], row % 251, np.uint8), row * 7, small, highest=row)


def never(row: int) -> Decoded:
    raise AssertionError("decoded again")


def test_what_is_kept_is_what_was_decoded_in_the_order_of_rows() -> None:
    """600 rows: more than one block of 256, by several threads."""
    found = decoded("k", SHAPE, image, threads=4)
    assert found.images.shape == SHAPE and found.images.dtype == np.uint8
    assert found.images[:, 0, 0, 0].tolist() == [row % 251 for row in range(600)]
    assert found.marks.tolist() == [row * 7 for row in range(600)]
    assert found.highest.tolist() == list(range(600))
    assert found.sketches[:, 2, 5, 5].tolist() == [row % 100 for row in range(600)]


def test_the_second_time_nothing_is_decoded_and_the_array_is_read_only() -> None:
    """A map of a file that other processes read must not be written."""
    first = decoded("k", SHAPE, image)
    again = decoded("k", SHAPE, never)
    for name in ("images", "marks", "highest", "sketches"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
    x = again.images
    assert isinstance(x, np.memmap) and again.marks[1] == 7
    with pytest.raises(ValueError, match="read-only"):
        x[0] = 1


@pytest.mark.parametrize("name", ["k.npy", "k.notes.npy", "k.sketches.npy"])
def test_a_damaged_or_half_missing_entry_is_made_again(name) -> None:
    """The cache may be deleted at any time, in any part."""
    decoded("k", SHAPE, image)
    path = folder() / name
    path.write_bytes(path.read_bytes()[:100])
    assert (decoded("k", SHAPE, image).images[5] == 5).all()
    path.unlink()
    assert (decoded("k", SHAPE, image).images[5] == 5).all()


def test_a_decoding_that_fails_leaves_nothing_behind() -> None:
    """Half an entry would be taken for a whole one."""

    def fails(row: int) -> Decoded:
        if row in (400, 599):
            raise DataError(f"no image {row}")
        return image(row)

    with pytest.raises(Misfits) as told:
        decoded("k", SHAPE, fails)
    assert [(row, str(why)) for row, why in told.value.wrong] == [
        (400, "no image 400"), (599, "no image 599"),
    ]  # fmt: skip
    assert list(folder().iterdir()) == []


def test_two_writers_of_one_entry_both_get_it() -> None:
    """Two runs started together: the last to rename wins, with equal bytes."""
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: decoded("k", SHAPE, image, threads=2), range(4)))
    assert all((one.images[:, 0, 0, 0] == np.arange(600) % 251).all() for one in found)
    assert sorted(p.name for p in folder().iterdir()) == ["k.notes.npy", "k.npy", "k.sketches.npy"]


def test_a_full_disk_is_an_error_that_says_what_to_do(monkeypatch) -> None:
    """And not a dead process, as with a map that cannot grow."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache.os, "fsync", full)
    with pytest.raises(MissingError, match=r"No space left on device\): set FEDRAD_CACHE"):
        decoded("k", SHAPE, image)
    assert list(folder().iterdir()) == []


def test_the_folder_is_for_its_owner_only() -> None:
    """It holds patients' images."""
    decoded("k", SHAPE, image)
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (folder(), *folder().iterdir())]
    assert all(mode & 0o077 == 0 for mode in modes)


def test_keys_differ_where_parts_do() -> None:
    """ab + c is not a + bc."""
    assert len({key_of(parts) for parts in (["ab", "c"], ["a", "bc"], ["abc"], ["c", "ab"])}) == 4
