"""The split of clips into training and validation, by video."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from tavlo.training.cached_clips import CachedClip


def split(
    clips: Sequence[CachedClip], fraction: float, seed: int
) -> tuple[list[CachedClip], list[CachedClip]]:
    """Split into training and validation clips; what may be of one video is on the same side.

    Videos are drawn until at least ``fraction`` of the clips, and two, are held back: one clip
    alone has nothing to be told from. A fraction of 0 holds none back. Files such as
    ``take_00002.mp4`` and ``take_00007.mp4`` may be parts of one video, and stay together. What is
    more than half of the clips is trained on, so that files that are merely numbered do not all
    become validation.
    """
    wanted = max(fraction * len(clips), 2) if fraction else 0
    video_of = _videos_of(clips)
    videos = sorted(set(video_of.values()))
    # In the order of a digest of their own, so that a longer list moves few of them across.
    videos.sort(key=lambda video: hashlib.sha256(f"{seed} {video}".encode()).digest())
    counts = Counter(video_of.values())
    held: set[str] = set()
    for video in videos:
        if sum(counts[name] for name in held) >= wanted:
            break
        if counts[video] <= max(wanted, len(clips) / 2):
            held.add(video)
    return (
        [clip for clip in clips if video_of[clip.clip_id] not in held],
        [clip for clip in clips if video_of[clip.clip_id] in held],
    )


def _videos_of(clips: Sequence[CachedClip]) -> dict[str, str]:
    """Name all clips that share a reading of their video's name alike, by clip id."""
    above: dict[str, str] = {}

    def top(name: str) -> str:
        while above.setdefault(name, name) != name:
            name = above[name]
        return name

    for clip in clips:
        for name in clip.readings:
            one, other = sorted((top(clip.video_id), top(name)))
            above[other] = one  # the first in the alphabet, whatever the order of the clips
    return {clip.clip_id: top(clip.video_id) for clip in clips}
