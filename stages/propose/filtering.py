"""Choose among a detector's boxes by what is heard: audio-guided filtering (paper 3.1.3).

All of it is arithmetic on what is in tables and answers, so thresholds change without a model. A
box may be every category its class maps to; of those, the active ones stay. A box none of whose
categories is active is kept and marked inaudible: another threshold or an annotator may bring it
back. A box whose class is no category's is none of ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.config import ProposeConfig
from pipeline.errors import InputError
from pipeline.records.boxes import clip, iou
from pipeline.records.schema import Frame, Proposal, Sounds, content_id
from stages.backends.interfaces import Detection, Vocabulary
from stages.taxonomy import Taxonomy

CategoriesOf = Callable[[str], list[str] | None]
"""The categories a detector's class may be; none when it may be anything."""

_ABSURD_SIDE = 10
"""A side this many times the frame's longer side is no box."""


@dataclass(frozen=True)
class AudioGuidance:
    """The sounds' verdict on a box."""

    categories: list[str]
    """Categories it may be, loudest first; active ones alone where any is."""
    audible: bool
    audio_score: float


_Guided = tuple[Detection, AudioGuidance]


def categories_of(
    vocabulary: Vocabulary, taxonomy: Taxonomy, config: ProposeConfig
) -> CategoriesOf:
    """Return the map from a detector's class names to categories.

    Args:
        vocabulary: the detector's.
        taxonomy: the target categories.
        config: says whether generic Open Images classes count.
    """
    if vocabulary == "none":
        return lambda name: None
    if vocabulary == "prompts":
        return taxonomy.of_prompt
    return lambda name: taxonomy.of_openimages(name, generic=config.openimages == "generic")


def proposals_of(
    frame: Frame,
    found: Sequence[Detection],
    sounds: Sounds,
    detector: str,
    categories: CategoriesOf,
    config: ProposeConfig,
) -> list[Proposal]:
    """Return a frame's boxes as rows, audible ones first, then by score.

    Args:
        frame: the frame.
        found: all boxes of the detector, in any order.
        sounds: the tags of its sound.
        detector: its name.
        categories: of its classes.
        config: bounds and thresholds.
    """
    possible: list[_Guided] = []
    for d in found:
        names = categories(d.name)
        inside = _within_bounds(d, frame, config)
        if inside and names != []:
            possible.append((Detection(inside, d.name, d.score), audio_guidance(names, sounds)))
    possible.sort(key=lambda pair: (not pair[1].audible, -pair[0].score, pair[0].name))
    kept: list[_Guided] = []
    for one in possible:
        if len(kept) == config.max_boxes:
            break
        # A box that repeats a better one would be a second question about one thing.
        if not any(_repeats(one, better, config.nms_iou) for better in kept):
            kept.append(one)
    return [
        Proposal(
            proposal_id=content_id("p", frame.frame_id, detector, d.name, d.bbox),
            frame_id=frame.frame_id,
            bbox=d.bbox,
            detector=detector,
            detector_class=d.name,
            detector_score=d.score,
            categories=guidance.categories,
            audible=guidance.audible,
            audio_score=guidance.audio_score,
        )
        for d, guidance in kept
    ]


def audio_guidance(categories: Sequence[str] | None, sounds: Sounds) -> AudioGuidance:
    """Judge a box by the sounds.

    Args:
        categories: what the box may be; none when it may be anything.
        sounds: the tags of its sound.
    """
    score = {one.category: one.score for one in sounds.categories}
    active = [one.category for one in sounds.categories if one.active]
    possible = list(score) if categories is None else list(categories)
    audible = [category for category in active if category in possible]
    kept = audible or (list(categories) if categories is not None else [])
    loudest = max((score.get(category, 0.0) for category in kept), default=0.0)
    return AudioGuidance(kept, bool(audible), loudest)


def rounded(found: Sequence[Detection], frame: Frame) -> list[Detection]:
    """Round the boxes as they are kept: to a thousandth of a pixel, a millionth of a score.

    Raises:
        InputError: ``absurd_box``: a number that is none, a side that is no side, a score outside
            [0, 1]. A model that answers so cannot be trusted about the frame's other boxes.
    """
    largest = _ABSURD_SIDE * max(frame.width, frame.height)
    kept = []
    for d in found:
        box = [round(float(side), 3) for side in d.bbox]
        score = round(float(d.score), 6)
        finite = all(math.isfinite(value) for value in (*d.bbox, d.score))
        near = finite and all(abs(value) <= largest for value in box)
        if not (near and min(box[2:]) >= 0 and 0 <= score <= 1):
            raise InputError("absurd_box", f"{d.name}: {[*d.bbox]}, score {d.score}")
        kept.append(Detection(box, d.name, score))
    return kept


def _within_bounds(d: Detection, frame: Frame, config: ProposeConfig) -> list[float] | None:
    """Cut the box to the frame; none when it is too unsure, too small or too large."""
    if d.score < config.min_score:
        return None
    box = clip(d.bbox, frame.width, frame.height)
    fraction = box[2] * box[3] / (frame.width * frame.height) if box else 0.0
    return box if box and config.min_area <= fraction <= config.max_area else None


def _repeats(one: _Guided, better: _Guided, max_iou: float) -> bool:
    """Say whether a better box has the same class or category at the same place."""
    (d, mine), (other, theirs) = one, better
    same = d.name == other.name or not set(mine.categories).isdisjoint(theirs.categories)
    return same and iou(d.bbox, other.bbox) > max_iou
