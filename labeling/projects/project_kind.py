"""Kinds of labeling project: boxes, masks and adjudication are one each.

A new kind is one file with one ``ProjectKind``, and one line in ``pipeline/flow.py``: pushing,
pulling, status and the commands follow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labeling.label_studio.shapes import Named, Stamp, read
from pipeline.errors import InputError
from pipeline.flow import PROJECTS
from pipeline.records.schema import Frame, Review
from pipeline.run.stage import StageSpec
from pipeline.workspace.workspace import Workspace

CLIPS = "clips"
"""The name in ``configs`` of the labeling config of clips."""


@dataclass(frozen=True)
class Project:
    """A project of ours at a server."""

    number: int
    title: str
    key: str
    """The project's name for good: numbers are used again after a server lost its data."""
    by_clip: bool = False
    """True where a task is about the frames of a clip."""
    of_several: bool = False
    """True where an answer may decide several frames."""

    def name_of(self, annotation: object) -> str:
        """Return the name by which a review says what it came from.

        Numbers are used again after a deletion; the time they were made is not.

        Raises:
            InputError: ``unreadable_answer`` when it has no number or time.
        """
        named = read(Named, annotation, "an answer")
        return f"{self.key}/{named.id}@{named.created_at}"


class Questions(ABC):
    """The questions a workspace still has for people: a push sends them."""

    asks_several = False
    """True where some frame is to be answered by more than one person."""
    says_beside = ""
    """Tells a person what their answer means for the frames beside the one it is about."""
    order = "given"
    """The order in which frames are sent; ``given`` where nobody chose one."""

    @abstractmethod
    def frames(self) -> list[Frame]:
        """Return the frames that should have a task."""

    @abstractmethod
    def notes(self) -> list[str]:
        """Say what is to be known of the frames that are not asked about."""

    @abstractmethod
    def task(self, frame: Frame, image: str, clips_html: str) -> dict[str, Any]:
        """Make a frame's task, of which ``pages.clip_task`` makes a clip's.

        Args:
            frame: one of ``frames``.
            image: address of its image.
            clips_html: the loop and the context clip.
        """

    def groups(self, frames: Sequence[Frame]) -> list[tuple[Frame, list[Frame]]]:
        """Return each frame to ask about with those beside it, which its answer may decide too."""
        return [(frame, []) for frame in frames]

    def beside(self, frame: Frame, image: str) -> tuple[dict[str, Any], str]:
        """Return what a task has of a frame beside the one it asks about.

        Args:
            frame: one of ``frames``.
            image: address of its image.

        Returns:
            The data an answer is read with, and its small picture as HTML.
        """
        raise NotImplementedError

    @abstractmethod
    def is_outdated(self, frame_id: str, task: dict[str, Any], project: Project) -> bool:
        """Say whether a task at the server is to be replaced, and nothing is lost by that.

        Args:
            frame_id: that it shows.
            task: as the server has it; of a clip's task, the frame's page (``pages.page_of``).
            project: that it is in.
        """

    def task_overlap(self, frame_id: str, annotators: Sequence[object]) -> int:
        """Return how many different people are to answer a frame's task.

        Args:
            frame_id: that it shows.
            annotators: who answered it at the server already.
        """
        return 1


class Answers(ABC):
    """A reader of people's answers, with the tables they speak of: what a pull commits."""

    @abstractmethod
    def read(self, annotation: object, task: Mapping[str, Any], frame: Frame, name: str) -> Review:
        """Read one answer about a frame.

        Args:
            annotation: as the server gives it.
            task: that it answers.
            frame: that the task shows.
            name: what the review will say it came from.

        Raises:
            InputError: it is incomplete or contradicts itself; the detail says what to mend.
        """

    def beside(
        self, review: Review, annotation: object, task: Mapping[str, Any], frame: Frame
    ) -> Review | None:
        """Return what an answer says of a frame beside the one it is about; none: nothing.

        Args:
            review: the answer, as it was read.
            annotation: the same as the server gives it.
            task: that it answers, as if it showed this frame alone.
            frame: beside.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class ProjectKind:
    """A kind of labeling project; each has one project at the server."""

    name: str
    """The last word of the project's title, and of ``label push`` and ``label pull``."""
    description: str
    """The project's description at the server."""
    config: str
    """The labeling config's name in ``configs``."""
    step: StageSpec
    """The step its answers are committed to; its failures are answers to mend."""
    questions: Callable[[Workspace, Sequence[str]], Questions]
    """Opens the questions, from a workspace and the target categories in the order of the list."""
    answers: Callable[[Workspace, Sequence[str]], Answers]
    """Opens the reader of answers, from the same."""
    by_clip: str
    """The last words of the title of its project whose tasks are clips (``label.task``)."""
    asks_beside: bool = False
    """True where an answer by frame may decide frames beside the one it is about."""
    clip_config: str = CLIPS
    """The labeling config's name of these."""

    def title(self, by_clip: bool) -> str:
        """Return the last word of the title of the project of a layout."""
        return self.by_clip if by_clip else self.name

    def layout_name(self, by_clip: bool) -> str:
        """Return the name in ``configs`` of a layout's labeling config."""
        return self.clip_config if by_clip else self.config

    def is_paged(self, by_clip: bool) -> bool:
        """Say whether the frames that a task of a layout asks about are pages of it."""
        return self.layout_name(by_clip) == CLIPS


def project_kinds() -> list[ProjectKind]:
    """Return every kind of project, in the order of the flow."""
    return [step.load_project() for step in PROJECTS.values()]


PulledAt = dict[tuple[str, str], str]
"""The newest time that was pulled of each annotation and frame."""


def pulled_at(reviews: Iterable[Review]) -> PulledAt:
    """Return the newest time that was pulled of each annotation, of each of its frames."""
    pulled: PulledAt = {}
    for review in reviews:
        key = review.annotation_id, review.frame_id
        pulled[key] = max(pulled.get(key, ""), review.updated_at)
    return pulled


def are_pulled(
    answers: Iterable[object], frame_id: str, project: Project, pulled: PulledAt
) -> bool:
    """Say whether what a task's answers say of a frame stands in the tables as at the server."""
    try:
        return all(
            pulled.get((project.name_of(answer), frame_id), "")
            >= read(Stamp, answer, "an answer").updated_at
            for answer in answers
        )
    except InputError:
        return False  # what cannot be read cannot have been pulled; a pull names it
