"""What people answered, read with the tables it speaks of.

One class per kind of project; ``pull`` commits what they read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from labeling.instances import every_instance
from labeling.mask_results import Asked, read_masks
from labeling.projects import ProjectKind
from labeling.results import read_boxes
from pipeline.errors import InputError
from pipeline.schema import Frame, MaskSource, Proposal, Review
from pipeline.workspace import Workspace


class Answers(Protocol):
    """What ``pull`` needs to know of a kind of project."""

    @property
    def kind(self) -> ProjectKind:
        """Of the project the answers come from."""
        ...

    def read(
        self, annotation: Mapping[str, Any], task: Mapping[str, Any], frame: Frame, name: str
    ) -> Review:
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

    kind: ProjectKind = "boxes"

    def __init__(self, workspace: Workspace, vocabulary: Sequence[str]) -> None:
        self._vocabulary = frozenset(vocabulary)
        self._proposals: dict[str, list[Proposal]] = {}
        for proposal in workspace.rows(Proposal):
            self._proposals.setdefault(proposal.frame_id, []).append(proposal)

    def read(
        self, annotation: Mapping[str, Any], task: Mapping[str, Any], frame: Frame, name: str
    ) -> Review:
        """One answer about a frame."""
        proposals = self._proposals.get(frame.frame_id, [])
        review = read_boxes(annotation, frame, proposals, self._vocabulary, name)
        return review.model_copy(update={"shown": task["data"].get("proposals")})


class MaskAnswers:
    """Which pixels are each instance's.

    An instance may be one of an earlier decision: what was said of it is kept, and counts again
    when the instance comes back.
    """

    kind: ProjectKind = "masks"

    def __init__(self, workspace: Workspace) -> None:
        self._instances = every_instance(workspace.rows(Review))

    def read(
        self, annotation: Mapping[str, Any], task: Mapping[str, Any], frame: Frame, name: str
    ) -> Review:
        """One answer about a frame."""
        asked = {str(item["label"]): self._asked(item, frame) for item in task["data"]["asked"]}
        return read_masks(annotation, frame, asked, name)

    def _asked(self, item: Mapping[str, Any], frame: Frame) -> Asked:
        instance = self._instances.get(item["instance_id"])
        if instance is None or instance.frame_id != frame.frame_id:
            raise InputError(
                "unknown_instance",
                f"{item['label']!r} is no instance of this workspace's reviews; delete the task and"
                " push again",
            )
        drawn_by = item["drawn_by"]
        return Asked(instance, item["mask"], None if drawn_by is None else MaskSource(**drawn_by))
