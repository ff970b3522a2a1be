"""The synthetic world as a folder that training, evaluation and pycocotools read.

``video/`` holds the clips, ``metadata/`` the labelled frames before they were encoded,
``annotations/instances.json`` a release's document, ``subsets/`` the cross-event videos,
``scenes.json`` what each clip consists of. It is laid out like a release and is none: nobody
sampled, proposed or reviewed anything.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2

from pipeline.errors import UsageError
from pipeline.records import rle
from pipeline.records.schema import content_id
from pipeline.release.document import (
    AnnotationRow,
    CategoryRow,
    Document,
    ImageRow,
    Info,
    VideoRow,
    write_document,
)
from pipeline.release.read import SYNTH
from pipeline.synthetic.drawing import Painter
from pipeline.synthetic.render import encode
from pipeline.synthetic.scene import CATEGORIES, Scene
from tavlo.synthetic.drawn_clips import KnownFrame, WorldConfig, labelled_frames, scene_of

VERSION = "synthetic"
CATEGORY_IDS = {name: number for number, name in enumerate(CATEGORIES, 1)}


def write_world(
    folder: Path,
    config: WorldConfig,
    clips: int,
    *,
    processes: int = 1,
    show: Callable[[int, str], None] = lambda _done, _note: None,
) -> Document:
    """Write clips 0 to ``clips`` of a world; the folder appears whole or not at all.

    Args:
        folder: must not exist.
        config: of the world.
        clips: how many.
        processes: how many draw at once; the result is the same.
        show: told how many clips are done, and a note.

    Returns:
        The labels, as they were written.

    Raises:
        UsageError: the folder is there already, or there are no clips to write.
    """
    if clips < 1:
        raise UsageError(f"--clips {clips}: it must be at least 1.")
    if folder.exists():
        raise UsageError(f"{folder} exists. Name a folder that does not.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    (staged / "video").mkdir(parents=True)
    try:
        images: list[ImageRow] = []
        annotations: list[AnnotationRow] = []
        scenes: dict[str, Any] = {}
        for done, (scene, frames) in enumerate(_drawn(staged, config, clips, processes), 1):
            scenes[scene.video_id] = scene.model_dump(mode="json")
            for frame in frames:
                images.append(_image(len(images) + 1, scene, frame))
                annotations += _annotations(images[-1], frame, len(annotations) + 1)
            show(done, "")
        document = Document.of(
            info=Info.of(
                description="Synthetic audio-visual localisation clips with exact masks",
                version=VERSION,
                verified=True,
                media=True,
                # Training reads from here how long clips are.
                provenance={SYNTH: {"config": asdict(config) | {"clips": clips}}},
            ),
            videos=[VideoRow.of(id=name, video_id=name) for name in scenes],
            images=images,
            categories=[CategoryRow(id=i, name=name) for name, i in CATEGORY_IDS.items()],
            annotations=annotations,
        )
        write_document(document, staged)
        text = json.dumps(scenes, indent=1) + "\n"
        (staged / "scenes.json").write_text(text, encoding="utf-8")
        staged.rename(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return document


def clip_id_of(scene: Scene) -> str:
    """Return the clip's id; a scene is one clip, from its first second."""
    return f"{scene.video_id}_00000"


Clip = tuple[Scene, tuple[KnownFrame, ...]]


def _drawn(folder: Path, config: WorldConfig, clips: int, processes: int) -> Iterator[Clip]:
    """Yield each clip's scene and labels, in order, its files written."""
    make = partial(_make, folder, config)
    if processes <= 1:
        yield from map(make, range(clips))
        return
    # Fresh processes: those of a program that has run torch may hang.
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        yield from pool.map(make, range(clips))


def _make(folder: Path, config: WorldConfig, number: int) -> Clip:
    scene = scene_of(config, number)
    frames = labelled_frames(scene)
    encode(scene, folder / "video" / f"{clip_id_of(scene)}.mp4")
    pictures = folder / "metadata" / clip_id_of(scene)
    pictures.mkdir(parents=True)
    painter = Painter(scene)
    for frame in frames:
        picture = painter.frame(frame.index)
        cv2.imwrite(str(pictures / f"{frame.index:05d}.png"), picture)
    return scene, frames


def _image(number: int, scene: Scene, frame: KnownFrame) -> ImageRow:
    clip = clip_id_of(scene)
    return ImageRow.of(
        id=number,
        file_name=f"metadata/{clip}/{frame.index:05d}.png",
        width=scene.width,
        height=scene.height,
        video_id=scene.video_id,
        clip_id=clip,
        frame_id=f"{clip}_{frame.index:05d}",
        frame_index=frame.index,
        time_s=frame.index / scene.fps,
        clip_end_s=scene.duration_s,
        clip_file=f"video/{clip}.mp4",
        off_screen=not frame.instances,
        off_screen_category=frame.off_screen_category,
        verified=True,
    )


def _annotations(image: ImageRow, frame: KnownFrame, first: int) -> Iterator[AnnotationRow]:
    for number, instance in enumerate(frame.instances, first):
        mask = rle.encode(instance.mask)
        yield AnnotationRow.in_image(
            image,
            mask,
            id=number,
            category_id=CATEGORY_IDS[instance.category],
            audio_visual_category=instance.category,
            scenario=instance.scenario,
            verified=True,
            instance_id=content_id("i", image.frame_id, number - first, mask.counts),
            mask_source="drawn",
        )
