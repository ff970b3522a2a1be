"""The rule by which reviews of a frame count, one for everybody who reads them.

``reviews`` only ever grows: an edit, a deletion and a second opinion are rows beside the first. Of
one frame and kind there count, in this order:

1. of each annotation its newest row; a row that takes it back strikes it out and nothing else;
2. a gold answer alone, else the newest adjudication alone, else each person's newest answer, else
   the newest answer of the rules and simulations;
3. where people took back all they had said, the newest of those rows: the frame is open again.

Boxes that were sent back from the masks count only until there are newer ones, and the word that
sent them back counts no longer then either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeVar

from pipeline.records.boxes import clip, iou_matrix
from pipeline.records.schema import Frame, Instance, Proposal, Review

Kind = Literal["boxes", "masks"]
OfFrame = TypeVar("OfFrame", Proposal, Review, Instance)
KINDS: tuple[Kind, ...] = ("boxes", "masks")

DELETED = "annotation deleted"
SKIPPED = "annotation skipped"
"""Reasons of a row that takes a decision back; the frame is to be looked at again."""


def is_withdrawn(review: Review) -> bool:
    """Say whether the row takes an earlier one back."""
    return review.reject_reasons in ([DELETED], [SKIPPED])


def newest_rows(reviews: Iterable[Review]) -> list[Review]:
    """Return the newest row of each annotation, oldest first."""
    newest: dict[tuple[str, ...], Review] = {}
    for review in sorted(reviews, key=_age):
        newest[review.frame_id, review.kind, review.annotator, review.annotation_id] = review
    return sorted(newest.values(), key=_age)


def counting_reviews(reviews: Iterable[Review], kind: Kind) -> list[Review]:
    """Return the reviews of one frame and kind that count, by id.

    Args:
        reviews: all of the frame, of either kind.
        kind: the one that is asked for.
    """
    rows = _in_force(reviews, kind)
    said = [row for row in rows if not is_withdrawn(row)]
    for purpose in ("gold", "adjudicate"):
        if chosen := [row for row in said if row.purpose == purpose]:
            return chosen[-1:]
    latest = _each_ones(row for row in said if row.verified)
    taken_back = [row for row in rows if is_withdrawn(row)]
    return latest or (taken_back or said)[-1:]


def opinions(reviews: Iterable[Review], kind: Kind) -> list[Review]:
    """Return each person's newest own answer about one frame, whatever outranks it, by id."""
    return _each_ones(
        row
        for row in _in_force(reviews, kind)
        if row.verified and row.purpose == "label" and not is_withdrawn(row)
    )


def deciding(reviews: Iterable[Review], kind: Kind = "boxes") -> Review | None:
    """Return the review of a kind that decides a frame: the newest of those that count."""
    return max(counting_reviews(reviews, kind), key=_age, default=None)


def is_sent_back(reviews: Iterable[Review]) -> bool:
    """Say whether a frame's boxes were sent back from the masks and nobody has answered since."""
    review = deciding(reviews, "masks")
    return review is not None and _sends_back(review)


def by_frame(rows: Iterable[OfFrame]) -> dict[str, list[OfFrame]]:
    """Group rows by their frame."""
    found: dict[str, list[OfFrame]] = {}
    for row in rows:
        found.setdefault(row.frame_id, []).append(row)
    return found


def holds(review: Review, frame: Frame, proposals: Sequence[Proposal], min_iou: float) -> bool:
    """Say whether a review still says something of the frame and proposals as they are now.

    What a person drew or moved is theirs and holds as long as it lies inside the frame. A box
    that was only kept is the detector's: it holds while a proposal overlaps it well enough.

    Args:
        review: of boxes.
        frame: as it is now.
        proposals: of the frame, audible or not, as they are now.
        min_iou: the overlap that is well enough, and the fraction of a box that has to be inside.
    """
    known = {proposal.proposal_id for proposal in proposals}
    boxes = [proposal.bbox for proposal in proposals]
    for instance in review.instances:
        if instance.origin == "kept":
            # An id says what the box was, so one that is there needs no comparing.
            if instance.proposal_id in known:
                continue
            if not boxes or iou_matrix([instance.bbox], boxes).max() < min_iou:
                return False
        elif not _is_inside(instance.bbox, frame, min_iou):
            return False
    return True


def _is_inside(bbox: Sequence[float], frame: Frame, min_fraction: float) -> bool:
    inside = clip(bbox, frame.width, frame.height)
    if inside is None:
        return False
    # Clipping adds and takes away the corner, which costs the last digits.
    return inside[2] * inside[3] >= min_fraction * (1 - 1e-9) * bbox[2] * bbox[3]


def _in_force(reviews: Iterable[Review], kind: Kind) -> list[Review]:
    """Return the newest row of each annotation, less what was sent back and done again."""
    every = newest_rows(reviews)
    rows = [row for row in every if row.kind == kind]
    backs = [row.updated_at for row in every if row.kind == "masks" and _sends_back(row)]
    if kind == "boxes" and backs:
        return [row for row in rows if row.updated_at > max(backs)] or rows
    if kind == "masks":
        done = (row for row in every if row.kind == "boxes" and row.verified)
        redone = max((row.updated_at for row in done if not is_withdrawn(row)), default="")
        return [row for row in rows if not _sends_back(row) or row.updated_at >= redone]
    return rows


def _each_ones(rows: Iterable[Review]) -> list[Review]:
    """Return the last row of each annotator, by id."""
    latest = {row.annotator: row for row in rows}
    return sorted(latest.values(), key=lambda row: row.review_id)


def _sends_back(review: Review) -> bool:
    return review.decision == "back_to_boxes" and not is_withdrawn(review)


def _age(review: Review) -> tuple[str, str]:
    # ISO 8601 times in UTC sort as text.
    return review.updated_at, review.review_id
