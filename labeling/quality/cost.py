"""The cost of annotation and what became of the proposals: what a data engine is steered by.

Only what people decided counts. What became of a frame's boxes is told by the person's answer that
decides; time is spent on every answer, also on the second one of a frame. Known answers (gold) are
nobody's work.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labeling.quality.matching import moved_iou
from pipeline.columns import markdown_table
from pipeline.records.reviews import by_frame, counting_reviews, deciding, opinions
from pipeline.records.schema import Proposal, Review
from pipeline.words import counted


@dataclass
class ProposalOutcome:
    """Counts of what became of the proposals of one detector class, category or day."""

    kept: int = 0
    moved: int = 0
    removed: int = 0
    added: int = 0
    """Boxes people drew; they have no detector class."""
    ious: list[float] = field(default_factory=list)
    """The IoU of proposal and final box of each kept or moved one."""
    moved_ious: list[float] = field(default_factory=list)
    """The same of those moved."""
    seconds: list[float] = field(default_factory=list)
    """The lead time of each answer; by day only."""

    @property
    def shown(self) -> int:
        """Proposals people saw."""
        return self.kept + self.moved + self.removed

    def as_dict(self) -> dict[str, Any]:
        """Return counts, and fractions of the proposals shown; those added, of all final boxes."""
        return {
            "shown": self.shown,
            "kept": self.kept,
            "moved": self.moved,
            "removed": self.removed,
            "added": self.added,
            "accept_rate": _fraction(self.kept, self.shown),
            "move_rate": _fraction(self.moved, self.shown),
            "remove_rate": _fraction(self.removed, self.shown),
            "add_rate": _fraction(self.added, self.kept + self.moved + self.added),
            "mean_iou": _mean(self.ious),
            "mean_iou_moved": _mean(self.moved_ious),
            **({"seconds_per_answer": statistics.median(self.seconds)} if self.seconds else {}),
        }

    def cells(self) -> list[str]:
        """Return the cells of a table row."""
        whole = self.as_dict()
        rates = [whole[name] for name in ("accept_rate", "move_rate", "remove_rate", "add_rate")]
        return [
            str(self.shown),
            *(
                "-" if rate is None else f"{100 * rate:.0f} % ({count})"
                for rate, count in zip(
                    rates, (self.kept, self.moved, self.removed, self.added), strict=True
                )
            ),
            *(
                "-" if x is None else f"{x:.2f}"
                for x in (whole["mean_iou"], _mean(self.moved_ious))
            ),
            f"{statistics.median(self.seconds):.1f}" if self.seconds else "-",
        ]


_COLUMNS = ("shown", "kept", "moved", "removed", "added", "IoU", "IoU of moved", "s per answer")


@dataclass(frozen=True)
class CostReport:
    """Sums over the reviews of a workspace."""

    frames: int
    """Frames a person decided."""
    answers: int
    """Answers given on them: more than frames where several people were asked."""
    decisions: dict[str, int]
    seconds_per_frame: dict[str, float]
    """The median lead time by annotator, and of all as ``all``."""
    seconds_per_mask_frame: dict[str, float]
    """The same of answers about masks."""
    by_class: dict[str, ProposalOutcome]
    """Outcomes by ``detector/class``; boxes people drew stand under ``drawn``, those made from a
    proposal that is no more (another detector, another threshold) under ``no longer proposed``."""
    by_category: dict[str, ProposalOutcome]
    """Outcomes by category: the final one of boxes that stayed, the proposed one of the removed."""
    by_day: dict[str, ProposalOutcome]
    """Outcomes by the day of the review (UTC), in order: the trend."""

    def as_dict(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        tables = {
            name: _dicts(getattr(self, name)) for name in ("by_class", "by_category", "by_day")
        }
        return {**vars(self), **tables}

    def lines(self) -> list[str]:
        """Return the lines that the command prints, as Markdown."""
        decided = ", ".join(f"{count} {name}" for name, count in sorted(self.decisions.items()))
        lines = [f"{counted(self.frames, 'frame')} decided by people: {decided or 'none'}."]
        if self.answers > self.frames:
            lines[0] += f" {self.answers} answers, as some were asked of several."
        for title, seconds in (
            ("boxes", self.seconds_per_frame),
            ("masks", self.seconds_per_mask_frame),
        ):
            if seconds:
                cells = [[who, f"{median:.1f}"] for who, median in seconds.items()]
                lines += [
                    "",
                    *markdown_table([f"annotator, {title}", "s per frame (median)"], cells),
                ]
        for title, found in (
            ("detector class", self.by_class),
            ("category", self.by_category),
            ("day (UTC)", self.by_day),
        ):
            if found:
                cells = [[name, *outcome.cells()] for name, outcome in sorted(found.items())]
                lines += ["", *markdown_table([title, *_COLUMNS], cells)]
        return lines


def cost_report(reviews: Iterable[Review], proposals: Sequence[Proposal]) -> CostReport:
    """Add up what people decided.

    Args:
        reviews: all of them; rules, simulations and gold answers are left out here.
        proposals: all of them; those that are not audible were not shown.
    """
    people = [row for row in reviews if row.verified and row.purpose != "gold"]
    decisions: dict[str, int] = defaultdict(int)
    seconds: dict[str, list[float]] = defaultdict(list)
    mask_seconds: dict[str, list[float]] = defaultdict(list)
    tally = _Tally(proposals)
    answered = 0
    for rows in by_frame(people).values():
        adjudicated = [
            row for row in counting_reviews(rows, "boxes") if row.purpose == "adjudicate"
        ]
        answers = [*opinions(rows, "boxes"), *adjudicated]
        answered += len(answers)
        for answer in answers:
            _spend(seconds, answer)
            if answer.lead_time_s is not None:
                tally.days[answer.updated_at[:10]].seconds.append(answer.lead_time_s)
        for answer in opinions(rows, "masks"):
            _spend(mask_seconds, answer)
        review = deciding(rows) if answers else None
        if review is not None and review.decision != "back_to_boxes":
            decisions[review.decision] += 1
            if review.decision != "rejected":  # that says nothing of the boxes
                tally.add(review)
    return CostReport(
        sum(decisions.values()),
        answered,
        dict(decisions),
        _medians(seconds),
        _medians(mask_seconds),
        dict(tally.classes),
        dict(tally.categories),
        dict(tally.days),
    )


class _Tally:
    """Counts of boxes by class, category and day."""

    def __init__(self, proposals: Sequence[Proposal]) -> None:
        self.classes: dict[str, ProposalOutcome] = defaultdict(ProposalOutcome)
        self.categories: dict[str, ProposalOutcome] = defaultdict(ProposalOutcome)
        self.days: dict[str, ProposalOutcome] = defaultdict(ProposalOutcome)
        self._proposals = {proposal.proposal_id: proposal for proposal in proposals}
        self._audible: dict[str, list[str]] = defaultdict(list)
        for proposal in proposals:
            if proposal.audible:
                self._audible[proposal.frame_id].append(proposal.proposal_id)

    def add(self, review: Review) -> None:
        """Count what became of the boxes of one frame."""
        day = self.days[review.updated_at[:10]]
        stayed = set()
        for instance in review.instances:
            kind = self._class(instance.proposal_id)
            stayed.add(instance.proposal_id)
            overlap = moved_iou(instance, self._proposals)
            for outcome in (self.classes[kind], self.categories[instance.category], day):
                outcome.kept += instance.origin == "kept"
                outcome.moved += instance.origin == "moved"
                outcome.added += instance.origin == "added"
                if overlap is not None:
                    outcome.ious.append(overlap)
                    outcome.moved_ious += [overlap] if instance.origin == "moved" else []
        shown = self._audible[review.frame_id] if review.shown is None else review.shown
        for name in shown:
            if name in stayed:
                continue
            self.classes[self._class(name)].removed += 1
            day.removed += 1
            if (gone := self._proposals.get(name)) is not None:
                self.categories[gone.categories[0]].removed += 1

    def _class(self, proposal_id: str | None) -> str:
        if proposal_id is None:
            return "drawn"
        found = self._proposals.get(proposal_id)
        if found is None:
            return "no longer proposed"
        return f"{found.detector}/{found.detector_class}"


def _spend(seconds: dict[str, list[float]], answer: Review) -> None:
    if answer.lead_time_s is not None:
        seconds[answer.annotator].append(answer.lead_time_s)
        seconds["all"].append(answer.lead_time_s)


def _medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    return {who: statistics.median(times) for who, times in sorted(seconds.items())}


def _dicts(found: Mapping[str, ProposalOutcome]) -> dict[str, Any]:
    return {name: outcome.as_dict() for name, outcome in sorted(found.items())}


def _fraction(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None
