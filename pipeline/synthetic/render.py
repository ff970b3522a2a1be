"""Render the demo's world to files: videos, the list that names them, and the truth.

One core draws and encodes about ten times faster than the videos play. The same seed gives the
same bytes with the same codecs.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from pipeline.media.waveform import audio_frame
from pipeline.synthetic.drawing import Painter
from pipeline.synthetic.scene import Scene
from pipeline.synthetic.truth import Truth, truth_of
from pipeline.synthetic.voices import RATE_HZ, soundtrack
from pipeline.synthetic.world import GONE_ID, HTML_ID, TRUNCATED_ID, scenes

_WEB_PAGE = """<!DOCTYPE html>
<html lang="en"><head><title>Video unavailable</title></head>
<body><h1>This video is unavailable</h1><p>Sign in to confirm that you are not a robot.</p></body>
</html>
"""

_KEPT_OF_TRUNCATED = 0.6


@dataclass(frozen=True)
class World:
    """The places of a rendered world."""

    videos: Path
    """Folder of ``<video_id>.mp4``: what a server shows."""
    csv: Path
    """The list, in the columns of the official ``vggsound.csv``."""
    truth: Path
    """``truth.json``, see ``pipeline.synthetic.truth``."""


def render_world(
    folder: Path,
    seed: int = 0,
    *,
    video_ids: Collection[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> World:
    """Render the world into ``folder``.

    Args:
        folder: made when missing.
        seed: draws textures, cameras and strokes.
        video_ids: rows of the list to keep; none keeps all.
        progress: called with seconds of video rendered and seconds to render in all.
    """
    chosen = [s for s in scenes(seed) if video_ids is None or s.video_id in video_ids]
    world = World(folder / "videos", folder / "vggsound.csv", folder / "truth.json")
    world.videos.mkdir(parents=True, exist_ok=True)
    total, done = round(sum(scene.duration_s for scene in chosen)), 0.0
    for scene in chosen:
        path = world.videos / f"{scene.video_id}.mp4"
        encode(scene, path)
        if scene.video_id == TRUNCATED_ID:
            path.write_bytes(path.read_bytes()[: int(path.stat().st_size * _KEPT_OF_TRUNCATED)])
        done += scene.duration_s
        if progress is not None:
            progress(round(done), total)
    # The list names more than is drawn: a web page in place of a video, and a video that is gone.
    rows = [(s.video_id, str(int(s.duration_s) // 4), s.label, s.split) for s in chosen]
    if video_ids is None or HTML_ID in video_ids:
        (world.videos / f"{HTML_ID}.mp4").write_text(_WEB_PAGE)
        rows.append((HTML_ID, "10", "cat meowing", "train"))
    if video_ids is None or GONE_ID in video_ids:
        rows.append((GONE_ID, "30", "playing acoustic guitar", "train"))
    with world.csv.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle, lineterminator="\n").writerows(rows)
    truth = Truth(
        videos={scene.video_id: truth_of(scene) for scene in chosen},
        scenes={scene.video_id: scene.model_dump(mode="json") for scene in chosen},
    )
    world.truth.write_text(json.dumps(truth), encoding="utf-8")
    return world


def encode(scene: Scene, path: Path) -> None:
    """Write one scene as H.264 and stereo AAC in an MP4 with its index in front."""
    painter, sound = Painter(scene), soundtrack(scene)
    options = {"movflags": "faststart", "fflags": "+bitexact"}
    with av.open(str(path), "w", format="mp4", options=options) as container:
        picture = container.add_stream(
            "libx264",
            rate=scene.fps,
            # Encoding is most of the work here, and nothing asks these files to be small.
            options={"preset": "superfast", "crf": "24", "threads": "1"},
        )
        picture.width, picture.height, picture.pix_fmt = scene.width, scene.height, "yuv420p"
        picture.codec_context.gop_size = round(scene.gop_s * scene.fps)
        voice = container.add_stream("aac", rate=RATE_HZ, layout="stereo")
        voice.codec_context.bit_rate = 128_000
        for index in range(scene.num_frames):
            # OpenCV's conversion is BT.601, which players assume at this size.
            planes = cv2.cvtColor(painter.frame(index), cv2.COLOR_BGR2YUV_I420)
            image = av.VideoFrame.from_ndarray(np.asarray(planes, np.uint8), format="yuv420p")
            image.pts, image.time_base = index, Fraction(1, scene.fps)
            container.mux(picture.encode(image))
            start, end = (round((index + k) * RATE_HZ / scene.fps) for k in (0, 1))
            container.mux(voice.encode(audio_frame(sound[:, start:end], start, RATE_HZ)))
        container.mux(picture.encode(None))
        container.mux(voice.encode(None))
