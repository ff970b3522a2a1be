"""What annotation costs and what became of the proposals: the numbers a data engine is steered by.

Only what people decided counts, and of each frame the review that decides.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from labeling.instances import deciding_reviews
from labeling.results import moved_iou
from pipeline.schema import Proposal, Review


@dataclass
class Fate:
    """What became of the proposals of one detector class or category."""

    kept: int = 0
    moved: int = 0
    removed: int = 0
    added: int = 0
    """Boxes people drew; they have no detector class."""
    ious: list[float] = field(default_factory=list)
    """IoU(proposal, final) of each kept or moved one."""

    def as_dict(self) -> dict[str, Any]:
        """Counts, and as shares of the proposals shown."""
        shown = self.kept + self.moved + self.removed
        return {
            "shown": shown,
            "kept": self.kept,
            "moved": self.moved,
            "removed": self.removed,
            "added": self.added,
            "accept_rate": _share(self.kept, shown),
            "move_rate": _share(self.moved, shown),
            "remove_rate": _share(self.removed, shown),
            "mean_iou": statistics.fmean(self.ious) if self.ious else None,
        }


@dataclass(frozen=True)
class Economics:
    """What the reviews of a workspace add up to."""

    frames: int
    """Frames a person decided."""
    decisions: dict[str, int]
    seconds_per_frame: dict[str, float]
    """Median lead time by annotator, and of all as ``all``."""
    by_class: dict[str, Fate]
    """By ``detector/class``; boxes people drew stand under ``drawn``."""
    by_category: dict[str, Fate]
    """By category: the final one of boxes that stayed, the proposed one of those removed."""
    by_day: dict[str, Fate]
    """By the day of the review (UTC), in order: the trend."""

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "frames": self.frames,
            "decisions": self.decisions,
            "seconds_per_frame": self.seconds_per_frame,
            **{
                name: {key: fate.as_dict() for key, fate in sorted(found.items())}
                for name, found in (
                    ("by_class", self.by_class),
                    ("by_category", self.by_category),
                    ("by_day", self.by_day),
                )
            },
        }

    def lines(self) -> list[str]:
        """For people."""
        decided = ", ".join(f"{count} {name}" for name, count in sorted(self.decisions.items()))
        lines = [f"{self.frames} frames decided by people: {decided or 'none'}."]
        for who, seconds in self.seconds_per_frame.items():
            lines.append(f"  {seconds:6.1f} s per frame (median), annotator {who}")
        for title, found in (
            ("detector class", self.by_class),
            ("category", self.by_category),
            ("day", self.by_day),
        ):
            lines.append(
                f"{title:32}{'shown':>7}{'kept':>7}{'moved':>7}{'removed':>9}{'added':>7}  IoU"
            )
            lines += [_row(name, fate) for name, fate in sorted(found.items())]
        return lines


def economics(reviews: Iterable[Review], proposals: Sequence[Proposal]) -> Economics:
    """Add up the deciding reviews of people.

    Args:
        reviews: all of them; rules and simulations are left out here.
        proposals: all of them; those that are not audible were not shown.
    """
    deciding = deciding_reviews(review for review in reviews if review.verified).values()
    decided = [review for review in deciding if review.decision != "back_to_boxes"]
    decisions: dict[str, int] = defaultdict(int)
    seconds: dict[str, list[float]] = defaultdict(list)
    tally = _Tally(proposals)
    for review in decided:
        decisions[review.decision] += 1
        if review.lead_time_s is not None:
            seconds[review.annotator].append(review.lead_time_s)
            seconds["all"].append(review.lead_time_s)
        if review.decision != "rejected":  # that says nothing of the boxes
            tally.add(review)
    medians = {who: statistics.median(times) for who, times in sorted(seconds.items())}
    found = dict(tally.classes), dict(tally.categories), dict(tally.days)
    return Economics(len(decided), dict(decisions), medians, *found)


class _Tally:
    """Counts boxes by class, category and day."""

    def __init__(self, proposals: Sequence[Proposal]) -> None:
        self.classes: dict[str, Fate] = defaultdict(Fate)
        self.categories: dict[str, Fate] = defaultdict(Fate)
        self.days: dict[str, Fate] = defaultdict(Fate)
        self._proposals = {proposal.proposal_id: proposal for proposal in proposals}
        self._shown: dict[str, list[Proposal]] = defaultdict(list)
        for proposal in proposals:
            if proposal.audible:
                self._shown[proposal.frame_id].append(proposal)

    def add(self, review: Review) -> None:
        """Count what became of the boxes of one frame."""
        day = self.days[review.updated_at[:10]]
        stayed = set()
        for instance in review.instances:
            found = self._proposals.get(instance.proposal_id or "")
            stayed.add(instance.proposal_id)
            overlap = moved_iou(instance, self._proposals)
            kind = _class(found) if found is not None else "drawn"
            for fate in (self.classes[kind], self.categories[instance.category], day):
                fate.kept += instance.origin == "kept"
                fate.moved += instance.origin == "moved"
                fate.added += instance.origin == "added"
                if overlap is not None:
                    fate.ious.append(overlap)
        for gone in self._shown[review.frame_id]:
            if gone.proposal_id not in stayed:
                category = self.categories[gone.categories[0]]
                for fate in (self.classes[_class(gone)], category, day):
                    fate.removed += 1


def _class(proposal: Proposal) -> str:
    return f"{proposal.detector}/{proposal.detector_class}"


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _row(name: str, fate: Fate) -> str:
    shown = fate.kept + fate.moved + fate.removed
    overlap = f"{statistics.fmean(fate.ious):.2f}" if fate.ious else "-"
    counts = f"{shown:>7}{fate.kept:>7}{fate.moved:>7}{fate.removed:>9}{fate.added:>7}"
    return f"  {name[:30]:30}{counts}  {overlap}"
