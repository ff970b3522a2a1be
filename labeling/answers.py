"""What people answered, read with the tables it speaks of.

One class per kind of project; ``pull`` commits what they read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from labeling.projects import Kind
from labeling.results import read_boxes
from pipeline.schema import Frame, Proposal, Review
from pipeline.workspace import Workspace


class Answers(Protocol):
    """What ``pull`` needs to know of a kind of project."""

    @property
    def kind(self) -> Kind:
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

    kind: Kind = "boxes"

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
        return read_boxes(annotation, frame, proposals, self._vocabulary, name)
