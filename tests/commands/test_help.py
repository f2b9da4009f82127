"""`--help` says what a command takes, in words of what it is, and with a command to copy."""

import pytest
from typer.testing import CliRunner

from fedrad.cli import app


@pytest.mark.parametrize(
    ("command", "takes", "example"),
    [
        ("run", "EXPERIMENT.YAML", "fedrad run experiment.yaml --on kits/coordinator"),
        ("check", "EXPERIMENT.YAML", "fedrad check experiments/chest_xray.yaml"),
        ("site", "COMMAND", "fedrad site doctor site.yaml"),
        ("site doctor", "SITE.YAML", "fedrad site doctor site.yaml"),
        ("site preview", "SITE.YAML EXPERIMENT.YAML", "fedrad site preview site.yaml"),
        ("site approve", "EXPERIMENT.YAML", "fedrad site approve experiments/x.yaml"),
        ("site ledger", "STATE_DIR", "fedrad site ledger"),
        ("provision", "FEDERATION.YAML", "fedrad provision sites/federation.yaml"),
    ],
)
def test_help_names_what_a_command_takes_and_ends_with_an_example(
    command: str, takes: str, example: str
) -> None:
    """What stood there was `FILE  PATH`, with no word of which file."""
    told = CliRunner().invoke(app, [*command.split(), "--help"]).output
    usage, _, rest = " ".join(told.split()).partition("Usage: ")[2].partition("─ ")
    assert takes in usage
    assert example in rest
