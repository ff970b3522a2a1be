"""The project of masks: which frames are sent, the task of a frame, how an answer is read.

Each instance has a label of its own, so that a stroke says whose pixels it paints, and its region
has the instance's id. What a task asks is kept in it: a person's answer is read against what that
person was shown, whatever the tables say by then. A label's regions together are its instance's
mask, whichever way they were painted. Prompts of points and boxes come along with the answer; what
they led to is in the regions.

By clip (``label.task``), a frame has those of its clip beside it whose things are all in it too, of
the same track and category, with masks that are alike (``label.alike_iou``). They are shown as
small pictures. Who leaves every mask of the large one as it is and says that the masks are done has
accepted theirs as well, as they were shown. Who changes a mask, or says it of the large picture
alone, has decided nothing of the others: the next push asks about them.

With ``label.carry_masks`` a task starts from another mask where people have verified the thing's
in another frame of the clip and the segmenter's is not alike to that: the segmenter is asked once
more, told of it (``carried_masks``). The task says which mask it was told of, and is replaced when
that changes; the source says that it was told (``grabcut-carried``). The table has the segmenter's
own until a person has accepted the other, so what ``segment`` made does not hang on who answered
first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from labeling.label_studio import brush
from labeling.label_studio.shapes import (
    Answer,
    BesideData,
    Brush,
    Item,
    MaskData,
    Question,
    is_skip,
    name_region,
    read,
    read_region,
    unreadable,
)
from labeling.projects.beside import BESIDE_HTML, is_beside, picture_html
from labeling.projects.box_results import all_said, one_status, review_of
from labeling.projects.carried_masks import NamedRefiner, VerifiedMask, VerifiedMasks
from labeling.projects.labeling_config import (
    COLOURS,
    NO_KEY,
    TASK_AGAIN,
    prefilled_task,
    region,
    status,
)
from labeling.projects.project_kind import (
    Answers,
    Project,
    ProjectKind,
    Questions,
    are_pulled,
    pulled_at,
)
from labeling.review.instances import every_instance
from labeling.review.overlap import is_sampled
from pipeline.errors import InputError
from pipeline.records import rle
from pipeline.records.boxes import to_pixels
from pipeline.records.moved_masks import overlap
from pipeline.records.reviews import by_frame, deciding, is_sent_back
from pipeline.records.schema import (
    Decision,
    Frame,
    Instance,
    Mask,
    MaskSource,
    Review,
    ReviewedInstance,
    Rle,
    digest_of,
)
from pipeline.run.stage import StageSpec
from pipeline.words import command_line, counted
from pipeline.workspace.workspace import Workspace

MASK_KEYS = ("1", "2", "3", "4", "5", "6")
POINT_KEYS = ("a", "s", "f", "g", "t", "y")
BOX_KEYS = ("z", "x", "c", "n", "i", "o")
"""Keys of the first instances: to paint, to prompt with points, to prompt with a box. None of them
is a tool's or the status's."""

ALL_DONE, DONE_HERE = "Masks done", "Done here only"

_STATUS: dict[str, Decision] = {
    ALL_DONE: "labelled",
    DONE_HERE: "labelled",
    "Back to boxes": "back_to_boxes",
    "Reject": "rejected",
}

_AT_HAND = 4
"""The most frames beside one."""

_OUTLINE_PX = 1.0
"""The pixels by which a mask's outline over a small picture may be off."""

_OPACITY = 0.55
"""The part of the small picture that a mask hides."""

Shown = tuple[Instance, Mask | None]
"""An instance, and its mask if a segmenter found one."""

_Asked = dict[str, tuple[Question, Instance]]
"""What each label of a task stands for."""


class MaskQuestions(Questions):
    """Every frame with instances, until people have verified their masks."""

    says_beside = "Masks done (7) holds for these too. Not right? Done here only (0)."

    def __init__(
        self,
        workspace: Workspace,
        vocabulary: Sequence[str],
        refiner: NamedRefiner | None = None,
    ) -> None:
        self._place = workspace.storage.url
        self._config = workspace.config.label
        self._refiner = refiner
        self.asks_several = self._config.overlap > 1
        masks = {row.instance_id: row for row in workspace.rows(Mask)}
        self._shown: dict[str, list[Shown]] = {}
        for row in workspace.rows(Instance):
            self._shown.setdefault(row.frame_id, []).append((row, masks.get(row.instance_id)))
        reviews = workspace.rows(Review)
        self._by_clip = self._config.task == "clip"
        self._pulled = pulled_at(reviews)
        failed = {row.input_id for row in workspace.ledger("segment").failures()}
        self._open: dict[str, Frame] = {}
        self._waiting = self._sent_back = self._decided = 0
        of_frame = by_frame(reviews)
        frames = workspace.rows(Frame)
        for frame in frames:
            shown = self._shown.get(frame.frame_id, [])
            if not shown:
                continue
            rows = of_frame.get(frame.frame_id, [])
            said = deciding(rows, "masks")
            if any(mask is None and one.instance_id not in failed for one, mask in shown):
                self._waiting += 1
            elif is_sent_back(rows):
                self._sent_back += 1
            elif said is not None and _decides_all(said, shown):
                self._decided += 1
            else:
                self._open[frame.frame_id] = frame
        self._to_prompt: dict[str, VerifiedMask] = {}
        """What the segmenter is still to be told of instances, by their ids."""
        self._prompted: dict[str, dict[str, Any]] = {}
        """What a task says of these."""
        if refiner is not None:
            instances = [one for shown in self._shown.values() for one, _ in shown]
            self._look_for_prompts(
                VerifiedMasks({f.frame_id: f for f in frames}, instances, reviews)
            )

    def _look_for_prompts(self, verified: VerifiedMasks) -> None:
        """Note the things whose masks are not as people verified them in another frame."""
        for frame in self._open.values():
            for one, mask in self._shown[frame.frame_id]:
                found = verified.nearest(one, frame)
                if found is None or (mask is not None and mask.verified):
                    continue
                if mask is not None:
                    pixels = rle.decode(mask.rle)
                    there = found.on(frame, one.bbox)
                    if overlap(there, one.bbox, pixels, one.bbox) >= self._config.alike_iou:
                        continue
                self._to_prompt[one.instance_id] = found
                self._prompted[one.instance_id] = {
                    "own": None if mask is None else mask_digest(mask.rle),
                    "prompted_by": [found.instance.instance_id, mask_digest(found.mask)],
                }

    def frames(self) -> list[Frame]:
        """Return the frames whose masks are still to be verified."""
        return list(self._open.values())

    def notes(self) -> list[str]:
        """Say how many frames are decided, sent back, or not segmented yet."""
        said = []
        if self._decided:
            said.append(f"{counted(self._decided, 'frame is', 'frames are')} decided already.")
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
        """Make the frame's task."""
        shown = self._shown[frame.frame_id]
        return mask_task(frame, shown, image, clips_html, self._prompted)

    def groups(self, frames: Sequence[Frame]) -> list[tuple[Frame, list[Frame]]]:
        """Put frames of a clip beside the first one whose masks theirs are like."""
        for frame in frames:
            self._shown[frame.frame_id] = [
                (one, self._told(one, frame) or mask) for one, mask in self._shown[frame.frame_id]
            ]
        if not self._by_clip:
            return super().groups(frames)
        groups: list[tuple[Frame, list[Frame]]] = []
        of_clip: dict[str, list[Frame]] = {}
        for frame in frames:
            of_clip.setdefault(frame.clip_id, []).append(frame)
        for rows in of_clip.values():
            begun: list[tuple[Frame, list[Frame]]] = []
            for frame in sorted(rows, key=lambda row: row.frame_index):
                like = (
                    others
                    for first, others in begun
                    if len(others) < _AT_HAND and self._are_alike(first, frame)
                )
                others = next(like, None)
                if others is None:
                    begun.append((frame, []))
                else:
                    others.append(frame)
            groups += begun
        return groups

    def _told(self, one: Instance, frame: Frame) -> Mask | None:
        """Return the segmenter's mask of an instance, told of a verified one; none: no better."""
        verified = self._to_prompt.pop(one.instance_id, None)
        if verified is None or self._refiner is None:
            return None
        try:
            found = self._refiner.refine(frame, one.bbox, verified.points(frame, one.bbox))
        except InputError:
            return None  # nor can its picture be sent, which is said of the frame
        own = found.predicted_iou
        box = to_pixels(one.bbox, frame.width, frame.height)
        if box is None or (own is not None and not math.isfinite(own)):
            return None
        x0, y0, x1, y1 = box
        inside = int(found.mask[y0:y1, x0:x1].sum())
        if not inside or found.mask.sum() > 2 * inside:
            return None
        packed = rle.encode(found.mask)
        return Mask(
            instance_id=one.instance_id,
            frame_id=frame.frame_id,
            rle=packed,
            area=rle.area(packed),
            bbox=rle.bbox(packed),
            source=f"{self._refiner.name}-carried",
            model_digest=self._refiner.digest,
            predicted_iou=own,
            verified=False,
        )

    def _are_alike(self, first: Frame, frame: Frame) -> bool:
        """Say whether a frame's things are all in another, with masks that are alike."""
        things = {one.track_id: (one, mask) for one, mask in self._shown[first.frame_id]}
        tracks = [one.track_id for one, _ in self._shown[frame.frame_id]]
        if None in tracks or len(set(tracks)) < len(tracks):
            return False
        for one, mask in self._shown[frame.frame_id]:
            there, other = things.get(one.track_id, (one, None))
            if mask is None or other is None:
                return False
            if there.audio_visual_category != one.audio_visual_category:
                return False
            pixels = rle.decode(other.rle), there.bbox, rle.decode(mask.rle), one.bbox
            if overlap(*pixels) < self._config.alike_iou:
                return False
        return True

    def beside(self, frame: Frame, image: str) -> tuple[dict[str, Any], str]:
        """Return a frame's masks as they are shown, and its picture under them."""
        shown = in_reading_order(self._shown[frame.frame_id])
        masks = [mask.rle for _, mask in shown if mask is not None]
        data = {
            "asked": asked(shown, self._prompted),
            "masks": [packed.model_dump() for packed in masks],
        }
        return data, picture_html(image, overlay_html(masks))

    def is_outdated(self, frame_id: str, task: dict[str, Any], project: Project) -> bool:
        """Say whether it asks about other instances or masks, or its answers decide nothing more.

        A task somebody is at, and one whose answer was not pulled yet, stay.
        """
        if frame_id not in self._open or task["drafts"]:
            return False
        answers = [answer for answer in task["annotations"] if not is_skip(answer)]
        if not are_pulled(answers, is_beside(task) or frame_id, project, self._pulled):
            return False
        now = asked(self._shown[frame_id], self._prompted)
        return bool(answers) or _basis(task["data"].get("asked")) != _basis(now)

    def task_overlap(self, frame_id: str, annotators: Sequence[object]) -> int:
        """Return how many different people are to answer a frame's task."""
        # Of a clip that several are to answer, all frames are; a frame's id begins with its clip's.
        drawn = frame_id.rpartition("_")[0] if self._by_clip else frame_id
        sampled = is_sampled(drawn, self._config.share, self._config.seed)
        return self._config.overlap if sampled else 1


class MaskAnswers(Answers):
    """A reader of which pixels are each instance's.

    An instance may be one of an earlier decision: what was said of it is kept, and counts again
    when the instance comes back.
    """

    def __init__(self, workspace: Workspace, vocabulary: Sequence[str]) -> None:
        self._instances = every_instance(workspace.rows(Review))

    def read(self, annotation: object, task: Mapping[str, Any], frame: Frame, name: str) -> Review:
        """Read one answer about a frame."""
        questions = read(MaskData, task["data"], "the task's data", TASK_AGAIN).asked
        return read_masks(annotation, frame, questions, self._instances, name)

    def beside(
        self, review: Review, annotation: object, task: Mapping[str, Any], frame: Frame
    ) -> Review | None:
        """Return the masks of a frame beside, as they were shown, where they were accepted."""
        said = all_said(read(Answer, annotation, "the answer").result, "mask_status")
        if said != [ALL_DONE] or any(one.origin != "kept" for one in review.instances):
            return None
        data = read(BesideData, task["data"], "the task's data", TASK_AGAIN)
        asked = _by_label(data.asked, frame, self._instances)
        if [question.mask for question in data.asked] != list(map(mask_digest, data.masks)):
            raise unreadable(f"a mask beside is not as it was sent; {TASK_AGAIN}")
        found = [
            _reviewed(*question, rle.decode(packed))
            for question, packed in zip(asked.values(), data.masks, strict=True)
        ]
        return review.model_copy(update={"frame_id": frame.frame_id, "instances": found})


MASKS = ProjectKind(
    name="masks",
    description="Which pixels are each thing's: accept, paint, or prompt with points and boxes.",
    config="masks",
    step=StageSpec(name="pull-masks", version=2, reads="", writes=("reviews",)),
    questions=MaskQuestions,
    answers=MaskAnswers,
    by_clip="mask clips",
    clip_config="mask_clips",
)


def in_reading_order(shown: Sequence[Shown]) -> list[Shown]:
    """Sort instances left to right, as a person counts them."""
    return sorted(shown, key=lambda pair: (*pair[0].bbox[:2], pair[0].instance_id))


def _basis(asked: object) -> object:
    """Return what a task's questions follow from: of a mask the segmenter was told, what it was."""
    if not isinstance(asked, list) or not all(isinstance(one, dict) for one in asked):
        return asked
    made = "mask", "drawn_by"
    return [
        {key: one[key] for key in one if "prompted_by" not in one or key not in made}
        for one in asked
    ]


def asked(
    shown: Sequence[Shown], prompted: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
) -> list[dict[str, Any]]:
    """Return what a task asks: each label's instance, and the mask it came with.

    Args:
        shown: all instances of the frame.
        prompted: what is to be said of masks that a verified one led to, by ``instance_id``.
    """
    return [
        {
            "label": f"{number} {instance.audio_visual_category}",
            "instance_id": instance.instance_id,
            "mask": None if mask is None else mask_digest(mask.rle),
            "drawn_by": None if mask is None else source_of(mask).model_dump(),
            **prompted.get(instance.instance_id, {}),
        }
        for number, (instance, mask) in enumerate(in_reading_order(shown), start=1)
    ]


def mask_task(
    frame: Frame,
    shown: Sequence[Shown],
    image: str,
    clips_html: str,
    prompted: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> dict[str, Any]:
    """Make the task of one frame whose masks are to be verified, the masks as a prediction.

    Args:
        frame: to look at.
        shown: all instances of the frame.
        image: address of the frame's image.
        clips_html: the loop and the context clip.
        prompted: as in ``asked``.
    """
    questions = asked(shown, prompted)
    labels = [question["label"] for question in questions]
    result = [
        mask_region(frame, instance, label, brush.encode(rle.decode(mask.rle)), mask.predicted_iou)
        for label, (instance, mask) in zip(labels, in_reading_order(shown), strict=True)
        if mask is not None
    ]
    guesses = [mask.predicted_iou for _, mask in shown if mask is not None]
    data = {
        "image": image,
        "clips_html": clips_html,
        "instances": _labels(labels, MASK_KEYS),
        "sam_points": _labels(labels, POINT_KEYS),
        "sam_boxes": _labels(labels, BOX_KEYS),
        "asked": questions,
        BESIDE_HTML: "<span></span>",
    }
    score = min((guess for guess in guesses if guess is not None), default=0.0)
    result.append(status("mask_status", ALL_DONE))
    return prefilled_task(frame, data, result, score)


def source_of(mask: Mask) -> MaskSource:
    """Return who drew a mask."""
    return MaskSource(**mask.model_dump(include=set(MaskSource.model_fields)))


def _labels(labels: Sequence[str], keys: Sequence[str]) -> list[dict[str, str]]:
    padded = [*keys, *[NO_KEY] * len(labels)]
    return [
        {"value": label, "hotkey": padded[number], "background": COLOURS[number % len(COLOURS)]}
        for number, label in enumerate(labels)
    ]


def mask_region(
    frame: Frame, instance: Instance, label: str, data: list[int], score: float | None
) -> dict[str, Any]:
    """Make a mask's region; one of the same id takes the place of the one there.

    Args:
        frame: it is in.
        instance: whose pixels they are.
        label: of that instance in the frame's task.
        data: the mask as a brush region.
        score: how good the segmenter thinks it is; none when it does not say.
    """
    value = {"format": "rle", "rle": data, "brushlabels": [label]}
    made = region(instance.instance_id, "mask", "brushlabels", value, frame)
    return made if score is None else {**made, "score": score}


def _decides_all(review: Review, shown: Sequence[Shown]) -> bool:
    """Say whether a review of masks leaves nothing to ask."""
    spoken = {found.instance_id for found in review.instances}
    if review.decision == "labelled":
        return all(instance.instance_id in spoken for instance, _ in shown)
    return review.decision == "rejected"


def read_masks(
    annotation: object,
    frame: Frame,
    questions: Sequence[Question],
    instances: Mapping[str, Instance],
    annotation_id: str,
) -> Review:
    """Read a person's answer about the masks of a frame.

    Args:
        annotation: as the server gives it.
        frame: that was looked at.
        questions: what the task asked.
        instances: all there ever were, by id.
        annotation_id: what the review will say it came from.

    Raises:
        InputError: the answer is incomplete or contradicts itself; the detail says what to mend.
    """
    asked = _by_label(questions, frame, instances)
    answer = read(Answer, annotation, "the answer")
    items = answer.result
    decision = one_status(items, "mask_status", _STATUS)
    found: list[ReviewedInstance] = []
    reasons: list[str] = []
    if decision == "labelled":
        found = _instances(items, frame, asked)
    elif decision == "rejected":
        reasons = all_said(items, "reject_reason")
    else:
        reasons = [" ".join(text.split()) for text in all_said(items, "boxes_note")]
    return review_of(answer, annotation_id, frame, "masks", decision, reasons, found)


def _by_label(
    questions: Sequence[Question], frame: Frame, instances: Mapping[str, Instance]
) -> _Asked:
    asked: _Asked = {}
    for item in questions:
        instance = instances.get(item.instance_id)
        if instance is None or instance.frame_id != frame.frame_id:
            raise InputError(
                "unknown_instance",
                f"{item.label!r} is no instance of this workspace's reviews; {TASK_AGAIN}",
            )
        asked[item.label] = item, instance
    if len(asked) < len(questions):
        raise unreadable(f"the task asks twice about one of {list(asked)}; {TASK_AGAIN}")
    return asked


def overlay_html(masks: Sequence[Rle]) -> str:
    """Write the masks of a frame to lie over its picture, each in its label's colour."""
    # Label Studio takes pictures that lie in the text itself out of it; outlines stay.
    drawn = []
    for number, packed in enumerate(masks):
        height, width = packed.size
        colour = COLOURS[number % len(COLOURS)]
        for outline in rle.to_polygons(packed, _OUTLINE_PX):
            corners = (
                f"{100 * x / width:.1f}% {100 * y / height:.1f}%"
                for x, y in zip(outline[::2], outline[1::2], strict=True)
            )
            style = f"position: absolute; inset: 0; background: {colour}; opacity: {_OPACITY}"
            drawn.append(
                f'<div style="{style}; clip-path: polygon(evenodd, {", ".join(corners)})"></div>'
            )
    return "".join(drawn)


def mask_digest(packed: Rle) -> str:
    """Return the digest of a mask's pixels."""
    return digest_of([packed.size, packed.counts])


def _instances(items: Sequence[Item], frame: Frame, asked: _Asked) -> list[ReviewedInstance]:
    painted: dict[str, rle.Mask] = {}
    for item in items:
        # A region that came from a prompt has a second item under the prompt's name.
        if item.from_name == "mask":
            value = read_region(Brush, "brushlabels", item, frame)
            label, mask = _label_of(item, value, asked), _pixels(item, value, frame)
            painted[label] = painted[label] | mask if label in painted else mask
    return [_reviewed(*question, painted.get(label)) for label, question in asked.items()]


def _reviewed(question: Question, instance: Instance, mask: rle.Mask | None) -> ReviewedInstance:
    if mask is None or not mask.any():
        raise InputError(
            "no_mask",
            f"{question.label!r} has no mask; paint it, or send the frame back to boxes (8)",
        )
    packed = rle.encode(mask)
    kept = question.mask == mask_digest(packed)
    return ReviewedInstance(
        bbox=instance.bbox,
        category=instance.audio_visual_category,
        scenario=instance.scenario,
        origin="added" if question.mask is None else "kept" if kept else "moved",
        proposal_id=instance.proposal_id,
        instance_id=instance.instance_id,
        rle=packed,
        drawn_by=question.drawn_by if kept else None,
    )


def _label_of(item: Item, value: Brush, asked: _Asked) -> str:
    labels = value.brushlabels or []
    if len(labels) != 1:
        raise InputError("no_label", f"{name_region(item)} has {len(labels)} labels; give it one")
    if labels[0] not in asked:
        raise InputError(
            "unknown_label",
            f"{name_region(item)} is {labels[0]!r}, no instance of this frame; choose another",
        )
    return labels[0]


def _pixels(item: Item, value: Brush, frame: Frame) -> rle.Mask:
    if value.degrees:
        raise unreadable(f"{name_region(item)} is rotated; delete it and paint it again")
    try:
        return np.asarray(brush.decode(value.rle, frame.height, frame.width))
    except InputError as error:
        raise InputError(
            error.kind, f"{name_region(item)}: {error.detail}; delete it and paint it again"
        ) from error
