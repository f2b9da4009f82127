"""What looks odd at a site and between sites, and what does not."""

from collections.abc import Callable

import numpy as np
import pytest

from fedrad.config import Task
from fedrad.data.adapters.phantom import Hospital, phantom
from fedrad.data.base import SiteData
from fedrad.data.checks.odd_images import looks_odd, odd_at_site
from fedrad.data.checks.oddities import Oddity
from fedrad.report.oddities import odd_lines

TASK = Task(name="binary", labels=("lesion",), input=(1, 48, 48))
FILMS = phantom(TASK, hospitals={"nord": Hospital(patients=60, images_per_patient=1)}).x
ROWS = Task(name="binary", labels=("sick",), input=(2,))
DRAWN = np.random.default_rng(0).normal(50, 10, (60, 2)).astype(np.float32)


def site(name: str, x: np.ndarray, y: np.ndarray | None = None, **more) -> SiteData:
    n = len(x)
    labels = np.arange(n)[:, None] % 2 if y is None else y
    rows = {"train": np.arange(0, n, 2), "val": np.arange(1, n, 4), "test": np.arange(3, n, 4)}
    # In turns of four a split would hold one label only.
    order = np.argsort(np.arange(n) % 3, kind="stable") if y is None else np.arange(n)
    rows = {split: np.sort(order[part]) for split, part in rows.items()}
    whose = np.arange(n, dtype=np.uint64)
    return SiteData(name, x, labels.astype(np.float32), whose, rows, **more)


def odd(task: Task, *sites: SiteData) -> list[tuple[str, str]]:
    found = looks_odd({one.site: one for one in sites}, task)
    return [(one.site, one.rule) for one in found]


def test_ordinary_films_and_rows_look_like_nothing() -> None:
    """And take one line."""
    assert odd(TASK, site("nord", FILMS), site("sued", FILMS[::-1])) == []
    assert odd(ROWS, site("nord", DRAWN, columns=("a", "b"))) == []
    assert str(odd_lines([])).count("\n") == 0


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda x: 255 - x, "site-inverted"),
        (lambda x: np.rot90(x, 1, (2, 3)), "site-turned"),
        (lambda x: np.rot90(x, 3, (2, 3)), "site-turned"),
        (lambda x: x[:, :, ::-1], "site-turned"),
    ],
)
@pytest.mark.parametrize("others", [1, 2, 12])
def test_a_whole_site_that_is_inverted_or_turned_is_told_beside_the_others(
    change: Callable[[np.ndarray], np.ndarray], rule: str, others: int
) -> None:
    """MONOCHROME1 at one hospital: within it nothing is odd. Of two, either may be the one."""
    fine = [site(f"s{k}", FILMS) for k in range(others)]
    found = odd(TASK, *fine, site("west", change(np.array(FILMS))))
    assert found == [("" if others == 1 else "west", rule)]


def test_a_site_half_of_which_is_inverted_is_told_with_rows() -> None:
    """The median of half and half is grey: the direction of most difference tells them apart."""
    films = np.array(FILMS)
    films[:25] = 255 - films[:25]
    found = looks_odd({"nord": site("nord", films, row=np.arange(101, 161))}, TASK)
    assert [one.rule for one in found] == ["images-inverted"]
    assert found[0].rows == (101, 102, 103, 104, 105) and found[0].found.startswith(
        "25 images look"
    )


@pytest.mark.parametrize("change", [lambda x: x // 16, lambda x: 128 + x // 2, lambda x: x // 128])
def test_a_part_of_the_grey_levels_is_odd(change: Callable[[np.ndarray], np.ndarray]) -> None:
    """12 bits read as 16, a window that left no black, and masks in place of films."""
    assert ("west", "grey-levels") in odd(TASK, site("west", change(np.array(FILMS))))


def test_images_are_looked_at_in_a_sample_which_the_sentence_says() -> None:
    """A quick look at many; the doctor looks at all of one site."""
    films = np.concatenate([FILMS] * 10)
    films[7] = 255 - films[7]
    one = site("nord", films)
    assert [o.rule for o in odd_at_site(one)] == ["images-inverted"]
    films[:300] = 255 - films[:300]
    told = [o.found for o in looks_odd({"nord": one}, TASK) if o.rule == "images-inverted"]
    assert told and "of 300 images looked at" in told[0]


def test_a_label_that_never_changes_at_a_site_or_in_a_split_is_odd() -> None:
    ones = np.ones((60, 1))
    assert odd(ROWS, site("nord", DRAWN, ones)) == [("nord", "label-constant")]
    some = np.arange(60)[:, None] % 2.0
    some[3::4] = 1
    part = looks_odd({"nord": site("nord", DRAWN, some)}, ROWS)
    assert any("rows of test" in one.found for one in part)
    classes = Task(name="multiclass", labels=("a", "b", "c"), input=(2,))
    found = looks_odd({"nord": site("nord", DRAWN, np.arange(60)[:, None] % 2)}, classes)
    assert found[0].found == "'c' is 0 in all 60 rows."
    unread = looks_odd({"nord": site("nord", DRAWN, np.full((60, 1), np.nan))}, ROWS)
    assert unread[0].found == "'sick' is not read in all 60 rows."


def test_a_feature_that_is_equal_in_all_rows_of_a_site_is_odd() -> None:
    """An indicator of missing values behind the features may well be 0 throughout."""
    x = np.concatenate([DRAWN, np.zeros((60, 1), np.float32)], 1)
    assert odd(ROWS, site("nord", x, columns=("a", "b"))) == []
    x[:, 1] = 7
    found = looks_odd({"nord": site("nord", x, columns=("a", "b"))}, ROWS)
    assert found[0].found == "Feature 'b' is equal, or missing, in all 60 rows."


@pytest.mark.parametrize("factor", [0.001, 0.01, 10, 88.4])
def test_a_feature_in_another_unit_at_one_site_is_odd(factor: float) -> None:
    """Micromoles a litre against milligrams, metres against centimetres."""
    other = DRAWN * np.array([1, factor], np.float32)
    sites = [site(n, x, columns=("a", "b")) for n, x in (("n", DRAWN), ("s", DRAWN), ("w", other))]
    found = looks_odd({one.site: one for one in sites}, ROWS)
    assert [(o.site, o.rule) for o in found] == [("w", "feature-range")]
    assert "'b' lies apart" in found[0].found
    assert len(odd(ROWS, *sites[1:])) == 1


def test_an_older_site_is_no_other_unit() -> None:
    """Children and adults differ; their middles are no five times apart, their ranges meet."""
    young, old = (site(n, x, columns=("a", "b")) for n, x in (("n", DRAWN), ("s", DRAWN + 25)))
    assert odd(ROWS, young, old) == []


@pytest.mark.parametrize(
    "names",
    [("Nord", "nord"), ("St. Mary's", "St Marys"), ("1", "01"), ("1", "1.0"), ("Süd", "Sud"),
     ("Klinik  A", "Klinik A")],
)  # fmt: skip
def test_names_that_a_reader_takes_for_one_site_are_odd(names: tuple[str, str]) -> None:
    found = odd(ROWS, *(site(name, DRAWN, columns=("a", "b")) for name in names))
    assert found == [("", "sites-alike")]


def test_of_names_alike_the_rows_of_the_rarest_are_told() -> None:
    """As the table counts them: where most rows say "nord", the two of "Nord" are the mistake."""
    few = site("Nord", DRAWN[:2], columns=("a", "b"), row=np.array([7, 31]))
    many = site("nord", DRAWN[2:], columns=("a", "b"))
    (told,) = (
        one for one in looks_odd({"nord": many, "Nord": few}, ROWS) if one.rule == "sites-alike"
    )
    assert told.found == "'nord', 'Nord' count as 2 sites ('Nord' in rows 7, 31)."
    assert told.rows == (7, 31)


def test_names_of_different_sites_are_not() -> None:
    names = ("nord", "nordost", "1", "10", "A-1", "A-2", "東", "西")
    assert odd(ROWS, *(site(name, DRAWN, columns=("a", "b")) for name in names)) == []


def test_the_block_tells_site_rule_and_mend_and_stays_short() -> None:
    """Of two hundred sites not all are listed; the rules of the others are named."""
    rules = ("bits-unused", "grey-levels", "images-alike")
    some = [Oddity("nord", rules[k % 3], f"Found {k}.", "Mend.") for k in range(20)]
    told = str(odd_lines(some)).splitlines()
    assert told[1:3] == ["  nord: Found 0. [bits-unused]", "    -> Mend."]
    assert told[-1] == "  and 8 more (bits-unused, grey-levels, images-alike)" and len(told) == 26


def test_the_block_says_once_how_rows_are_counted_where_it_names_any() -> None:
    """Row 6 is line 7 of a spreadsheet; a block without rows needs no such line."""
    odd = Oddity("nord", "images-blank", "Found.", "Mend.", (6,))
    assert str(odd_lines([odd, odd])).count("Rows count from 1 below a table's header") == 1
    assert "Rows count" not in str(odd_lines([Oddity("nord", "images-blank", "Found.", "Mend.")]))
