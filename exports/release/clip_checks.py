"""The check that a clip's file is what was measured: its sound, frames and saved pictures.

The same questions are asked of a clip that was just made, before the release appears, and from
outside, of any release that says what was measured. Each tolerance stands here with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from exports.release.image_bytes import image_size
from pipeline.config import SampleConfig
from pipeline.errors import MediaError
from pipeline.media import (
    TICK_S,
    Made,
    MadeClip,
    Media,
    Picture,
    SoundEnergy,
    SoundTrack,
    Timeline,
    decode_pictures,
    exact,
    make_clip,
    read_timeline,
    shown_before,
)
from pipeline.release.document import Document, ImageRow

RMS_OFF = {"remuxed": 0.02, "encoded": 0.08}
"""The tolerance of RMS by how a clip was made, as a fraction of what was measured.

Remuxed sound is the source's but for the blocks that lack what came before them (MP3, Opus, AC-3:
0.5 % of the first second). Our AAC gives white noise back 2 % quieter and clicks 3 %.
"""
OTHER_SOURCE_OFF = 0.15
"""The tolerance for a clip restored from another encode of its video; sites encode again."""
SILENCE = 1e-3
"""RMS below which a difference does not count: a tenth of what is active."""
EVENT_OFF = 2
"""The factor by which the short-time RMS at an event may be further off: encoders smear loudness
by 20 ms."""
PICTURE_OFF = 0.25
"""The tolerance of a clip's frame: mean squared difference of grey levels to the saved one, as a
fraction of that one's variance. Another picture has 1 and more, JPEG and our H.264 0.02."""
NEIGHBOUR_OFF = 1.5
"""The factor by which a clip's frame may be further off than the frame beside it: of a still scene
one encode is as good as the next."""
GREY = 4.0
"""A mean squared difference that never counts: noise of two levels."""
NOT_AS_MEASURED = "not_as_measured"
"""The kind of failure of a clip that is another one."""

Pictures = Mapping[str, bytes | None]
"""The saved picture of each frame, by ``frame_id``; none where it is not at hand."""


def clip_rows(document: Document) -> Iterator[list[ImageRow]]:
    """Yield the rows of each clip's frames, clip by clip."""
    places: dict[str, list[int]] = {}
    for place, image in enumerate(document.images):
        places.setdefault(image.clip_file, []).append(place)
    for own in places.values():
        yield [document.images[place] for place in own]


def sampling(provenance: Mapping[str, Mapping[str, Any]]) -> SampleConfig:
    """Return the settings events were found with; what a release does not say is as by default."""
    stated = provenance.get("sample", {}).get("config")
    stated, names = stated if isinstance(stated, dict) else {}, SampleConfig.model_fields
    try:
        return SampleConfig.model_validate({k: v for k, v in stated.items() if k in names})
    except ValueError:
        return SampleConfig()


def make_measured(
    media: Media,
    target: Path,
    rows: Sequence[ImageRow],
    pictures: Pictures,
    config: SampleConfig,
    *,
    other_source: bool,
) -> MadeClip:
    """Make the clip that was measured; a remux that is another one is encoded.

    Args:
        media: the video.
        target: the clip's file.
        rows: of the clip's frames.
        pictures: what was saved of them.
        config: the settings its events were found with.
        other_source: whether the video may be another encode than the one that was measured.

    Raises:
        MediaError: ``not_as_measured`` when an encode is another one too, and as ``make_clip``.
    """
    start_s, end_s = rows[0].clip_start_s, rows[0].clip_end_s

    def accept(path: Path, late: Fraction, made: Made) -> None:
        marks = {"clip_made": made, "clip_first_s": float(exact(start_s) + late)}
        now = [row.model_copy(update=marks) for row in rows]
        clip = Media(path, media.timeout_s)
        for difference in differences_of_clip(
            clip, now, pictures, config, other_source=other_source
        ):
            raise MediaError(NOT_AS_MEASURED, f"{media.path.name}: its clip {difference}")

    return make_clip(media, start_s, end_s, target, accept=accept)


def differences_of_clip(
    media: Media,
    rows: Sequence[ImageRow],
    pictures: Pictures,
    config: SampleConfig,
    *,
    other_source: bool,
) -> Iterator[str]:
    """Yield everything in which a clip's file is not what the rows of its frames say.

    Raises:
        MediaError: it cannot be read.
    """
    timeline = read_timeline(media)
    clip = rows[0]
    first_s = clip.clip_start_s if clip.clip_first_s is None else clip.clip_first_s
    if clip.clip_frames is not None:
        wrong = shown_before(timeline, clip.clip_frames, exact(clip.clip_end_s - first_s))
        if wrong:
            yield wrong
            return  # the frames below would be counted wrong
    late = exact(first_s) - exact(clip.clip_start_s)
    allowed = OTHER_SOURCE_OFF if other_source else RMS_OFF[clip.clip_made or "encoded"]
    yield from _sound_differs(media, timeline, rows, late, allowed, config)
    yield from _frames_differ(media, timeline, rows, pictures)


def _sound_differs(
    media: Media,
    timeline: Timeline,
    rows: Sequence[ImageRow],
    late: Fraction,
    allowed: float,
    config: SampleConfig,
) -> Iterator[str]:
    measured = rows[0].clip_rms_per_second
    if not measured:
        return
    hops = round(1 / config.rms_hop_s)
    sound = _heard(media, timeline.start - late, len(measured), hops)
    for second, (found, expected) in enumerate(zip(sound.rms_per_second(), measured, strict=True)):
        # What the source plays before the clip's first frame is not in the clip.
        quieter = expected - found > allowed * expected + SILENCE and not (second == 0 and late)
        if quieter or found - expected > allowed * expected + SILENCE:
            yield f"second {second} has RMS {found:.4f}, {expected:.4f} was measured"
            return
    window = round(config.rms_window_s / config.rms_hop_s)
    loud = sound.short_time_rms(window)
    for row in rows:
        at = round((row.event_time_s - row.clip_start_s) * hops - window / 2)
        if not row.event_rms or not late * hops <= at < len(loud):
            continue
        if abs(loud[at] - row.event_rms) > EVENT_OFF * allowed * row.event_rms + SILENCE:
            yield (
                f"the event at {row.event_time_s:g} s has RMS {loud[at]:.4f}, "
                f"{row.event_rms:.4f} was measured"
            )
            return


def _heard(media: Media, zero: Fraction, seconds: int, hops: int) -> SoundEnergy:
    try:
        return SoundTrack(media, zero, seconds, hops).span(0, seconds)
    except MediaError as error:
        if error.kind != "no_audio":
            raise
        nothing = np.zeros(seconds * hops)
        return SoundEnergy(0, hops, nothing, nothing.astype(np.int64))


def _frames_differ(
    media: Media, timeline: Timeline, rows: Sequence[ImageRow], pictures: Pictures
) -> Iterator[str]:
    """Compare the time and look of each labelled frame, all in one pass over the clip."""
    rows = sorted(rows, key=lambda one: one.frame_index)
    wanted = sorted({index for row in rows for index in _near(timeline, row.frame_index)})
    decoded = decode_pictures(media, timeline, [range(at, at + 1) for at in wanted], any_size=True)
    held: list[Picture] = []
    for row in rows:
        index = row.frame_index
        if index >= len(timeline.pts):
            yield f"has no frame {index}"
            return
        if row.clip_first_s is not None:
            off = float(timeline.time(index)) - (row.time_s - row.clip_first_s)
            if abs(off) > TICK_S:
                yield f"shows frame {index} {abs(off):.3f} s off"
                return
        saved = _grey(row, pictures[row.frame_id])
        if saved is None:
            continue
        near = _near(timeline, index)
        held = [picture for picture in held if picture.index >= near.start]
        while not held or held[-1].index < near.stop - 1:
            if (picture := next(decoded, None)) is None:
                break
            held.append(picture)
        wrong = _looks_otherwise([one for one in held if one.index in near], index, saved)
        if wrong:
            yield f"frame {index} {wrong}"
            return


def _near(timeline: Timeline, index: int) -> range:
    """Return the numbers of a frame and those beside it, as far as there are such."""
    return range(max(0, index - 1), min(len(timeline.pts), index + 2))


def _looks_otherwise(near: Sequence[Picture], index: int, saved: NDArray[np.uint8]) -> str:
    unlike: dict[int, float] = {}
    for picture in near:
        height, width = saved.shape
        found = cv2.cvtColor(picture.rgb(), cv2.COLOR_RGB2GRAY)
        # An encode loses the last row or column of an odd side.
        if found.shape not in ((height, width), (height - height % 2, width - width % 2)):
            return f"is {found.shape[1]}x{found.shape[0]}, its image {width}x{height}"
        part = saved[: found.shape[0], : found.shape[1]]
        unlike[picture.index] = float(np.square(found.astype(np.float32) - part).mean())
    if index not in unlike:
        return "cannot be decoded"
    here = unlike.pop(index)
    if here > PICTURE_OFF * float(saved.var()) + GREY:
        return "is not the picture that was saved"
    if unlike and here > NEIGHBOUR_OFF * min(unlike.values()) + GREY:
        return "is less like the saved picture than the frame beside it"
    return ""


def _grey(row: ImageRow, image: bytes | None) -> NDArray[np.uint8] | None:
    """Return the saved picture; none when it has not the row's size, which others look at."""
    if image is None or image_size(image) != (row.width, row.height):
        return None
    grey = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_GRAYSCALE)
    if grey is None or grey.shape != (row.height, row.width):
        return None
    return np.asarray(grey, np.uint8)
