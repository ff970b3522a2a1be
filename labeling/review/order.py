"""Choose which clips people are asked about first.

A clip's frames stay together, so that whoever labels them hears one clip at a time. A chosen order
biases what a release tells of the whole where labelling stops before the end: the card says so.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Literal

from pipeline.records.schema import Frame, Proposal

Order = Literal["given", "uncertain", "rare"]


def in_order(
    frames: Iterable[Frame], proposals: Mapping[str, Sequence[Proposal]], order: Order, seed: int
) -> list[Frame]:
    """Sort frames by their clips; those that are equal by a draw of their own from the seed.

    Args:
        frames: to ask about.
        proposals: of every frame of the workspace, by frame; those that are not audible play no
            part.
        order: ``given``: as they are. ``uncertain``: least sure first, by the mean over a clip's
            frames of how sure its least sure box is: ``|2 s - 1|`` for a detector score of s, over
            the number of categories it may be; a frame without a box is the least sure. ``rare``:
            first the clips with the category that the fewest clips have a box of.
        seed: of the draw.
    """
    shown = list(frames)
    if order == "given":
        return shown
    clips: dict[str, list[Frame]] = {}
    for frame in shown:
        clips.setdefault(frame.clip_id, []).append(frame)
    audible = {name: [box for box in boxes if box.audible] for name, boxes in proposals.items()}
    if order == "uncertain":
        rank = {
            name: fmean(_sureness(audible.get(frame.frame_id, ())) for frame in of_clip)
            for name, of_clip in clips.items()
        }
    else:
        rank = _rarity(clips, audible)
    names = sorted(clips, key=lambda name: (rank[name], _draw(name, seed)))
    return [frame for name in names for frame in clips[name]]


def _sureness(boxes: Sequence[Proposal]) -> float:
    """Return how sure the least sure box is, in [0, 1].

    >>> _sureness([])
    0.0
    """
    sure = (abs(2 * box.detector_score - 1) / max(1, len(box.categories)) for box in boxes)
    return min(sure, default=0.0)


def _rarity(clips: Iterable[str], audible: Mapping[str, Sequence[Proposal]]) -> dict[str, float]:
    """Return in how many clips of the workspace each clip's rarest category has a box."""
    categories: dict[str, set[str]] = {}
    for frame_id, boxes in audible.items():
        clip_id = frame_id.rpartition("_")[0]  # its clip's id, and its index in it
        categories.setdefault(clip_id, set()).update(
            name for box in boxes for name in box.categories
        )
    count = Counter(name for found in categories.values() for name in found)
    return {
        clip_id: min((count[name] for name in categories.get(clip_id, ())), default=float("inf"))
        for clip_id in clips
    }


def _draw(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:order:{name}".encode()).digest()
