"""Checks of data: overlap between splits and sites, and what looks odd."""
