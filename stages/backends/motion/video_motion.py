"""Find what moves in a video at its events, whatever it is.

Bars beside the picture are left out first. A frame is compared with up to six neighbours in the
source video. For each, dense optical flow (DIS) says where every pixel went, and an affine fit to
the flow at trackable corners (RANSAC) says where the camera alone would have put it. A pixel speaks
for motion by as much as the flow explains it better than the camera does, in grey levels: that is
tight around a thing, where the flow alone spreads over its surroundings, and it is zero where
nothing can be told. Ground that a thing uncovers looks as if it moved, too: its flow does not lead
back to where it came from, and it shows on one side in time only. Boxes are what connects at
several levels of the evidence and over several gaps; of those that overlap the best one stays, and
at most five.

A frame in which next to nothing moves is given the strongest regions of the clip's other events,
where they are found again in it, at half their score and with a class of their own.

What it cannot do: a thing that covers most of the trackable corners is taken for the background,
a still source is not seen, and a logo on a moving picture moves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipeline.errors import InputError
from pipeline.media import Media, Picture, decode_pictures, read_timeline
from pipeline.media.timeline import exact
from pipeline.records.schema import Frame
from stages.backends.interfaces import Detection, FrameInput
from stages.backends.motion.bars import picture_inside
from stages.backends.motion.evidence import Grey, motion_evidence
from stages.backends.motion.regions import best_of, moving_regions

_WORK_PX = 320
"""Longest side at working size. Bounds the cost; boxes are exact to 2 pixels of a 640x360 frame."""

_NEIGHBOURS = 3
"""Compared frames on either side."""

_CLASS = "moving region"

_CLASS_OF_OTHERS = "moving region of another event"

_NEXT_TO_NOTHING = 0.05
"""Fraction of the strongest other event's evidence at which a frame stands still."""

_MOST_OF_OTHERS = 20
"""Regions of a clip's other events that are looked for in a frame where nothing moves."""

_ALIKE = 0.5
"""Correlation from which on a region of another event is the same thing again."""

_LEAST_LIKE = 0.3
"""Factor of the score of one that was not found again."""

_MOST_SEEN = 64
"""Frames of a video whose regions are remembered."""


@dataclass(frozen=True)
class _Seen:
    """What was seen to move in a frame."""

    luma: Grey
    """The whole frame, at working size."""
    width: int
    """Pixels of the frame."""
    regions: list[tuple[list[float], float]]
    """Boxes ``[x, y, w, h]`` in pixels of the frame, and scores."""
    motion: float
    """All its evidence: grey levels times pixels of the frame."""


class VideoMotion:
    """One video, and what was seen to move in it."""

    def __init__(self, path: Path, window_s: float) -> None:
        self.media = Media(path)
        self._timeline = read_timeline(self.media)
        self._window_s = window_s
        self._seen: dict[str, _Seen] = {}

    def boxes(self, item: FrameInput) -> list[Detection]:
        """Return the moving regions of a frame; where next to nothing moves, of other events too.

        Those are where what moves at the clip's other events is now, as far as it is found again.
        """
        frames = [item.frame, *(one for one in item.others if _same_size(one, item.frame))]
        self._look_at(frames)
        here, *others = (self._seen[frame.frame_id] for frame in frames)
        own = [Detection(box, _CLASS, score) for box, score in here.regions]
        moving = max((other.motion for other in others), default=0.0)
        if own and here.motion > _NEXT_TO_NOTHING * moving:
            return own
        return own + _of_others(here, others)

    def _look_at(self, frames: Sequence[Frame]) -> None:
        """Look at the frames that are not remembered, in one pass over a clip of the video."""
        if len(self._seen) + len(frames) > _MOST_SEEN:
            wanted = {frame.frame_id for frame in frames}
            self._seen = {name: seen for name, seen in self._seen.items() if name in wanted}
        new = [frame for frame in frames if frame.frame_id not in self._seen]
        for frame, pictures in self._windows(new):
            self._seen[frame.frame_id] = _look(frame, pictures)

    def _windows(self, frames: Sequence[Frame]) -> Iterator[tuple[Frame, list[Picture]]]:
        """Yield each frame, by time, with the pictures around it that can be compared with it.

        ``sample`` has decoded most of them before. Kept at working size they would be 2 MB a clip,
        140 GB for the paper's 70,000, to spare a tenth of a second of decoding each.
        """
        ranges = {frame.frame_id: self._window(frame) for frame in frames}
        decoded = decode_pictures(
            self.media, self._timeline, _disjoint(ranges.values()), any_size=True
        )
        held: list[Picture] = []
        for frame in sorted(frames, key=lambda frame: frame.time_s):
            window = ranges[frame.frame_id]
            held = [p for p in held if p.index >= window.start]
            while not held or held[-1].index < window.stop - 1:
                if (picture := next(decoded, None)) is None:
                    break
                held.append(picture)
            # Neighbours of another size, behind a change of it, cannot be compared.
            size = frame.width, frame.height
            yield (
                frame,
                [p for p in held if p.index in window and not p.damaged and p.size == size],
            )

    def _window(self, frame: Frame) -> range:
        return self._timeline.between(
            exact(frame.time_s - self._window_s),
            exact(frame.time_s + self._window_s),
            closed=True,
        )


def _disjoint(ranges: Iterable[range]) -> list[range]:
    """Return the numbers of some ranges as ranges that share none, in order.

    >>> _disjoint([range(5, 9), range(0, 3), range(2, 4)])
    [range(0, 4), range(5, 9)]
    """
    found: list[range] = []
    for one in sorted(ranges, key=lambda one: one.start):
        if found and one.start <= found[-1].stop:
            last = found.pop()
            one = range(last.start, max(last.stop, one.stop))
        found.append(one)
    return found


def _look(frame: Frame, pictures: Sequence[Picture]) -> _Seen:
    """Return what moves in a frame, by the pictures around it, its own among them.

    Raises:
        InputError: ``frame_not_in_source`` when there is none.
    """
    centre, before, after = _sides(frame, pictures)
    scale = min(1.0, _WORK_PX / max(centre.shape))
    near = (*before[-1:], centre, *after[:1])
    small = {id(luma): _resized(luma, scale) for luma in near}  # without bars shrunk once
    of_frame = small[id(centre)]
    left, top, width, height = _inside(list(small.values()), centre.shape, scale)
    if (height, width) != centre.shape:  # what is in bars is looked at more closely
        scale, small = min(1.0, _WORK_PX / max(width, height)), {}

    def seen(luma: Grey) -> Grey:
        if id(luma) in small:
            return small[id(luma)]
        return _resized(luma[top : top + height, left : left + width], scale)

    cv2.setRNGSeed(0)  # RANSAC draws; each frame for itself
    evidence = motion_evidence(
        seen(centre), [seen(other) for other in before], [seen(other) for other in after]
    )
    regions = [
        ([x / scale + left, y / scale + top, w / scale, h / scale], score)
        for (x, y, w, h), score in moving_regions(evidence)
    ]
    return _Seen(of_frame, frame.width, regions, float(evidence.sum()) / scale**2)


def _sides(frame: Frame, pictures: Sequence[Picture]) -> tuple[Grey, list[Grey], list[Grey]]:
    """Return the frame and its neighbours before and after it, in order."""
    centre = min(pictures, key=lambda p: abs(p.time - exact(frame.time_s)), default=None)
    if centre is None:
        raise InputError(
            "frame_not_in_source",
            f"no whole picture of {frame.width}x{frame.height} near {frame.time_s:.3f} s",
        )
    before, after = (
        [p.luma() for p in _spread(side)]
        for side in (
            [p for p in pictures if p.index < centre.index],
            [p for p in pictures if p.index > centre.index],
        )
    )
    return centre.luma(), before, after


def _same_size(one: Frame, other: Frame) -> bool:
    return (one.width, one.height) == (other.width, other.height)


def _of_others(here: _Seen, others: Sequence[_Seen]) -> list[Detection]:
    """Return the strongest regions of other events, where they are found in this frame."""
    regions = [(score, box, other) for other in others for box, score in other.regions]
    regions.sort(key=lambda one: -one[0])
    placed = []
    for score, box, other in regions[:_MOST_OF_OTHERS]:
        place, likeness = _found_again(box, other, here)
        placed.append((place, score / 2 * likeness))
    taken = [box for box, _ in here.regions]
    return [Detection(box, _CLASS_OF_OTHERS, score) for box, score in best_of(placed, taken)]


def _found_again(box: list[float], then: _Seen, now: _Seen) -> tuple[list[float], float]:
    """Look for what a box held at another event: at its place, and as far around as it is large.

    Args:
        box: in pixels of the frame.
        then: the event it moved at.
        now: the frame where it is wanted.

    Returns:
        The box where it is most alike, and how alike: from ``_LEAST_LIKE`` to 1.
    """
    scale = now.luma.shape[1] / now.width
    x, y, w, h = (round(side * scale) for side in box)
    rows, columns = now.luma.shape
    thing = then.luma[y : y + h, x : x + w]
    left, top = max(0, x - w // 2), max(0, y - h // 2)
    around = now.luma[top : min(rows, y + h + h // 2), left : min(columns, x + w + w // 2)]
    alike = cv2.matchTemplate(around, thing, cv2.TM_CCOEFF_NORMED)
    _, best, _, (to_x, to_y) = cv2.minMaxLoc(alike)
    if best < _ALIKE:  # nothing like it: where it was is the best guess
        return box, _LEAST_LIKE
    moved = [(left + to_x - x) / scale, (top + to_y - y) / scale]
    return [box[0] + moved[0], box[1] + moved[1], box[2], box[3]], float(best)


def _inside(
    small: Sequence[Grey], shape: tuple[int, ...], scale: float
) -> tuple[int, int, int, int]:
    """Return ``(x, y, width, height)`` of the picture without bars, in pixels of the frame.

    Args:
        small: the frame and its neighbours, at ``scale``.
        shape: height and width of the frame.
        scale: at most 1.
    """
    height, width = shape
    x, y, w, h = picture_inside(small)
    # Where there is a bar, one line more goes with it: the boundary is a line of the frame itself.
    rows, columns = small[0].shape
    left, top = (math.ceil((at + 1) / scale) if at else 0 for at in (x, y))
    right = math.floor((x + w - 1) / scale) if x + w < columns else width
    bottom = math.floor((y + h - 1) / scale) if y + h < rows else height
    return left, top, right - left, bottom - top


def _spread(pictures: Sequence[Picture]) -> list[Picture]:
    """Choose up to ``_NEIGHBOURS`` of the pictures, evenly spread, the ends among them."""
    if len(pictures) <= _NEIGHBOURS:
        return list(pictures)
    places = np.linspace(0, len(pictures) - 1, _NEIGHBOURS).round().astype(int)
    return [pictures[place] for place in places]


def _resized(luma: Grey, scale: float) -> Grey:
    if scale == 1.0:
        return np.ascontiguousarray(luma)
    small = cv2.resize(luma, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return small.astype(np.uint8, copy=False)
