"""The leak audit: which of a release's videos a training list holds too.

Names are compared, however a list spells its clips (``pipeline.release.video_lists``).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pipeline.release.document import Document, Leak
from pipeline.release.video_lists import VideoNames, read_list, read_name

_SPAN_S = 10.0


def audit(document: Document, path: Path) -> Leak:
    """Return what a training list and a release have in common.

    A clip overlaps when a listed span of its video shares time with it; where the list tells no
    start, when the video is there.
    """
    listed, images = read_list(path), document.images
    ours = VideoNames.of(image.video_id for image in images)
    starts = {
        video_id: [other.start_s for other in listed.same(read_name(video_id))]
        for video_id in {image.video_id for image in images}
    }
    clips = {
        image.clip_id: (image.video_id, image.clip_start_s, image.clip_end_s) for image in images
    }
    seen = [
        clip
        for clip, (video_id, start_s, end_s) in clips.items()
        if any(
            other is None or (other < end_s and start_s < other + _SPAN_S)
            for other in starts[video_id]
        )
    ]
    return Leak(
        list_name=path.name,
        list_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        list_ids=len(listed),
        videos=sorted(video_id for video_id, found in starts.items() if found),
        clips=len(seen),
        unsure=len(ours.shared_with(listed).unsure),
        unread=len(listed.unread),
    )
