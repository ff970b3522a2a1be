"""Read people's answers about masks as reviews.

A label's regions together are its instance's mask, whichever way they were painted. Prompts of
points and boxes come along with the answer; what they led to is in the regions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from labeling.label_studio import brush
from labeling.label_studio.shapes import (
    Answer,
    Brush,
    Item,
    name_region,
    read,
    read_region,
    unreadable,
)
from labeling.projects.box_results import all_said, one_status, review_of
from pipeline.errors import InputError
from pipeline.records import rle
from pipeline.records.rle import Mask
from pipeline.records.schema import (
    Decision,
    Frame,
    Instance,
    MaskSource,
    Review,
    ReviewedInstance,
    Rle,
    digest_of,
)

_STATUS: dict[str, Decision] = {
    "Masks done": "labelled",
    "Back to boxes": "back_to_boxes",
    "Reject": "rejected",
}


@dataclass(frozen=True)
class Asked:
    """The instance and the mask that one label of a task stands for."""

    instance: Instance
    mask: str | None
    """The digest of the mask that was shown; none when there was none."""
    drawn_by: MaskSource | None
    """The source of that mask."""


def read_masks(
    annotation: object, frame: Frame, asked: Mapping[str, Asked], annotation_id: str
) -> Review:
    """Read a person's answer about the masks of a frame.

    Args:
        annotation: as the server gives it.
        frame: that was looked at.
        asked: what the task asked, by label.
        annotation_id: what the review will say it came from.

    Raises:
        InputError: the answer is incomplete or contradicts itself; the detail says what to mend.
    """
    answer = read(Answer, annotation, "the answer")
    items = answer.result
    decision = one_status(items, "mask_status", _STATUS)
    instances: list[ReviewedInstance] = []
    reasons: list[str] = []
    if decision == "labelled":
        instances = _instances(items, frame, asked)
    elif decision == "rejected":
        reasons = all_said(items, "reject_reason")
    else:
        reasons = [" ".join(text.split()) for text in all_said(items, "boxes_note")]
    return review_of(answer, annotation_id, frame, "masks", decision, reasons, instances)


def mask_digest(packed: Rle) -> str:
    """Return the digest of a mask's pixels."""
    return digest_of([packed.size, packed.counts])


def _instances(
    items: Sequence[Item], frame: Frame, asked: Mapping[str, Asked]
) -> list[ReviewedInstance]:
    painted: dict[str, Mask] = {}
    for item in items:
        # A region that came from a prompt has a second item under the prompt's name.
        if item.from_name == "mask":
            value = read_region(Brush, "brushlabels", item, frame)
            label, mask = _label(item, value, asked), _pixels(item, value, frame)
            painted[label] = painted[label] | mask if label in painted else mask
    return [_reviewed(label, found, painted.get(label)) for label, found in asked.items()]


def _reviewed(label: str, found: Asked, mask: Mask | None) -> ReviewedInstance:
    if mask is None or not mask.any():
        raise InputError(
            "no_mask",
            f"{label!r} has no mask; paint it, or send the frame back to boxes (8)",
        )
    packed = rle.encode(mask)
    kept = found.mask == mask_digest(packed)
    instance = found.instance
    return ReviewedInstance(
        bbox=instance.bbox,
        category=instance.audio_visual_category,
        scenario=instance.scenario,
        origin="added" if found.mask is None else "kept" if kept else "moved",
        proposal_id=instance.proposal_id,
        instance_id=instance.instance_id,
        rle=packed,
        drawn_by=found.drawn_by if kept else None,
    )


def _label(item: Item, value: Brush, asked: Mapping[str, Asked]) -> str:
    labels = value.brushlabels or []
    if len(labels) != 1:
        raise InputError("no_label", f"{name_region(item)} has {len(labels)} labels; give it one")
    if labels[0] not in asked:
        raise InputError(
            "unknown_label",
            f"{name_region(item)} is {labels[0]!r}, no instance of this frame; choose another",
        )
    return labels[0]


def _pixels(item: Item, value: Brush, frame: Frame) -> Mask:
    if value.degrees:
        raise unreadable(f"{name_region(item)} is rotated; delete it and paint it again")
    try:
        return np.asarray(brush.decode(value.rle, frame.height, frame.width))
    except InputError as error:
        raise InputError(
            error.kind, f"{name_region(item)}: {error.detail}; delete it and paint it again"
        ) from error
