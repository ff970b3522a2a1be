"""Instances and their masks as Label Studio tasks.

Each instance has a label of its own, so that a stroke says whose pixels it paints, and its region
has the instance's id. What a task asks is kept in it: a person's answer is read against what that
person was shown, whatever the tables say by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from labeling.label_studio import brush
from labeling.projects.box_tasks import COLOURS, NO_KEY, PREDICTED, status
from pipeline.records.schema import Frame, Instance, Mask, MaskSource, Rle, digest_of

MASK_KEYS = ("1", "2", "3", "4", "5", "6")
POINT_KEYS = ("a", "s", "f", "g", "t", "y")
BOX_KEYS = ("z", "x", "c", "n", "i", "o")
"""Keys of the first instances: to paint, to prompt with points, to prompt with a box. None of them
is a tool's or the status's."""

Shown = tuple[Instance, Mask | None]
"""An instance, and its mask if a segmenter found one."""


def in_reading_order(shown: Sequence[Shown]) -> list[Shown]:
    """Left to right, as a person counts them."""
    return sorted(shown, key=lambda pair: (*pair[0].bbox[:2], pair[0].instance_id))


def asked(shown: Sequence[Shown]) -> list[dict[str, Any]]:
    """What a task asks: each label's instance, and the mask it came with."""
    return [
        {
            "label": f"{number} {instance.audio_visual_category}",
            "instance_id": instance.instance_id,
            "mask": None if mask is None else mask_digest(mask.rle),
            "drawn_by": None if mask is None else source_of(mask).model_dump(),
        }
        for number, (instance, mask) in enumerate(in_reading_order(shown), start=1)
    ]


def mask_task(frame: Frame, shown: Sequence[Shown], image: str, clips_html: str) -> dict[str, Any]:
    """One frame whose masks are to be verified, the masks as a prediction.

    Args:
        frame: to look at.
        shown: all instances of the frame.
        image: address of the frame's image.
        clips_html: the loop and the context clip.
    """
    questions = asked(shown)
    labels = [question["label"] for question in questions]
    result = [
        region(frame, instance, label, brush.from_coco(mask.rle), mask.predicted_iou)
        for label, (instance, mask) in zip(labels, in_reading_order(shown), strict=True)
        if mask is not None
    ]
    guesses = [mask.predicted_iou for _, mask in shown if mask is not None]
    prediction = {
        "model_version": PREDICTED,
        "score": min((guess for guess in guesses if guess is not None), default=0.0),
        "result": [*result, status("mask_status", "Masks done")],
    }
    return {
        "data": {
            "frame_id": frame.frame_id,
            "image": image,
            "clips_html": clips_html,
            "instances": _labels(labels, MASK_KEYS),
            "sam_points": _labels(labels, POINT_KEYS),
            "sam_boxes": _labels(labels, BOX_KEYS),
            "asked": questions,
        },
        "predictions": [prediction],
    }


def mask_digest(packed: Rle) -> str:
    """Names a mask's pixels."""
    return digest_of([packed.size, packed.counts])


def source_of(mask: Mask) -> MaskSource:
    """Who drew a mask."""
    return MaskSource(
        source=mask.source,
        model_digest=mask.model_digest,
        predicted_iou=mask.predicted_iou,
        stability=mask.stability,
    )


def _labels(labels: Sequence[str], keys: Sequence[str]) -> list[dict[str, str]]:
    padded = [*keys, *[NO_KEY] * len(labels)]
    return [
        {"value": label, "hotkey": padded[number], "background": COLOURS[number % len(COLOURS)]}
        for number, label in enumerate(labels)
    ]


def region(
    frame: Frame, instance: Instance, label: str, data: list[int], score: float | None
) -> dict[str, Any]:
    """A mask as Label Studio has it; one of the same id takes the place of the one there.

    Args:
        frame: it is in.
        instance: whose pixels they are.
        label: of that instance in the frame's task.
        data: the mask as a brush region.
        score: how good the segmenter thinks it is; none when it does not say.
    """
    made: dict[str, Any] = {
        "id": instance.instance_id,
        "from_name": "mask",
        "to_name": "frame",
        "type": "brushlabels",
        "original_width": frame.width,
        "original_height": frame.height,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": data, "brushlabels": [label]},
    }
    return made if score is None else {**made, "score": score}
