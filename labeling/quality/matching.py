"""Two answers about one frame, laid side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.records import rle
from pipeline.records.boxes import iou, iou_matrix
from pipeline.records.schema import Proposal, Review, ReviewedInstance

Dispute = Literal["status", "off_screen_category", "box", "category", "scenario"]


@dataclass(frozen=True)
class Pair:
    """A thing as both have it."""

    first: ReviewedInstance
    second: ReviewedInstance
    iou: float


@dataclass(frozen=True)
class Comparison:
    """Two answers about a frame: what they share and what they do not."""

    first: Review
    second: Review
    pairs: tuple[Pair, ...]
    only_first: tuple[ReviewedInstance, ...]
    only_second: tuple[ReviewedInstance, ...]

    @property
    def both_off_screen(self) -> bool:
        """True when both say that the source is not visible."""
        return self.first.decision == self.second.decision == "off_screen"

    def turned(self) -> Comparison:
        """Return the same with the second first."""
        pairs = tuple(Pair(pair.second, pair.first, pair.iou) for pair in self.pairs)
        return Comparison(self.second, self.first, pairs, self.only_second, self.only_first)

    def disputes(self) -> list[Dispute]:
        """List what an adjudicator has to decide; a box that the other lacks is in dispute."""
        if self.first.decision != self.second.decision:
            return ["status"]
        found: list[Dispute] = []
        if self.both_off_screen and off_screen(self.first) != off_screen(self.second):
            found.append("off_screen_category")
        if self.only_first or self.only_second:
            found.append("box")
        if any(pair.first.category != pair.second.category for pair in self.pairs):
            found.append("category")
        if any(pair.first.scenario != pair.second.scenario for pair in self.pairs):
            found.append("scenario")
        return found


def compare(first: Review, second: Review, min_iou: float) -> Comparison:
    """Lay two ``boxes`` reviews of a frame side by side; boxes only where both say visible.

    Args:
        first: with one side's boxes.
        second: with the other's.
        min_iou: boxes that overlap less are not the same thing.
    """
    both = first.decision == second.decision == "labelled"
    mine, theirs = (first.instances, second.instances) if both else ([], [])
    matched = match([one.bbox for one in mine], [one.bbox for one in theirs], min_iou)
    rows, columns = {row for row, _, _ in matched}, {column for _, column, _ in matched}
    return Comparison(
        first,
        second,
        tuple(Pair(mine[row], theirs[column], overlap) for row, column, overlap in matched),
        tuple(one for row, one in enumerate(mine) if row not in rows),
        tuple(one for column, one in enumerate(theirs) if column not in columns),
    )


def compare_masks(first: Review, second: Review) -> Comparison:
    """Lay two ``masks`` reviews of a frame side by side: the masks of an instance are a pair."""
    theirs = {one.instance_id: one for one in second.instances}
    pairs = []
    for one in first.instances:
        other = theirs.get(one.instance_id)
        if one.rle and other and other.rle and one.rle.size == other.rle.size:
            pairs.append(Pair(one, other, rle.iou(one.rle, other.rle)))
    return Comparison(first, second, tuple(pairs), (), ())


def match(
    first: Sequence[Sequence[float]], second: Sequence[Sequence[float]], min_iou: float
) -> list[tuple[int, int, float]]:
    """Pair boxes one to one so that the sum of their IoU is largest (Hungarian assignment).

    Pairs that overlap by less than ``min_iou``, or not at all, are none.

    Returns:
        Index in ``first``, index in ``second``, IoU; by the first index.

    >>> match([[0, 0, 4, 4], [9, 9, 2, 2]], [[0, 0, 4, 5]], 0.5)
    [(0, 0, 0.8)]
    """
    from scipy.optimize import linear_sum_assignment  # a quarter of a second, spared most commands

    overlaps = iou_matrix(first, second)
    overlaps[(overlaps < min_iou) | (overlaps <= 0)] = 0.0
    rows, columns = linear_sum_assignment(overlaps, maximize=True)
    return [
        (int(row), int(column), float(overlaps[row, column]))
        for row, column in zip(rows, columns, strict=True)
        if overlaps[row, column] > 0
    ]


def off_screen(review: Review) -> str:
    """Return what sounds off screen; free text is compared without regard to case."""
    return (review.off_screen_category or "").casefold()


def moved_iou(instance: ReviewedInstance, proposals: Mapping[str, Proposal]) -> float | None:
    """Return how much of its proposal a box kept, IoU in [0, 1]; none when a person drew it."""
    if instance.proposal_iou is not None:
        return instance.proposal_iou
    proposal = proposals.get(instance.proposal_id or "")
    return None if proposal is None else iou(proposal.bbox, instance.bbox)
