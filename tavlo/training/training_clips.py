"""The clips to train on: where each lies, and its small copy in a cache.

A clip is decoded at full size once and kept as a cached clip (``pipeline.media.clip_cache``: under
1.2 MB for 10 s, three times cheaper to read than its source). It is named by what it was made from,
so a cache may be shared by runs and survives a renamed folder. Torch is not imported here: the
processes that fill the cache start without it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import signal
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from pipeline.errors import AvatarBuildError, MediaError, UsageError
from pipeline.files import sha256_of
from pipeline.media.clip_cache import RATE_HZ, SIZE_PX, write_cached_clip
from pipeline.media.container import Media
from pipeline.media.timeline import exact, read_timeline
from pipeline.records.schema import clip_id
from pipeline.release.document import VIDEO_ID
from pipeline.release.layout import released_digests
from pipeline.release.read import SYNTH, read_document
from pipeline.release.video_lists import Shared, VideoNames, parse_row, read_list, read_name
from pipeline.workspace.recorded import holds, noted_digest, write_note

CACHE_VERSION = 2
"""Raise when ``write_cached_clip`` makes another picture or sound of the same source. 2: the mean
of the channels, the default tracks, square pixels."""
SILENT_RMS = 1e-3
"""A clip none of whose seconds reaches this RMS (-60 dB) is silent: a tenth of what ``sample``
calls active, and more than a lossy codec leaves of channels that cancel each other."""

_MEDIA = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm"})
_END_BYTES = 1 << 18


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


@dataclass(frozen=True)
class CachedClip:
    """A clip and its copy in the cache."""

    clip_id: str
    video_id: str
    path: Path
    """The copy."""
    key: str
    """The key of what it was made from."""
    sha256: str = ""
    """The digest of the copy when it was made; empty before."""
    silent: bool = False
    """True if it has no sound to speak of (``SILENT_RMS``); the file's name tells."""
    readings: frozenset[str] = frozenset()
    """Other names its video may have, as in ``ClipSource``."""


def read_clips(source: Path, template: str = "") -> list[ClipSource]:
    """Read the clips of a release, or of a list.

    A list is text or CSV, one clip a line: a file, or a YouTube id in any of the usual spellings,
    then a comma and the start in seconds where the first cell does not tell it. A file without a
    start is taken from its first frame on. Lines that start with # are comments.

    Args:
        source: a release's folder, or a list.
        template: where the videos of ids are, such as ``/data/{video_id}.mp4``. With ``{start}``
            (whole seconds, ``{start:06d}``) it names files that hold nothing but the clip.

    Raises:
        UsageError: there is nothing, or no clip in it, or a line is neither.
    """
    clips = _of_release(source) if source.is_dir() else _of_list(source, template)
    seen: set[str] = set()
    for clip in clips:
        if clip.clip_id in seen:
            raise UsageError(f"{source}: clip {clip.clip_id} is there twice.")
        seen.add(clip.clip_id)
    return clips


def stated_rules(source: Path) -> dict[str, Any]:
    """Return what a release says of its clips, as settings of training; nothing of a list.

    Clips of 20 to 30 frames a second, as in the paper, are taken for granted; a world that
    ``synth`` drew states its own number.
    """
    try:
        document = read_document(source, labels=True)
    except AvatarBuildError:
        return {}  # what is wrong with it, reading its clips will say
    lengths = {round(image.clip_end_s - image.clip_start_s, 3) for image in document.images}
    fps = document.info.provenance.get(SYNTH, {}).get("config", {}).get("fps")
    if len(lengths) != 1 or (length_s := lengths.pop()) <= 0:
        return {}
    counts = [round(rate * length_s) for rate in (20, 30, *([fps] if fps else []))]
    found = {"clip_s": length_s, "min_frames": max(1, min(counts)), "max_frames": max(counts)}
    return found if found != {"clip_s": 10.0, "min_frames": 200, "max_frames": 300} else {}


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
        video_id = _check_id(one.video_id, f"{where}, line {number}")
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


def _check_id(name: str, where: str) -> str:
    # It becomes a file name.
    if not re.fullmatch(VIDEO_ID, name):
        raise UsageError(f"{where}: {name[:60]!r} is no id: letters, digits, '-' and '_' alone.")
    return name


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


def seen_videos(trained_on: Iterable[str], release: Path) -> Shared:
    """Find the videos of a release that a model was trained on."""
    return VideoNames.of(trained_on).shared_with(held_out_videos(release))


def held_out_videos(held_out: Path) -> VideoNames:
    """Read the videos of a release or a list."""
    if not held_out.is_dir():
        return read_list(held_out)
    images = read_document(held_out, labels=True).images
    return VideoNames.of(image.video_id for image in images)


# The cache


Show = Callable[[int, int], None]
"""Called with how many clips are done, and how many of them failed."""


def cached(clip: ClipSource, folder: Path, rules: ClipRules) -> CachedClip:
    """Find a clip's copy in the cache, there or to be made; writes nothing.

    The file's name holds the source's size and its two ends: reading all of 10,000 videos at each
    start would take longer than it would ever tell. Their digests are noted when the copy is
    made, beside its own (``pipeline.workspace.recorded``), and looked at by ``fill_cache``.

    Raises:
        MediaError: ``missing_file``.
    """
    try:
        size = clip.path.stat().st_size
        with clip.path.open("rb") as file:
            ends = file.read(_END_BYTES)
            file.seek(max(0, size - _END_BYTES))
            ends += file.read(_END_BYTES)
    except OSError as error:
        raise MediaError(
            "missing_file", f"{clip.path}: {error.strerror}", retryable=True
        ) from error
    span = f"{size} {clip.start_s:.6f} {rules.length_s:.6f}"
    made = f"{CACHE_VERSION} {SIZE_PX} {RATE_HZ}"
    key = hashlib.sha256(f"{made} {span} ".encode() + ends).hexdigest()[:20]
    path = folder / f"{clip.clip_id}-{key}.mkv"
    silent = _silent(path).exists()
    path = _silent(path) if silent else path
    source = noted_digest(_note(path, "source"))
    made_of = f"{key} {source}" if source else key
    digest = noted_digest(_note(path, "feed"))
    return CachedClip(
        clip.clip_id, clip.video_id, path, made_of, digest, silent, readings=clip.readings
    )


def _note(path: Path, of: str) -> Path:
    """Return the file that notes how a copy, or its source, looked when it was hashed last."""
    return path.parent / "checked" / f"{path.name}.{of}.json"


def _is_current(clip: ClipSource, made: CachedClip) -> bool:
    """Say whether a copy is the one that was made, of the source that is there now."""
    note = _note(made.path, "source")
    source = noted_digest(note)
    if clip.sha256 not in ("", source):
        return False
    whole = holds(made.path, made.sha256, _note(made.path, "feed"))
    return whole and holds(clip.path, source, note)


def _silent(path: Path) -> Path:
    """Return the name of a copy without sound, whichever of its two names is given."""
    return path.with_name(path.name.partition(".")[0] + ".silent.mkv")


def silence(clips: Iterable[CachedClip]) -> tuple[list[str], str]:
    """Return the silent ones among clips, and a sentence on them; empty where there are none."""
    found = sorted(clip.clip_id for clip in clips if clip.silent)
    if not found:
        return [], ""
    some = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
    return found, (
        f"{len(found)} clips are silent ({some}): no second of the mean of their channels reaches"
        " -60 dB. They are trained on as they are; take them out of the list if that is not meant."
    )


def fill_cache(
    clips: Sequence[ClipSource],
    folder: Path,
    rules: ClipRules,
    processes: int,
    show: Show = lambda _done, _failed: None,
) -> tuple[list[CachedClip], dict[str, str]]:
    """Make the copies that are missing.

    A file appears under its name when it is whole, so that a run that was killed goes on.

    Args:
        clips: all to have.
        folder: made when missing.
        rules: what each must be.
        processes: how many work at once; 1 works in this one.
        show: told of the progress.

    Returns:
        The clips that are there, in the order given, and why each of the others is not, by id.
    """
    folder.mkdir(parents=True, exist_ok=True)
    failed: dict[str, str] = {}
    ready: dict[str, CachedClip] = {}
    missing = []
    for clip in clips:
        try:
            ready[clip.clip_id] = cached(clip, folder, rules)
        except MediaError as error:
            failed[clip.clip_id] = str(error)
            continue
        if not _is_current(clip, ready[clip.clip_id]):
            ready[clip.clip_id].path.unlink(missing_ok=True)
            missing.append((clip, ready[clip.clip_id].path, rules))
    done = len(clips) - len(missing)
    show(done, len(failed))
    for name, error_text in _worked(missing, processes):
        done += 1
        if error_text:
            failed[name] = error_text
            del ready[name]
        elif not ready[name].path.exists():
            quiet = _silent(ready[name].path)
            ready[name] = replace(ready[name], path=quiet, silent=True)
        show(done, len(failed))
    ready |= {
        clip.clip_id: cached(clip, folder, rules) for clip, *_ in missing if clip.clip_id in ready
    }
    return [ready[clip.clip_id] for clip in clips if clip.clip_id in ready], failed


Job = tuple[ClipSource, Path, ClipRules]


def _worked(jobs: Sequence[Job], processes: int) -> Iterator[tuple[str, str]]:
    """Yield each job's clip and error, as they end."""
    if processes <= 1 or len(jobs) <= 1:
        for job in jobs:
            yield _make(job)
        return
    waiting = iter(jobs)
    # Fresh processes: those of a program that has run torch may hang.
    pool = ProcessPoolExecutor(processes, get_context("spawn"), initializer=_end_with_parent)
    try:
        running = {pool.submit(_make, job): job for job in islice(waiting, 2 * processes)}
        while running:
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                yield future.result()
                del running[future]
                for job in islice(waiting, 1):
                    running[pool.submit(_make, job)] = job
    except BrokenProcessPool as error:
        names = ", ".join(sorted(job[0].clip_id for job in running.values()))
        raise AvatarBuildError(
            f"a process died over one of these clips: {names}. Leave them out, and put them back"
            " one by one to see which it is."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _make(job: Job) -> tuple[str, str]:
    clip, target, rules = job
    try:
        _make_noted(clip, target, rules)
    except MediaError as error:
        return clip.clip_id, str(error)
    return clip.clip_id, ""


def _make_noted(clip: ClipSource, target: Path, rules: ClipRules) -> None:
    """Write a clip's copy, and note what it and its source are."""
    if not clip.path.is_file():
        raise MediaError("missing_file", f"{clip.path}: no such file", retryable=True)
    looked = clip.path.stat()
    digest = sha256_of(clip.path)
    if clip.sha256 not in ("", digest):
        raise MediaError(
            "changed_file",
            f"{clip.path}: not the clip that was released; see 'avatar-build export --verify'",
        )
    made = cache_clip(clip, target, rules)
    after = clip.path.stat()
    if (after.st_size, after.st_mtime_ns) != (looked.st_size, looked.st_mtime_ns):
        raise MediaError("changed_file", f"{clip.path}: changed while it was read", retryable=True)
    write_note(clip.path, digest, _note(made, "source"), looked)
    write_note(made, sha256_of(made), _note(made, "feed"))


def cache_clip(clip: ClipSource, target: Path, rules: ClipRules) -> Path:
    """Write a clip's copy, whole or not at all; return it. A silent one has a name of its own.

    Raises:
        MediaError: ``short`` when the file ends before the clip does, ``frame_count`` when it has
            too few or too many frames, and what reading raises.
    """
    media = Media(clip.path)
    timeline = read_timeline(media)
    start, end = exact(clip.start_s), exact(clip.start_s + rules.length_s)
    count = len(timeline.between(start, end))
    step = (end - start) / max(count, 1)
    if not count or timeline.end < end - step:
        raise MediaError(
            "short",
            f"{clip.path.name}: ends at {float(timeline.end):.2f} s, the clip at {end} s"
            f" (train.clip_s is {rules.length_s:g})",
        )
    if not rules.min_frames <= count <= rules.max_frames:
        per_s = count / rules.length_s
        raise MediaError(
            "frame_count",
            f"{clip.path.name}: {count} frames in {rules.length_s:g} s ({per_s:g}/s); it must be"
            f" {rules.min_frames} to {rules.max_frames} (train.min_frames, train.max_frames)",
        )
    # Ranks of one machine may make the same clip; each writes a file of its own.
    beside = target.with_name(f"{target.stem}.{os.getpid()}.mkv")
    try:
        made = write_cached_clip(media, float(start), float(end), beside)
        loud, silent = target.with_name(target.name.partition(".")[0] + ".mkv"), _silent(target)
        kept, other = (silent, loud) if made.loudest_rms < SILENT_RMS else (loud, silent)
        beside.replace(kept)
        other.unlink(missing_ok=True)  # of a source that sounded otherwise
    finally:
        beside.unlink(missing_ok=True)
    return kept


def check_failed(failed: Mapping[str, str], max_failed: int) -> None:
    """Refuse more broken clips than allowed.

    Raises:
        AvatarBuildError: with some ids and what is wrong.
    """
    if len(failed) > max_failed:
        some = "; ".join(f"{name}: {why}" for name, why in sorted(failed.items())[:3])
        more = f"; and {len(failed) - 3} more" if len(failed) > 3 else ""
        raise AvatarBuildError(
            f"{len(failed)} clips cannot be used: {some}{more}. Take them out of the list, or allow"
            f" for them with --max-failed {len(failed)}; none is replaced by another."
        )


def data_digest(clips: Collection[CachedClip]) -> str:
    """Return the SHA-256 of which clips, made from what."""
    lines = sorted(f"{clip.clip_id} {clip.key}\n" for clip in clips)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def split(
    clips: Sequence[CachedClip], fraction: float, seed: int
) -> tuple[list[CachedClip], list[CachedClip]]:
    """Split into training and validation clips; what may be of one video is on the same side.

    Videos are drawn until at least ``fraction`` of the clips, and two, are held back: one clip
    alone has nothing to be told from. A fraction of 0 holds none back. Files such as
    ``take_00002.mp4`` and ``take_00007.mp4`` may be parts of one video, and stay together. What is
    more than half of the clips is trained on, so that files that are merely numbered do not all
    become validation.
    """
    wanted = max(fraction * len(clips), 2) if fraction else 0
    video_of = _videos_of(clips)
    videos = sorted(set(video_of.values()))
    # In the order of a digest of their own, so that a longer list moves few of them across.
    videos.sort(key=lambda video: hashlib.sha256(f"{seed} {video}".encode()).digest())
    counts: dict[str, int] = {}
    for clip in clips:
        video = video_of[clip.clip_id]
        counts[video] = counts.get(video, 0) + 1
    held: set[str] = set()
    for video in videos:
        if sum(counts[name] for name in held) >= wanted:
            break
        if counts[video] <= max(wanted, len(clips) / 2):
            held.add(video)
    return (
        [clip for clip in clips if video_of[clip.clip_id] not in held],
        [clip for clip in clips if video_of[clip.clip_id] in held],
    )


def _videos_of(clips: Sequence[CachedClip]) -> dict[str, str]:
    """Name all clips that share a reading of their video's name alike, by clip id."""
    above: dict[str, str] = {}

    def top(name: str) -> str:
        while above.setdefault(name, name) != name:
            name = above[name]
        return name

    for clip in clips:
        for name in clip.readings:
            one, other = sorted((top(clip.video_id), top(name)))
            above[other] = one  # the first in the alphabet, whatever the order of the clips
    return {clip.clip_id: top(clip.video_id) for clip in clips}


def _end_with_parent() -> None:
    """Leave Ctrl-C to the parent of this process, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent: Any = parent_process()

    def watch() -> None:
        with suppress(OSError):
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
