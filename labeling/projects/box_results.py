"""Read people's answers about boxes as reviews.

The server checks nothing, so an answer is checked here. One that contradicts itself is no review:
it is a failure that says what to mend, and the person mends it where it is.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import get_args

from labeling.label_studio.shapes import (
    SAME_PX,
    Answer,
    Item,
    Rectangle,
    Said,
    name_region,
    read,
    read_region,
    unreadable,
)
from labeling.projects.labeling_config import AS_BEFORE, ONWARD
from pipeline.errors import InputError
from pipeline.records.boxes import clip, iou
from pipeline.records.reviews import Kind
from pipeline.records.schema import (
    Decision,
    Frame,
    Proposal,
    Review,
    ReviewedInstance,
    Scenario,
    content_id,
)

OTHER = "Other"
"""The label whose category stands in the text beside it."""

_STATUS: dict[str, Decision] = {
    "Visible": "labelled",
    "Off-screen": "off_screen",
    "Reject": "rejected",
}

STATUS_NAMES = {decision: name for name, decision in _STATUS.items()}
"""The words annotators read where we write a decision."""

_FAR = -100.0, 200.0
"""The bounds of a box in percent. A hand reaches over an edge, not a whole picture further."""

_DIGITS = 3
"""Decimals of a pixel that are kept; what rounds to no width is no box."""

SECOND = "~"
"""A mark after the proposal's id, in the id of a region beside another of that proposal."""


def read_boxes(
    annotation: object,
    frame: Frame,
    proposals: Sequence[Proposal],
    vocabulary: Collection[str],
    annotation_id: str,
) -> Review:
    """Read a person's answer about the boxes of a frame.

    Args:
        annotation: as the server gives it.
        frame: that was looked at.
        proposals: of the frame.
        vocabulary: the labels that exist; other categories come as text of a box labelled Other.
        annotation_id: what the review will say it came from.

    Raises:
        InputError: the answer is incomplete or contradicts itself; the detail says what to mend.
    """
    answer = read(Answer, annotation, "the answer")
    items = answer.result
    decision = one_status(items, "status", _STATUS)
    instances: list[ReviewedInstance] = []
    reasons: list[str] = []
    off_screen = None
    if decision == "labelled":
        instances = _instances(items, frame, proposals, vocabulary)
        if not instances:
            raise InputError("no_box", "it is Visible and has no box; draw one, or change that")
    elif decision == "off_screen":
        _refuse_drawn(items)
        off_screen = _off_screen_category(items, vocabulary)
    else:
        reasons = all_said(items, "reject_reason")
    return review_of(
        answer, annotation_id, frame, "boxes", decision, reasons, instances, off_screen
    )


def review_of(
    answer: Answer,
    annotation_id: str,
    frame: Frame,
    kind: Kind,
    decision: Decision,
    reasons: list[str],
    instances: list[ReviewedInstance],
    off_screen: str | None = None,
) -> Review:
    """Make the review of a person's answer, with who it was, when, and how long it took."""
    return Review(
        review_id=content_id("r", annotation_id, answer.updated_at),
        frame_id=frame.frame_id,
        kind=kind,
        annotator=answer.completed_by,
        annotation_id=annotation_id,
        updated_at=answer.updated_at,
        lead_time_s=answer.lead_time,
        decision=decision,
        reject_reasons=reasons,
        off_screen_category=off_screen,
        instances=instances,
        verified=True,
    )


def withdrawn(review: Review, at: str, reason: str) -> Review:
    """Make the row that takes back a review whose annotation was deleted or skipped.

    Args:
        review: the newest of that annotation.
        at: when, ISO 8601; later than the review.
        reason: ``DELETED`` or ``SKIPPED`` of ``pipeline.records.reviews``.
    """
    changes = {
        "review_id": content_id("r", review.annotation_id, at, reason),
        "updated_at": at,
        "lead_time_s": None,
        "decision": "back_to_boxes",
        "reject_reasons": [reason],
        "off_screen_category": None,
        "instances": [],
        "shown": None,
    }
    return review.model_copy(update=changes)


def one_status(items: Sequence[Item], control: str, known: Mapping[str, Decision]) -> Decision:
    """Read the decision about the frame as a whole.

    Raises:
        InputError: ``no_status`` when there is none, or more than one.
    """
    said = all_said(items, control)
    if said == [AS_BEFORE]:
        raise InputError(
            "no_status", "it is as before, and nothing said before holds for it; set 7, 8 or 9"
        )
    if len(said) != 1 or said[0] not in known:
        raise InputError("no_status", f"its status is {said or 'missing'}; set 7, 8 or 9")
    return known[said[0]]


def all_said(items: Sequence[Item], name: str, region_id: str | None = None) -> list[str]:
    """Return all that was chosen or typed with one control, of one region or the whole frame."""
    said: list[str] = []
    for item in items:
        if item.from_name == name and region_id in (None, item.id):
            value = read(Said, item.value, f"what {name!r} holds")
            for words in (value.choices, value.text):
                said += [words] if isinstance(words, str) else words or []
    return said


def _instances(
    items: Sequence[Item],
    frame: Frame,
    proposals: Sequence[Proposal],
    vocabulary: Collection[str],
) -> list[ReviewedInstance]:
    known = {proposal.proposal_id: proposal for proposal in proposals}
    found = []
    for name, (item, value) in _by_region(items, frame).items():
        if mark := all_said(items, ONWARD, name):
            raise InputError(
                "nothing_follows",
                f"box {name!a} is marked {mark[0]!r}, and no box of a later picture follows it;"
                " take the mark off and change each picture",
            )
        proposal = known.get(name.partition(SECOND)[0])
        bbox = _bbox(value, name_region(item), frame)
        origin = "added"
        if proposal is not None:
            was = _shown(proposal, frame)
            kept = all(abs(a - b) < SAME_PX for a, b in zip(was, bbox, strict=True))
            origin, bbox = ("kept", was) if kept else ("moved", bbox)
        found.append(
            ReviewedInstance.model_validate(
                {
                    "bbox": bbox,
                    "category": _category(name, value, items, vocabulary),
                    "scenario": _scenario(name, items),
                    "origin": origin,
                    "proposal_id": None if proposal is None else proposal.proposal_id,
                    "proposal_iou": None if proposal is None else iou(proposal.bbox, bbox),
                    "track_id": None if proposal is None else proposal.track_id,
                }
            )
        )
    return found


def _boxes(items: Sequence[Item]) -> list[Item]:
    return [item for item in items if item.from_name == "category"]


def _by_region(items: Sequence[Item], frame: Frame) -> dict[str, tuple[Item, Rectangle]]:
    """Return the boxes by region; one that stands there twice is one if nothing differs."""
    found: dict[str, tuple[Item, Rectangle]] = {}
    for item in _boxes(items):
        if item.id is None:
            raise unreadable("a box has no id, so nobody knows what was said of it; delete it")
        value = read_region(Rectangle, "rectanglelabels", item, frame)
        if found.setdefault(item.id, (item, value)) != (item, value):
            raise unreadable(
                f"{name_region(item)} is there twice, not alike; delete both, draw one"
            )
    return found


def _shown(proposal: Proposal, frame: Frame) -> list[float]:
    """Return a proposal as people saw it: the part of it inside the frame."""
    x, y, w, h = proposal.bbox
    if min(x, y) >= 0 and x + w <= frame.width and y + h <= frame.height:
        return proposal.bbox
    return clip(proposal.bbox, frame.width, frame.height) or proposal.bbox


def _bbox(value: Rectangle, where: str, frame: Frame) -> list[float]:
    """Return the box a person saw, ``[x, y, w, h]`` in pixels inside the frame."""
    # A box drawn from its far corner has sizes below zero; it is the same box.
    left, right = sorted((value.x, value.x + value.width))
    top, bottom = sorted((value.y, value.y + value.height))
    if min(left, top) < _FAR[0] or max(right, bottom) > _FAR[1]:
        raise unreadable(
            f"{where} reaches from {left:g}, {top:g} to {right:g}, {bottom:g} percent of its"
            " picture; delete it and draw it again"
        )
    x, w = left / 100 * frame.width, (right - left) / 100 * frame.width
    y, h = top / 100 * frame.height, (bottom - top) / 100 * frame.height
    if 2 * math.hypot(w, h) * abs(math.sin(math.radians(value.degrees) / 2)) >= SAME_PX:
        raise InputError("rotated_box", f"{where} is rotated; draw it upright")
    inside = clip([x, y, w, h], frame.width, frame.height) or [0.0] * 4
    x, y, w, h = (round(side, _DIGITS) for side in inside)
    # Each is rounded for itself, and the sum may end behind the edge.
    w, h = round(min(w, frame.width - x), _DIGITS), round(min(h, frame.height - y), _DIGITS)
    if min(w, h) <= 0:
        raise InputError("zero_area", f"{where} covers no pixel; delete or draw it again")
    return [x, y, w, h]


def _category(
    name: str, value: Rectangle, items: Sequence[Item], vocabulary: Collection[str]
) -> str:
    labels = value.rectanglelabels or []
    if len(labels) != 1:
        raise InputError("no_category", f"box {name!a} has {len(labels)} categories; give it one")
    if labels[0] == OTHER:
        text = " ".join(" ".join(all_said(items, "category_text", name)).split())
        if not text:
            raise InputError("no_category", f"box {name!a} is Other without a text; type one")
        return text
    if labels[0] not in vocabulary:
        raise InputError(
            "unknown_category",
            f"box {name!a} is {labels[0]!r}, which is no target category; choose another,"
            " or take Other and type it",
        )
    return labels[0]


def _scenario(name: str, items: Sequence[Item]) -> str:
    said = all_said(items, "scenario", name)
    if len(said) != 1 or said[0] not in get_args(Scenario):
        raise InputError(
            "no_scenario", f"box {name!a} has the scenario {said or 'none'}; set q, w or e"
        )
    return said[0]


def _refuse_drawn(items: Sequence[Item]) -> None:
    # Untouched proposals were only left lying; a box somebody made says the source is visible.
    if any(item.origin != "prediction" for item in _boxes(items)):
        raise InputError(
            "box_off_screen", "it is Off-screen and has a box drawn or changed; delete one of both"
        )


def _off_screen_category(items: Sequence[Item], vocabulary: Collection[str]) -> str:
    text = " ".join(" ".join(all_said(items, "off_screen_text")).split())
    said = all_said(items, "off_screen_category")
    if text:
        return text
    if len(said) != 1:
        raise InputError("no_category", "it is Off-screen without a category; choose or type it")
    if said[0] not in vocabulary:
        raise InputError("unknown_category", f"{said[0]!r} is no target category; type it instead")
    return said[0]
