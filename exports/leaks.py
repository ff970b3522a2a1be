"""The leak audit: which of a release's videos a training list holds too.

Ids are compared, however a list spells its clips (``pipeline.train_lists``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from exports.coco import Document, ImageRow, Leak
from pipeline.train_lists import Entry, read_list

_SPAN_S = 10.0


def audit(document: Document, path: Path) -> Leak:
    """Hold a release against one training list."""
    entries = read_list(path)
    return overlap(document.images, path.name, path.read_bytes(), entries)


def overlap(images: Sequence[ImageRow], name: str, data: bytes, entries: Sequence[Entry]) -> Leak:
    """What a list and the frames of a release have in common.

    A clip overlaps when a listed span of its video shares time with it; where the list tells no
    start, when the id is there.
    """
    starts: dict[str, list[float | None]] = {}
    for video_id, start_s in entries:
        starts.setdefault(video_id, []).append(start_s)
    clips = {
        image.clip_id: (image.video_id, image.clip_start_s, image.clip_end_s) for image in images
    }
    seen = [
        clip
        for clip, (video_id, start_s, end_s) in clips.items()
        if any(
            other is None or (other < end_s and start_s < other + _SPAN_S)
            for other in starts.get(video_id, [])
        )
    ]
    return Leak(
        list_name=name,
        list_sha256=hashlib.sha256(data).hexdigest(),
        list_ids=len(starts),
        videos=sorted({image.video_id for image in images} & starts.keys()),
        clips=len(seen),
    )
