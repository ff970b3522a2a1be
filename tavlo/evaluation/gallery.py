"""A page of what a model does in each scenario: its best, middling and worst frames.

One HTML file with its pictures inside and no script; boxes at the top switch the layers.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.files import write_whole
from pipeline.pictures import encode_image, mask_path
from pipeline.release.scenario_rules import SCENARIOS
from pipeline.templating import environment
from tavlo.evaluation.evaluate import FrameScore, Scores
from tavlo.evaluation.evaluation_set import EvaluationSet, LabelledFrame, Picture
from tavlo.evaluation.overlay import Scale, heat_colors
from tavlo.evaluation.predictions import GRID_HW, Heatmap, Predictions

_EACH = 3
"""The number of best, of middling and of worst frames shown."""
_CHANGING = 4
"""Cross-event videos shown, all their frames."""
_WIDTH = 360
"""Of a picture, pixels."""
_HEAT_WIDTH = 112
"""Of a heatmap; the browser makes it larger."""
_ALPHA = 0.75
"""Opacity of the hottest pixels."""

_MEANINGS = {
    "Single-sound": "one instance emits a clear sound",
    "Mixed-sound": "several sound at once",
    "Multi-entity": "one of several look-alikes emits",
    "Off-screen": "nothing in view sounds: nothing should be outlined",
    "Cross-event": "what sounds changes within the clip; frames in the order of time",
}


def write_gallery(
    data: EvaluationSet, predictions: Predictions, scores: Scores, target: Path
) -> Path:
    """Write the page to ``target``, whole or not at all.

    Raises:
        AvatarBuildError: the release lacks the media of a frame that is shown.
    """
    frames = {frame.frame_id: frame for frame in data.frames}
    chosen = _chosen(scores)
    shown = {found.frame_id for section in chosen.values() for found in section}
    scale = Scale.over(
        predictions.heatmaps([frames[name] for name in sorted(shown)]), scores.threshold
    )
    sections = [
        {
            "name": name,
            "meaning": _MEANINGS[name],
            "cells": scores.rows[name],
            "views": [
                _view(data, frames[one.frame_id], one, name, predictions, scores, scale)
                for one in found
            ],
        }
        for name, found in chosen.items()
    ]
    page = (
        environment("tavlo")
        .get_template("gallery.html.j2")
        .render(scores=scores, sections=sections, grid=GRID_HW, frames=len(scores.per_frame))
    )
    write_whole(target, page)
    return target


def _chosen(scores: Scores) -> dict[str, list[FrameScore]]:
    """Choose the frames that are shown of each row of the table."""
    chosen: dict[str, list[FrameScore]] = {}
    for name in (*SCENARIOS, "Off-screen"):
        found = [frame for frame in scores.per_frame if name in frame.values]
        # The id decides between equals, so that the page is the same every time.
        ordered = sorted(found, key=lambda frame: (-frame.values[name], frame.frame_id))
        if ordered:
            chosen[name] = best_middle_worst(ordered, _EACH)
    changing = [frame for frame in scores.per_frame if "Cross-event" in frame.values]
    videos = sorted({frame.video_id for frame in changing})
    some = {videos[round(place)] for place in np.linspace(0, len(videos) - 1, _CHANGING) if videos}
    if some:
        # Its off-screen frames count in no cIoU, but tell what changes.
        chosen["Cross-event"] = [frame for frame in scores.per_frame if frame.video_id in some]
    return chosen


def best_middle_worst(ordered: Sequence[FrameScore], each: int) -> list[FrameScore]:
    """Return the first, middle and last ones, each once, still in order."""
    middle = max(0, (len(ordered) - each) // 2)
    places = [*range(each), *range(middle, middle + each), *range(-each, 0)]
    wanted = {place % len(ordered) for place in places if -len(ordered) <= place < len(ordered)}
    return [ordered[place] for place in sorted(wanted)]


def _view(
    data: EvaluationSet,
    frame: LabelledFrame,
    found: FrameScore,
    section: str,
    predictions: Predictions,
    scores: Scores,
    scale: Scale,
) -> dict[str, Any]:
    """Return a picture with its layers and caption, for the template."""
    heatmap = predictions.heatmap(frame.clip_id, frame.frame_index)
    row = section if section in found.values else next(iter(found.values))
    scenario = section if section in SCENARIOS else None
    truth = frame.truth(GRID_HW, scores.truth, scenario) if frame.instances else None
    return {
        "frame": frame,
        "jpeg": _jpeg(data.picture(frame)),
        "heat": _heat(heatmap, scale),
        # Outlines are SVG paths on the grid of heatmaps.
        "predicted": mask_path(heatmap >= scores.threshold),
        "truth": mask_path(truth) if truth is not None else "",
        "score": 100 * found.values[row],
        "metric": "TN" if row == "Off-screen" else "cIoU",
        "categories": sorted({instance.category for instance in frame.instances}),
    }


def _jpeg(image: Picture) -> str:
    height, width = image.shape[:2]
    size = (_WIDTH, max(1, round(height * _WIDTH / width)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return _base64(encode_image(np.asarray(small, np.uint8), "jpg", 80))


def _heat(heatmap: Heatmap, scale: Scale) -> str:
    """Return a PNG whose opacity grows with the heat."""
    size = (_HEAT_WIDTH, _HEAT_WIDTH)
    small = cv2.resize(scale.heat(heatmap), size, interpolation=cv2.INTER_AREA)
    heat = np.asarray(small, np.float32)
    opacity = (255 * _ALPHA * heat).astype(np.uint8)
    done, data = cv2.imencode(".png", np.dstack([heat_colors(heat)[..., ::-1], opacity]))
    assert done
    return _base64(data.tobytes())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
