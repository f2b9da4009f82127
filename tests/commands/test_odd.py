"""`fedrad check` and `fedrad run` on data that look odd, as a user meets them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fedrad.cli import app
from fedrad.errors import ConfigError

TEXT = """
name: odd
task: {{name: binary, labels: [sick], input: {input}}}
data: {data}
split: {split}
model: {model}
local: {{epochs: 1, batch: {batch}}}
rounds: 1
replicates: 0
algorithm: fedavg
"""
SPLIT = "{val: 0.2, test: 0.3}"
TABLE = "{name: table, csv: t.csv, patient: id, site: site, label: sick, features: [age]}"


def check(folder: Path, **parts: object) -> str:
    given = {"input": "[1]", "data": TABLE, "model": "{name: mlp, hidden: [4]}", "batch": 8}
    given["split"] = SPLIT
    (folder / "odd.yaml").write_text(TEXT.format(**given | parts), encoding="utf-8")
    command = ["check", str(folder / "odd.yaml"), "--data-root", str(folder)]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0
    return " ".join(done.output.split())


def rows(folder: Path, change: dict[int, str]) -> None:
    ages = np.random.default_rng(0).normal(50, 9, 80).round(1).astype(str).tolist()
    for row, text in change.items():
        ages[row - 1] = text
    lines = [f"p{k},{('nord', 'St. Marys')[k % 2]},{a},{k // 2 % 2}" for k, a in enumerate(ages)]
    (folder / "t.csv").write_text("\n".join(["id,site,age,sick", *lines]), encoding="utf-8")


def test_check_says_in_one_line_that_nothing_is_odd(tmp_path: Path) -> None:
    rows(tmp_path, {})
    assert check(tmp_path).endswith("What looks odd: nothing.")


def test_check_tells_a_sentinel_by_site_and_row_with_the_mend(tmp_path: Path) -> None:
    """Not as an error: 999 may be a platelet count."""
    rows(tmp_path, {5: "-9999", 9: "-9999"})
    told = check(tmp_path)
    assert "What looks odd nord: Feature 'age' is -9999 in 2 rows (rows 5, 9)" in told
    assert "[feature-sentinel] -> If -9999 means missing, add '-9999' to missing_words." in told


def test_check_tells_bits_that_are_not_used(tmp_path: Path) -> None:
    """12-bit films at the default of 16 bits are nearly black; with bits: 12 nothing is odd."""
    drawn = np.random.default_rng(0).integers(0, 4096, (40, 8, 8), dtype=np.uint16)
    for k, film in enumerate(drawn):
        Image.fromarray(film).save(tmp_path / f"{k}.png")
    lines = [f"{k}.png,p{k},nord,{k % 2}" for k in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["image,id,site,sick", *lines]), encoding="utf-8")
    data = "{{name: images, csv: t.csv, patient: id, site: site, label: sick{}}}"
    shape = {"input": "[1, 8, 8]", "model": "{name: mlp, hidden: [4]}"}
    told = check(tmp_path, data=data.format(""), **shape)
    assert "nord: Values use 12 of 16 bits in all 40 16-bit files" in told
    assert "Say bits: 12" in told and "[grey-levels]" in told
    assert check(tmp_path, data=data.format(", bits: 12"), **shape).endswith("odd: nothing.")


def test_a_single_row_of_a_site_in_other_letters_is_told_by_check_and_run(tmp_path: Path) -> None:
    """It would be a site of one patient; row 3 is what a spreadsheet calls line 4."""
    rows(tmp_path, {})
    text = (tmp_path / "t.csv").read_text(encoding="utf-8")
    (tmp_path / "t.csv").write_text(text.replace("p2,nord", "p2,Nord"), encoding="utf-8")
    told = "'Nord', 'nord' count as 2 sites ('Nord' in row 3)."
    checked = check(tmp_path)
    assert f"{told} [sites-alike]" in checked
    assert checked.endswith(
        "Rows count from 1 below a table's header: row 6 is line 7 of a spreadsheet."
    )
    given = ["run", str(tmp_path / "odd.yaml"), "--data-root", str(tmp_path), "--workers", "1"]
    done = CliRunner().invoke(app, [*given, "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert f"Looks odd: {told}" in " ".join(done.output.split())


def test_black_films_of_two_patients_in_train_and_test_are_told(tmp_path: Path) -> None:
    """Of two sizes they are no copies of each other; but they are no films either."""
    drawn = np.random.default_rng(0).integers(0, 256, (40, 48, 48), dtype=np.uint8)
    drawn[[6, 20]] = 0
    for k, film in enumerate(drawn):
        Image.fromarray(film[8:] if k == 20 else film).save(tmp_path / f"{k}.png")
    parts = ["train" if k < 16 else "test" if k < 32 else "val" for k in range(40)]
    lines = [f"{k}.png,p{k},nord,{k % 2},{parts[k]}" for k in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["image,id,site,sick,part", *lines]), "utf-8")
    data = "{name: images, csv: t.csv, patient: id, site: site, label: sick, split: part}"
    told = check(tmp_path, data=data, input="[1, 48, 48]", model="cnn", split="null")
    assert "nord: 2 images look blank (rows 7, 21). [images-blank]" in told


def test_what_is_odd_is_told_once_by_check_run_results_and_page(tmp_path: Path) -> None:
    """And by none of them once the rule is accepted."""
    rows(tmp_path, {5: "-9999"})
    assert check(tmp_path).count("Feature 'age' is -9999") == 1
    given = ["run", str(tmp_path / "odd.yaml"), "--data-root", str(tmp_path), "--workers", "1"]
    places = (tmp_path / "out", tmp_path / "accepted")
    for place, more in zip(places, ([], ["--set", "accept=[feature-sentinel]"]), strict=True):
        done = CliRunner().invoke(app, [*given, "--out", str(place), *more], catch_exceptions=False)
        told = " ".join(done.output.split()).count("Looks odd: nord: Feature 'age' is -9999")
        found = json.loads((place / "results.json").read_text(encoding="utf-8"))["oddities"]
        page = (place / "report.html").read_text(encoding="utf-8")
        on_page = "is -9999 in 1 row" in page
        once = not more
        assert (told, len(found), on_page) == (once, once, once)


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_last_batch_that_batch_norm_cannot_take_is_one_sentence(
    tmp_path: Path, command: str
) -> None:
    """The run printed a traceback of sixty lines."""
    data = "{name: phantom, hospitals: {nord: {patients: 34, images_per_patient: 1}}}"
    model, shape = "{name: resnet18, norm: batch}", "[1, 32, 32]"
    text = TEXT.format(
        input=shape, data=data, model=model, batch=16, split="{val: 0.25, test: 0.25}"
    )
    (tmp_path / "odd.yaml").write_text(text, encoding="utf-8")
    given = [command, str(tmp_path / "odd.yaml")]
    given += ["--out", str(tmp_path / "out")] if command == "run" else []
    with pytest.raises(ConfigError, match=r"arms.fedavg: nord: 17 training images leave a last"):
        CliRunner().invoke(app, given, catch_exceptions=False)


def test_a_hospitals_own_name_stands_whole_on_screen_and_page(tmp_path: Path) -> None:
    """Apostrophe and ampersand are marks of HTML and of shells."""
    hospitals = '{"St. Mary\'s & Söhne": {patients: 40}, nord: {patients: 40}}'
    text = TEXT.format(
        input="[1, 16, 16]",
        data=f"{{name: phantom, hospitals: {hospitals}}}",
        model="cnn",
        batch=16,
        split=SPLIT,
    )
    (tmp_path / "odd.yaml").write_text(text, encoding="utf-8")
    seen = CliRunner().invoke(app, ["check", str(tmp_path / "odd.yaml")], catch_exceptions=False)
    assert "St. Mary's &" in seen.output  # the table folds long names
    given = ["run", str(tmp_path / "odd.yaml"), "--out", str(tmp_path / "out"), "--workers", "1"]
    CliRunner().invoke(app, given, catch_exceptions=False)
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "St. Mary&#39;s &amp; Söhne" in page and "Mary's & S" not in page
