"""Federated and split learning for radiology: one YAML, three runtimes, honest comparisons."""

__all__ = ["__version__"]
__version__ = "0.2.0"
