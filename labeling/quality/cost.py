"""The cost of annotation and what became of the proposals: what a data engine is steered by.

Only what people decided counts. What became of a frame's boxes is told by the person's answer that
decides; time is spent on every answer, also on the second one of a frame. Known answers (gold) are
nobody's work.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labeling.quality.effort import Effort, effort_of
from labeling.quality.kappa import mean, ratio, section, text
from labeling.quality.matching import moved_iou
from pipeline.records.reviews import by_frame, counting_reviews, deciding, opinions
from pipeline.records.schema import Proposal, Review
from pipeline.words import counted


@dataclass(frozen=True)
class Fate:
    """The end of one box of a frame that a person decided."""

    kind: str
    """``kept``, ``moved`` or ``removed``, or ``added`` by a person."""
    detector_class: str
    """``detector/class``; ``drawn`` by a person, or ``no longer proposed``."""
    category: str | None
    """The final one, or the proposed one of a removed box; none where nobody knows it any more."""
    iou: float | None = None
    """The IoU of proposal and final box."""


@dataclass
class ProposalOutcome:
    """Counts of what became of the proposals of one detector class, category or day."""

    fates: list[Fate] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """The lead time of each answer; by day only."""

    def as_dict(self) -> dict[str, Any]:
        """Return counts, and fractions of the proposals shown; those added, of all final boxes."""
        count = Counter(fate.kind for fate in self.fates)
        kept, moved, removed, added = (count[kind] for kind in _KINDS)
        shown = kept + moved + removed
        ious = [(fate.kind, fate.iou) for fate in self.fates if fate.iou is not None]
        return {
            "shown": shown,
            "kept": kept,
            "moved": moved,
            "removed": removed,
            "added": added,
            "accept_rate": ratio(kept, shown),
            "move_rate": ratio(moved, shown),
            "remove_rate": ratio(removed, shown),
            "add_rate": ratio(added, kept + moved + added),
            "mean_iou": mean([iou for _, iou in ious]),
            "mean_iou_moved": mean([iou for kind, iou in ious if kind == "moved"]),
            **({"seconds_per_answer": statistics.median(self.seconds)} if self.seconds else {}),
        }

    def cells(self) -> list[str]:
        """Return the cells of a table row."""
        whole = self.as_dict()
        shares = [
            "-" if (rate := whole[name]) is None else f"{100 * rate:.0f} % ({whole[kind]})"
            for name, kind in zip(
                ("accept_rate", "move_rate", "remove_rate", "add_rate"), _KINDS, strict=True
            )
        ]
        ious = (text(whole["mean_iou"]), text(whole["mean_iou_moved"]))
        seconds = f"{statistics.median(self.seconds):.1f}" if self.seconds else "-"
        return [str(whole["shown"]), *shares, *ious, seconds]


_KINDS = ("kept", "moved", "removed", "added")
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
    effort: Effort
    """The time that answers about boxes took, by page, clip and thing."""

    def as_dict(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        tables = {
            name: {key: outcome.as_dict() for key, outcome in sorted(getattr(self, name).items())}
            for name in ("by_class", "by_category", "by_day")
        }
        return {**vars(self), **tables, "effort": self.effort.as_dict()}

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
                cells = {who: [f"{median:.1f}"] for who, median in seconds.items()}
                lines += section(f"annotator, {title}", ["s per frame (median)"], cells)
        lines += self.effort.lines()
        for title, found in (
            ("detector class", self.by_class),
            ("category", self.by_category),
            ("day (UTC)", self.by_day),
        ):
            if found:
                cells = {name: outcome.cells() for name, outcome in sorted(found.items())}
                lines += section(title, _COLUMNS, cells)
        return lines


def cost_report(reviews: Iterable[Review], proposals: Sequence[Proposal]) -> CostReport:
    """Add up what people decided.

    Args:
        reviews: all of them; rules, simulations and gold answers are left out here.
        proposals: all of them; those that are not audible were not shown.
    """
    people = [row for row in reviews if row.verified and row.purpose != "gold"]
    decisions: Counter[str] = Counter()
    seconds: dict[str, list[float]] = defaultdict(list)
    mask_seconds: dict[str, list[float]] = defaultdict(list)
    by_class: dict[str, ProposalOutcome] = defaultdict(ProposalOutcome)
    by_category: dict[str, ProposalOutcome] = defaultdict(ProposalOutcome)
    by_day: dict[str, ProposalOutcome] = defaultdict(ProposalOutcome)
    known = {proposal.proposal_id: proposal for proposal in proposals}
    audible = by_frame(proposal for proposal in proposals if proposal.audible)
    answered: list[Review] = []
    decided: list[Review] = []
    for frame_id, rows in by_frame(people).items():
        adjudicated = [
            row for row in counting_reviews(rows, "boxes") if row.purpose == "adjudicate"
        ]
        answers = [*opinions(rows, "boxes"), *adjudicated]
        answered += answers
        for answer in answers:
            _spend(seconds, answer)
            if answer.lead_time_s is not None:
                by_day[answer.updated_at[:10]].seconds.append(answer.lead_time_s)
        for answer in opinions(rows, "masks"):
            _spend(mask_seconds, answer)
        review = deciding(rows) if answers else None
        if review is None or review.decision == "back_to_boxes":
            continue
        decisions[review.decision] += 1
        decided.append(review)
        if review.decision == "rejected":  # that says nothing of the boxes
            continue
        day = by_day[review.updated_at[:10]]
        for fate in _fates(review, known, audible.get(frame_id, [])):
            day.fates.append(fate)
            by_class[fate.detector_class].fates.append(fate)
            if fate.category is not None:
                by_category[fate.category].fates.append(fate)
    return CostReport(
        decisions.total(),
        len(answered),
        dict(decisions),
        _medians(seconds),
        _medians(mask_seconds),
        dict(by_class),
        dict(by_category),
        dict(by_day),
        effort_of(answered, decided, known),
    )


def _fates(
    review: Review, known: Mapping[str, Proposal], audible: Sequence[Proposal]
) -> Iterator[Fate]:
    """Yield what became of the boxes of one frame: those left, then those removed."""
    for one in review.instances:
        kind = _class(one.proposal_id, known)
        yield Fate(one.origin, kind, one.category, moved_iou(one, known))
    stayed = {one.proposal_id for one in review.instances}
    everything = [proposal.proposal_id for proposal in audible]
    for name in everything if review.shown is None else review.shown:
        if name not in stayed:
            gone = known.get(name)
            yield Fate("removed", _class(name, known), gone.categories[0] if gone else None)


def _class(proposal_id: str | None, known: Mapping[str, Proposal]) -> str:
    if proposal_id is None:
        return "drawn"
    found = known.get(proposal_id)
    return f"{found.detector}/{found.detector_class}" if found else "no longer proposed"


def _spend(seconds: dict[str, list[float]], answer: Review) -> None:
    if answer.lead_time_s is not None:
        seconds[answer.annotator].append(answer.lead_time_s)
        seconds["all"].append(answer.lead_time_s)


def _medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    return {who: statistics.median(times) for who, times in sorted(seconds.items())}
