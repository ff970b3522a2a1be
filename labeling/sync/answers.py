"""What people answered, read with the tables it speaks of.

One class per kind of project; ``pull`` commits what they read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from labeling.label_studio.shapes import BoxData, MaskData, Question, read, unreadable
from labeling.projects.box_results import read_boxes
from labeling.projects.box_tasks import proposals_by_frame
from labeling.projects.mask_results import Asked, read_masks
from labeling.review.instances import every_instance
from pipeline.errors import InputError
from pipeline.records.reviews import by_frame
from pipeline.records.schema import Frame, Proposal, Review
from pipeline.workspace.workspace import Workspace

_AGAIN = "delete the task and push again"


class Answers(Protocol):
    """What ``pull`` needs to know of a kind of project."""

    def read(self, annotation: object, task: Mapping[str, Any], frame: Frame, name: str) -> Review:
        """One answer about a frame.

        Args:
            annotation: as the server gives it.
            task: that it answers.
            frame: that the task shows.
            name: what the review will say it came from.

        Raises:
            InputError: it is incomplete or contradicts itself; the detail says what to mend.
        """
        ...


class BoxAnswers:
    """Which boxes sound."""

    def __init__(self, workspace: Workspace, vocabulary: Sequence[str]) -> None:
        self._vocabulary = frozenset(vocabulary)
        self._proposals = proposals_by_frame(workspace.rows(Proposal))

    def read(self, annotation: object, task: Mapping[str, Any], frame: Frame, name: str) -> Review:
        """One answer about a frame."""
        proposals = self._proposals.get(frame.frame_id, [])
        review = read_boxes(annotation, frame, proposals, self._labels(frame), name)
        data = read(BoxData, task["data"], "the task's data", _AGAIN)
        return review.model_copy(update={"shown": data.proposals})

    def _labels(self, frame: Frame) -> frozenset[str]:
        """The labels that a frame's task offers."""
        return self._vocabulary


class AdjudicationAnswers(BoxAnswers):
    """What the adjudicator decided; a category that somebody typed is a label here."""

    def __init__(self, workspace: Workspace, vocabulary: Sequence[str]) -> None:
        super().__init__(workspace, vocabulary)
        self._said = {
            name: {one.category for row in rows for one in row.instances}
            for name, rows in by_frame(workspace.rows(Review)).items()
        }

    def read(self, annotation: object, task: Mapping[str, Any], frame: Frame, name: str) -> Review:
        """One answer about a frame."""
        review = super().read(annotation, task, frame, name)
        return review.model_copy(update={"purpose": "adjudicate"})

    def _labels(self, frame: Frame) -> frozenset[str]:
        return self._vocabulary | self._said.get(frame.frame_id, set())


class MaskAnswers:
    """Which pixels are each instance's.

    An instance may be one of an earlier decision: what was said of it is kept, and counts again
    when the instance comes back.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._instances = every_instance(workspace.rows(Review))

    def read(self, annotation: object, task: Mapping[str, Any], frame: Frame, name: str) -> Review:
        """One answer about a frame."""
        questions = read(MaskData, task["data"], "the task's data", _AGAIN).asked
        asked = {item.label: self._asked(item, frame) for item in questions}
        if len(asked) < len(questions):
            raise unreadable(f"the task asks twice about one of {list(asked)}; {_AGAIN}")
        return read_masks(annotation, frame, asked, name)

    def _asked(self, item: Question, frame: Frame) -> Asked:
        instance = self._instances.get(item.instance_id)
        if instance is None or instance.frame_id != frame.frame_id:
            raise InputError(
                "unknown_instance",
                f"{item.label!r} is no instance of this workspace's reviews; {_AGAIN}",
            )
        return Asked(instance, item.mask, item.drawn_by)
