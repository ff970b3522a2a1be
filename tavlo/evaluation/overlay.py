"""Heatmaps over the pictures they are of.

One scale of colour serves all pictures drawn together. Stretching each frame to its own maximum
would paint a source into frames without one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import AvatarBuildError
from pipeline.media import Media, decode_pictures, encode_film, read_timeline, waveform
from pipeline.pictures import draw_outline, encode_image
from tavlo.evaluation.evaluation_set import EvaluationSet, LabelledFrame, Picture, Pixels
from tavlo.evaluation.predictions import GRID_HW, Heatmap, Predictions

_STRENGTH = 0.65
"""Opacity of the hottest pixels."""
_STALE = 0.4
"""Opacity, of that, of a heatmap that is another frame's."""
_PREDICTED, _TRUE = (255, 255, 255), (60, 255, 110)
"""Outlines, RGB."""
_LONG_SIDE = 640
"""Of a film's pictures, pixels; smaller ones stay as they are."""
_RATE_HZ = 48_000


@dataclass(frozen=True)
class Scale:
    """The values that are cold and hot, and the one from which on pixels count as predicted."""

    low: float
    high: float
    threshold: float

    @classmethod
    def over(cls, heatmaps: Iterable[Heatmap], threshold: float) -> Scale:
        """Make a scale from heatmaps' median to their top half percent, the threshold between."""
        pixels = np.concatenate([heatmap[::4, ::4].reshape(-1) for heatmap in heatmaps])
        low, high = (float(value) for value in np.quantile(pixels, [0.5, 0.995]))
        return cls(min(low, threshold), max(high, threshold), threshold)

    def heat(self, heatmap: Heatmap) -> NDArray[np.float32]:
        """Scale a heatmap to 0 where cold and 1 where hot."""
        span = self.high - self.low
        above = (heatmap - self.low) / span if span else (heatmap >= self.threshold)
        return np.clip(above, 0, 1).astype(np.float32)


def heat_colors(heat: NDArray[np.float32]) -> Picture:
    """Colour heat from blue to red, ``(y, x, 3)``."""
    colors = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_TURBO)
    return np.asarray(cv2.cvtColor(colors, cv2.COLOR_BGR2RGB), np.uint8)


def paint(
    image: Picture, heatmap: Heatmap, scale: Scale, truth: Pixels | None, strength: float = 1.0
) -> Picture:
    """Paint a heatmap over its picture, and outline what is predicted in white, the truth in green.

    Args:
        image: ``(height, width, 3)``.
        heatmap: on any grid; it covers the whole picture.
        scale: of the colours.
        truth: on any grid; none draws none.
        strength: of the heatmap's colours, in [0, 1].
    """
    height, width = image.shape[:2]
    large = cv2.resize(heatmap, (width, height), interpolation=cv2.INTER_LINEAR)
    heat = scale.heat(np.asarray(large, np.float32))
    opacity = (_STRENGTH * strength * heat)[..., None]
    mixed = image * (1 - opacity) + heat_colors(heat) * opacity
    painted = np.ascontiguousarray(mixed.round().astype(np.uint8))
    if strength == 1.0:
        draw_outline(painted, np.asarray(large) >= scale.threshold, _PREDICTED)
    if truth is not None:
        whole = cv2.resize(truth.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        draw_outline(painted, np.asarray(whole, bool), _TRUE)
    return painted


def write_overlays(
    data: EvaluationSet,
    predictions: Predictions,
    clip_id: str,
    threshold: float,
    folder: Path,
) -> list[Path]:
    """Write a JPEG of each labelled frame of a clip, ``<frame_id>.jpg``, and a film of the clip.

    The film, ``<clip_id>.mp4``, has the clip's sound. A frame without a heatmap of its own is
    tinted with the nearest one's, fainter and without outlines.

    Raises:
        AvatarBuildError: the release has no such clip, or not its media; nothing is predicted.
        MediaError: the clip cannot be read.
    """
    frames = [frame for frame in data.frames_of(clip_id) if predictions.has(frame)]
    if not frames:
        raise AvatarBuildError(f"--clip {clip_id!r}: there is no heatmap of its labelled frames.")
    indices = predictions.indices(clip_id)
    scale = Scale.over((predictions.heatmap(clip_id, index) for index in indices), threshold)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for frame in frames:
        image = data.picture(frame)
        truth = frame.truth(GRID_HW) if frame.instances else None
        painted = paint(image, predictions.heatmap(clip_id, frame.frame_index), scale, truth)
        written.append(folder / f"{frame.frame_id}.jpg")
        written[-1].write_bytes(encode_image(painted, "jpg", 90))
    clip = data.clip_path(frames[0])
    if clip is not None:
        data.check_released(clip)
        written.append(folder / f"{clip_id}.mp4")
        _film(clip, frames, predictions, scale, written[-1])
    return written


def _film(
    clip: Path,
    frames: Sequence[LabelledFrame],
    predictions: Predictions,
    scale: Scale,
    target: Path,
) -> None:
    media = Media(clip)
    timeline = read_timeline(media)
    clip_id = frames[0].clip_id
    indices = np.array(predictions.indices(clip_id))
    truths = {frame.frame_index: frame.truth(GRID_HW) for frame in frames if frame.instances}

    def painted() -> Iterable[tuple[Fraction, Picture]]:
        for shown in decode_pictures(media, timeline, [range(len(timeline.pts))]):
            nearest = int(indices[np.abs(indices - shown.index).argmin()])
            strength = 1.0 if nearest == shown.index else _STALE
            heatmap = predictions.heatmap(clip_id, nearest)
            truth = truths.get(shown.index)
            yield shown.time, paint(_smaller(shown.rgb()), heatmap, scale, truth, strength)

    end_s = float(timeline.time(len(timeline.pts) - 1)) + 1 / 25
    sound = waveform(media, timeline, 0.0, end_s, _RATE_HZ, "mean")
    encode_film(painted(), len(timeline.pts) / end_s, target, sound, _RATE_HZ)


def _smaller(image: Picture) -> Picture:
    height, width = image.shape[:2]
    factor = min(1.0, _LONG_SIDE / max(height, width))
    size = (round(width * factor), round(height * factor))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
