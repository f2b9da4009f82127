"""YAML in, frozen and checked values out; the only part of the house that reads YAML.

An `Experiment` is what a researcher writes and what travels, as its canonical text, to every site;
a `Site` is what one hospital writes about itself and never sends. Names in them point into tables
(`registry.py`), never to import paths.
"""

from fedrad.config.experiment import POOLED, Experiment, Local, Primary, Split, Task
from fedrad.config.federation import FederationFile
from fedrad.config.reading import (
    from_text,
    load_experiment,
    load_federation,
    load_site,
    load_site_file,
)
from fedrad.config.site import Site, SiteFile

__all__ = [
    "POOLED",
    "Experiment",
    "FederationFile",
    "Local",
    "Primary",
    "Site",
    "SiteFile",
    "Split",
    "Task",
    "from_text",
    "load_experiment",
    "load_federation",
    "load_site",
    "load_site_file",
]
