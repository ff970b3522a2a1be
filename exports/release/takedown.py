"""Releases and the videos that were taken down (``pipeline.workspace.takedowns``).

The next release leaves the video out everywhere and names the takedown in its head and its card.
``verify`` fails on a release that still has it: it reads the takedowns of the workspace in which
the release lies, of the one it is called for, and of the release's own head.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pipeline.release.document import Document
from pipeline.release.findings import Finding
from pipeline.release.layout import DOCUMENT
from pipeline.workspace.storage import Storage
from pipeline.workspace.takedowns import Takedown


def releases_with(storage: Storage, video_id: str) -> list[str]:
    """Return the workspace's releases that still name a video."""
    found = []
    for version in storage.folders("releases"):
        name = f"releases/{version}/{DOCUMENT}"
        if storage.exists(name) and json.dumps(video_id).encode() in storage.read(name):
            found.append(f"releases/{version}")
    return found


def still_there(document: Document, takedowns: list[Takedown]) -> Iterator[Finding]:
    """Yield the videos of a release that were taken down, by the workspace or its own head."""
    dates = {one.video_id: f"was taken down on {one.date}" for one in takedowns}
    gone = dict.fromkeys(document.info.takedowns, "is named as taken down") | dates
    for video in document.videos:
        if video.id in gone:
            yield Finding("takedown", f"video {video.id}", gone[video.id])


def workspace_around(release: Path) -> Storage | None:
    """Return the workspace whose ``releases/`` a release lies in, if it does."""
    root = release.resolve().parent.parent
    inside = release.resolve().parent.name == "releases"
    return Storage(root) if inside and (root / "commits/workspace.json").is_file() else None
