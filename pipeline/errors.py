"""The errors a user can act on.

    AvatarBuildError            printed as one line: where, what, the value, the next step; exit 1
    +-- UsageError              the command line or a file the user wrote is wrong; exit 2
    |   +-- ConfigError         avatar.toml or --set
    +-- InputError              one row's input is bad: becomes a failure row, never stops a run
    +-- MediaError              one media file is bad: the same
    +-- StopRun                 the machine or the site says stop; unfinished rows stay pending

Everything else is a bug and keeps its traceback.
"""

from __future__ import annotations


class AvatarBuildError(Exception):
    """A failure the user can act on; its text is the one line that is printed."""

    exit_code = 1


class UsageError(AvatarBuildError):
    """Wrong usage: a command, an option or a file written by the user."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting is unknown or out of range."""


class InputError(AvatarBuildError):
    """One row cannot be processed, and why.

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
        return (_rebuild, (type(self), self.kind, self.detail, self.retryable))


class MediaError(InputError):
    """One media file cannot be read as what it should be."""


class StopRun(AvatarBuildError):
    """Stop now and keep the unfinished rows pending: the disk is full, the site blocks us."""


def _rebuild(cls: type[InputError], kind: str, detail: str, retryable: bool) -> InputError:
    return cls(kind, detail, retryable=retryable)
