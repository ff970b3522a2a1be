"""Choose among the detectors' boxes by what is heard: audio-guided filtering (paper 3.1.3).

All of it is arithmetic on what is in tables and answers, so thresholds change without a model. A
box may be every category its class maps to; of those, the active ones stay. A box none of whose
categories is active is kept and marked inaudible: another threshold or an annotator may bring it
back. A box whose class is no category's is none of ours.

Several detectors are one list in the end, of three kinds of boxes:

1. *named*: the class is a category's. Scores of two detectors are compared as they are.
2. *stand-ins*: a heard category is no detector's class, so it may be a thing that was found under
   another name (``propose.stand_ins``).
3. *regions* of a detector that names no classes (``motion``).

The score of a later kind says nothing of the category, so it is held against its own kind's alone:
a box gives way to every box of an earlier kind that has a category of its own at its place, and
where room is short the kinds take turns, the best of each first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from pipeline.config import ProposeConfig
from pipeline.errors import InputError, UsageError
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


_NAMED, _STAND_IN, _REGION = range(3)


@dataclass(frozen=True)
class _Guided:
    """A box with what is heard of it."""

    kind: int
    detector: str
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

    def wants(
        self, detector: str, frame: Frame, found: Mapping[str, Sequence[Detection]], sounds: Sounds
    ) -> bool:
        """Say whether a detector has anything to find in a frame.

        Args:
            detector: its name; those that name classes are asked before the others.
            frame: the frame.
            found: the boxes there are already, by detector.
            sounds: the tags of its sound.
        """
        if not self._only_needed(detector):
            return True
        return bool(self._needed(self._named_boxes(frame, found, sounds), sounds))

    def proposals(
        self, frame: Frame, found: Mapping[str, Sequence[Detection]], sounds: Sounds
    ) -> list[Proposal]:
        """Return a frame's boxes as rows: audible ones first, kinds in turns, each by score.

        Args:
            frame: the frame.
            found: all boxes of the detectors that looked at it, by their names, in any order.
            sounds: the tags of its sound.
        """
        named = self._named_boxes(frame, found, sounds)
        needed = self._needed(named, sounds)
        possible = [
            one for one in self._standing_in(named, needed, sounds) if one.guidance.categories
        ]
        for name in self._categories.keys() - set(self._named):
            only = needed if self._only_needed(name) else None
            for box in self._within_bounds(found.get(name, ()), frame):
                guidance = audio_guidance(only, sounds, self._unsure(name, box))
                if only is None or guidance.categories:
                    possible.append(_Guided(_REGION, name, box, guidance))
        possible.sort(
            key=lambda one: (not one.guidance.audible, one.kind, -one.box.score, one.box.name)
        )
        kept: list[_Guided] = []
        for one in possible:
            # A box that repeats a better one would be a second question about one thing.
            if not any(_repeats(one, better, self._config.nms_iou) for better in kept):
                kept.append(one)
        return [_row(frame, one) for one in _taking_turns(kept)[: self._config.max_boxes]]

    def _named_boxes(
        self, frame: Frame, found: Mapping[str, Sequence[Detection]], sounds: Sounds
    ) -> list[_Guided]:
        """Return the boxes of detectors that name classes, of no category too."""
        named = []
        for name in self._named:  # of equal boxes, the first detector's stays
            for box in self._within_bounds(found.get(name, ()), frame):
                categories, unsure = self._categories[name](box.name), self._unsure(name, box)
                guidance = audio_guidance(categories, sounds, unsure)
                named.append(_Guided(_NAMED, name, box, guidance))
        return named

    def _standing_in(
        self, named: Iterable[_Guided], needed: list[str], sounds: Sounds
    ) -> Iterator[_Guided]:
        """Yield the boxes; one that is not heard itself stands in for what nothing else is."""
        for one in named:
            stand_in = audio_guidance(needed, sounds, self._unsure(one.detector, one.box))
            if stand_in.categories and self._config.stand_ins and not one.guidance.audible:
                yield _Guided(_STAND_IN, one.detector, one.box, stand_in)
            else:
                yield one

    def _within_bounds(self, boxes: Iterable[Detection], frame: Frame) -> Iterator[Detection]:
        """Yield the boxes cut to the frame, but those too unsure, too small or too large."""
        for d in boxes:
            box = clip(d.bbox, frame.width, frame.height)
            fraction = box[2] * box[3] / (frame.width * frame.height) if box else 0.0
            large_enough = self._config.min_area <= fraction <= self._config.max_area
            if box and large_enough and d.score >= self._config.min_score:
                yield Detection(box, d.name, d.score)

    def _unsure(self, detector: str, box: Detection) -> set[str]:
        """Return the categories for which a box is not sure enough."""
        own = self._config.min_scores.get(detector, {})
        return {category for category, least in own.items() if box.score < least}

    def _only_needed(self, detector: str) -> bool:
        """Say whether a detector serves what the others leave out, and nothing else."""
        beside = bool(self._named) and detector not in self._named
        return beside and self._config.motion != "always"

    def _needed(self, named: Iterable[_Guided], sounds: Sounds) -> list[str]:
        """Return the categories that are heard and that nothing named is, or could be."""
        served = self._known
        if self._config.motion == "no-box":
            served = {category for one in named for category in one.guidance.categories}
        return [
            one.category for one in sounds.categories if one.active and one.category not in served
        ]


def check_min_scores(config: ProposeConfig, taxonomy: Taxonomy) -> None:
    """Refuse a least score of a category that the taxonomy does not have.

    Raises:
        UsageError: naming it.
    """
    known = set(taxonomy.names)
    for detector, scores in config.min_scores.items():
        if wrong := next((name for name in scores if name not in known), None):
            raise UsageError(
                f"propose.min_scores: {detector}: {wrong!r} is no category of the taxonomy; names"
                " are exact, see target_categories.csv."
            )


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


def audio_guidance(
    categories: Sequence[str] | None, sounds: Sounds, unsure: Collection[str] = ()
) -> AudioGuidance:
    """Judge a box by the sounds.

    Args:
        categories: what the box may be; none when it may be anything.
        sounds: the tags of its sound.
        unsure: categories it is not, whatever is heard.
    """
    score = {one.category: one.score for one in sounds.categories}
    active = [one.category for one in sounds.categories if one.active]
    possible = [one for one in (score if categories is None else categories) if one not in unsure]
    audible = [category for category in active if category in possible]
    kept = audible or (possible if categories is not None else [])
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


def _repeats(one: _Guided, better: _Guided, max_iou: float) -> bool:
    """Say whether a better box has the same class or category at the same place."""
    same_class = (one.detector, one.box.name) == (better.detector, better.box.name)
    mine, theirs = one.guidance.categories, better.guidance.categories
    same = same_class or not set(mine).isdisjoint(theirs)
    return same and iou(one.box.bbox, better.box.bbox) > max_iou


def _taking_turns(kept: Sequence[_Guided]) -> list[_Guided]:
    """Let the kinds alternate, audible boxes before the rest, each in its order."""
    ordered: list[_Guided] = []
    for audible in (True, False):
        kinds = (
            [one for one in kept if one.guidance.audible == audible and one.kind == kind]
            for kind in (_NAMED, _STAND_IN, _REGION)
        )
        turns = chain.from_iterable(zip_longest(*kinds))
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
