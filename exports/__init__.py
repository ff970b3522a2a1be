"""Releases: what other people download, and the report that says how they came about.

``load_release`` gives typed access to one.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.release import read
from pipeline.release.findings import Finding
from pipeline.release.read import LabelledFrame, Sounding

__all__ = ["LabelledFrame", "Release", "Sounding", "load_release"]


class Release(read.Release):
    """An opened release; iterate over it for its frames, by video and time."""

    def verify(self) -> list[Finding]:
        """Check files, rows and media against each other; an empty list says all is well."""
        from exports.verify.verify_release import verify_release

        return verify_release(self.folder)


def load_release(folder: str | Path) -> Release:
    """Open the release in ``folder``.

    Raises:
        UsageError: there is none.
        AvatarBuildError: it cannot be read.
    """
    return Release(Path(folder), read.read_document(Path(folder)))
