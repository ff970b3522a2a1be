"""The authors' own layout: one JSON per labelled frame, beside its image.

Keys as third-party loaders of the official files read them: ``original_width``,
``original_height`` and ``annotations`` with ``task``, ``bbox``, ``segmentation`` (flat polygons in
pixels) and ``audio_visual_category``. An off-screen frame has one annotation, without geometry,
whose task is ``Off-Screen``. Where no person decided, ours add ``verified: false``. The spelling of
the other tasks is not published; ours are the paper's scenario names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pipeline.records import rle
from pipeline.release.document import Document, ImageRow
from pipeline.release.layout import frame_json


def frame_files(document: Document) -> Iterator[tuple[str, bytes]]:
    """Yield each frame's JSON: its path in the release and its bytes."""
    rows = document.by_image()
    tolerance_px = document.info.polygon_tolerance_px
    for image in document.images:
        annotations: list[dict[str, Any]] = [
            {
                "task": row.scenario,
                "bbox": row.bbox,
                "segmentation": rle.to_polygons(row.segmentation, tolerance_px),
                "audio_visual_category": row.audio_visual_category,
                **({} if row.verified else {"verified": False}),
            }
            for row in rows.get(image.id, [])
        ]
        if image.off_screen:
            annotations.append(off_screen_annotation(image))
        content = {
            "original_width": image.width,
            "original_height": image.height,
            "annotations": annotations,
        }
        yield frame_json(image.file_name), (json.dumps(content, ensure_ascii=False) + "\n").encode()


def off_screen_annotation(image: ImageRow) -> dict[str, Any]:
    """Return the one annotation of an off-screen frame."""
    return {
        "task": "Off-Screen",
        "audio_visual_category": image.off_screen_category or "",
        **({} if image.verified else {"verified": False}),
    }
