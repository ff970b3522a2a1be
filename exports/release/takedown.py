"""Takedowns: videos whose makers, or the law, want them out.

A takedown is a small file of the workspace, ``takedowns/<video_id>.json``; no table is edited. The
next release leaves the video out everywhere and names the takedown in its head and its card.
``verify`` fails on a release that still has it: it reads the takedowns of the workspace in which
the release lies, of the one it is called for, and of the release's own head.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import AvatarBuildError, InputError, UsageError
from pipeline.records.schema import check_video_id
from pipeline.release.document import Document
from pipeline.release.findings import Finding
from pipeline.release.layout import DOCUMENT
from pipeline.workspace.storage import Storage

_FOLDER = "takedowns"


class Takedown(BaseModel):
    """A video that no release may have from ``date`` on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    video_id: str
    date: date
    reason: str


def record_takedown(storage: Storage, video_id: str, reason: str = "") -> Takedown:
    """Record that a video is taken down; a record that is there stays as it is.

    Raises:
        UsageError: not a YouTube id.
    """
    try:
        check_video_id(video_id)
    except InputError as error:
        raise UsageError(f"takedown: {error.detail}") from error
    takedown = Takedown(video_id=video_id, date=datetime.now(UTC).date(), reason=reason)
    name = f"{_FOLDER}/{video_id}.json"
    if not storage.create(name, takedown.model_dump_json().encode() + b"\n"):
        return _read(storage, name)
    return takedown


def read_takedowns(storage: Storage) -> list[Takedown]:
    """Return all takedowns of a workspace, by video."""
    names = [name for name in storage.names(_FOLDER) if name.endswith(".json")]
    return [_read(storage, f"{_FOLDER}/{name}") for name in names]


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


def _read(storage: Storage, name: str) -> Takedown:
    try:
        return Takedown.model_validate_json(storage.read(name))
    except ValidationError as error:
        problem = error.errors()[0]
        raise AvatarBuildError(
            f"{name}: {problem['msg']}. Remove the file and run 'avatar-build takedown' again."
        ) from error
