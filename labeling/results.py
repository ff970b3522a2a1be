"""What people answered at Label Studio, as reviews.

The server checks nothing, so an answer is checked here. One that contradicts itself is no review:
it is a failure that says what to mend, and the person mends it where it is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, get_args

from pipeline.errors import InputError
from pipeline.geometry import clip, iou
from pipeline.reviews import Kind
from pipeline.schema import (
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
"""What annotators read where we write a decision."""

_SAME_PX = 0.1
"""Edges that differ less were not moved: the way through percentages costs far less."""

SECOND = "~"
"""Follows the proposal's id in the id of a region that stands beside another of that proposal."""


def read_boxes(
    annotation: Mapping[str, Any],
    frame: Frame,
    proposals: Sequence[Proposal],
    vocabulary: Collection[str],
    annotation_id: str,
) -> Review:
    """A person's answer about the boxes of a frame.

    Args:
        annotation: as the server gives it.
        frame: that was looked at.
        proposals: of the frame.
        vocabulary: the labels that exist; other categories come as text of a box labelled Other.
        annotation_id: what the review will say it came from.

    Raises:
        InputError: the answer is incomplete or contradicts itself; the detail says what to mend.
    """
    items = annotation["result"]
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
        reasons = all_said(items, "reject_reason", "choices")
    return review_of(
        annotation, annotation_id, frame, "boxes", decision, reasons, instances, off_screen
    )


def review_of(
    annotation: Mapping[str, Any],
    annotation_id: str,
    frame: Frame,
    kind: Kind,
    decision: Decision,
    reasons: list[str],
    instances: list[ReviewedInstance],
    off_screen: str | None = None,
) -> Review:
    """What a person decided about a frame, with who it was, when, and how long it took."""
    who = annotation.get("completed_by")
    updated_at = utc(annotation["updated_at"])
    return Review(
        review_id=content_id("r", annotation_id, updated_at),
        frame_id=frame.frame_id,
        kind=kind,
        annotator=str(who["id"] if isinstance(who, dict) else who),
        annotation_id=annotation_id,
        updated_at=updated_at,
        lead_time_s=annotation.get("lead_time"),
        decision=decision,
        reject_reasons=reasons,
        off_screen_category=off_screen,
        instances=instances,
        verified=True,
    )


def withdrawn(review: Review, at: str, reason: str) -> Review:
    """The row that takes back a review whose annotation was deleted or skipped.

    Args:
        review: the newest of that annotation.
        at: when, ISO 8601; later than the review.
        reason: ``DELETED`` or ``SKIPPED`` of ``pipeline.reviews``.
    """
    return Review(
        review_id=content_id("r", review.annotation_id, at, reason),
        frame_id=review.frame_id,
        kind=review.kind,
        annotator=review.annotator,
        annotation_id=review.annotation_id,
        updated_at=at,
        lead_time_s=None,
        decision="back_to_boxes",
        reject_reasons=[reason],
        off_screen_category=None,
        instances=[],
        verified=True,
        purpose=review.purpose,
    )


def moved_iou(instance: ReviewedInstance, proposals: Mapping[str, Proposal]) -> float | None:
    """How much of its proposal a box kept, IoU in [0, 1]; none when a person drew it."""
    if instance.proposal_iou is not None:
        return instance.proposal_iou
    proposal = proposals.get(instance.proposal_id or "")
    return None if proposal is None else iou(proposal.bbox, instance.bbox)


def one_status(
    items: Sequence[Mapping[str, Any]], control: str, known: Mapping[str, Decision]
) -> Decision:
    """The decision about the frame as a whole.

    Raises:
        InputError: ``no_status`` when there is none, or more than one.
    """
    said = all_said(items, control, "choices")
    if len(said) != 1 or said[0] not in known:
        raise InputError("no_status", f"its status is {said or 'missing'}; set 7, 8 or 9")
    return known[said[0]]


def all_said(
    items: Sequence[Mapping[str, Any]], name: str, key: str, region: str | None = None
) -> list[str]:
    """Everything said with one control, of one region or of the whole frame."""
    said: list[str] = []
    for item in items:
        if item.get("from_name") == name and region in (None, item.get("id")):
            value = item["value"].get(key) or []
            said += [value] if isinstance(value, str) else [str(part) for part in value]
    return said


def utc(text: str) -> str:
    """A time as all reviews write it, so that times sort as text.

    >>> utc("2026-11-21T01:02:03.5Z")
    '2026-11-21T01:02:03.500000+00:00'
    """
    return datetime.fromisoformat(text).astimezone(UTC).isoformat(timespec="microseconds")


def _instances(
    items: Sequence[Mapping[str, Any]],
    frame: Frame,
    proposals: Sequence[Proposal],
    vocabulary: Collection[str],
) -> list[ReviewedInstance]:
    known = {proposal.proposal_id: proposal for proposal in proposals}
    found = []
    for item in _boxes(items):
        proposal = known.get(str(item["id"]).partition(SECOND)[0])
        bbox = _bbox(item, frame)
        origin = "added"
        if proposal is not None:
            was = clip(proposal.bbox, frame.width, frame.height) or proposal.bbox
            kept = all(abs(a - b) < _SAME_PX for a, b in zip(was, bbox, strict=True))
            origin, bbox = ("kept", proposal.bbox) if kept else ("moved", bbox)
        found.append(
            ReviewedInstance.model_validate(
                {
                    "bbox": bbox,
                    "category": _category(item, items, vocabulary),
                    "scenario": _scenario(item, items),
                    "origin": origin,
                    "proposal_id": None if proposal is None else proposal.proposal_id,
                    "proposal_iou": None if proposal is None else iou(proposal.bbox, bbox),
                }
            )
        )
    return found


def _boxes(items: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [item for item in items if item.get("from_name") == "category"]


def _bbox(item: Mapping[str, Any], frame: Frame) -> list[float]:
    size = item.get("original_width"), item.get("original_height")
    if size != (frame.width, frame.height):
        raise InputError(
            "other_size",
            f"its picture was {size[0]}x{size[1]}, the frame is {frame.width}x{frame.height};"
            " delete the annotation and do it again",
        )
    value = item["value"]
    if value.get("rotation"):
        raise InputError("rotated_box", f"box {item['id']} is rotated; draw it upright")
    x, y, w, h = (float(value[key]) for key in ("x", "y", "width", "height"))
    pixels = [x / 100 * frame.width, y / 100 * frame.height]
    pixels += [w / 100 * frame.width, h / 100 * frame.height]
    inside = clip(pixels, frame.width, frame.height)
    if inside is None:
        raise InputError("zero_area", f"box {item['id']} covers no pixel; delete or draw it again")
    return [round(value, 3) for value in inside]


def _category(
    box: Mapping[str, Any], items: Sequence[Mapping[str, Any]], vocabulary: Collection[str]
) -> str:
    labels = box["value"].get("rectanglelabels") or []
    if len(labels) != 1:
        raise InputError(
            "no_category", f"box {box['id']} has {len(labels)} categories; give it one"
        )
    if labels[0] == OTHER:
        texts = all_said(items, "category_text", "text", box["id"])
        text = " ".join(" ".join(texts).split())
        if not text:
            raise InputError("no_category", f"box {box['id']} is Other without a text; type one")
        return text
    if labels[0] not in vocabulary:
        raise InputError(
            "unknown_category",
            f"box {box['id']} is {labels[0]!r}, which is no target category; choose another,"
            " or take Other and type it",
        )
    return str(labels[0])


def _scenario(box: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> str:
    said = all_said(items, "scenario", "choices", box["id"])
    if len(said) != 1 or said[0] not in get_args(Scenario):
        raise InputError(
            "no_scenario", f"box {box['id']} has the scenario {said or 'none'}; set q, w or e"
        )
    return said[0]


def _refuse_drawn(items: Sequence[Mapping[str, Any]]) -> None:
    # Untouched proposals were only left lying; a box somebody made says the source is visible.
    if any(item.get("origin") != "prediction" for item in _boxes(items)):
        raise InputError(
            "box_off_screen", "it is Off-screen and has a box drawn or changed; delete one of both"
        )


def _off_screen_category(items: Sequence[Mapping[str, Any]], vocabulary: Collection[str]) -> str:
    text = " ".join(" ".join(all_said(items, "off_screen_text", "text")).split())
    said = all_said(items, "off_screen_category", "choices")
    if text:
        return text
    if len(said) != 1:
        raise InputError("no_category", "it is Off-screen without a category; choose or type it")
    if said[0] not in vocabulary:
        raise InputError("unknown_category", f"{said[0]!r} is no target category; type it instead")
    return said[0]
