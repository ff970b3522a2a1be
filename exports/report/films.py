"""The clips a report can play, and where they lie.

A clip's file is that of a release, or one cut on request into ``media/clips`` of the workspace.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from exports.report.write_report import Films
from pipeline.errors import MediaError
from pipeline.records.schema import Clip, Video
from pipeline.release.layout import DOCUMENT
from pipeline.release.read import clips_in, read_info
from pipeline.words import counted
from pipeline.workspace.recorded import video_file
from pipeline.workspace.storage import Storage

_FOLDER = "media/clips"


def cut_films(storage: Storage, clips: Iterable[Clip], videos: Iterable[Video]) -> dict[str, str]:
    """Cut clips into ``media/clips``; what is there already is left alone.

    Returns:
        Why a clip could not be cut, by ``clip_id``.
    """
    from pipeline.media import BROWSER, Media, make_clip

    sources = {video.video_id: video for video in videos}
    failed = {}
    storage.make_folder(_FOLDER)
    beside = storage.local_path(_FOLDER)
    for clip in clips:
        if storage.exists(_cut_name(clip)):
            continue
        try:
            with (
                tempfile.TemporaryDirectory(prefix=".making-", dir=beside) as folder,
                video_file(storage, sources[clip.video_id]) as source,
            ):
                made = Path(folder) / "made.mp4"
                make_clip(Media(source), clip.start_s, clip.end_s, made, codecs=BROWSER)
                storage.publish(made, _cut_name(clip))
        except MediaError as error:
            failed[clip.clip_id] = str(error)
    return failed


@dataclass(frozen=True)
class Span:
    """A clip, as far as it names a file."""

    clip_id: str
    start_s: float
    end_s: float


def find_films(storage: Storage, clips: Iterable[Clip | Span], target: Path) -> Films:
    """Return the clips that can be played by a page at ``target``."""
    released, without = _released(storage)
    here = set(storage.names(_FOLDER))
    addresses = {}
    wanted = 0
    for clip in clips:
        wanted += 1
        name = _cut_name(clip)
        if name.rpartition("/")[2] not in here:
            name = released.get((clip.clip_id, clip.start_s, clip.end_s), "")
        if name:
            addresses[clip.clip_id] = _relative(storage, name, target)
    if len(addresses) == wanted:
        return Films(addresses, "")
    missing = f"{counted(wanted - len(addresses), 'clip')} cannot be heard here"
    if without:
        missing += f" (release {', '.join(without)} ships ids only, no media)"
    return Films(addresses, f"{missing}: 'avatar-build report --clips' cuts those with pictures.")


def _released(storage: Storage) -> tuple[dict[tuple[str, float, float], str], list[str]]:
    """Return clip files of releases by id and span, and the releases that ship none."""
    files: dict[tuple[str, float, float], str] = {}
    without = []
    for version in storage.folders("releases"):
        folder = f"releases/{version}"
        if not storage.exists(f"{folder}/{DOCUMENT}"):
            continue
        with _document(storage, folder) as place:
            if not read_info(place).media:
                without.append(version)
            for clip_id, start_s, end_s, file in clips_in(place):
                if storage.exists(f"{folder}/{file}"):
                    files[clip_id, start_s, end_s] = f"{folder}/{file}"
    return files, without


@contextlib.contextmanager
def _document(storage: Storage, folder: str) -> Iterator[Path]:
    """Yield the folder of a release, of one on an object store with its document alone."""
    if (place := storage.local_path(folder)) is not None:
        yield place
        return
    with tempfile.TemporaryDirectory() as beside:
        copy = Path(beside) / DOCUMENT
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(storage.read(f"{folder}/{DOCUMENT}"))
        yield Path(beside)


def _cut_name(clip: Clip | Span) -> str:
    """Return the file a clip is cut into; its name holds what decides it."""
    return f"{_FOLDER}/{clip.clip_id}_{round(clip.end_s * 1000):08d}.mp4"


def _relative(storage: Storage, name: str, target: Path) -> str:
    """Return an address for a browser; a leading './' keeps an id from being a scheme."""
    place = storage.local_path(name)
    if place is None:  # the page will lie at the top of the workspace
        return f"./{quote(name)}"
    way = os.path.relpath(place.absolute(), target.absolute().parent)
    return f"./{quote(Path(way).as_posix())}"
