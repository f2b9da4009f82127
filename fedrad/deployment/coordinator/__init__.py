"""The coordinator's machine: the SuperLink, who is there, and runs across hospitals."""
