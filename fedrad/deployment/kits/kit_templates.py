"""What a kit says in words: its README, site file and service files, from templates."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

__all__ = ["POLICY", "render_template"]

POLICY: Mapping[str, Any] = {
    "algorithms": ("fedavg", "fedprox", "finetune", "float16_updates", "local"),
    "models": ("cnn", "densenet121", "mlp", "resnet18", "resnet34", "resnet50"),
    "actions": ("count", "describe", "finetune", "fit", "share", "test", "tune", "validate"),
    "min_patients": 10,
    "min_sites": 2,
    "min_cell": 5,
    "max_upload_mb": 250,
    "max_norm": 100,
}
"""What a new kit's site file allows. It is spelled out there, and the hospital changes it there."""


def render_template(name: str, about: Mapping[str, Any]) -> str:
    """Return one of a kit's texts.

    Args:
        name: of the text, such as "README.txt".
        about: what it tells; a text that needs what is missing is an error.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        # Texts and YAML, no page: names are checked to be plain before they come here.
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(f"{name}.jinja").render(about)
