"""The clip cache: each clip decoded at full size once, and kept small.

A copy (``pipeline.media.clip_cache``) takes under 1.2 MB for 10 s and is three times cheaper to
read than its source. It is named by what it was made from, so a cache may be shared by runs and
survives a renamed folder. Torch is not imported here: the processes that fill the cache start
without it.
"""

from __future__ import annotations

import hashlib
import os
import platform
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from pipeline.errors import AvatarBuildError, MediaError
from pipeline.files import sha256_of
from pipeline.media.clip_cache import RATE_HZ, SIZE_PX, write_cached_clip
from pipeline.media.container import Media
from pipeline.media.timeline import exact, read_timeline
from pipeline.workspace.recorded import holds, noted_digest, write_note
from tavlo.training.training_clips import ClipRules, ClipSource

CACHE_VERSION = 2
"""Raise when ``write_cached_clip`` makes another picture or sound of the same source. 2: the mean
of the channels, the default tracks, square pixels."""
SILENT_RMS = 1e-3
"""A clip none of whose seconds reaches this RMS (-60 dB) is silent: a tenth of what ``sample``
calls active, and more than a lossy codec leaves of channels that cancel each other."""

_END_BYTES = 1 << 18


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


def cached(clip: ClipSource, folder: Path, rules: ClipRules) -> CachedClip:
    """Find a clip's copy in the cache, there or to be made; writes nothing.

    The file's name holds the source's size and its two ends: reading all of 10,000 videos at each
    start would take longer than it would ever tell. Their digests are noted when the copy is
    made, beside its own (``pipeline.workspace.recorded``), and looked at by ``fill_cache``.

    Raises:
        MediaError: ``missing_file``.
    """
    size, ends = (0, clip.sha256.encode()) if clip.store else _looks(clip)
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


def _looks(clip: ClipSource) -> tuple[int, bytes]:
    """Return the size of a clip's file and its two ends."""
    try:
        size = clip.path.stat().st_size
        with clip.path.open("rb") as file:
            ends = file.read(_END_BYTES)
            file.seek(max(0, size - _END_BYTES))
            return size, ends + file.read(_END_BYTES)
    except OSError as error:
        raise MediaError(
            "missing_file", f"{clip.path}: {error.strerror}", retryable=True
        ) from error


def find_cached(
    clips: Iterable[ClipSource], folder: Path, rules: ClipRules
) -> tuple[list[tuple[ClipSource, CachedClip]], dict[str, str]]:
    """Pair clips with their copies; also why others have none, by id: their file is not there."""
    found, failed = [], {}
    for clip in clips:
        try:
            found.append((clip, cached(clip, folder, rules)))
        except MediaError as error:
            failed[clip.clip_id] = str(error)
    return found, failed


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
    return whole and (clip.store != "" or holds(clip.path, source, note))


def _silent(path: Path) -> Path:
    """Return the name of a copy without sound, whichever of its two names is given."""
    return path.with_name(path.name.partition(".")[0] + ".silent.mkv")


def silence(clips: Iterable[CachedClip]) -> tuple[list[str], list[str]]:
    """Return the silent ones among clips, and a sentence on them if there are any."""
    found = sorted(clip.clip_id for clip in clips if clip.silent)
    if not found:
        return [], []
    some = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
    return found, [
        f"{len(found)} clips are silent ({some}): no second of the mean of their channels reaches"
        " -60 dB. They are trained on as they are; take them out of the list if that is not meant."
    ]


Job = tuple[ClipSource, Path, ClipRules]
"""A clip, where its copy shall be, and what it must be."""


def fill_cache(
    clips: Sequence[ClipSource],
    folder: Path,
    rules: ClipRules,
    processes: int,
    show: Callable[[int, str], None] = lambda _done, _note: None,
) -> tuple[list[CachedClip], dict[str, str]]:
    """Make the copies that are missing.

    A file appears under its name when it is whole, so that a run that was killed goes on.

    Args:
        clips: all to have.
        folder: made when missing.
        rules: what each must be.
        processes: how many work at once; 1 works in this one.
        show: told how many clips are done, and a note.

    Returns:
        The clips that are there, in the order given, and why each of the others is not, by id.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found, failed = find_cached(clips, folder, rules)
    ready: dict[str, CachedClip] = {}
    jobs: list[Job] = []
    for clip, copy in found:
        if _is_current(clip, copy):
            ready[clip.clip_id] = copy
        else:
            copy.path.unlink(missing_ok=True)
            jobs.append((clip, copy.path, rules))
    before = len(clips) - len(jobs)
    show(before, f"{len(failed)} cannot be read")
    for done, (name, error_text) in enumerate(_worked(jobs, processes), start=before + 1):
        if error_text:
            failed[name] = error_text
        show(done, f"{len(failed)} cannot be read")
    # Found anew: which are silent, and what they were made from, is known only now.
    for clip, *_ in jobs:
        if clip.clip_id not in failed:
            ready[clip.clip_id] = cached(clip, folder, rules)
    return [ready[clip.clip_id] for clip in clips if clip.clip_id in ready], failed


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
        with clip.on_disk() as source:
            _make_noted(source, target, rules)
    except MediaError as error:
        return job[0].clip_id, str(error)
    return job[0].clip_id, ""


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
    # Ranks, and nodes, may make the same clip; each writes a file of its own.
    beside = target.with_name(f"{target.stem}.{platform.node()}.{os.getpid()}.mkv")
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


def _end_with_parent() -> None:
    """Leave Ctrl-C to the parent of this process, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent: Any = parent_process()

    def watch() -> None:
        with suppress(OSError):
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
