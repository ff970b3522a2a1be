"""Tell whether a media file is still the one its row names.

A frame is read whole, and so hashed at every reading. A video is hashed once: how its file looked
then (size, times of change) is noted below ``media/checked``, outside of the tables, and it is
hashed again only where it looks otherwise. A note that is lost, or a workspace that was copied,
costs one hash a file; where no note can be written, each reading costs one. Among the times is that
of the inode's change, which no program can set: a file of the same size with a forged time of
modification is found too, where the disk keeps that time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pipeline.errors import MediaError
from pipeline.files import sha256_of, write_whole
from pipeline.flow import FLOW
from pipeline.records.schema import Frame, Video
from pipeline.workspace.storage import Storage

MISSING = "missing_file"
CHANGED = "changed_file"
LOST = (MISSING, CHANGED)
"""Kinds of failure whose way back is to make the file again (``retry``)."""
UNSURE = "unsure"
"""The state of a file written to since it was hashed: only a hash tells if it is another."""

_NOTES = "media/checked"
_VIDEOS_BY, _FRAMES_BY = (
    next(step.name for step in FLOW if step.writes == record.table) for record in (Video, Frame)
)


def frame_bytes(storage: Storage, frame: Frame) -> bytes:
    """Read the image file of a frame, as it was sampled; a row without a digest cannot tell.

    Raises:
        MediaError: ``missing_file``, ``changed_file``, ``unreadable_file``.
    """
    if path := storage.local_path(frame.path):
        _look(path, frame.path, _FRAMES_BY)
    try:
        data = storage.read(frame.path)
    except FileNotFoundError as error:
        raise _lost(MISSING, frame.path, _FRAMES_BY) from error
    if frame.sha256 and hashlib.sha256(data).hexdigest() != frame.sha256:
        raise _lost(CHANGED, frame.path, _FRAMES_BY)
    return data


@contextlib.contextmanager
def video_file(storage: Storage, video: Video, *, always_hash: bool = False) -> Iterator[Path]:
    """Yield the file of a video as a local path, checked before it is used and after.

    Args:
        storage: the workspace.
        video: the row.
        always_hash: whatever the file looks like.

    Raises:
        MediaError: ``missing_file``, ``changed_file``, ``unreadable_file``.
    """
    path = storage.local_path(video.path)
    if path is None:
        if not storage.exists(video.path):
            raise _lost(MISSING, video.path, _VIDEOS_BY)
        with storage.as_local(video.path) as fetched:
            if video.sha256 and sha256_of(fetched) != video.sha256:
                raise _lost(CHANGED, video.path, _VIDEOS_BY)
            yield fetched
        return
    before = _check(storage, path, video, always_hash=always_hash)
    yield path
    if _look(path, video.path, _VIDEOS_BY) != before:
        _check(storage, path, video, always_hash=True)


def note_file(storage: Storage, name: str, sha256: str) -> None:
    """Note how a file looks that was just made or hashed; nothing where files have no times."""
    if path := storage.local_path(name):
        with contextlib.suppress(FileNotFoundError):
            write_note(path, sha256, storage.path(_note_of(name)))


def is_as_made(storage: Storage, name: str) -> bool:
    """Say whether a file without a row is there as ``note_file`` noted it."""
    path = storage.local_path(name)
    if path is None:
        return storage.exists(name)  # only whole objects are put there, and only by us
    note = storage.path(_note_of(name))
    return holds(path, noted_digest(note), note)


def is_there(storage: Storage, name: str, sha256: str, size_bytes: int) -> bool:
    """Say whether ``name`` is a file of this digest and size."""
    if not storage.exists(name) or storage.size(name) != size_bytes:
        return False
    if path := storage.local_path(name):
        return holds(path, sha256, storage.path(_note_of(name)))
    with storage.as_local(name) as fetched:
        return sha256_of(fetched) == sha256


def file_state(storage: Storage, name: str, sha256: str, size_bytes: int, *, noted: bool) -> str:
    """Compare a file with its row, by its looks alone; empty when as recorded.

    Args:
        storage: the workspace.
        name: of the file.
        sha256: as recorded.
        size_bytes: as recorded; 0 where it was not.
        noted: whether a note should say how the file looked when it was hashed last.

    Returns:
        ``missing_file``, ``changed_file``, or ``unsure``.
    """
    if storage.local is None:
        if not storage.exists(name):
            return MISSING
        return CHANGED if size_bytes and storage.size(name) != size_bytes else ""
    try:
        found = storage.local_stat(name)
    except OSError:
        return MISSING
    if not stat.S_ISREG(found.st_mode) or (size_bytes and found.st_size != size_bytes):
        return CHANGED
    note = _noted(storage.path(_note_of(name))) if noted else []
    # A copied workspace has other times of the inodes; whoever reads a file looks at them too.
    return UNSURE if note and note[:3] != [sha256, *_marks(found)[:2]] else ""


def _lost(kind: str, path: str, stage: str) -> MediaError:
    """Make the error about a file that is gone, or another one by now."""
    what = "no such file" if kind == MISSING else "not the file that was recorded"
    again = f"'avatar-build retry --stage {stage} --kind {kind}'"
    return MediaError(kind, f"{path}: {what}. Make it again: {again}", retryable=True)


# Files and their notes, wherever they lie


def holds(path: Path, sha256: str, note: Path) -> bool:
    """Say whether ``path`` is a file of this digest; hashed only where its note does not tell."""
    try:
        found = path.stat()
        if not sha256 or not stat.S_ISREG(found.st_mode):
            return False
        if _noted(note) == [sha256, *_marks(found)]:
            return True
        if sha256_of(path) != sha256:
            return False
    except OSError:
        return False
    write_note(path, sha256, note, found)
    return True


def noted_digest(note: Path) -> str:
    """Return the digest in a note; empty when there is none."""
    noted = _noted(note)
    return str(noted[0]) if noted else ""


def write_note(path: Path, sha256: str, note: Path, looked: os.stat_result | None = None) -> None:
    """Note how a file of this digest looks; a disk that takes no note is no error.

    Args:
        path: the file.
        sha256: of its bytes.
        note: where to.
        looked: how it looked before it was hashed; none for now.
    """
    marks = _marks(looked or path.stat())
    with contextlib.suppress(OSError):
        write_whole(note, json.dumps([sha256, *marks]) + "\n")


def _noted(note: Path) -> list[object]:
    try:
        found = json.loads(note.read_bytes())
    except (OSError, ValueError):
        return []
    return found if isinstance(found, list) else []


def _marks(found: os.stat_result) -> list[int]:
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _note_of(name: str) -> str:
    return f"{_NOTES}/{PurePosixPath(name).name}.json"


def _check(storage: Storage, path: Path, video: Video, *, always_hash: bool) -> list[int]:
    """Return how the file looks, once it is known to be the video's."""
    marks = _look(path, video.path, _VIDEOS_BY)
    if not video.sha256:  # nothing to hold the file against
        return marks
    try:
        same = marks[0] == video.size_bytes and (
            sha256_of(path) == video.sha256
            if always_hash
            else holds(path, video.sha256, storage.path(_note_of(video.path)))
        )
    except OSError as error:
        raise _unreadable(video.path, error) from error
    if not same:
        raise _lost(CHANGED, video.path, _VIDEOS_BY)
    return marks


def _look(path: Path, name: str, stage: str) -> list[int]:
    try:
        found = path.stat()
    except OSError as error:  # no file, a link to nothing or to itself, a folder that is a file
        raise _lost(MISSING, name, stage) from error
    if not stat.S_ISREG(found.st_mode):
        raise _lost(CHANGED, name, stage)
    if not os.access(path, os.R_OK):
        raise _unreadable(name, PermissionError(13, "Permission denied"))
    return _marks(found)


def _unreadable(name: str, error: OSError) -> MediaError:
    return MediaError("unreadable_file", f"{name}: {error.strerror}", retryable=True)
