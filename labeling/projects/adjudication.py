"""The project of adjudication: frames on which people differ, for one more person to decide.

A task shows the boxes of everybody: once what they share, side by side what they do not. It says
what each person answered, under a letter and not a name. The answer decides the frame. Where people
differ on a thing in the same way in other frames of the clip, these are shown beside it, and what
the thing is said to be is decided there too (``labeling.quality.disputes``).
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from labeling.label_studio.shapes import is_skip
from labeling.projects.beside import box_html, is_beside, picture_html
from labeling.projects.box_project import BoxAnswers, SoundsOfFrames, box_region, box_task
from labeling.projects.box_results import SECOND, STATUS_NAMES
from labeling.projects.labeling_config import prefilled_task, status
from labeling.projects.project_kind import (
    Project,
    ProjectKind,
    Questions,
    are_pulled,
    pulled_at,
)
from labeling.quality.agreement import agreement
from labeling.quality.disputes import Disputed, disputes_of, settled
from labeling.quality.matching import match
from pipeline.records.reviews import by_frame, counting_reviews
from pipeline.records.schema import Frame, Review, ReviewedInstance, Sounds
from pipeline.run.stage import StageSpec
from pipeline.words import counted
from pipeline.workspace.workspace import Workspace


class AdjudicationQuestions(Questions):
    """Every frame in dispute."""

    says_beside = (
        "The same thing, and the same dispute: what you say it is, and how, holds here too."
    )

    def __init__(self, workspace: Workspace, vocabulary: Sequence[str]) -> None:
        self._config = workspace.config.label
        self._vocabulary = list(vocabulary)
        self._sounds = SoundsOfFrames(workspace)
        self._frames = {row.frame_id: row for row in workspace.rows(Frame)}
        reviews = [row for row in workspace.rows(Review) if row.frame_id in self._frames]
        self._pulled = pulled_at(reviews)
        self._disputed = _disputed(reviews, self._config.agreement_iou)
        self._adjudicated = sum(
            any(row.purpose == "adjudicate" for row in counting_reviews(rows, "boxes"))
            for rows in by_frame(reviews).values()
        )

    def frames(self) -> list[Frame]:
        """Return the frames in dispute that nobody has adjudicated."""
        return [self._frames[name] for name in self._disputed]

    def groups(self, frames: Sequence[Frame]) -> list[tuple[Frame, list[Frame]]]:
        """Return the frame of each dispute to ask about, and those that its answer settles too."""
        disputes = disputes_of(self._disputed[frame.frame_id] for frame in frames)
        return [
            (
                self._frames[dispute.asked.frame_id],
                [self._frames[one.frame_id] for one in dispute.others],
            )
            for dispute in disputes
        ]

    def beside(self, frame: Frame, image: str) -> tuple[dict[str, Any], str]:
        """Return what a frame is settled by, and its picture with the boxes in dispute."""
        found = self._disputed[frame.frame_id]
        boxes = {one.track_id: one.bbox for answer in found.answers for one in answer.instances}
        over = [box_html(boxes[track], frame.width, frame.height) for track in found.differences]
        return {"reviews": found.reviews}, picture_html(image, "".join(over))

    def notes(self) -> list[str]:
        """Say how many frames are adjudicated."""
        said = counted(self._adjudicated, "frame is", "frames are")
        return [f"{said} settled already."] if self._adjudicated else []

    def task(self, frame: Frame, image: str, clips_html: str) -> dict[str, Any]:
        """Make the frame's task."""
        return adjudication_task(
            frame,
            self._disputed[frame.frame_id],
            self._sounds.of(frame),
            self._vocabulary,
            image,
            clips_html,
            min_iou=self._config.agreement_iou,
        )

    def is_outdated(self, frame_id: str, task: dict[str, Any], project: Project) -> bool:
        """Say whether people changed their answers, or agree by now; one worked on stays."""
        if task["drafts"] or frame_id not in self._frames:
            return False
        found = self._disputed.get(frame_id)
        if task["annotations"]:
            # What was decided of the frame it is beside did not follow for this one.
            answers = [answer for answer in task["annotations"] if not is_skip(answer)]
            of = is_beside(task)
            unsettled = bool(of and answers) and found is not None
            return unsettled and are_pulled(answers, of, project, self._pulled)
        return found is None or task["data"].get("reviews") != found.reviews


class AdjudicationAnswers(BoxAnswers):
    """A reader of adjudicators' decisions; a category that somebody typed is a label here."""

    def __init__(self, workspace: Workspace, vocabulary: Sequence[str]) -> None:
        super().__init__(workspace, vocabulary)
        self._reviews = by_frame(workspace.rows(Review))
        self._said = {
            name: {one.category for row in rows for one in row.instances}
            for name, rows in self._reviews.items()
        }
        self._min_iou = workspace.config.label.agreement_iou

    def read(self, annotation: object, task: Mapping[str, Any], frame: Frame, name: str) -> Review:
        """Read one answer about a frame."""
        review = super().read(annotation, task, frame, name)
        return review.model_copy(update={"purpose": "adjudicate"})

    def beside(
        self, review: Review, annotation: object, task: Mapping[str, Any], frame: Frame
    ) -> Review | None:
        """Return what an answer decides of a frame where people differ in the same way.

        Nothing where somebody has changed their answer there since, or it is settled: the frame is
        asked about itself if need be.
        """
        rows = self._reviews.get(frame.frame_id, [])
        # What this very answer said of it before is no reason to leave it.
        others = [row for row in rows if row.annotation_id != review.annotation_id]
        found = _disputed(others, self._min_iou).get(frame.frame_id)
        if found is None or task["data"].get("reviews") != found.reviews:
            return None
        instances = settled(review, found)
        shown = {name for answer in found.answers for name in answer.shown or ()}
        decided = {"frame_id": frame.frame_id, "instances": instances, "shown": sorted(shown)}
        return None if instances is None else review.model_copy(update=decided)

    def _labels(self, frame: Frame) -> frozenset[str]:
        return self._vocabulary | self._said.get(frame.frame_id, set())


ADJUDICATION = ProjectKind(
    name="adjudication",
    description="Settle what others differ on: their boxes are shown together. Yours decide.",
    config="boxes",
    step=StageSpec(name="pull-adjudication", version=2, reads="", writes=("reviews",)),
    questions=AdjudicationQuestions,
    answers=AdjudicationAnswers,
    asks_beside=True,
    by_clip="adjudication clips",
)


def _disputed(reviews: Sequence[Review], min_iou: float) -> dict[str, Disputed]:
    return {found.frame_id: found for found in agreement(reviews, min_iou).disputed}


def adjudication_task(
    frame: Frame,
    disputed: Disputed,
    sounds: Sounds | None,
    vocabulary: Sequence[str],
    image: str,
    clips_html: str,
    *,
    min_iou: float,
) -> dict[str, Any]:
    """Make the task of one frame with everybody's boxes.

    Args:
        frame: to decide.
        disputed: what people said of it.
        sounds: of its clip, if it was listened to.
        vocabulary: all target categories, in the order of the list.
        image: address of the frame's image.
        clips_html: the loop and the context clip.
        min_iou: boxes that overlap less are not the same thing.
    """
    boxes = _merged(disputed.answers, min_iou)
    names = list(dict.fromkeys([*vocabulary, *(one.category for _, one, _ in boxes)]))
    task = box_task(frame, [], sounds, names, image, _said(disputed) + clips_html)
    result = [
        {**item, "meta": {"text": [" and ".join(who)]}}
        for name, one, who in boxes
        for item in box_region(name, one.bbox, one.category, one.scenario, frame)
    ]
    decisions = {answer.decision for answer in disputed.answers}
    if len(decisions) == 1:
        result.append(status("status", STATUS_NAMES[decisions.pop()]))
    shown = {name for answer in disputed.answers for name in answer.shown or ()}
    data = {**task["data"], "proposals": sorted(shown), "reviews": disputed.reviews}
    return prefilled_task(frame, data, result, 0.0)


def _merged(
    answers: Sequence[Review], min_iou: float
) -> list[tuple[str, ReviewedInstance, list[str]]]:
    """Return everybody's boxes with a region id and the letters of those who have them.

    A box is somebody else's too when they overlap and category and scenario are the same.
    """
    found: list[tuple[str, ReviewedInstance, list[str]]] = []
    for letter, answer in zip(ascii_uppercase, answers, strict=False):
        there = [one.bbox for _, one, _ in found]
        same = {
            mine: place
            for mine, place, _ in match([one.bbox for one in answer.instances], there, min_iou)
        }
        for number, one in enumerate(answer.instances):
            if number in same:
                _, other, who = found[same[number]]
                if (one.category, one.scenario) == (other.category, other.scenario):
                    who.append(letter)
                    continue
            name = f"{one.proposal_id or 'drawn'}{SECOND}{letter}{number}"
            found.append((name, one, [letter]))
    return found


def _said(disputed: Disputed) -> str:
    """List what each person answered, as HTML."""
    lines = []
    for letter, answer in zip(ascii_uppercase, disputed.answers, strict=False):
        what = STATUS_NAMES[answer.decision]
        if answer.decision == "off_screen":
            what += f": {answer.off_screen_category}"
        elif answer.instances:
            boxes = (f"{one.category} ({one.scenario})" for one in answer.instances)
            what += f": {', '.join(boxes)}"
        elif answer.reject_reasons:
            what += f": {', '.join(answer.reject_reasons)}"
        lines.append(f"<b>{letter}</b> {html.escape(what)}<br>")
    return f"<p>{''.join(lines)}</p>"
