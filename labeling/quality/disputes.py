"""Put what people differ on in a clip together: of a thing that is in several of its frames, once.

Boxes of one track show one thing. Where people differ on a thing in the same way in several frames
(each says the same of it in all of them, or leaves it out), that is one dispute: it is asked of one
frame and the answer settles the others. It says what the thing is, how it sounds and whether it
does; the boxes stay as people left them in each frame. A frame on which they differ in another way
besides (what it is, where a box is, a box that nobody linked) is a dispute of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from labeling.quality.matching import Comparison
from pipeline.records.schema import Review, ReviewedInstance, Scenario

Said = tuple[str, tuple[str, Scenario] | None]
"""An annotator, and the category and scenario they gave a thing; none where they left it out."""

Differences = Mapping[int, tuple[Said, ...]]
"""The words of people on each thing they differ on, by track."""


@dataclass(frozen=True)
class Disputed:
    """A frame on which people differ and that nobody has adjudicated."""

    frame_id: str
    about: tuple[str, ...]
    answers: tuple[Review, ...]
    """The answers, one per person, by annotator."""
    differences: Differences = field(default_factory=dict)
    """The differences, where all of them are of tracks; else empty."""

    @property
    def reviews(self) -> list[str]:
        """The ids of the answers, sorted."""
        return sorted(answer.review_id for answer in self.answers)


@dataclass(frozen=True)
class Dispute:
    """One thing to settle: a frame to ask about, and those its answer settles as well."""

    asked: Disputed
    others: tuple[Disputed, ...]

    @property
    def frames(self) -> list[Disputed]:
        """Its frames, the one to ask about first."""
        return [self.asked, *self.others]


def differences_of(
    answers: Sequence[Review], comparisons: Iterable[Comparison]
) -> dict[int, tuple[Said, ...]]:
    """Return all that people differ on in a frame, by track; nothing where it is not of tracks.

    Args:
        answers: of the frame, one per person.
        comparisons: of each pair of them.
    """
    things = [_things(answer) for answer in answers]
    if not all(answer.decision == "labelled" for answer in answers):
        return {}
    tracks: set[int] = set()
    for found in comparisons:
        differing = [
            pair
            for pair in found.pairs
            if (pair.first.category, pair.first.scenario)
            != (pair.second.category, pair.second.scenario)
        ]
        if any(pair.first.track_id != pair.second.track_id for pair in differing):
            return {}
        alone = [
            (one.track_id, _things(other))
            for boxes, other in ((found.only_first, found.second), (found.only_second, found.first))
            for one in boxes
        ]
        # Two boxes of a thing that are far apart are a dispute about where it is.
        if any(track in theirs for track, theirs in alone):
            return {}
        of = [*(pair.first.track_id for pair in differing), *(track for track, _ in alone)]
        if None in of:
            return {}
        tracks |= {track for track in of if track is not None}
    if any(len(boxes) > 1 for own in things for track, boxes in own.items() if track in tracks):
        return {}
    return {
        track: tuple(
            (answer.annotator, _said(own[track][0]) if track in own else None)
            for answer, own in zip(answers, things, strict=True)
        )
        for track in sorted(tracks)
    }


def disputes_of(frames: Iterable[Disputed]) -> list[Dispute]:
    """Put the frames on which people differ in the same way together.

    Of those the one with most differences is asked about, the first of equals.

    Args:
        frames: in dispute, of any clips.

    Returns:
        The disputes, by the id of the frame to ask about.
    """
    of_clip: dict[str, list[tuple[Disputed, list[Disputed]]]] = {}
    for frame in sorted(frames, key=lambda one: (-len(one.differences), one.frame_id)):
        clip = frame.frame_id.rpartition("_")[0]  # a frame's id is its clip's and its index
        begun = of_clip.setdefault(clip, [])
        mine = frame.differences.items()
        like = (others for asked, others in begun if mine and mine <= asked.differences.items())
        others = next(like, None)
        if others is None:
            begun.append((frame, []))
        else:
            others.append(frame)
    found = [
        Dispute(asked, tuple(sorted(others, key=lambda one: one.frame_id)))
        for begun in of_clip.values()
        for asked, others in begun
    ]
    return sorted(found, key=lambda one: one.asked.frame_id)


def settled(decision: Review, frame: Disputed) -> list[ReviewedInstance] | None:
    """Return what a frame's instances are, by what was decided of its things in another frame.

    Args:
        decision: the adjudication of that frame.
        frame: on which people differ in the same way.

    Returns:
        The boxes as the newest answer has them, those in dispute as decided; none where that does
        not follow: the other frame is not visible any more, a thing has two boxes there, or nothing
        would be left here.
    """
    decided = _things(decision)
    tracks = frame.differences.keys()
    if decision.decision != "labelled" or any(len(decided.get(one, ())) > 1 for one in tracks):
        return None
    newest = max(frame.answers, key=lambda answer: (answer.updated_at, answer.review_id))
    boxes = [one for one in newest.instances if one.track_id not in tracks]
    for track in tracks:
        if track in decided:
            category, scenario = _said(decided[track][0])
            # A thing that the newest answer left out has the box of who has it.
            has = next(own[track][0] for own in _newest_first(frame.answers) if track in own)
            boxes.append(has.model_copy(update={"category": category, "scenario": scenario}))
    return boxes or None


def _newest_first(answers: Sequence[Review]) -> list[dict[int, list[ReviewedInstance]]]:
    order = sorted(answers, key=lambda answer: (answer.updated_at, answer.review_id), reverse=True)
    return [_things(answer) for answer in order]


def _things(answer: Review) -> dict[int, list[ReviewedInstance]]:
    """Return the boxes of each track."""
    found: dict[int, list[ReviewedInstance]] = {}
    for one in answer.instances:
        if one.track_id is not None:
            found.setdefault(one.track_id, []).append(one)
    return found


def _said(one: ReviewedInstance) -> tuple[str, Scenario]:
    return one.category, one.scenario
