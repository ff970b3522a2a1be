"""The clips to train on, from a release or a list, and which of them must be held out."""

from __future__ import annotations

import csv
import io
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import AvatarBuildError, MediaError, UsageError
from pipeline.records.schema import clip_id
from pipeline.release.document import VIDEO_ID
from pipeline.release.layout import CHECKSUMS, DOCUMENT, released_digests
from pipeline.release.read import SYNTH, read_document
from pipeline.release.remote import is_remote, release_on
from pipeline.release.video_lists import VideoNames, parse_row, read_list, read_name

_MEDIA = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm"})


@dataclass(frozen=True)
class ClipSource:
    """A clip and the file that holds it."""

    clip_id: str
    video_id: str
    path: Path
    """The file that holds it."""
    start_s: float
    """The start of the clip in the file, seconds from the first frame."""
    sha256: str = ""
    """The digest of the file, where a release says so."""
    readings: frozenset[str] = frozenset()
    """Other names its video may have, where only the name of a file tells it."""
    store: str = ""
    """The release on an object store that ``path`` is relative to; empty on a disk."""

    @contextmanager
    def on_disk(self) -> Iterator[ClipSource]:
        """Yield the clip with its file on a disk; a copy from an object store goes at the end.

        Raises:
            MediaError: ``missing_file``, on an object store.
        """
        if not self.store:
            yield self
            return
        storage, version = release_on(self.store)
        with ExitStack() as held:
            try:
                copy = held.enter_context(storage.as_local(f"{version}/{self.path.as_posix()}"))
            except FileNotFoundError as error:
                place = f"{self.store}/{self.path.as_posix()}"
                raise MediaError(
                    "missing_file", f"{place}: no such file", retryable=True
                ) from error
            yield replace(self, path=copy, store="")


@dataclass(frozen=True)
class ClipRules:
    """The rules for a clip that is trained on (paper, 5.1)."""

    length_s: float = 10.0
    """The length of a clip, seconds."""
    min_frames: int = 200
    """The fewest frames of a clip: 20 a second."""
    max_frames: int = 300
    """The most frames of a clip: 30 a second."""

    def sentence(self) -> str:
        """Say the rules, for people."""
        return f"Clips of {self.length_s:g} s with {self.min_frames} to {self.max_frames} frames."


def read_clips(source: Path | str, template: str = "") -> list[ClipSource]:
    """Read the clips of a release, or of a list.

    A list is text or CSV, one clip a line: a file, or a YouTube id in any of the usual spellings,
    then a comma and the start in seconds where the first cell does not tell it. A file without a
    start is taken from its first frame on. Lines that start with # are comments.

    Args:
        source: a release's folder, its address on an object store, or a list.
        template: where the videos of ids are, such as ``/data/{video_id}.mp4``. With ``{start}``
            (whole seconds, ``{start:06d}``) it names files that hold nothing but the clip.

    Raises:
        UsageError: there is nothing, or no clip in it, or a line is neither.
    """
    if is_remote(source):
        clips = _of_remote(str(source))
    else:
        place = Path(source)
        clips = _of_release(place) if place.is_dir() else _of_list(place, template)
    seen: set[str] = set()
    for clip in clips:
        if clip.clip_id in seen:
            raise UsageError(f"{source}: clip {clip.clip_id} is there twice.")
        seen.add(clip.clip_id)
    return clips


def stated_rules(source: Path | str) -> dict[str, Any]:
    """Return what a release says of its clips, as settings of training; nothing of a list.

    Clips of 20 to 30 frames a second, as in the paper, are taken for granted; a world that
    ``synth`` drew states its own number.
    """
    try:
        with _labels_of(source) as folder:
            document = read_document(folder, labels=True)
    except AvatarBuildError:
        return {}  # what is wrong with it, reading its clips will say
    lengths = {round(image.clip_end_s - image.clip_start_s, 3) for image in document.images}
    fps = document.info.provenance.get(SYNTH, {}).get("config", {}).get("fps")
    if len(lengths) != 1 or (length_s := lengths.pop()) <= 0:
        return {}
    counts = [round(rate * length_s) for rate in (20, 30, *([fps] if fps else []))]
    found = {"clip_s": length_s, "min_frames": max(1, min(counts)), "max_frames": max(counts)}
    return found if found != {"clip_s": 10.0, "min_frames": 200, "max_frames": 300} else {}


@contextmanager
def _labels_of(source: Path | str) -> Iterator[Path]:
    """Yield a folder with a release's document and checksums: its own, or a copy from a store."""
    if not is_remote(source):
        yield Path(source)
        return
    storage, version = release_on(str(source))
    found = storage.read_all(f"{version}/{name}" for name in (CHECKSUMS, DOCUMENT))
    if not found:
        raise UsageError(f"No release at {source}: {DOCUMENT} is missing.")
    with tempfile.TemporaryDirectory(prefix="avatar-build-") as folder:
        for name, data in found.items():
            file = Path(folder) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        yield Path(folder) / version


def _of_remote(url: str) -> list[ClipSource]:
    with _labels_of(url) as folder:
        released = released_digests(folder)
        images = {image.clip_id: image for image in read_document(folder, labels=True).images}
    # What the release says of a file's bytes stands for looking at it, so that none is asked for.
    clips = [
        ClipSource(name, row.video_id, Path(row.clip_file), 0.0, released[row.clip_file], store=url)
        for name, row in sorted(images.items())
        if row.clip_file in released
    ]
    if not clips:
        raise UsageError(f"{url}: a release without clips; training needs one that ships them.")
    return clips


def _of_release(folder: Path) -> list[ClipSource]:
    released = released_digests(folder)
    images = {image.clip_id: image for image in read_document(folder, labels=True).images}
    # A clip's file shows the clip from its first frame on.
    clips = [
        ClipSource(name, row.video_id, folder / row.clip_file, 0.0, released.get(row.clip_file, ""))
        for name, row in sorted(images.items())
    ]
    if not any(clip.path.is_file() for clip in clips):
        raise UsageError(
            f"{folder}: a release without clips. Restore them first: 'avatar-build fetch-media"
            f" {folder}'."
        )
    return clips


def _of_list(path: Path, template: str) -> list[ClipSource]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no release and no list of clips.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a list of clips in UTF-8 ({error}).") from error
    clips = []
    for number, row in enumerate(csv.reader(io.StringIO(text)), start=1):
        cells = [cell.strip() for cell in row]
        if any(cells) and not cells[0].startswith("#"):
            clips.append(_of_row(cells, path, number, template))
    if not clips:
        raise UsageError(f"{path}: no clip in it; one a line, a file or an id and its start.")
    return clips


def _of_row(cells: Sequence[str], where: Path, number: int, template: str) -> ClipSource:
    told = cells[1] if len(cells) > 1 and cells[1] else None
    if told is not None and not re.fullmatch(r"\d{1,6}(\.\d+)?", told):
        raise UsageError(f"{where}, line {number}: start {told[:40]!r}: seconds, such as 20.")
    if Path(cells[0]).suffix.lower() in _MEDIA:
        one = read_name(cells[0])
        video_id = one.video_id
        if not re.fullmatch(VIDEO_ID, video_id):  # it becomes a file name
            raise UsageError(
                f"{where}, line {number}: {video_id[:60]!r} is no id: letters, digits, '-' and '_'"
                " alone."
            )
        start_s = float(told) if told is not None else 0.0
        # The name tells where an id's clip starts in its video; another's may mean anything.
        named_s = one.start_s if one.youtube_id else None
        name = clip_id(video_id, start_s if told is not None else named_s or 0.0)
        file = where.parent / cells[0]
        # Eleven letters may be a YouTube id, or "take1_00010": an id beside a start is sure.
        sure = one.youtube_id not in ("", one.name)
        others = frozenset() if sure else one.readings - {video_id}
        return ClipSource(name, video_id, file, start_s, readings=others)
    found = parse_row([cells[0]])
    video_id = found.youtube_id if found else ""
    at_s = float(told) if told is not None else found.start_s if found else None
    if not video_id or at_s is None:
        raise UsageError(
            f"{where}, line {number}: {','.join(cells)[:60]!r} is neither a file nor a YouTube id"
            " with a start."
        )
    if not template:
        raise UsageError(
            f"{where}, line {number}: {video_id} is an id; say where videos are with"
            " --source-template '/data/{video_id}.mp4'."
        )
    try:
        path = template.format(video_id=video_id, start=int(at_s))
    except (KeyError, IndexError, ValueError) as error:
        raise UsageError(
            f"--source-template {template!r}: it may hold {{video_id}} and {{start}} ({error})."
        ) from error
    inside_s = 0.0 if "{start" in template else at_s
    return ClipSource(clip_id(video_id, at_s), video_id, Path(path), inside_s)


def refuse_overlap(clips: Iterable[ClipSource], held_out: Path) -> list[str]:
    """Insist that no clip's video is among those a model will be scored on.

    Names are compared, in whatever way either side spells them (``pipeline.release.video_lists``).

    Args:
        clips: to train on.
        held_out: a release's folder, or a list as text, CSV or JSON.

    Returns:
        Sentences on names that could not be told.

    Raises:
        UsageError: some are; names the first.
    """
    kept = held_out_videos(held_out)
    found = VideoNames.of(clip.video_id for clip in clips).shared_with(kept)
    if found.same:
        names = sorted({one.video_id for one in found.same})
        raise UsageError(
            f"{len(names)} videos to train on are also in {held_out} ({', '.join(names[:5])}"
            f"{', ...' if len(names) > 5 else ''}). A score on videos a model has seen says"
            " nothing; take them out of the list."
        )
    return [f"{held_out}: {doubt}" for doubt in (found.doubt(), kept.doubt()) if doubt]


def held_out_videos(held_out: Path) -> VideoNames:
    """Read the videos of a release or a list."""
    if not held_out.is_dir():
        return read_list(held_out)
    images = read_document(held_out, labels=True).images
    return VideoNames.of(image.video_id for image in images)
