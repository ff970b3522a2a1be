"""Tell the segmenter what people verified of a thing in one frame, in the others of its clip.

The verified mask is moved and stretched with the thing's box, which people decided in both frames,
and points of it are what a segmenter is told: a moved mask is no answer itself, as things turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from labeling.review.instances import deciding_reviews
from pipeline.records import rle
from pipeline.records.moved_masks import Point, moved, points_of
from pipeline.records.schema import Frame, Instance, Review, Rle


class FoundMask(Protocol):
    """A mask as segmenters answer it."""

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The mask, ``(height, width)`` of the frame; may be empty."""
        ...

    @property
    def predicted_iou(self) -> float | None:
        """Quality as the segmenter itself guesses it, an IoU."""
        ...


class Refiner(Protocol):
    """A segmenter that turns prompts into a mask."""

    @property
    def name(self) -> str:
        """The segmenter's name."""
        ...

    def refine(self, frame: Frame, box: list[float], points: list[Point]) -> FoundMask:
        """Find the thing in a frame that a box and points speak of, both in pixels."""
        ...


class NamedRefiner(Refiner, Protocol):
    """A segmenter whose masks are kept, and so have to say what made them."""

    @property
    def digest(self) -> str:
        """SHA-256 of the weights; empty without weights."""
        ...


@dataclass(frozen=True)
class VerifiedMask:
    """A thing's mask in a frame, as people left it."""

    frame: Frame
    instance: Instance
    mask: Rle

    def on(self, frame: Frame, box: Sequence[float]) -> rle.Mask:
        """Return it as it would lie in another frame, where the thing has this box."""
        pixels = rle.decode(self.mask)
        return moved(pixels, self.instance.bbox, box, (frame.height, frame.width))

    def points(self, frame: Frame, box: Sequence[float]) -> list[Point]:
        """Return points that tell it there."""
        return points_of(self.on(frame, box), box)


class VerifiedMasks:
    """The masks people verified, by the thing.

    Args:
        frames: by id.
        instances: those that stand; masks of others say nothing.
        reviews: all of them.
    """

    def __init__(
        self,
        frames: Mapping[str, Frame],
        instances: Iterable[Instance],
        reviews: Iterable[Review],
    ) -> None:
        standing = {row.instance_id: row for row in instances if row.track_id is not None}
        self._of: dict[tuple[str, int | None], list[VerifiedMask]] = {}
        for name, review in deciding_reviews(reviews, "masks").items():
            for spoken in review.instances if review.verified and name in frames else ():
                thing = standing.get(spoken.instance_id or "")
                if thing is not None and thing.frame_id == name and spoken.rle is not None:
                    mask = VerifiedMask(frames[name], thing, spoken.rle)
                    key = frames[name].clip_id, thing.track_id
                    self._of.setdefault(key, []).append(mask)

    def nearest(self, instance: Instance, frame: Frame) -> VerifiedMask | None:
        """Return the mask of the same thing in the nearest other frame that has one.

        What has another category there, on purpose, is not told of it.
        """
        others = [
            one
            for one in self._of.get((frame.clip_id, instance.track_id), ())
            if one.frame.frame_id != frame.frame_id
            and one.instance.audio_visual_category == instance.audio_visual_category
        ]
        return min(others, key=lambda one: abs(one.frame.time_s - frame.time_s), default=None)
