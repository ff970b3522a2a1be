"""The boxes people judged, beside those that other thresholds would have shown them.

A box is known by its id, which says what it was: an answer about boxes of another detector speaks
of none that the kept answers hold, and its frame is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.config import HearConfig, ProposeConfig
from pipeline.records.boxes import iou_matrix
from pipeline.records.reviews import by_frame, deciding, is_withdrawn
from pipeline.records.schema import Proposal, Review, Sounds
from stages.propose.again import Perceived

_DRAWN_AGAIN = 0.5
"""A box that overlaps one a person drew by this IoU would have spared the drawing."""

_MIN_TIMED = 20
"""Answers with a lead time from which on the seconds of a removal are estimated."""


@dataclass(frozen=True)
class JudgedBox:
    """A box of a judged frame."""

    proposal_id: str
    detector: str
    score: float
    categories: list[str]
    """Every category it may be, active or not."""
    shown: bool
    """True when the settings in force show it."""
    kept: bool
    """True when it stayed, moved or not; a shown one that did not was removed."""
    category: str
    """The category in whose name a kept one was shown; empty of others."""


@dataclass(frozen=True)
class JudgedFrame:
    """A frame somebody decided."""

    frame_id: str
    video_id: str
    sounds: Sounds
    boxes: list[JudgedBox]
    """Boxes that people judged, and those not heard or not seen surely enough to be shown."""
    unseen: frozenset[str]
    """Boxes that the settings in force show and nobody has judged."""
    review: Review

    def was_drawn(self, bbox: Sequence[float]) -> bool:
        """Say whether a person drew a box there."""
        drawn = [one.bbox for one in self.review.instances if one.origin == "added"]
        return bool(drawn) and iou_matrix([bbox], drawn).max() >= _DRAWN_AGAIN


@dataclass(frozen=True)
class Judged:
    """The frames that can be learnt from, and those that cannot."""

    frames: list[JudgedFrame]
    foreign: int
    """Frames whose answers are about boxes that these detectors did not give."""
    unanswered: int
    """Frames of which a detector's kept answer is gone."""
    annotators: list[str]


def judge(
    known: Perceived, reviews: Iterable[Review], hear: HearConfig, propose: ProposeConfig
) -> Judged:
    """Bring together what was decided of each frame and all that was seen there.

    Only people's answers count, and those of a simulated annotator where there are none: a rule's
    would teach the thresholds that it went by. Frames that were rejected say nothing of a box, and
    a known answer (gold) was nobody's work.

    Args:
        known: what was heard and seen.
        reviews: all of them.
        hear: the settings in force.
        propose: likewise.
    """
    answers = _answers(reviews)
    known = known.among(answers.keys())
    sounds = known.heard(hear)
    now = [row for row in known.propose(sounds, propose) if row.audible]
    open_rules = {"min_scores": {}, "max_boxes": 10**6, "nms_iou": 1.0}
    all_heard = {name: _all_active(row) for name, row in sounds.items()}
    every = known.propose(all_heard, propose.model_copy(update=open_rules))
    shown, possible = _by_frame(now), _by_frame([*every, *now])
    unanswered = known.unanswered(sounds, propose)
    frames, foreign = [], 0
    videos = {one.frame_id: one.video_id for one in known.frames}
    for name, review in answers.items():
        if name not in sounds or name in unanswered:
            continue
        spoken_of = {one.proposal_id for one in review.instances} | set(review.shown or ())
        spoken_of -= {None}
        mine, today = possible.get(name, {}), shown.get(name, {})
        if spoken_of and spoken_of.isdisjoint(mine):
            foreign += 1
            continue
        frames.append(_judged_frame(review, videos[name], mine, today, sounds[name], propose))
    who = sorted({one.review.annotator for one in frames})
    return Judged(frames, foreign, len(unanswered), who)


def _answers(reviews: Iterable[Review]) -> dict[str, Review]:
    found = {}
    for name, rows in sorted(by_frame(reviews).items()):
        chosen = [
            row for row in rows if row.purpose != "gold" and not row.annotator.startswith("rule:")
        ]
        review = deciding(chosen)
        if review is None or is_withdrawn(review):
            continue
        if review.decision in ("labelled", "off_screen"):
            found[name] = review
    return found


def _by_frame(rows: Iterable[Proposal]) -> dict[str, dict[str, Proposal]]:
    """Return boxes by frame and id; one that is there twice may be what either row says."""
    found: dict[str, dict[str, Proposal]] = {}
    for row in rows:
        boxes = found.setdefault(row.frame_id, {})
        if (former := boxes.get(row.proposal_id)) is not None:
            both = list(dict.fromkeys([*former.categories, *row.categories]))
            row = former.model_copy(update={"categories": both})
        boxes[row.proposal_id] = row
    return found


def _all_active(sounds: Sounds) -> Sounds:
    heard = [one.model_copy(update={"active": True}) for one in sounds.categories]
    return sounds.model_copy(update={"categories": heard})


def _judged_frame(
    review: Review,
    video_id: str,
    possible: Mapping[str, Proposal],
    today: Mapping[str, Proposal],
    sounds: Sounds,
    propose: ProposeConfig,
) -> JudgedFrame:
    named = {one.proposal_id: one.category for one in review.instances if one.origin != "added"}
    judged = named.keys() | (today.keys() if review.shown is None else set(review.shown))
    active = {one.category for one in sounds.categories if one.active}
    boxes = []
    for box_id, row in possible.items():
        audible = today[box_id].categories if box_id in today else []
        if audible and box_id not in judged:
            continue
        if not audible and passes(
            row.detector, row.detector_score, row.categories, active, propose
        ):
            continue  # another box stands at its place, or there was no room
        kept = bool(audible) and box_id in named
        category = (named[box_id] if named[box_id] in audible else audible[0]) if kept else ""
        boxes.append(
            JudgedBox(
                box_id,
                row.detector,
                row.detector_score,
                row.categories,
                shown=bool(audible),
                kept=kept,
                category=category,
            )
        )
    unseen = frozenset(today.keys() - judged)
    return JudgedFrame(review.frame_id, video_id, sounds, boxes, unseen, review)


def passes(
    detector: str, score: float, categories: Sequence[str], active: set[str], propose: ProposeConfig
) -> bool:
    """Say whether a box may be an active category, by its score."""
    own = propose.min_scores.get(detector, {})
    return score >= propose.min_score and any(
        name in active and score >= own.get(name, 0.0) for name in categories
    )


class Tally(NamedTuple):
    """The boxes that some settings would show of judged frames."""

    kept: int
    """Boxes that people kept or moved."""
    removed: int
    """Boxes to remove: those people removed, and those nobody has seen or drawn."""
    drawn: int
    """Boxes at the place of one that people had to draw."""


def tally(
    known: Perceived, frames: Sequence[JudgedFrame], hear: HearConfig, propose: ProposeConfig
) -> Tally:
    """Propose the frames again under any settings, and count what people would have to do.

    Args:
        known: what was heard and seen.
        frames: the judged ones to count.
        hear: settings.
        propose: likewise.
    """
    known = known.among({one.frame_id for one in frames})
    shown: dict[str, list[Proposal]] = {}
    for row in known.propose(known.heard(hear), propose):
        if row.audible:
            shown.setdefault(row.frame_id, []).append(row)
    kept = removed = drawn = 0
    for frame in frames:
        stayed = {box.proposal_id for box in frame.boxes if box.kept}
        for row in shown.get(frame.frame_id, []):
            if row.proposal_id in stayed:
                kept += 1
            elif frame.was_drawn(row.bbox):
                drawn += 1
            elif row.proposal_id not in frame.unseen:
                removed += 1
    return Tally(kept, removed, drawn)


def seconds_per_removal(reviews: Iterable[Review]) -> float | None:
    """Estimate what removing a box costs, from how long answers with more and fewer took.

    Lead times are a sum of what is there to do: so many seconds for the frame, and for each box
    kept, moved, drawn and removed. None where fewer than 20 answers say how long they took and what
    they were shown, or took no longer with more to remove.

    Args:
        reviews: of boxes.
    """
    from scipy.optimize import nnls  # a quarter of a second, which few calls need

    timed = [one for one in reviews if one.lead_time_s is not None and one.shown is not None]
    if len(timed) < _MIN_TIMED:
        return None
    done = np.array([_done(one) for one in timed], np.float64)
    seconds = np.array([one.lead_time_s for one in timed], np.float64)
    # A cup of coffee is no work: a tenth of the answers count for what the others took.
    seconds = np.minimum(seconds, np.quantile(seconds, 0.9))
    return round(float(nnls(done, seconds)[0][-1]), 2) or None


def _done(review: Review) -> list[int]:
    """Return 1 for the frame, and its boxes kept, moved, drawn and removed."""
    origins = [one.origin for one in review.instances]
    stayed = {one.proposal_id for one in review.instances}
    removed = len(set(review.shown or ()) - stayed)
    return [1, *(origins.count(kind) for kind in ("kept", "moved", "added")), removed]
