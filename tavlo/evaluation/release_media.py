"""The pictures and sounds of a release's labelled frames.

A frame's image is taken where the release has it; else it is decoded from its clip. Nothing is
replaced: what is missing is an error that names the frame.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import AvatarBuildError
from pipeline.files import sha256_of
from pipeline.media import Media, decode_pictures, read_timeline
from pipeline.release.layout import SOUND_SUFFIXES, sound_file
from tavlo.evaluation.evaluation_set import EvaluationSet, LabelledFrame

Picture = NDArray[np.uint8]


def picture(data: EvaluationSet, frame: LabelledFrame) -> Picture:
    """Return a labelled frame in its colours, ``(height, width, 3)``, RGB.

    Raises:
        AvatarBuildError: the release has neither its image nor its clip, or it cannot be read, or
            is not the image that was released.
    """
    path = data.folder / frame.row.file_name
    if path.exists():
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        stated = frame.row.image_sha256 if data.media else ""
        wanted = (stated, data.released.get(frame.row.file_name, ""))
        if any(one not in ("", digest) for one in wanted):
            raise _changed(data, path, "image")
        pixels = np.frombuffer(content, np.uint8)
        image = cv2.imdecode(pixels, cv2.IMREAD_COLOR_RGB) if len(pixels) else None
        if image is None:
            raise AvatarBuildError(f"{path}: no image. Restore it from the release.")
        return np.asarray(image, np.uint8)
    clip = clip_path(data, frame)
    if clip is None:
        raise AvatarBuildError(
            f"{frame.frame_id}: {path} is missing, and so is its clip. Restore the media first"
            " ('avatar-build fetch-media')."
        )
    check_released(data, clip)
    media = Media(clip)
    timeline = read_timeline(media)
    index = frame.frame_index
    if index < len(timeline.pts):
        for shown in decode_pictures(media, timeline, [range(index, index + 1)]):
            return shown.rgb()
    raise AvatarBuildError(f"{frame.frame_id}: {clip} has no frame {index} that can be decoded.")


def check_released(data: EvaluationSet, path: Path) -> None:
    """Insist that a clip or a sound is the one that was released, where the release states it.

    Raises:
        AvatarBuildError: it is another one.
    """
    wanted = data.released.get(path.relative_to(data.folder).as_posix(), "")
    if wanted and sha256_of(path) != wanted:
        raise _changed(data, path, "file")


def _changed(data: EvaluationSet, path: Path, what: str) -> AvatarBuildError:
    return AvatarBuildError(
        f"{path}: not the {what} that was released. Restore it; 'avatar-build export"
        f" --verify {data.folder}' names all that changed."
    )


def clip_path(data: EvaluationSet, frame: LabelledFrame) -> Path | None:
    """Return the frame's clip, if the release has it."""
    path = data.folder / frame.row.clip_file
    return path if path.exists() else None


def sound_path(data: EvaluationSet, frame: LabelledFrame) -> Path | None:
    """Return the sound that goes with a frame: a file of its own, else its clip; none if neither.

    Imported sets have sounds of their own.
    """
    sounds = (data.folder / sound_file(frame.row.clip_file, end) for end in SOUND_SUFFIXES)
    return next((path for path in sounds if path.is_file()), clip_path(data, frame))


def frames_of(data: EvaluationSet, clip_id: str) -> Sequence[LabelledFrame]:
    """Return a clip's labelled frames in the order of time.

    Raises:
        AvatarBuildError: the release has no such clip.
    """
    found = sorted((f for f in data.frames if f.clip_id == clip_id), key=lambda f: f.frame_index)
    if not found:
        raise AvatarBuildError(f"--clip {clip_id!r}: the release has no clip of this id.")
    return found
