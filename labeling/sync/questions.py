"""What people are asked: which frames become tasks, and each frame's task from the tables.

One class per kind of project; ``push`` sends what they make.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from labeling.label_studio.shapes import Stamp, is_skip, read
from labeling.projects.box_tasks import box_task, proposals_by_frame, shown
from labeling.projects.connect import Project
from labeling.projects.mask_tasks import Shown, asked, mask_task
from labeling.sync.overlap import Demand, is_sampled
from pipeline.errors import InputError
from pipeline.records.reviews import by_frame, deciding, is_sent_back, is_withdrawn
from pipeline.records.schema import Frame, Instance, Mask, Proposal, Review, Sounds
from pipeline.words import command_line, counted
from pipeline.workspace.workspace import Workspace


class Questions(Protocol):
    """What ``push`` needs to know of a kind of project."""

    def frames(self) -> list[Frame]:
        """Those that should have a task."""
        ...

    def task(self, frame: Frame, image: str, clips_html: str) -> dict[str, Any]:
        """The frame's task.

        Args:
            frame: one of ``frames``.
            image: address of its image.
            clips_html: the loop and the context clip.
        """
        ...

    def notes(self) -> list[str]:
        """What is to be known of the frames that are not asked about."""
        ...

    def is_outdated(self, frame_id: str, task: dict[str, Any], project: Project) -> bool:
        """Whether a frame's task at the server is to be replaced, and nothing is lost by that."""
        ...

    @property
    def asks_several(self) -> bool:
        """Whether some frame is to be answered by more than one person."""
        ...

    def open_for(self, frame_id: str, annotators: Sequence[object]) -> int:
        """How many different people a frame's task is to be open for.

        Args:
            frame_id: that it shows.
            annotators: who answered it at the server already.
        """
        ...


class BoxQuestions:
    """Every frame that people have not answered yet, with its proposals.

    An answer that still holds is not asked for again, wherever it was given.
    """

    def __init__(self, workspace: Workspace, vocabulary: Sequence[str]) -> None:
        self._place = workspace.storage.url
        self._frames = {row.frame_id: row for row in workspace.rows(Frame)}
        self._vocabulary = list(vocabulary)
        self._sounds = {row.id: row for row in workspace.rows(Sounds)}
        proposals, reviews = workspace.rows(Proposal), workspace.rows(Review)
        self._proposals = proposals_by_frame(proposals)
        self._demand = Demand(self._frames.values(), proposals, reviews, workspace.config.label)
        self._pulled = pulled_at(reviews)
        self._sent_back = {name for name, rows in by_frame(reviews).items() if is_sent_back(rows)}

    def frames(self) -> list[Frame]:
        """Those that still need an answer."""
        return [row for name, row in self._frames.items() if self._demand.missing[name]]

    def notes(self) -> list[str]:
        """How many frames are answered, and how many answers no longer hold."""
        said = []
        if answered := sum(not missing for missing in self._demand.missing.values()):
            said.append(f"{counted(answered, 'frame is', 'frames are')} answered already.")
        if self._demand.orphaned:
            no_more = counted(
                len(self._demand.orphaned), "answer no longer holds", "answers no longer hold"
            )
            status = command_line("label", "status", "--workspace", self._place)
            said.append(f"{no_more}; to list them: {status}")
        return said

    def task(self, frame: Frame, image: str, clips_html: str) -> dict[str, Any]:
        """The frame's task."""
        return box_task(
            frame,
            self._proposals.get(frame.frame_id, []),
            # What was heard around the frame, else in its whole clip.
            self._sounds.get(frame.frame_id) or self._sounds.get(frame.clip_id),
            self._vocabulary,
            image,
            clips_html,
        )

    def is_outdated(self, frame_id: str, task: dict[str, Any], project: Project) -> bool:
        """Whether it shows other proposals than there are, or its answers no longer hold.

        A task somebody is at, one whose answer was not pulled yet, and one that the masks sent back
        (it shows that person's boxes) stay.
        """
        if not self._demand.missing.get(frame_id) or frame_id in self._sent_back or task["drafts"]:
            return False
        answers = [answer for answer in task["annotations"] if not is_skip(answer)]
        if not answers:
            now = shown(self._proposals.get(frame_id, []), self._frames[frame_id])
            return bool(task["data"].get("proposals") != now)
        if frame_id in self._demand.gold or self._demand.is_held(frame_id):
            return False
        return are_pulled(answers, project, self._pulled)

    @property
    def asks_several(self) -> bool:
        """Whether some frame is to be answered by more than one person."""
        return max(self._demand.wanted.values(), default=1) > 1

    def open_for(self, frame_id: str, annotators: Sequence[object]) -> int:
        """How many different people a frame's task is to be open for."""
        return self._demand.open_for(frame_id, annotators)


class MaskQuestions:
    """Every frame with instances, until people have verified their masks."""

    def __init__(self, workspace: Workspace) -> None:
        self._place = workspace.storage.url
        self._config = workspace.config.label
        masks = {row.instance_id: row for row in workspace.rows(Mask)}
        self._shown: dict[str, list[Shown]] = {}
        for row in workspace.rows(Instance):
            self._shown.setdefault(row.frame_id, []).append((row, masks.get(row.instance_id)))
        reviews = workspace.rows(Review)
        self._pulled = pulled_at(reviews)
        failed = {row.input_id for row in workspace.ledger("segment").failures()}
        self._open: dict[str, Frame] = {}
        self._waiting = self._sent_back = self._settled = 0
        of_frame = by_frame(reviews)
        for frame in workspace.rows(Frame):
            shown = self._shown.get(frame.frame_id, [])
            if not shown:
                continue
            said = deciding(of_frame.get(frame.frame_id, []), "masks")
            if any(mask is None and one.instance_id not in failed for one, mask in shown):
                self._waiting += 1
            elif said is not None and _sent_back(said):
                self._sent_back += 1
            elif said is not None and _settles(said, shown):
                self._settled += 1
            else:
                self._open[frame.frame_id] = frame

    def frames(self) -> list[Frame]:
        """Those whose masks are still to be verified."""
        return list(self._open.values())

    def notes(self) -> list[str]:
        """How many frames are decided, sent back, or not segmented yet."""
        said = []
        if self._settled:
            said.append(f"{counted(self._settled, 'frame is', 'frames are')} decided already.")
        segment = command_line("segment", "--workspace", self._place)
        if self._sent_back:
            back = counted(self._sent_back, "frame was sent back", "frames were sent back")
            pull = command_line("label", "pull", "boxes", "--workspace", self._place)
            said.append(f"{back}; for new boxes: {pull}; and then: {segment}")
        if self._waiting:
            waiting = counted(self._waiting, "frame waits", "frames wait")
            said.append(f"{waiting} for their masks: {segment}")
        return said

    def task(self, frame: Frame, image: str, clips_html: str) -> dict[str, Any]:
        """The frame's task."""
        return mask_task(frame, self._shown[frame.frame_id], image, clips_html)

    def is_outdated(self, frame_id: str, task: dict[str, Any], project: Project) -> bool:
        """Whether it asks about other instances or masks, or its answers decide nothing more.

        A task somebody is at, and one whose answer was not pulled yet, stay.
        """
        if frame_id not in self._open or task["drafts"]:
            return False
        answers = [answer for answer in task["annotations"] if not is_skip(answer)]
        if not are_pulled(answers, project, self._pulled):
            return False
        return bool(answers) or task["data"].get("asked") != asked(self._shown[frame_id])

    @property
    def asks_several(self) -> bool:
        """Whether some frame is to be answered by more than one person."""
        return self._config.overlap > 1

    def open_for(self, frame_id: str, annotators: Sequence[object]) -> int:
        """How many different people a frame's task is to be open for."""
        sampled = is_sampled(frame_id, self._config.share, self._config.seed)
        return self._config.overlap if sampled else 1


def pulled_at(reviews: Iterable[Review]) -> dict[str, str]:
    """The newest time that was pulled of each annotation."""
    pulled: dict[str, str] = {}
    for review in reviews:
        known = pulled.get(review.annotation_id, "")
        pulled[review.annotation_id] = max(known, review.updated_at)
    return pulled


def are_pulled(answers: Iterable[object], project: Project, pulled: Mapping[str, str]) -> bool:
    """Whether all of a task's answers stand in the tables as they are at the server."""
    try:
        return all(
            pulled.get(project.name_of(answer), "") >= read(Stamp, answer, "an answer").updated_at
            for answer in answers
        )
    except InputError:
        return False  # what cannot be read cannot have been pulled; a pull names it


def _sent_back(review: Review) -> bool:
    return review.decision == "back_to_boxes" and not is_withdrawn(review)


def _settles(review: Review, shown: Sequence[Shown]) -> bool:
    """Whether a review of masks leaves nothing to ask."""
    spoken = {found.instance_id for found in review.instances}
    if review.decision == "labelled":
        return all(instance.instance_id in spoken for instance, _ in shown)
    return review.decision == "rejected"
