"""What the repository says of itself: one version, every page found, links that lead somewhere."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import fedrad
from fedrad.cli import app

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
PAGES = [
    *(ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("**/*.md")),
]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def releases() -> list[tuple[str, str]]:
    """Return version and date of the changelog's releases, the newest first."""
    return re.findall(r"^## \[(\d[\d.]*)\] - (\d{4}-\d\d-\d\d)$", text("CHANGELOG.md"), re.M)


def test_one_version_stands_everywhere() -> None:
    """A release of which the image or the citation names another one cannot be told apart."""
    version, date = releases()[0]
    cited = yaml.safe_load(text("CITATION.cff"))
    assert fedrad.__version__ == PROJECT["version"] == version == cited["version"]
    assert cited["date-released"] == date
    assert f'org.opencontainers.image.version="{version}"' in text("Dockerfile")
    minor = version.rpartition(".")[0]
    assert f"| {minor} | yes |" in text("SECURITY.md")


def test_the_command_line_tells_the_version() -> None:
    told = CliRunner().invoke(app, ["--version"])
    assert (told.exit_code, told.stdout) == (0, f"fedrad {fedrad.__version__}\n")


def test_the_citation_says_what_the_project_says() -> None:
    cited = yaml.safe_load(text("CITATION.cff"))
    assert cited["cff-version"] == "1.2.0"
    assert cited["authors"] == PROJECT["authors"]
    assert cited["keywords"] == PROJECT["keywords"]
    assert cited["license"] == PROJECT["license"]
    assert cited["repository-code"] == PROJECT["urls"]["Homepage"]


def test_a_plain_install_brings_no_ray_and_all_brings_every_extra() -> None:
    """A hospital needs no Ray; `[simulation]` of Flower would bring it."""
    needed = [re.split(r"[<>=; ]", line)[0] for line in PROJECT["dependencies"]]
    assert "flwr" in needed and "ray" not in needed
    extras = PROJECT["optional-dependencies"]
    assert extras["ray"] == ["flwr[simulation]"]
    every = {f"fedrad[{name}]" for name in extras if name not in ("all", "dev")}
    assert set(extras["all"]) == every
    assert "fedrad[all]" in extras["dev"]


def imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    return {node.module or ""} if isinstance(node, ast.ImportFrom) else set()


def test_ray_is_imported_only_where_that_runtime_is_asked_for() -> None:
    """Also by a module of ours: `fedrad --help` works where Ray is not installed."""
    room, door = ROOT / "fedrad" / "simulation" / "ray", "fedrad.simulation.ray.cluster"
    for path in sorted((ROOT / "fedrad").glob("**/*.py")):
        if path.parent == room and path.stem not in ("__init__", "cluster"):
            continue
        # Its top level alone: what is inside a function waits until it is called.
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for name in imported(node):
                rays = name.split(".")[0] == "ray" or name.startswith("fedrad.simulation.ray")
                assert not rays or name == door, f"{path.relative_to(ROOT)}:{node.lineno}"


def test_the_index_names_every_page_and_every_decision_with_a_sentence() -> None:
    lines = re.findall(r"^\| \[[^]]+\]\(([^)]+)\) \| (.+) \|$", text("docs/README.md"), re.M)
    named = [name for name, _ in lines]
    there = sorted((ROOT / "docs").glob("*.md")) + sorted((ROOT / "docs" / "decisions").glob("*"))
    pages = [str(path.relative_to(ROOT / "docs")) for path in there if path.stem != "README"]
    assert sorted(named) == sorted(pages)
    assert all(len(sentence.split()) > 4 for _, sentence in lines)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_what_is_checked_before_a_commit_is_what_scripts_check_checks() -> None:
    """In the versions of constraints.txt: a hook of another repository would bring its own."""
    (repository,) = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"]
    assert repository["repo"] == "local"
    tiers = re.findall(r"^tier (.+)$", text("scripts/check"), re.M)
    assert [hook["entry"] for hook in repository["hooks"]] == tiers
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_form_for_issues_has_what_github_asks_of_it(path: Path) -> None:
    """GitHub shows no form at all where one of these is missing or an id stands twice."""
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.stem == "config":
        assert all(set(link) == {"name", "url", "about"} for link in form["contact_links"])
        return
    assert form["name"] and form["description"]
    ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert ids and len(ids) == len(set(ids))
    assert all(field["attributes"]["label"] for field in form["body"] if "id" in field)


def test_weaknesses_are_reported_privately_wherever_one_might_write_them() -> None:
    place = f"{PROJECT['urls']['Homepage']}/security/advisories/new"
    for name in (
        "SECURITY.md",
        *(f".github/ISSUE_TEMPLATE/{n}.yml" for n in ("config", "bug_report")),
    ):
        assert place in text(name), name
