"""Locks that cannot go stale: the kernel drops them when their process ends, however it ends.

An object store has none. There a small marker beside the commits says who runs and is written anew
while that run lives; one that was not for ``EXPIRES_S`` is of a dead run. It keeps a second run
out. It is no fence: a run that stood still for longer than that may go on beside its successor,
and stops at its next commit.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any, TextIO

from pipeline.errors import AvatarBuildError, StopRun
from pipeline.workspace.storage import Storage

BEAT_S = 15.0
"""A marker is written anew this often."""

EXPIRES_S = 120.0
"""A marker this old is of a dead run."""

_READ_BACK_S = 0.2
"""After which a marker is read back: of two written at one instant the second stands."""


class RunningError(AvatarBuildError):
    """Another run of the stage is alive on an object store, where one at a time may be."""


class RunLock:
    """Held by every run of a stage: shared while it works, alone while it cleans up."""

    def __init__(self, handle: TextIO | None, marker: _Marker | None = None) -> None:
        self._handle = handle
        self._marker = marker
        self.alone = handle is None
        """Whether no other run of the stage is alive."""
        if not self.try_alone():
            self.share()

    def share(self) -> None:
        """Let other runs in; on an object store none comes in."""
        if self._handle is not None:
            self.alone = False
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

    def check(self) -> None:
        """Insist that this run still holds it.

        Raises:
            StopRun: on an object store, another run took this one for dead.
        """
        if self._marker is not None and self._marker.lost:
            raise StopRun(
                f"{self._marker.place}: this run gave no sign of life for {EXPIRES_S:.0f} s, and"
                " another took its place. What is committed stays; let the other go on."
            )


class _Marker:
    """Says on an object store that a run is alive."""

    def __init__(self, storage: Storage, name: str) -> None:
        self._storage, self._name = storage, name
        self._owner = f"{platform.node()}, process {os.getpid()}"
        self._token = uuid.uuid4().hex
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="run marker", daemon=True)
        self.place = f"{storage.url}/{name}"
        self.lost = False

    def take(self) -> None:
        """Put the marker there.

        Raises:
            RunningError: one of a living run stands there.
        """
        while not self._storage.create(self._name, self._said()):
            found = self._read()
            silent_s = time.time() - float(found.get("time", 0.0))
            if found and silent_s < EXPIRES_S:
                raise self._running(found, silent_s)
            self._storage.remove(self._name)
        time.sleep(_READ_BACK_S)
        found = self._read()
        if found.get("token") != self._token:
            raise self._running(found, 0.0)
        self._thread.start()

    def _running(self, found: dict[str, Any], silent_s: float) -> RunningError:
        left_s = max(1.0, EXPIRES_S - silent_s)
        return RunningError(
            f"{self._storage.url}: another run ({found.get('owner', 'unknown')}) works on"
            f" {self._name.rpartition('/')[0]}; an object store takes one run of a stage at a time."
            f" Wait for it to end. If it is dead, try again in {left_s:.0f} s, or delete"
            f" {self.place}."
        )

    def leave(self) -> None:
        """Take the marker away, unless it is another's by now."""
        self._ended.set()
        self._thread.join()
        if self._read().get("token") == self._token:
            self._storage.remove(self._name)

    def _beat(self) -> None:
        alive = time.monotonic()
        while not self._ended.wait(BEAT_S):
            try:
                if self._read().get("token") != self._token:
                    self.lost = True
                    return
                self._storage.write(self._name, self._said())
                alive = time.monotonic()
            except Exception:  # noqa: BLE001  a store that does not answer now may answer next time
                self.lost = time.monotonic() - alive > EXPIRES_S

    def _said(self) -> bytes:
        told = {"owner": self._owner, "token": self._token, "time": time.time()}
        return json.dumps(told).encode()

    def _read(self) -> dict[str, Any]:
        """Read the marker that stands there; empty when there is none that can be read."""
        try:
            found = json.loads(self._storage.read(self._name))
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


class Claims:
    """The units this process works on: a locked byte each, so others take different ones."""

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
    """Hold the run lock of the stage whose commits are in ``folder``.

    Raises:
        RunningError: on an object store, another run of it is alive.
    """
    if storage.has_locks:
        with _open(storage, f"{folder}/run.lock") as handle:
            yield RunLock(handle)
        return
    marker = _Marker(storage, f"{folder}/run.json")
    marker.take()
    try:
        yield RunLock(None, marker)
    finally:
        marker.leave()


@contextlib.contextmanager
def worker_lock(storage: Storage, folder: str) -> Iterator[None]:
    """Share the run lock as a worker of a run; on an object store that run's own will do."""
    with _open(storage, f"{folder}/run.lock") as handle:
        RunLock(handle).share()
        yield


@contextlib.contextmanager
def settings_lock(storage: Storage) -> Iterator[None]:
    """Change ``avatar.toml`` alone: another process that would waits for its turn."""
    with _open(storage, "commits/settings.lock") as handle:
        if handle is not None:
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def unit_claims(storage: Storage, folder: str) -> Iterator[Claims]:
    """Yield the claims of this process on that stage's units; all given back at the end."""
    with _open(storage, f"{folder}/claims.lock") as handle:
        yield Claims(handle)


@contextlib.contextmanager
def _open(storage: Storage, name: str) -> Iterator[TextIO | None]:
    path = storage.local_path(name)
    if path is None:
        yield None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        yield handle
