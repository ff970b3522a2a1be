"""A drawn release with media, small enough for every test."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from pipeline.records import rle
from pipeline.release.document import (
    AnnotationRow,
    Document,
    ImageRow,
    Info,
    VideoRow,
    write_document,
)
from tavlo.evaluation.evaluation_set import read_release
from tavlo.evaluation.predictions import Predictions
from tests.video_factory import bursts, make_video, scene

SIZE_HW = (72, 96)

Instances = list[tuple[str, str, tuple[int, int, int, int]]] | None
FRAMES: list[tuple[str, int, Instances]] = [
    ("video000001", 3, [("Single-sound", "dog", (8, 8, 40, 40))]),
    ("video000001", 40, [("Single-sound", "cat", (46, 16, 44, 40))]),
    ("video000002", 5, [("Multi-entity", "dog", (4, 4, 36, 36))]),
    (
        "video000002",
        30,
        [("Mixed-sound", "dog", (4, 4, 36, 36)), ("Mixed-sound", "bell", (56, 20, 34, 40))],
    ),
    ("video000003", 7, None),
    ("video000003", 45, [("Multi-entity", "car", (30, 20, 40, 32))]),
]
"""Video, frame index, instances; none: off screen."""


def ellipse(x: int, y: int, w: int, h: int) -> np.ndarray:
    """A filled ellipse in its box."""
    mask = np.zeros(SIZE_HW, np.uint8)
    cv2.ellipse(mask, (x + w // 2, y + h // 2), (w // 2, h // 2), 0, 0, 360, (1,), -1)
    return mask.astype(bool)


def make_release(folder: Path, *, clips: bool = True, images: bool = True) -> Path:
    """What evaluation reads of a release: the document, the subset, clips and images."""
    rows: list[ImageRow] = []
    annotations: list[AnnotationRow] = []
    for number, (video, index, instances) in enumerate(FRAMES, start=1):
        clip = f"{video}_00000000"
        rows.append(
            ImageRow.of(
                id=number,
                video_id=video,
                clip_id=clip,
                frame_id=f"{clip}_{index:04d}",
                frame_index=index,
                time_s=20 + index / 25,
                clip_start_s=20.0,
                clip_end_s=22.0,
                height=SIZE_HW[0],
                width=SIZE_HW[1],
                off_screen=instances is None,
                file_name=f"metadata/{video}_00020/{index:05d}.png",
                clip_file=f"video/{video}_00020.mp4",
            )
        )
        for scenario, category, box in instances or []:
            thing = AnnotationRow.in_image(
                rows[-1],
                rle.encode(ellipse(*box)),
                id=len(annotations) + 1,
                scenario=scenario,
                audio_visual_category=category,
                bbox=list(map(float, box)),
                annotated_bbox=list(map(float, box)),
            )
            annotations.append(thing)
    document = Document(
        info=Info.of(version="1.0", verified=True),
        licenses=[],
        videos=[VideoRow.of(id=v, video_id=v) for v in sorted({v for v, _, _ in FRAMES})],
        images=rows,
        categories=[],
        annotations=annotations,
    )
    write_document(document, folder)
    (folder / "subsets/cross_event.txt").write_text("video000001\n")
    if clips:
        (folder / "video").mkdir()
        for video in sorted({video for video, _, _ in FRAMES}):
            seed = int(video[-1])
            make_video(
                folder / f"video/{video}_00020.mp4",
                frames=50,
                draw=scene(SIZE_HW[1], SIZE_HW[0], seed),
                sound=bursts(2.0, [0.4 * seed]),
            )
    for number, (row, (_, index, _)) in enumerate(zip(rows, FRAMES, strict=True) if images else []):
        path = folder / row.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = scene(SIZE_HW[1], SIZE_HW[0], number)(index)
        cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return folder


def heatmaps(release: Path, folder: Path, seed: int) -> Path:
    """Noise for every labelled frame."""
    folder.mkdir()
    found, rng = Predictions(folder), np.random.default_rng(seed)
    data = read_release(release)
    for clip in sorted({frame.clip_id for frame in data.frames}):
        index = [frame.frame_index for frame in data.frames if frame.clip_id == clip]
        found.save(clip, index, rng.random((len(index), 7, 7)))
    return folder
