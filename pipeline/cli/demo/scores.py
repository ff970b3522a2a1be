"""Score a run against the demo's ground truth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from pipeline.records import rle
from pipeline.records.boxes import iou_matrix
from pipeline.records.schema import Frame, Instance, Mask, Proposal
from pipeline.synthetic.truth import Truth, sounding, truth_box, truth_mask


def proposal_recall(
    truth: Truth, frames: Iterable[Frame], proposals: Iterable[Proposal], min_iou: float = 0.5
) -> tuple[int, int]:
    """Count the sounding objects in view that have an audible proposal.

    Args:
        truth: the world's truth.
        frames: every chosen frame; each of its sounding objects is one to find.
        proposals: boxes of those frames; inaudible ones do not count.
        min_iou: least overlap of a proposal's box with the object's.

    Returns:
        How many were found, and how many there are to find.
    """
    boxes: dict[str, list[Sequence[float]]] = {}
    for proposal in proposals:
        if proposal.audible:
            boxes.setdefault(proposal.frame_id, []).append(proposal.bbox)
    found = total = 0
    for frame in frames:
        wanted = list(_sounding_boxes(truth, frame).values())
        total += len(wanted)
        overlaps = iou_matrix(wanted, boxes.get(frame.frame_id, []))
        found += int((overlaps >= min_iou).any(axis=1).sum())
    return found, total


def mask_ious(
    truth: Truth, frames: Iterable[Frame], instances: Iterable[Instance], masks: Iterable[Mask]
) -> dict[str, float]:
    """Compare each mask with the silhouette of the sounding object its instance's box fits best.

    Returns:
        ``instance_id`` to intersection over union, in [0, 1]; 0 when the box meets no sounding
        object.
    """
    frame_of = {frame.frame_id: frame for frame in frames}
    instance_of = {instance.instance_id: instance for instance in instances}
    scores = {}
    for mask in masks:
        frame = frame_of[mask.frame_id]
        boxes = _sounding_boxes(truth, frame)
        overlaps = iou_matrix([instance_of[mask.instance_id].bbox], list(boxes.values()))[0]
        if not overlaps.any():
            scores[mask.instance_id] = 0.0
            continue
        name = list(boxes)[int(overlaps.argmax())]
        seen, drawn = truth_mask(truth, frame.video_id, name, frame.time_s), rle.decode(mask.rle)
        both, either = np.count_nonzero(seen & drawn), np.count_nonzero(seen | drawn)
        scores[mask.instance_id] = both / either
    return scores


def _sounding_boxes(truth: Truth, frame: Frame) -> dict[str, Sequence[float]]:
    """Name to box of each object that a frame was chosen for and that can be seen in it.

    The event decides what sounds: the sharpest frame may lie up to 0.1 s before the first stroke.
    """
    names = sounding(truth, frame.video_id, frame.event_time_s)
    found = {name: truth_box(truth, frame.video_id, name, frame.time_s) for name in names}
    return {name: box for name, box in found.items() if box is not None}
