"""An approval is one more line in a hospital's own file; its comments and order stay."""

import pytest

from fedrad.config.writing import with_approved
from fedrad.errors import ConfigError

BEFORE = "# ours\nname: nord  # the name\n"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", "experiments:\n  - cc  # x\n"),
        ("experiments: []\nmin: 5\n", "experiments:\n  - cc  # x\nmin: 5\n"),
        ("experiments: [aa]  # old\n", "experiments:\n  - aa\n  - cc  # x  # old\n"),
        (
            "experiments:\n  - aa  # first\n\n# below\nmin: 5\n",
            "experiments:\n  - aa  # first\n  - cc  # x\n\n# below\nmin: 5\n",
        ),
        ("experiments:\n- aa\n- bb\nmin: 5\n", "experiments:\n- aa\n- bb\n- cc  # x\nmin: 5\n"),
        ("experiments:\n  - aa", "experiments:\n  - aa\n  - cc  # x"),
        ("experiments: [cc]\n", "experiments: [cc]\n"),
    ],
)
def test_a_digest_is_added_and_all_else_stays(given: str, expected: str) -> None:
    assert with_approved(BEFORE + given, "cc", "x") == BEFORE + expected


def test_a_site_that_allows_any_needs_no_approval() -> None:
    """Adding a digest would silently close the site to everything else."""
    with pytest.raises(ConfigError, match="is 'any' already"):
        with_approved("experiments: any\n", "cc", "x")
