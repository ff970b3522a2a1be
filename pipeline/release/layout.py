"""The place of each thing in a release. The authors name clips and frames with five digits."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from pipeline.errors import AvatarBuildError

DOCUMENT = "annotations/instances.json"
COPIES = {
    "videos": "annotations/videos.parquet",
    "images": "annotations/frames.parquet",
    "annotations": "annotations/instances.parquet",
}
"""The Parquet copy of each of the document's lists."""
CROSS_EVENT = "subsets/cross_event.txt"
STATISTICS = "statistics.json"
CARD = "README.md"
CHECKSUMS = "CHECKSUMS.sha256"
ATTRITION = "attrition.csv"
"""Written by whoever restores the media of an ids-only release; no part of the release."""
FIGURES = {"categories": "figures/categories.svg", "scenarios": "figures/scenarios.svg"}

SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".m4a", ".mp4")
"""Endings of sound files, which imported sets have where clips are missing or others."""

_IMAGE_SUFFIXES = {".jpg": ".jpg", ".jpeg": ".jpg", ".png": ".png"}


def clip_name(video_id: str, start_s: float) -> str:
    """Return the authors' name of a clip: its video and its start in whole seconds.

    >>> clip_name("l_7B1wnTNtA", 20.0)
    'l_7B1wnTNtA_00020'
    """
    return f"{video_id}_{int(start_s):05d}"


def clip_file(video_id: str, start_s: float) -> str:
    """Return the clip's file in the release."""
    return f"video/{clip_name(video_id, start_s)}.mp4"


def sound_file(clip: str, suffix: str) -> str:
    """Return the sound that goes with a clip's frames in place of the clip's own.

    >>> sound_file("video/l_7B1wnTNtA_00020.mp4", ".wav")
    'audio/l_7B1wnTNtA_00020.wav'
    """
    return f"audio/{PurePosixPath(clip).stem}{suffix}"


def image_file(video_id: str, start_s: float, frame_index: int, source: str) -> str:
    """Return the frame's image in the release; it keeps the format it was saved in.

    >>> image_file("l_7B1wnTNtA", 20.0, 254, "media/frames/x.jpg")
    'metadata/l_7B1wnTNtA_00020/00254.jpg'

    Raises:
        AvatarBuildError: the image is neither JPEG nor PNG by its name.
    """
    suffix = _IMAGE_SUFFIXES.get(PurePosixPath(source).suffix.lower())
    if suffix is None:
        raise AvatarBuildError(f"tables/frames: {source[:80]!r} is no .jpg or .png file.")
    return f"metadata/{clip_name(video_id, start_s)}/{frame_index:05d}{suffix}"


def frame_json(image: str) -> str:
    """Return the authors' annotation file beside an image.

    >>> frame_json("metadata/l_7B1wnTNtA_00020/00254.jpg")
    'metadata/l_7B1wnTNtA_00020/00254.json'
    """
    return str(PurePosixPath(image).with_suffix(".json"))


def released_digests(folder: Path) -> dict[str, str]:
    """Return the digests a release states of its files; restored ones are not among them."""
    try:
        text = (folder / CHECKSUMS).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}
    lines = (line.partition("  ") for line in text.splitlines())
    return {name: digest for digest, _, name in lines}
