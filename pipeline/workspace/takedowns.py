"""The videos of a workspace that were taken down: their makers, or the law, want them out.

A takedown is a small file, ``takedowns/<video_id>.json``; no table is edited. No release has the
video from then on (``exports.release.takedown``), and no later ``label push`` asks about it; tasks
that were sent before stay at the server.
"""

from __future__ import annotations

from datetime import UTC, date, datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import AvatarBuildError, InputError, UsageError
from pipeline.records.schema import check_video_id
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


def _read(storage: Storage, name: str) -> Takedown:
    try:
        return Takedown.model_validate_json(storage.read(name))
    except ValidationError as error:
        problem = error.errors()[0]
        raise AvatarBuildError(
            f"{name}: {problem['msg']}. Remove the file and run 'avatar-build takedown' again."
        ) from error
