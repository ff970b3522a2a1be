"""Media that is gone or another one by now: what was made of it is left out of a release, by name.

The release is where a wrong file would be passed on, so here a video is hashed whatever its file
looks like.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from exports.release.selection import LeftOut, Selection
from pipeline.errors import MediaError
from pipeline.records.schema import Frame, Video
from pipeline.workspace.recorded import MISSING, frame_bytes, video_file
from pipeline.workspace.storage import Storage


class Lost(NamedTuple):
    """A file of the selection that cannot be released."""

    reason: str
    detail: str


def without_lost(
    selection: Selection, storage: Storage, *, media: bool
) -> tuple[Selection, list[str]]:
    """Return the selection less the frames whose image or video is not the recorded one.

    Args:
        selection: of the tables.
        storage: the workspace.
        media: whether media is shipped; if not, videos are not needed, and images may be missing.

    Returns:
        What is left, and a line about each file that is lost.
    """
    videos: dict[str, Lost] = {}
    if media:
        rows = {item.video.video_id: item.video for item in selection.frames}
        for video_id, video in rows.items():
            if lost := _of_video(storage, video):
                videos[video_id] = lost
    frames: dict[str, Lost] = {}
    for item in selection.frames:
        if item.video.video_id not in videos and (
            lost := _of_frame(storage, item.frame, media=media)
        ):
            frames[item.frame.frame_id] = lost
    said = [lost.detail for lost in (*videos.values(), *frames.values())]
    return leave_out(selection, videos, frames), said


def leave_out(
    selection: Selection, videos: Mapping[str, Lost], frames: Mapping[str, Lost]
) -> Selection:
    """Return the selection less some videos with all their frames, and some frames, by ids."""
    left_out = [
        *selection.left_out,
        *(LeftOut("video", name, "", lost.reason, lost.detail) for name, lost in videos.items()),
    ]
    kept = []
    for item in selection.frames:
        name = item.frame.frame_id
        if lost := videos.get(item.video.video_id):
            lost = Lost(f"video_{lost.reason}", "")  # the video's own row tells more
        else:
            lost = frames.get(name)
        if lost is None:
            kept.append(item)
            continue
        left_out.append(LeftOut("frame", name, name, lost.reason, lost.detail))
        for chosen in item.instances:
            instance = chosen.instance.instance_id
            left_out.append(LeftOut("instance", instance, name, lost.reason))
    left_out.sort(key=lambda row: (row.frame_id, row.kind, row.id))
    return replace(selection, frames=tuple(kept), left_out=tuple(left_out))


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
