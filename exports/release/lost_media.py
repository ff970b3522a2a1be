"""Media that is gone or another one by now: what was made of it is left out of a release, by name.

The release is where a wrong file would be passed on, so here a video is hashed whatever its file
looks like.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from exports.release.selection import LeftOut, Selection
from pipeline.errors import MediaError
from pipeline.workspace.recorded import MISSING, frame_bytes, video_file
from pipeline.workspace.storage import Storage


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
    videos: dict[str, MediaError] = {}
    frames: dict[str, MediaError] = {}
    rows = {item.video.video_id: item.video for item in selection.frames} if media else {}
    for video_id, video in rows.items():
        try:
            with video_file(storage, video, always_hash=True):
                pass
        except MediaError as error:
            videos[video_id] = error
    for item in selection.frames:
        try:
            if item.video.video_id not in videos:
                frame_bytes(storage, item.frame)
        except MediaError as error:
            if error.kind != MISSING or media:
                frames[item.frame.frame_id] = error
    said = [error.detail for error in (*videos.values(), *frames.values())]
    return leave_out(selection, videos, frames), said


def leave_out(
    selection: Selection, videos: Mapping[str, MediaError], frames: Mapping[str, MediaError]
) -> Selection:
    """Return the selection less some videos with all their frames, and some frames, by ids."""
    left_out = [
        *selection.left_out,
        *(LeftOut("video", name, "", why.kind, why.detail) for name, why in videos.items()),
    ]
    kept = []
    for item in selection.frames:
        name = item.frame.frame_id
        if why := videos.get(item.video.video_id):
            why = MediaError(f"video_{why.kind}", "")  # the video's own row tells more
        else:
            why = frames.get(name)
        if why is None:
            kept.append(item)
            continue
        left_out.append(LeftOut("frame", name, name, why.kind, why.detail))
        for chosen in item.instances:
            left_out.append(LeftOut("instance", chosen.instance.instance_id, name, why.kind))
    left_out.sort(key=lambda row: (row.frame_id, row.kind, row.id))
    return replace(selection, frames=tuple(kept), left_out=tuple(left_out))
