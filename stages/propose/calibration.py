"""Thresholds by category, of hearing and of seeing, that reviews speak for.

A box is shown in the name of a category that is heard and of which it is sure enough. Of each
category the boxes people kept bound how far both thresholds may be raised; the boxes they removed
say what that spares. Odd about it: a threshold does not lie at the lowest kept value, below which
one in n + 1 of the next videos would fall, n being those it was learnt from, but one gap lower, the
gap between the lowest values of two videos; where values are spread evenly there, half as many fall
below that. A category that people never kept is raised above all they removed in its name. What
spares nothing is left out, for a threshold without need can only lose.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from pipeline.config import HearConfig, ProposeConfig
from stages.propose.again import Perceived, tag_again
from stages.propose.judged import JudgedFrame, Tally, passes, tally
from stages.taxonomy import Taxonomy, audioset_classes

HEAR = ""
"""Stands for a detector where the threshold is one of hearing."""

Key = tuple[str, str]
"""A detector, or ``HEAR``, and a category."""


@dataclass(frozen=True)
class Evidence:
    """The evidence that reviews give of one threshold."""

    kept: int
    videos: int
    """Videos with a kept box; of a category never kept, with a removed one."""
    removed: int
    """Removed boxes that were shown in the category's name, perhaps in others' too."""
    steps: list[float]
    """Thresholds in order: the first loses no kept box, each further one those of a video more. Of
    a category never kept one alone, above all that was removed."""


@dataclass(frozen=True)
class Calibration:
    """Thresholds, and what they were learnt from."""

    thresholds: dict[Key, float]
    evidence: dict[Key, Evidence]
    min_videos: int

    def too_few(self) -> dict[Key, Evidence]:
        """Return what was left as it is for want of videos."""
        return {
            key: one
            for key, one in self.evidence.items()
            if one.videos < self.min_videos and one.removed
        }


def settings_of(
    thresholds: Mapping[Key, float], taxonomy: Taxonomy, hear: HearConfig, propose: ProposeConfig
) -> tuple[HearConfig, ProposeConfig]:
    """Return the settings with thresholds in them; others of the same kind stay.

    A class of AudioSet that activates several categories has the least of their thresholds, and
    none where one of them has none.
    """
    active_scores = dict(hear.active_scores)
    for name in audioset_classes():
        own = [thresholds.get((HEAR, category)) for category in taxonomy.of_audioset(name)]
        if own and None not in own:
            active_scores[name] = min(value for value in own if value is not None)
    min_scores = {detector: dict(own) for detector, own in propose.min_scores.items()}
    for (detector, category), value in thresholds.items():
        if detector != HEAR:
            min_scores.setdefault(detector, {})[category] = value
    return (
        hear.model_copy(update={"active_scores": active_scores}),
        propose.model_copy(update={"min_scores": min_scores}),
    )


def calibrate(
    known: Perceived,
    frames: Sequence[JudgedFrame],
    hear: HearConfig,
    propose: ProposeConfig,
    *,
    max_loss: float = 0.0,
    min_videos: int = 5,
) -> Calibration:
    """Choose the thresholds that spare the most removals.

    They are searched for box by box, as if none stood in another's way. Where boxes do (a region
    is asked for where nothing named is left), proposing again says which thresholds are worth it.

    Args:
        known: what was heard and seen.
        frames: judged ones.
        hear: the settings in force.
        propose: likewise.
        max_loss: fraction of the kept boxes that may be lost.
        min_videos: kept boxes of so many videos are the least that a threshold is made of, or
            removed ones of a category that was never kept.
    """
    evidence = _evidence(frames)
    usable = {key: one for key, one in evidence.items() if one.videos >= min_videos}
    budget = math.floor(max_loss * sum(box.kept for one in frames for box in one.boxes))
    work = _Work(frames, known.taxonomy, hear, propose, usable)
    work.prune()
    work.raise_within(budget)

    def count(thresholds: Mapping[Key, float], among: Sequence[JudgedFrame]) -> Tally:
        return tally(known, among, *settings_of(thresholds, known.taxonomy, hear, propose))

    def gained_without(key: Key) -> Tally:
        rest = {other: value for other, value in thresholds.items() if other != key}
        with_it, without = (count(chosen, work.touched(key)) for chosen in (thresholds, rest))
        return Tally(*(one - other for one, other in zip(without, with_it, strict=True)))

    before, thresholds = count({}, frames), work.thresholds()
    for key in sorted(thresholds, key=lambda key: evidence[key].removed):
        if gained_without(key).removed <= 0:
            del thresholds[key]
    while thresholds and before.kept - count(thresholds, frames).kept > budget:
        del thresholds[max(thresholds, key=lambda key: gained_without(key).kept)]
    if count(thresholds, frames).removed >= before.removed:
        thresholds = {}
    return Calibration(thresholds, evidence, min_videos)


def _evidence(frames: Iterable[JudgedFrame]) -> dict[Key, Evidence]:
    kept: dict[Key, list[tuple[str, float]]] = {}
    removed: dict[Key, list[tuple[str, float]]] = {}
    for frame in frames:
        loudness = {one.category: one.score for one in frame.sounds.categories}
        active = {one.category for one in frame.sounds.categories if one.active}
        for box in frame.boxes:
            names = [box.category] if box.kept else [c for c in box.categories if c in active]
            for category in names if box.shown else ():
                values = {(box.detector, category): box.score}
                if frame.sounds.tagger != "vggsound-label":  # a label has no loudness
                    values[HEAR, category] = loudness[category]
                for key, value in values.items():
                    of_kind = kept if box.kept else removed
                    of_kind.setdefault(key, []).append((frame.video_id, value))
    found = {}
    for key in sorted(kept.keys() | removed.keys()):
        lowest: dict[str, float] = {}
        for video_id, value in kept.get(key, []):
            lowest[video_id] = min(value, lowest.get(video_id, value))
        videos, steps = len(lowest), _steps(lowest.values())
        if not lowest:
            videos = len({video_id for video_id, _ in removed[key]})
            highest = max(value for _, value in removed[key])
            steps = [min(1.0, round(_floor(highest) + 0.001, 3))]
        count = len(kept.get(key, []))
        found[key] = Evidence(count, videos, len(removed.get(key, [])), steps)
    return found


def _steps(lowest: Iterable[float]) -> list[float]:
    """Return thresholds of which each gives up one video more, each a gap below the next kept.

    >>> _steps([0.5, 0.3, 0.9])
    [0.1, 0.301]
    """
    values = sorted(lowest)
    steps = []
    for place, (value, following) in enumerate(pairwise(values)):
        lost = values[place - 1] if place else -0.001
        # Rounded so that nothing kept is lost, and what is given up is.
        steps.append(round(max(_floor(2 * value - following), _floor(lost) + 0.001), 3))
    return steps


def _floor(value: float) -> float:
    """Round down to thousandths.

    >>> _floor(0.2), _floor(0.3999)
    (0.2, 0.399)
    """
    return math.floor(1000 * value + 1e-6) / 1000


class _Raise(NamedTuple):
    """A threshold one or more steps higher."""

    spared: float
    """Removals more for each kept box lost, so less than none."""
    step: int
    lost: int


@dataclass
class _Work:
    """The search for thresholds, one category of a detector or of hearing at a time."""

    frames: Sequence[JudgedFrame]
    taxonomy: Taxonomy
    hear: HearConfig
    propose: ProposeConfig
    usable: Mapping[Key, Evidence]
    chosen: dict[Key, int] = field(default_factory=dict)
    """The step each threshold is at."""

    def __post_init__(self) -> None:
        self.chosen = {key: 0 for key, one in self.usable.items() if one.steps}
        self._of: dict[Key, list[JudgedFrame]] = {key: [] for key in self.chosen}
        for frame in self.frames:
            loud = {
                one.category
                for one in frame.sounds.categories
                if one.active or one.score >= self._least(one.category)
            }
            for key in self._of:
                if key[1] in loud:
                    self._of[key].append(frame)

    def _least(self, category: str) -> float:
        """Return the least threshold of hearing a category may get."""
        key = (HEAR, category)
        return self.usable[key].steps[0] if key in self.chosen else math.inf

    def thresholds(self) -> dict[Key, float]:
        return {key: self.usable[key].steps[step] for key, step in sorted(self.chosen.items())}

    def touched(self, key: Key) -> list[JudgedFrame]:
        """Return the frames where a threshold may matter."""
        return self._of[key]

    def prune(self) -> None:
        """Take away every threshold without which no more boxes would have to be removed."""
        for key in sorted(self.chosen, key=lambda key: self.usable[key].removed):
            with_it, step = self._costs(key), self.chosen.pop(key)
            if self._costs(key)[1] > with_it[1]:
                self.chosen[key] = step

    def raise_within(self, budget: int) -> None:
        """Raise thresholds while kept boxes may be lost, each time where most is spared for one.

        What another raise would spare grows seldom, so only the best one is looked at again.
        """
        best = {key: raised for key in self.usable if (raised := self._raise_of(key, budget))}
        while best and budget > 0:
            key = min(best, key=lambda key: best[key].spared)
            fresh = self._raise_of(key, budget)
            if fresh is None:
                del best[key]
            elif fresh.spared > best[key].spared:
                best[key] = fresh
            else:
                self.chosen[key] = fresh.step
                budget -= fresh.lost

    def _raise_of(self, key: Key, budget: int) -> _Raise | None:
        """Return the step of a threshold that spares most for a kept box; none that spares any."""
        place, before = self.chosen.get(key), self._costs(key)
        found: list[_Raise] = []
        for step in range(0 if place is None else place + 1, len(self.usable[key].steps)):
            self.chosen[key] = step
            now = self._costs(key)
            lost, more = now[0] - before[0], now[1] - before[1]
            if lost > budget:
                break
            if more < 0:
                found.append(_Raise(more / max(lost, 0.1), step, lost))
        self._put(key, place)
        return min(found, default=None)

    def _put(self, key: Key, place: int | None) -> None:
        if place is None:
            self.chosen.pop(key, None)
        else:
            self.chosen[key] = place

    def _costs(self, key: Key) -> tuple[int, int]:
        """Return the kept boxes lost and the boxes to remove, in the frames a threshold touches."""
        hear, propose = settings_of(self.thresholds(), self.taxonomy, self.hear, self.propose)
        lost = removed = 0
        for frame in self._of.get(key, ()):
            sounds = tag_again(frame.sounds, self.taxonomy, hear)
            active = {one.category for one in sounds.categories if one.active}
            for box in frame.boxes:
                shown = passes(box.detector, box.score, box.categories, active, propose)
                lost += box.kept and not shown
                removed += shown and not box.kept
        return lost, removed
