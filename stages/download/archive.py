"""The files of each video: the verified file, what is known of it, a part of it.

    media/videos/<video_id>.<ext>      a verified file
    media/videos/<video_id>.json       its sidecar, kept when the filter rejects the file
    media/partial/<video_id>/          a transfer that did not end, kept for the next run

A rerun asks the site nothing about a video whose sidecar and file agree.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from pydantic import ValidationError

from pipeline.media import MediaFacts
from pipeline.records.schema import Record
from pipeline.workspace.recorded import is_there, note_file
from pipeline.workspace.storage import Storage
from stages.download.fetching import SiteFacts

VIDEOS = "media/videos"
PARTIAL = "media/partial"


class Sidecar(Record):
    """Everything known of one fetched video."""

    video_id: str
    selection: str
    """The format setting it was fetched with."""
    path: str
    """Path of the file, relative to the workspace."""
    sha256: str
    size_bytes: int
    media: MediaFacts
    probe_version: int = 1
    """Version of the code that read ``media``."""
    site: SiteFacts


class VideoArchive:
    """The videos of one workspace.

    Args:
        storage: the workspace.
        scratch: on this machine, for parts when the workspace is elsewhere.
    """

    def __init__(self, storage: Storage, scratch: Path) -> None:
        self._storage = storage
        self.parts = storage.local_path(PARTIAL) or scratch / "partial"
        """Holds a folder per unfinished video."""

    def part_folder(self, video_id: str) -> Path:
        """Return the folder of a video's unfinished transfer, making it when missing."""
        folder = self.parts / video_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def forget_part(self, video_id: str) -> None:
        """Delete a video's unfinished transfer."""
        shutil.rmtree(self.parts / video_id, ignore_errors=True)

    def tidy_part(self, video_id: str) -> None:
        """Delete the folder of a video's transfer if there is nothing in it to go on from."""
        if not any((self.parts / video_id).glob("*.part")):
            self.forget_part(video_id)

    def recall(self, video_id: str, selection: str) -> Sidecar | None:
        """Return the sidecar of a video fetched before with the same format setting."""
        try:
            data = self._storage.read(_sidecar(video_id))
            sidecar = Sidecar.model_validate_json(data)
        except (FileNotFoundError, ValidationError):
            return None
        same = (sidecar.video_id, sidecar.selection) == (video_id, selection)
        return sidecar if same else None

    def is_whole(self, sidecar: Sidecar) -> bool:
        """Say whether the file is there and still the one that was verified."""
        return is_there(self._storage, sidecar.path, sidecar.sha256, sidecar.size_bytes)

    def keep(self, sidecar: Sidecar, file: Path | None) -> None:
        """Publish a verified file, or without one only what is known of it."""
        before = self.recall(sidecar.video_id, sidecar.selection)
        if before and before.path != sidecar.path:
            self._storage.remove(before.path)
        if file is not None:
            self._storage.publish(file, sidecar.path)
            note_file(self._storage, sidecar.path, sidecar.sha256)
        self._storage.write(_sidecar(sidecar.video_id), sidecar.model_dump_json().encode())
        self.forget_part(sidecar.video_id)

    def remove(self, sidecar: Sidecar) -> None:
        """Delete the file; the sidecar stays."""
        self._storage.remove(sidecar.path)


def video_path(video_id: str, suffix: str) -> str:
    """Return the path of a video's file in the workspace.

    >>> video_path("-1pRmoJIGQc", ".mp4")
    'media/videos/-1pRmoJIGQc.mp4'
    """
    return f"{VIDEOS}/{video_id}{suffix}"


def _sidecar(video_id: str) -> str:
    return video_path(video_id, ".json")
