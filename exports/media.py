"""Media that is gone or another one by now: what was made of it is left out of a release, by name.

The release is where a wrong file would be passed on, so here a video is hashed whatever its file
looks like.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from exports.selection import LeftOut, Selection
from pipeline.errors import MediaError
from pipeline.recorded import MISSING, frame_bytes, video_file
from pipeline.schema import Frame, Video
from pipeline.storage import Storage


class Lost(NamedTuple):
    """A file of the selection that cannot be released."""

    reason: str
    detail: str


def without_lost(
    selection: Selection, storage: Storage, *, media: bool
) -> tuple[Selection, list[str]]:
    """The selection less the frames whose image or video is not the recorded one.

    Args:
        selection: of the tables.
        storage: the workspace.
        media: whether media is shipped; if not, videos are not needed, and images may be missing.

    Returns:
        What is left, and a line about each file that is lost.
    """
    said: list[str] = []
    left_out = list(selection.left_out)
    videos: dict[str, Lost | None] = {}
    kept = []
    for item in selection.frames:
        video = item.video
        if media and video.video_id not in videos:
            lost = videos[video.video_id] = _of_video(storage, video)
            if lost is not None:
                said.append(lost.detail)
                left_out.append(LeftOut("video", video.video_id, "", lost.reason))
        lost = videos.get(video.video_id)
        if lost is not None:
            reason = f"video_{lost.reason}"
        else:
            lost = _of_frame(storage, item.frame, media=media)
            if lost is None:
                kept.append(item)
                continue
            said.append(lost.detail)
            reason = lost.reason
        name = item.frame.frame_id
        left_out.append(LeftOut("frame", name, name, reason))
        for chosen in item.instances:
            left_out.append(LeftOut("instance", chosen.instance.instance_id, name, reason))
    left_out.sort(key=lambda row: (row.frame_id, row.kind, row.id))
    return replace(selection, frames=tuple(kept), left_out=tuple(left_out)), said


def _of_video(storage: Storage, video: Video) -> Lost | None:
    try:
        with video_file(storage, video, always_hash=True):
            return None
    except MediaError as error:
        return Lost(error.kind, error.detail)


def _of_frame(storage: Storage, frame: Frame, *, media: bool) -> Lost | None:
    try:
        frame_bytes(storage, frame)
    except MediaError as error:
        if error.kind != MISSING or media:
            return Lost(error.kind, error.detail)
    return None
