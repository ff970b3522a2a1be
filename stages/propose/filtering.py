"""Choose among the detectors' boxes by what is heard: audio-guided filtering (paper 3.1.3).

All of it is arithmetic on what is in tables and answers, so thresholds change without a model. A
box may be every category its class maps to; of those, the active ones stay. A box none of whose
categories is active is kept and marked inaudible: another threshold or an annotator may bring it
back. A box whose class is no category's is none of ours.

Several detectors are one list in the end. Scores of two that name classes are compared as they are.
The score of one that names none (``motion``) says how a region stands out and nothing of a class,
so it is never held against another detector's: such a box gives way to every other box of its
category at its place, and where room is short the two kinds take turns, a named one first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from pipeline.config import ProposeConfig
from pipeline.errors import InputError
from pipeline.records.boxes import clip, iou
from pipeline.records.schema import Frame, Proposal, Sounds, content_id
from stages.backends.interfaces import Detection, Detector, Vocabulary
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


@dataclass(frozen=True)
class _Guided:
    """A box with what is heard of it."""

    detector: str
    named: bool
    """True where its detector names classes."""
    box: Detection
    guidance: AudioGuidance


class AudioFilter:
    """The rules by which boxes become proposals.

    Args:
        detectors: those whose boxes there are.
        taxonomy: the target categories.
        config: bounds and thresholds.
    """

    def __init__(
        self, detectors: Sequence[Detector], taxonomy: Taxonomy, config: ProposeConfig
    ) -> None:
        self._config = config
        self._categories = {
            one.name: categories_of(one.vocabulary, taxonomy, config) for one in detectors
        }
        self._named = [one.name for one in detectors if one.vocabulary != "none"]
        self._known = {
            category
            for one in detectors
            if one.vocabulary != "none"
            for found in taxonomy.of_seen(one.vocabulary, config.classes == "generic").values()
            for category in found
        }

    def wants(self, detector: str, sounds: Sounds) -> bool:
        """Say whether a detector has anything to find in a frame with these sounds."""
        return not self._only_needed(detector) or bool(self._needed(sounds))

    def proposals(
        self, frame: Frame, found: Mapping[str, Sequence[Detection]], sounds: Sounds
    ) -> list[Proposal]:
        """Return a frame's boxes as rows: audible ones first, then by score.

        Args:
            frame: the frame.
            found: all boxes of the detectors that looked at it, by their names, in any order.
            sounds: the tags of its sound.
        """
        possible = [
            one
            for name in self._categories  # of equal boxes, the first detector's stays
            for one in self._possible(name, found.get(name, ()), frame, sounds)
        ]
        possible.sort(
            key=lambda one: (
                not one.guidance.audible,
                not one.named,
                -one.box.score,
                one.box.name,
            )
        )
        kept: list[_Guided] = []
        for one in possible:
            # A box that repeats a better one would be a second question about one thing.
            if not any(_repeats(one, better, self._config.nms_iou) for better in kept):
                kept.append(one)
        return [_row(frame, one) for one in _taking_turns(kept)[: self._config.max_boxes]]

    def _possible(
        self, detector: str, boxes: Sequence[Detection], frame: Frame, sounds: Sounds
    ) -> Iterable[_Guided]:
        needed = self._needed(sounds) if self._only_needed(detector) else None
        for d in boxes:
            names = self._categories[detector](d.name) if needed is None else needed
            inside = _within_bounds(d, frame, self._config)
            if inside and names != []:
                box = Detection(inside, d.name, d.score)
                guidance = audio_guidance(names, sounds)
                yield _Guided(detector, detector in self._named, box, guidance)

    def _only_needed(self, detector: str) -> bool:
        """Say whether a detector serves what the others have no class for, and nothing else."""
        beside = bool(self._named) and detector not in self._named
        return beside and self._config.motion == "where-needed"

    def _needed(self, sounds: Sounds) -> list[str]:
        """Return the categories that are heard and are no class of any detector."""
        return [
            one.category
            for one in sounds.categories
            if one.active and one.category not in self._known
        ]


def categories_of(
    vocabulary: Vocabulary, taxonomy: Taxonomy, config: ProposeConfig
) -> CategoriesOf:
    """Return the map from a detector's class names to categories.

    Args:
        vocabulary: the detector's.
        taxonomy: the target categories.
        config: says whether generic classes count.
    """
    if vocabulary == "none":
        return lambda name: None
    found = taxonomy.of_seen(vocabulary, generic=config.classes == "generic")
    return lambda name: found.get(name, [])


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
    same_class = (one.detector, one.box.name) == (better.detector, better.box.name)
    mine, theirs = one.guidance.categories, better.guidance.categories
    same = same_class or not set(mine).isdisjoint(theirs)
    return same and iou(one.box.bbox, better.box.bbox) > max_iou


def _taking_turns(kept: Sequence[_Guided]) -> list[_Guided]:
    """Let named boxes and others alternate, audible ones before the rest, each in its order."""
    ordered: list[_Guided] = []
    for audible in (True, False):
        named, others = (
            [one for one in kept if one.guidance.audible == audible and one.named == kind]
            for kind in (True, False)
        )
        turns = chain.from_iterable(zip_longest(named, others))
        ordered += [one for one in turns if one is not None]
    return ordered


def _row(frame: Frame, one: _Guided) -> Proposal:
    box, guidance = one.box, one.guidance
    return Proposal(
        proposal_id=content_id("p", frame.frame_id, one.detector, box.name, box.bbox),
        frame_id=frame.frame_id,
        bbox=box.bbox,
        detector=one.detector,
        detector_class=box.name,
        detector_score=box.score,
        categories=guidance.categories,
        audible=guidance.audible,
        audio_score=guidance.audio_score,
    )
