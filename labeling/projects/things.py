"""Carry what is known of a thing in one frame of a clip to its boxes in the clip's other frames.

Boxes of one track show one thing, so they start from one category and scenario: those of the first
frame that a person answered, else the category heard best of the track's best-scored box.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline.records.reviews import by_frame, deciding
from pipeline.records.schema import Frame, Proposal, Review, Scenario


@dataclass(frozen=True)
class Thing:
    """A thing that is in several frames of a clip."""

    number: int
    """Counts the things of a clip, from 1."""
    first_frame: str
    """The first frame it has a box in."""
    categories: tuple[str, ...]
    """The categories it may be: one where a person said so."""
    scenario: Scenario | None
    """The scenario a person gave its first answered box; none before."""


def things_of(
    frames: Iterable[Frame], proposals: Mapping[str, list[Proposal]], reviews: Iterable[Review]
) -> dict[str, Thing]:
    """Return the thing that each box of a track of several shows, by ``proposal_id``.

    Args:
        frames: all of them.
        proposals: by frame; those that are not audible are nobody's.
        reviews: all of them; people's alone are looked at.
    """
    tracks: dict[tuple[str, int], list[tuple[Frame, Proposal]]] = {}
    for frame in sorted(frames, key=lambda row: (row.clip_id, row.frame_index)):
        for box in proposals.get(frame.frame_id, ()):
            if box.track_id is not None and box.audible:
                tracks.setdefault((frame.clip_id, box.track_id), []).append((frame, box))
    tracks = {key: boxes for key, boxes in tracks.items() if len(boxes) > 1}
    said = _said({frame.frame_id for boxes in tracks.values() for frame, _ in boxes}, reviews)
    found: dict[str, Thing] = {}
    count: dict[str, int] = {}
    for (clip_id, _), boxes in tracks.items():
        count[clip_id] = count.get(clip_id, 0) + 1
        best = max((box for _, box in boxes), key=lambda box: box.detector_score)
        answers = [said[box.proposal_id] for _, box in boxes if box.proposal_id in said]
        category, scenario = answers[0] if answers else (None, None)
        names = (category,) if category is not None else tuple(best.categories)
        thing = Thing(count[clip_id], boxes[0][0].frame_id, names, scenario)
        found |= {box.proposal_id: thing for _, box in boxes}
    return found


def _said(frames: set[str], reviews: Iterable[Review]) -> dict[str, tuple[str, Scenario]]:
    """Return category and scenario that people gave to proposals of some frames."""
    of_frames = by_frame(row for row in reviews if row.verified and row.frame_id in frames)
    found = {}
    for rows in of_frames.values():
        review = deciding(rows)
        for one in review.instances if review is not None else ():
            if one.proposal_id is not None:
                found[one.proposal_id] = one.category, one.scenario
    return found
