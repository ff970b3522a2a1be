"""Take proposals as they are, by a rule and without a person.

Reads ``frames``, writes ``reviews`` whose annotator is ``rule:accept`` and which are never
verified. Its answer depends on the proposals and the bounds alone, not on the day.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

from pipeline.config import LabelConfig
from pipeline.records.schema import (
    LATER_COLUMNS,
    Decision,
    Frame,
    Proposal,
    Review,
    ReviewedInstance,
    Scenario,
    content_id,
)
from pipeline.run.stage import Drop, Ok, Outcome, Stage, StageSpec, WorkerContext

ANNOTATOR = "rule:accept"


class AcceptProposals(Stage[LabelConfig]):
    """Keep each frame's best audible proposals."""

    spec: ClassVar[StageSpec] = StageSpec(
        name="accept",
        version=1,
        reads="frames",
        joins=("proposals",),
        writes=("reviews",),
        rows_per_unit=256,
        batch_size=256,
    )

    def is_rule(self) -> bool:
        """Say that it is one."""
        return True

    def open(self, ctx: WorkerContext) -> None:
        """Find proposals by their frame."""
        self._proposals = ctx.lookup("proposals", "frame_id")

    def process(self, rows: Sequence[Frame]) -> Iterator[Outcome]:
        """Yield one review per frame; drop a frame without an acceptable proposal."""
        for frame in rows:
            taken = accepted(self._proposals.rows(frame.frame_id), self.config)
            if taken:
                yield Ok(frame.frame_id, [_review(frame, taken)])
            else:
                yield Drop(frame.frame_id, "no_proposal_accepted")


def accepted(proposals: Sequence[Proposal], config: LabelConfig) -> list[Proposal]:
    """Return the audible proposals from ``accept_score`` on, best first, ties by id."""
    good = [p for p in proposals if p.audible and p.detector_score >= config.accept_score]
    return sorted(good, key=lambda p: (-p.detector_score, p.proposal_id))[: config.accept_max]


def scenarios(categories: Sequence[str]) -> list[Scenario]:
    """Guess the scenario of each box of a frame from the boxes' categories.

    Two boxes of one category look alike: Multi-entity, which wins. Several categories: Mixed-sound.

    >>> scenarios(["dog", "cat", "dog"])
    ['Multi-entity', 'Mixed-sound', 'Multi-entity']
    >>> scenarios(["dog"])
    ['Single-sound']
    """
    count = Counter(categories)
    alone: Scenario = "Mixed-sound" if len(count) > 1 else "Single-sound"
    return ["Multi-entity" if count[category] > 1 else alone for category in categories]


def _review(frame: Frame, taken: Sequence[Proposal]) -> Review:
    categories = [proposal.categories[0] for proposal in taken]
    instances = [
        ReviewedInstance(
            bbox=proposal.bbox,
            category=category,
            scenario=scenario,
            origin="kept",
            proposal_id=proposal.proposal_id,
            track_id=proposal.track_id,
        )
        for proposal, category, scenario in zip(
            taken, categories, scenarios(categories), strict=True
        )
    ]
    content = contents_of(instances)
    return automatic_review(frame.frame_id, ANNOTATOR, "labelled", instances, content)


def automatic_review(
    frame_id: str,
    annotator: str,
    decision: Decision,
    instances: list[ReviewedInstance],
    content: object,
    off_screen: str | None = None,
    reasons: Sequence[str] = (),
) -> Review:
    """Make the review of an annotator that is no person; the same content has the same id."""
    return Review(
        review_id=content_id("r", frame_id, annotator, content),
        frame_id=frame_id,
        kind="boxes",
        annotator=annotator,
        annotation_id="",
        updated_at="",
        lead_time_s=None,
        decision=decision,
        reject_reasons=list(reasons),
        off_screen_category=off_screen,
        instances=instances,
        verified=False,
    )


def contents_of(instances: Iterable[ReviewedInstance]) -> list[dict[str, Any]]:
    """Return what decides a review's id of its instances."""
    return [instance.model_dump(exclude=LATER_COLUMNS) for instance in instances]
