"""The errors a user can act on.

    AvatarBuildError            printed as one line: where, what, the value, the next step; exit 1
    +-- UsageError              the command line or a file the user wrote is wrong; exit 2
    |   +-- ConfigError         avatar.toml or --set
    +-- DamagedError            a file of the workspace is not what was written
    +-- InputError              one row's input is bad: becomes a failure row, never stops a run
    +-- MediaError              one media file is bad: the same
    +-- StopRun                 the machine or the site says stop; unfinished rows stay pending

Everything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path


class AvatarBuildError(Exception):
    """A failure the user can act on; its text is the one line that is printed."""

    exit_code = 1


class UsageError(AvatarBuildError):
    """Wrong usage: a command, an option or a file written by the user."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting is unknown or out of range."""


class DamagedError(AvatarBuildError):
    """A file of the workspace is missing, unreadable, or not what was recorded of it."""


class InputError(AvatarBuildError):
    """An error about one row that cannot be processed.

    Args:
        kind: a short stable word, such as ``undecodable``; it is what ``retry --kind`` selects by.
        detail: the sentence for people.
        retryable: whether the same input may succeed later.
    """

    def __init__(self, kind: str, detail: str, *, retryable: bool = False) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail
        self.retryable = retryable

    def __reduce__(self) -> tuple[object, ...]:
        # Workers send it over a pipe; the default would rebuild it from the joined text.
        return (partial(type(self), self.kind, self.detail, retryable=self.retryable), ())


class MediaError(InputError):
    """An error about a media file that cannot be read as what it should be."""


class StopRun(AvatarBuildError):
    """Stop now and keep the unfinished rows pending: the disk is full, the site blocks us."""


_MACHINE = {
    errno.ENOSPC: "the disk is full. Make room and run again: nothing is lost",
    errno.EDQUOT: "the disk quota is used up. Make room and run again: nothing is lost",
    errno.EROFS: "the disk is read-only. Use a place that can be written",
    errno.EACCES: "permission denied. Let this user read and write it, or use another place",
    errno.EPERM: "not permitted. Let this user read and write it, or use another place",
    errno.EIO: "the disk gives read or write errors. Check it, or its mount",
    errno.ESTALE: "the network disk lost this file. Mount it again",
    errno.ENOTDIR: "a part of this path is a file, where a folder was expected. Move it away",
    errno.EISDIR: "is a folder, where a file was expected. Move it away",
    errno.ELOOP: "links that lead in a circle. Remove them",
    errno.EMFILE: "too many open files. Raise the limit with 'ulimit -n', or use fewer workers",
    errno.ENFILE: "too many open files on this machine. Close some, or use fewer workers",
}
"""What the machine refuses, whatever was asked; and what to do.

Folders in the place of files, and files in that of folders, are never made by us.
"""

_TYPED = {
    errno.ENOENT: "no such file or folder",
    errno.ENAMETOOLONG: "the name is too long for this disk",
    errno.EEXIST: "is there already",
}
"""What is wrong with a path; a mistake of the user where the user named it, else a bug."""


def machine_says(error: OSError) -> str:
    """Return the line about what the machine refused; empty when it refused nothing.

    >>> machine_says(OSError(errno.EROFS, "", "/data/ws/report.html"))
    '/data/ws/report.html: the disk is read-only. Use a place that can be written.'
    """
    text = _MACHINE.get(error.errno or 0, "")
    if not text:
        return ""
    return f"{_where(error)}{text}."


def path_says(error: OSError, words: Iterable[str]) -> str:
    """Return the line about a path that a user typed; empty when the error is of none.

    Args:
        error: about any path.
        words: of the command line.
    """
    text = _TYPED.get(error.errno or 0, "")
    if not text or not isinstance(error.filename, str):
        return ""
    asked = Path(error.filename).absolute()
    for word in words:
        for part in (word, word.partition("=")[2]):
            if part and asked.is_relative_to(Path(part.removeprefix("file://")).absolute()):
                return f"{_where(error)}{text}."
    return ""


def _where(error: OSError) -> str:
    # A rename or link has two paths, and it is the target that could not be made.
    path = error.filename2 or error.filename
    return f"{os.fsdecode(path)}: " if isinstance(path, (str, bytes)) else ""


def numpy_says(error: Exception) -> str:
    """Say why NumPy read no arrays from a file, without its advice to run the file's code.

    >>> numpy_says(ValueError("Object arrays cannot be loaded when allow_pickle=False"))
    'not an .npz of numbers'
    """
    return "not an .npz of numbers" if "pickle" in str(error) else str(error)
