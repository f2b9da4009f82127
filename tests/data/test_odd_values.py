"""Numbers that stand for "missing", numbers that a model cannot hold, bits that are not used."""

import os

import numpy as np
import pytest
from PIL import Image

from fedrad.config import Task
from fedrad.data import ADAPTERS
from fedrad.data.adapters.images import images
from fedrad.data.checks.odd_values import sentinels, unused_bits
from fedrad.errors import ConfigError, DataError
from fedrad.registry import build

AGES = np.random.default_rng(0).normal(55, 9, 200).round(1)


def odd(values, name="age") -> list[str]:
    raw = np.array(values, dtype=float)[:, None]
    return [one.found for one in sentinels(raw, [name], None, np.arange(1, len(raw) + 1))]


@pytest.mark.parametrize("code", [-9999, -999, -99, -9, 999, 9999, 99999, 999.9, -200, 5000])
def test_a_number_far_from_all_the_others_is_odd_with_its_rows(code) -> None:
    """-9999 as an age moves a mean by hundreds; numbers of no list need three rows."""
    values = AGES.copy()
    values[[3, 80, 150]] = code
    assert [text.split(";")[0] for text in odd(values)] == [
        f"Feature 'age' is {code:g} in 3 rows (rows 4, 81, 151)"
    ]


def test_minus_one_among_counts_and_a_far_zero_are_odd() -> None:
    counts = np.arange(100) % 30
    counts[[5, 6]] = -1
    assert "is -1 in 2 rows" in odd(counts)[0]
    cholesterol = AGES * 4
    cholesterol[:4] = 0
    assert "is 0 in 4 rows" in odd(cholesterol)[0]


@pytest.mark.parametrize(
    "values",
    [AGES, AGES - 55, np.arange(100) % 2, np.arange(100) % 3 - 1, np.arange(100) % 40,
     np.exp(AGES / 10), [*AGES, 99.0]],
)  # fmt: skip
def test_ages_codes_counts_and_skewed_measurements_are_not_odd(values) -> None:
    """-1, 0 and 1 are a code; a single patient of 99 years is one."""
    assert odd(values) == []


def test_two_codes_in_one_column_are_both_told() -> None:
    values = AGES.copy()
    values[0], values[1] = -999, -9999
    assert len(odd(values)) == 2


def test_a_site_whose_files_use_fewer_bits_is_told_with_the_bits() -> None:
    """12 bits read as 16 are 16 of 255 grey levels: nearly black."""
    highest = np.array([4095, 3000, 0, 65535])
    found = list(unused_bits(highest, np.array(["n", "n", "n", "w"]), np.arange(1, 5), 16))
    assert [(one.site, one.rule, one.rows) for one in found] == [("n", "bits-unused", (1, 2))]
    assert found[0].found.startswith("Values use 12 of 16 bits in all 2 16-bit files")
    assert "brightest pixel is 16 of 255" in found[0].found and "bits: 12" in found[0].mend
    assert list(unused_bits(highest[:3], None, np.arange(1, 4), 12)) == []


def table(folder, rows: str, **options):
    (folder / "t.csv").write_text("age,sick\n" + rows, encoding="utf-8")
    task = Task(name="binary", labels=("sick",), input=(1,))
    spec = {"name": "table", "csv": "t.csv", "features": ["age"], "label": "sick", "patient": None}
    return build(ADAPTERS, spec | options, task, folder, where="data")


@pytest.mark.parametrize("cell", ["1e39", "-3.5e38", "1e-39", "1e-300"])
def test_a_value_beyond_32_bits_is_an_error_with_its_rows(tmp_path, cell) -> None:
    """As float32 it would be infinite, or nothing."""
    with pytest.raises(
        DataError, match=r"row 2: feature 'age' is, after .*; 2 such rows: 2, 3"
    ) as e:
        table(tmp_path, f"1,0\n{cell},1\n{cell},1\n0,1\n")
    assert e.value.rule == "feature-beyond" and e.value.rows == (2, 3)


def test_a_scale_that_brings_a_value_back_is_enough(tmp_path) -> None:
    scaled = {"features": {"age": {"centre": 0, "scale": 1e38}}}
    assert table(tmp_path, "1e39,0\n", **scaled).x.tolist() == [[10]]


def test_a_decimal_comma_is_read_where_it_is_said_and_else_named(tmp_path) -> None:
    """ "1,5" is one and a half or fifteen, and only its author knows."""
    rows = "age;sick\n1,5;0\n2,25;1\n"
    task = Task(name="binary", labels=("sick",), input=(1,))
    spec = {"name": "table", "csv": "t.csv", "features": ["age"], "label": "sick"}
    (tmp_path / "t.csv").write_text(rows)
    found = build(ADAPTERS, spec | {"decimal": ","}, task, tmp_path, where="data")
    assert found.x.tolist() == [[1.5], [2.25]]
    with pytest.raises(DataError, match=r"if ',' is the decimal mark, say decimal: ',';? ?.*1, 2"):
        build(ADAPTERS, spec, task, tmp_path, where="data")
    with pytest.raises(DataError, match=r"row 1: .* if '.' is the decimal mark"):
        table(tmp_path, "1.5,0\n", decimal=",")


@pytest.mark.parametrize("cell", ["1_5", "0x10", "1.234,5", "inf"])
def test_what_python_reads_as_a_number_and_nobody_writes_is_refused(tmp_path, cell) -> None:
    """float("1_5") is 15."""
    with pytest.raises(DataError, match=r"row 1: feature 'age' is a text; fits a number"):
        table(tmp_path, f'"{cell}",0\n')


@pytest.mark.parametrize("word", [True, False])
@pytest.mark.parametrize("option", ["drop", "values", "where"])
def test_a_word_that_yaml_took_for_true_is_refused(tmp_path, option, word) -> None:
    """`drop: [no]` would drop the rows of "0", or none."""
    given = {"drop": [word], "values": {word: 1}, "where": {"sick": word}}[option]
    with pytest.raises(ConfigError, match=r"reads this word as yes or no: put it in quotes"):
        table(tmp_path, "1,0\n", **{option: given})


IMAGES = Task(name="binary", labels=("sick",), input=(1, 8, 8))


def films(folder, cells: list[str], names: list[str], **options):
    (folder / "films").mkdir(exist_ok=True)
    for k, name in enumerate(names):
        Image.fromarray(np.full((8, 8), 10 * k + 10, np.uint8)).save(folder / "films" / name)
    rows = "".join(f"{cell},{k % 2}\n" for k, cell in enumerate(cells))
    (folder / "t.csv").write_text("image,sick\n" + rows)
    return images(IMAGES, folder, csv="t.csv", label="sick", **options)


def test_backslashes_of_windows_are_read_as_slashes(tmp_path) -> None:
    found = films(tmp_path, ["films\\a.png", "films/b.png"], ["a.png", "b.png"])
    assert found.x[:, 0, 0, 0].tolist() == [10, 20]
    with pytest.raises(DataError, match=r"row 1: .*outside the folder"):
        films(tmp_path, ["..\\outside.png"], ["a.png"])
    with pytest.raises(DataError, match=r"outside the folder of the table; a drive of Windows"):
        films(tmp_path, ["C:\\films\\a.png"], ["a.png"])


@pytest.mark.parametrize(
    ("cell", "told"),
    [("a.PNG", "but 'a.png' is: capital letters count"), ("A.png", "but 'a.png' is"),
     ("a", "but 'a.png' is: its ending"), ("a.jpg", "but 'a.png' is: its ending")],
)  # fmt: skip
def test_a_missing_file_is_told_with_the_one_that_is_there(tmp_path, cell, told) -> None:
    with pytest.raises(DataError, match=f"row 1: the image is not there, {told}"):
        films(tmp_path, [f"films/{cell}"], ["a.png"])


def test_all_damaged_images_are_told_and_nothing_is_kept(tmp_path) -> None:
    """Six runs to find six, before."""
    names = [f"{k}.png" for k in range(8)]
    films(tmp_path, [f"films/{name}" for name in names], names)
    for k in (1, 2, 3, 4, 5, 7):
        (tmp_path / "films" / f"{k}.png").write_bytes(b"x")
    with pytest.raises(
        DataError, match=r"row 2: the image is no .*; 6 such rows: 2, 3, 4, 5, 6, ."
    ):
        images(IMAGES, tmp_path, csv="t.csv", label="sick")


def test_a_change_in_place_is_seen_though_size_and_time_are_the_same(tmp_path) -> None:
    """`cp -p` and rsync set the old time; and a clock may tick between two writes or not."""
    path = tmp_path / "films/a.png"
    assert films(tmp_path, ["films/a.png"], ["a.png"]).x[0, 0, 0, 0] == 10
    before = path.stat()
    for grey in (90, 170):
        Image.fromarray(np.full((8, 8), grey, np.uint8)).save(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_mtime_ns == before.st_mtime_ns
        assert images(IMAGES, tmp_path, csv="t.csv", label="sick").x[0, 0, 0, 0] == grey
