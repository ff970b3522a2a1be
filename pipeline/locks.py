"""Locks that cannot go stale: the kernel drops them when their process ends, however it ends.

On an object store there are none, and one run at a time is the user's part.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from typing import TextIO

from pipeline.storage import Storage


class RunLock:
    """Held by every run of a stage: shared while it works, alone while it cleans up."""

    def __init__(self, handle: TextIO | None) -> None:
        self._handle = handle
        self.alone = True
        """Whether no other run of the stage is alive."""
        if handle is None:
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.alone = False
            fcntl.flock(handle, fcntl.LOCK_SH)

    def share(self) -> None:
        """Let other runs in."""
        self.alone = False
        if self._handle is not None:
            fcntl.flock(self._handle, fcntl.LOCK_SH)

    def try_alone(self) -> bool:
        """Become the only run if it can be had at once."""
        if self._handle is None:
            return True
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self.alone = True
        return True


class Claims:
    """Which units this process works on: one locked byte each, so others take different ones."""

    def __init__(self, handle: TextIO | None) -> None:
        self._handle = handle

    def take(self, ordinal: int) -> bool:
        """Claim a unit; false when another process has it."""
        if self._handle is None:
            return True
        try:
            fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, ordinal)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def release(self, ordinal: int) -> None:
        """Give a unit back."""
        if self._handle is not None:
            fcntl.lockf(self._handle, fcntl.LOCK_UN, 1, ordinal)


@contextlib.contextmanager
def run_lock(storage: Storage, folder: str) -> Iterator[RunLock]:
    """Hold the run lock of the stage whose commits are in ``folder``."""
    with _open(storage, f"{folder}/run.lock") as handle:
        yield RunLock(handle)


@contextlib.contextmanager
def settings_lock(storage: Storage) -> Iterator[None]:
    """Change ``avatar.toml`` alone: another process that would waits for its turn."""
    with _open(storage, "commits/settings.lock") as handle:
        if handle is not None:
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def unit_claims(storage: Storage, folder: str) -> Iterator[Claims]:
    """The claims of this process on that stage's units; all given back at the end."""
    with _open(storage, f"{folder}/claims.lock") as handle:
        yield Claims(handle)


@contextlib.contextmanager
def _open(storage: Storage, name: str) -> Iterator[TextIO | None]:
    if storage.local is None:
        yield None
        return
    path = storage.path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        yield handle
