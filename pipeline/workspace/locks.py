"""Kernel locks that say who works on a stage, and leases where they tell nothing.

A kernel lock cannot go stale: it is dropped when its process ends, however it ends. An object store
has none, and some shared disks have them for each node alone; there ``leases`` does it.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TextIO

from pipeline.workspace.leases import Lease, UnitT
from pipeline.workspace.storage import Storage


class RunLock(Protocol):
    """Held by every run of a stage: shared while it works, alone while it cleans up."""

    alone: bool
    """True while no other run of the stage is alive."""
    look_again_s: float
    """The seconds after which a run that waits to be alone asks again."""

    def share(self) -> None:
        """Let other runs in."""

    def try_alone(self) -> bool:
        """Become the only run if it can be had at once."""
        ...

    def check(self) -> None:
        """Insist that this run still holds it.

        Raises:
            StopRun: others may take this run for dead.
        """


class _KernelLock:
    """The lock of a file."""

    look_again_s = 0.1

    def __init__(self, handle: TextIO) -> None:
        self._handle = handle
        self.alone = False
        if not self.try_alone():
            self.share()

    def share(self) -> None:
        self.alone = False
        fcntl.flock(self._handle, fcntl.LOCK_SH)

    def try_alone(self) -> bool:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self.alone = True
        return True

    def check(self) -> None:
        """Do nothing: the kernel takes it from nobody who is alive."""


class _LeaseLock:
    """The same by a lease."""

    look_again_s = 1.0

    def __init__(self, lease: Lease, say: Callable[[str], None]) -> None:
        self.lease, self._say = lease, say
        self.alone = False
        if not self.try_alone():
            self.share()

    def share(self) -> None:
        self.alone = False
        self.lease.share(self._say)

    def try_alone(self) -> bool:
        self.alone = self.lease.become_alone()
        return self.alone

    def check(self) -> None:
        self.lease.check()


class Claims(Protocol):
    """The units this process works on, so that others take different ones."""

    def take(self, ordinal: int) -> bool:
        """Claim a unit; false when another process has it."""
        ...

    def tell(self) -> None:
        """Let others know what was claimed."""

    def release(self, ordinal: int) -> None:
        """Give a unit back."""

    def in_turn(self, units: Sequence[UnitT]) -> Sequence[UnitT]:
        """Return units in the order to take them."""
        ...


class _KernelClaims:
    """A locked byte of a file for each unit."""

    def __init__(self, handle: TextIO) -> None:
        self._handle = handle

    def take(self, ordinal: int) -> bool:
        try:
            fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, ordinal)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def tell(self) -> None:
        """Do nothing: the kernel tells."""

    def release(self, ordinal: int) -> None:
        fcntl.lockf(self._handle, fcntl.LOCK_UN, 1, ordinal)

    def in_turn(self, units: Sequence[UnitT]) -> Sequence[UnitT]:
        return units


class _LeaseClaims:
    """A list in the run's lease, which goes with it."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease

    def take(self, ordinal: int) -> bool:
        if self._lease.is_claimed(ordinal):
            return False
        self._lease.claims.add(ordinal)
        return True

    def tell(self) -> None:
        self._lease.say()

    def release(self, ordinal: int) -> None:
        self._lease.claims.discard(ordinal)

    def in_turn(self, units: Sequence[UnitT]) -> Sequence[UnitT]:
        return self._lease.in_turn(units)


def _silence(_line: str) -> None:
    """Tell nobody."""


@contextlib.contextmanager
def run_lock(
    storage: Storage, folder: str, say: Callable[[str], None] = _silence
) -> Iterator[RunLock]:
    """Hold the run lock of the stage whose commits are in ``folder``.

    Args:
        storage: of the workspace.
        folder: its name.
        say: told of a wait for another run that may be dead.
    """
    with _open(storage, f"{folder}/run.lock") as handle:
        if handle is not None:
            yield _KernelLock(handle)
            return
    lease = Lease(storage, folder)
    try:
        lease.take()
        lease.start_beating()
        yield _LeaseLock(lease, say)
    finally:
        lease.leave()


@contextlib.contextmanager
def worker_lock(storage: Storage, folder: str) -> Iterator[None]:
    """Share the run lock as a worker of a run.

    Where there are leases that run's own will do: a worker that outlives it by a moment adds a
    commit at most, and what adds needs no lease.
    """
    with _open(storage, f"{folder}/run.lock") as handle:
        if handle is not None:
            _KernelLock(handle).share()
        yield


@contextlib.contextmanager
def settings_lock(storage: Storage) -> Iterator[None]:
    """Change ``avatar.toml`` alone: another process that would waits for its turn."""
    with _open(storage, "commits/settings.lock") as handle:
        if handle is not None:
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def unit_claims(storage: Storage, folder: str, lock: RunLock) -> Iterator[Claims]:
    """Yield the claims of this process on that stage's units; all given back at the end."""
    if isinstance(lock, _LeaseLock):
        yield _LeaseClaims(lock.lease)
        return
    with _open(storage, f"{folder}/claims.lock") as handle:
        assert handle is not None
        yield _KernelClaims(handle)


@contextlib.contextmanager
def _open(storage: Storage, name: str) -> Iterator[TextIO | None]:
    """Open a file to lock; none where locks tell nothing."""
    path = storage.local_path(name) if storage.has_locks else None
    if path is None:
        yield None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        yield handle
