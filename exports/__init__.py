"""Releases: what other people download, and the report that says how they came about."""

from exports.loading import LabelledFrame, Release, Sounding, load_release

__all__ = ["LabelledFrame", "Release", "Sounding", "load_release"]
