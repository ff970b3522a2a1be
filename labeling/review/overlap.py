"""Plan how many people still have to answer each frame; find answers that no longer hold.

A frame is answered once; a seeded fraction of them ``label.overlap`` times; a gold frame by
everybody. An answer counts while it holds (``pipeline.records.reviews.holds``), whichever detector
made its proposals.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from pipeline.config import LabelConfig
from pipeline.records.reviews import by_frame, counting_reviews, holds, is_sent_back, opinions
from pipeline.records.schema import Frame, Proposal, Review
from pipeline.workspace.workspace import Workspace

EVERYBODY = 1000
"""Answers a gold frame is open for: one of everybody who comes."""


def is_sampled(frame_id: str, fraction: float, seed: int) -> bool:
    """Say whether a frame belongs to the fraction that several people answer.

    Each frame has a number in [0, 1) of its own, from its id and the seed, and belongs to every
    fraction above that. So the order of frames plays no part, and a larger one contains a smaller.

    >>> is_sampled("f", 0.0, seed=0), is_sampled("f", 1.0, seed=0)
    (False, True)
    """
    digest = hashlib.sha256(f"{seed}:{frame_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


class OverlapPlan:
    """A plan of what the reviews of a workspace leave to be asked about boxes.

    Args:
        frames: as they are now.
        proposals: as they are now.
        reviews: all of them.
        config: how many people answer, and from which overlap on an answer holds.
    """

    def __init__(
        self,
        frames: Iterable[Frame],
        proposals: Iterable[Proposal],
        reviews: Iterable[Review],
        config: LabelConfig,
    ) -> None:
        self.orphaned: list[Review] = []
        """People's answers that no longer hold, by frame and id; those of frames that are gone."""
        self.missing: dict[str, int] = {}
        """Answers each frame still needs; ``EVERYBODY`` for a gold frame."""
        self.wanted: dict[str, int] = {}
        """Answers each frame is to have in the end."""
        self._held: dict[str, set[str]] = {}
        of_frame, proposed = by_frame(reviews), by_frame(proposals)
        for frame in frames:
            name = frame.frame_id
            rows = of_frame.pop(name, [])
            # Boxes that the masks sent back are asked for anew, whatever was said before.
            asked = [] if is_sent_back(rows) else opinions(rows, "boxes")
            counting = counting_reviews(rows, "boxes")
            adjudicated = [review for review in counting if review.purpose == "adjudicate"]
            good: list[Review] = []
            for review in [*asked, *adjudicated]:
                hold = holds(review, frame, proposed.get(name, []), config.reuse_iou)
                (good if hold else self.orphaned).append(review)
            self._held[name] = {review.annotator for review in good}
            # Of a clip that several are to answer, all frames are.
            drawn = frame.clip_id if config.task == "clip" else name
            several = is_sampled(drawn, config.share, config.seed)
            self.wanted[name] = config.overlap if several else 1
            if any(review.purpose == "gold" for review in counting):
                self.wanted[name] = EVERYBODY
            missing = max(0, self.wanted[name] - len(self._held[name]))
            self.missing[name] = 0 if any(review in good for review in adjudicated) else missing
        for _, rows in sorted(of_frame.items()):
            self.orphaned += opinions(rows, "boxes")

    @classmethod
    def of(cls, workspace: Workspace) -> OverlapPlan:
        """Plan for a workspace as it is."""
        tables = workspace.rows(Frame), workspace.rows(Proposal), workspace.rows(Review)
        return cls(*tables, workspace.config.label)

    @property
    def gold(self) -> set[str]:
        """Names of the gold frames."""
        return {name for name, wanted in self.wanted.items() if wanted == EVERYBODY}

    def is_held(self, frame_id: str) -> bool:
        """Say whether an answer of somebody holds."""
        return bool(self._held.get(frame_id))

    def task_overlap(self, frame_id: str, annotators: Iterable[object]) -> int:
        """Return how many different people are to answer a frame's task.

        Args:
            frame_id: that it shows.
            annotators: who answered it at the server already.
        """
        there = {str(person) for person in annotators}
        if self.wanted.get(frame_id, 1) == EVERYBODY:
            return EVERYBODY
        missing = self.wanted.get(frame_id, 1) - len(there | self._held.get(frame_id, set()))
        return len(there) + max(0, missing)
