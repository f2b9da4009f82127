"""The page must be safe to open anywhere, tell every arm, and claim no more than intervals do."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from example_results import DIVERGED, FEW, HELD_OUT, SITES, estimate, example, undefined

from fedrad.report.figures import AxisScale, interval_row, scale_of, tag
from fedrad.report.formatting import BLANK
from fedrad.report.page import render

EVIL = "<script>alert('x')</script>\"'&"


class Elements(HTMLParser):
    """Collects tags with attributes, the text inside <strong>, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.strong: list[str] = []
        self.text: list[str] = []
        self._inside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" in self._inside:
            return
        self.text.append(data)
        if "strong" in self._inside:
            self.strong.append(data)


def everywhere(value: Any, old: str, new: str) -> Any:
    """Return JSON with a text replaced in all keys and values."""
    if isinstance(value, dict):
        return {everywhere(k, old, new): everywhere(v, old, new) for k, v in value.items()}
    if isinstance(value, list):
        return [everywhere(v, old, new) for v in value]
    return value.replace(old, new) if isinstance(value, str) else value


def estimates(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every Estimate inside JSON."""
    if isinstance(value, dict):
        if {"value", "low", "high"} <= value.keys():
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from estimates(inner)


def test_the_example_is_strict_json_and_the_page_does_not_change_it() -> None:
    """Every test below speaks of what a results.json can hold; rendering is a pure function."""
    results = example()
    text = json.dumps(results, allow_nan=False)
    render(results)
    assert json.dumps(results, allow_nan=False) == text
    assert render(json.loads(text)) == render(example())


def test_texts_from_the_experiment_are_escaped_wherever_they_stand() -> None:
    """A site, an arm, a reason or the YAML could hold markup; the page must show it, not run it."""
    results = example()
    for word in ("nord", "fedavg", "lesion", DIVERGED, FEW, "cnn", "four-hospitals"):
        results = everywhere(results, word, word + EVIL)
    results["headline"][0] += EVIL
    results["notes"].append(EVIL)
    results["environment"]["platform"] = EVIL
    page = render(results)
    assert "<script" not in page.lower()
    found = Elements(page)
    assert not {"script", "iframe", "object", "img"} & {name for name, _ in found.tags}
    assert not any(key.startswith("on") for _, pairs in found.tags for key in pairs)
    assert "".join(found.text).count("alert('x')") > 20


def test_nothing_is_loaded_from_anywhere() -> None:
    """It opens inside a hospital without a network, and tells nobody that it was opened."""
    page = render(example())
    for name, pairs in Elements(page).tags:
        assert name not in {"link", "script", "img", "iframe", "base"}
        assert "src" not in pairs
        assert (pairs.get("href") or "#").startswith("#")
    assert not re.search(r"url\(|@import|https?://", page)
    assert "default-src 'none'" in page


def test_every_arm_and_every_site_is_told() -> None:
    """A losing, stopped or collapsed arm stands in the same table as the winning one."""
    results = example()
    text = " ".join(Elements(render(results)).text)
    arms = text[text.index("The arms side by side") : text.index("In numbers")]
    for arm in results["arms"]:
        assert arm["name"] in arms
        for reason in (arm["reason"], arm["collapse"]):
            assert reason is None or reason in arms
    for site in (*SITES, HELD_OUT):
        assert site in text
    for words in (*results["headline"], *results["notes"]):
        assert words in text


def test_bold_stands_only_where_an_interval_excludes_zero() -> None:
    """Bold is read as "this is real"; the only thing that may say so is the interval."""
    results = example()
    for found in estimates([results["comparisons"], [a["triple"] for a in results["arms"]]]):
        found.update(low=-1.0, high=1.0)
    for arm in results["arms"]:
        for row in arm["beats_own_model"]:
            row["difference"].update(low=-1.0, high=1.0)
            row["verdict"] = "not shown"
    assert Elements(render(results)).strong == []
    results["comparisons"][0]["difference"] = estimate(0.08, 0.03)
    # at a glance, in the forest plot, in the list of comparisons
    assert Elements(render(results)).strong == ["+0.080"] * 3


def test_a_claim_that_the_correction_took_back_is_not_bold() -> None:
    """Its own interval excludes zero, but among five comparisons that is no finding (Holm)."""
    results = example()
    results["arms"] = [a | {"beats_own_model": [], "triple": None} for a in results["arms"]]
    for told in results["comparisons"]:
        told["supported"] = False
    assert Elements(render(results)).strong == []


@pytest.mark.parametrize(("higher_is_better", "tone"), [(True, "better"), (False, "worse")])
def test_the_sign_that_is_good_depends_on_the_metric(higher_is_better: bool, tone: str) -> None:
    """A higher Brier score is worse, so a difference above zero must not look like a gain."""
    results = example()
    results["metrics"][0]["higher_is_better"] = higher_is_better
    results["comparisons"] = results["comparisons"][:1]
    results["arms"] = [a | {"beats_own_model": [], "triple": None} for a in results["arms"]]
    page = render(results)
    assert len(re.findall(rf'<span class="{tone}"[^>]*><strong>\+0.076', page)) == 3
    left = re.search(r'class="(\w+)-side" x="0%"', page)
    assert left is not None and left[1] == ("worse" if higher_is_better else "better")


def test_undefined_values_say_why() -> None:
    """A dash alone reads as a bug; the reason stands in a tooltip and below the table."""
    results = example()
    why = "insel's test set has one class only: 120 positive, 0 negative"
    results["matrix"]["rows"][0]["cells"][4] = undefined(why)
    page = render(results)
    assert page.count(FEW.replace("'", "&#39;")) > 10
    heat = page[page.index('id="matrix"') : page.index('id="learning"')]
    escaped = why.replace("'", "&#39;")
    assert re.search(
        rf'<td class="outside none" title="{re.escape(escaped)}">{BLANK}<sup>b</sup>', heat
    )
    assert re.search(rf"<li><sup>b</sup>{re.escape(escaped)}</li>", heat)


def test_no_python_or_json_word_for_nothing_reaches_the_page() -> None:
    """None, nan and null mean something to us only."""
    text = " ".join(Elements(render(example())).text)
    assert not re.search(r"\b(None|nan|null|undefined)\b", text)


def test_a_run_with_little_to_tell_still_has_a_page() -> None:
    """One arm, no comparison, no held-out site, no curves: parts are left out, nothing breaks."""
    results = example()
    results["arms"] = [results["arms"][0] | {"curves": {}}]
    results["sites"] = results["sites"][:-1]
    results["experiment"]["primary"] = {"arm": "local", "against": "local", "metric": "auroc"}
    results |= {"comparisons": [], "headline": [], "notes": [], "matrix": None}
    results |= {"heterogeneity": None, "metrics": results["metrics"][:1]}
    found = Elements(render(results))
    ids = {pairs["id"] for _, pairs in found.tags if "id" in pairs}
    assert ids == {"arms", "sites", "costs", "limits", "experiment"}
    links = {pairs["href"] for name, pairs in found.tags if name == "a"}
    assert links == {f"#{name}" for name in ids}


def test_multiclass_counts_become_shares() -> None:
    """100 of 400 test images at a held-out site are 25%."""
    results = example()
    results["sites"][-1]["labels"] = {"test": {"normal": 300, "fracture": 100}}
    page = render(results)
    assert "fracture, share" in page and "25.0%" in page


def test_an_interval_is_drawn_to_scale() -> None:
    """On an axis from 0 to 1, an estimate of 0.5 from 0.25 to 0.75 spans the middle half."""
    drawn = interval_row({"value": 0.5, "low": 0.25, "high": 0.75}, AxisScale(0.0, 1.0))
    assert 'x1="25.0%" x2="75.0%"' in drawn
    assert 'cx="50.0%"' in drawn
    assert "hollow" in interval_row({"value": 0.5, "low": None, "high": None}, AxisScale(0.0, 1.0))
    assert "<circle" not in interval_row(
        {"value": 7.0, "low": 6.0, "high": 8.0}, AxisScale(0.0, 1.0)
    )


def test_a_scale_holds_all_values_and_has_round_ticks() -> None:
    """An axis that cuts a point off would hide it; one without a spread still needs a width."""
    scale = scale_of([0.71, None, 0.88])
    assert scale.at(0.71) > 0 and scale.at(0.88) < 100
    assert scale.ticks() == [0.7, 0.75, 0.8, 0.85]
    assert scale_of([0.5]).low < 0.5 < scale_of([0.5]).high
    assert scale_of([]).low < scale_of([]).high


def test_an_element_escapes_content_and_attributes() -> None:
    """All charts are built by this one function."""
    assert tag("a", "<", b='"') == '<a b="&#34;">&lt;</a>'


def open_in_browser(page: str, folder: Path) -> str:
    """Return what Chromium says on its console while it opens a page."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on this machine")
    file = folder / "page.html"
    file.write_text(page, encoding="utf-8")
    options = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", "--dump-dom"),
    ]
    done = subprocess.run(
        [browser, *options, file.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "</html>" in done.stdout, done.stderr[-2000:]
    return "\n".join(line for line in done.stderr.splitlines() if ":CONSOLE" in line)


@pytest.mark.browser
def test_a_browser_has_nothing_to_complain_of_and_asks_for_nothing(tmp_path: Path) -> None:
    """The page's own policy refuses all requests, and a refusal is an error on the console.

    The second page proves that the console is heard: its image is refused.
    """
    page = render(example())
    assert open_in_browser(page, tmp_path) == ""
    told = open_in_browser(page.replace("<main>", '<main><img src="http://0.0.0.0/x">'), tmp_path)
    assert "Content Security Policy" in told


def test_what_looks_odd_in_the_data_stands_on_the_page_and_is_escaped() -> None:
    """A reader of the figures must see what was told before the run; nothing odd, no heading."""
    odd = {"site": EVIL, "rule": "images-alike", "found": f"Two look alike {EVIL}.", "rows": [1, 3],
           "mend": "keep one."}  # fmt: skip
    page = render(example() | {"oddities": [odd]})
    assert "What looks odd in the data" in page and "To mend it: keep one." in page
    assert "<script" not in page
    assert "What looks odd" not in render(example())
