"""Leases: who works on a stage where no kernel lock tells.

On an object store, and on a shared disk whose locks hold on one node alone, each run of a stage
keeps a small file of its own beside the commits and writes it anew while it lives:

    commits/<stage>/runs/<number>-<token>.json    its owner, its state, the units it works on

A run that was silent for ``EXPIRES_S`` is dead, by the clock of the store, so that the nodes' own
may differ. It takes itself for dead before that (``GIVE_UP_S``), and destroys nothing from then on.

Who wants to be alone says so first and looks at the others then: of two that come at once at least
one sees the other. No store needs more than that for it than to show what was written.

A lease guards what retires and sweeps. What a run adds needs none: its files are named by their
bytes and lie there before the commit that names them, and of two commits of a unit the first
stands. So a run that was taken for dead, or a request that arrives late, loses nobody's rows.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pipeline.errors import StopRun
from pipeline.workspace.storage import Storage

BEAT_S = 15.0
"""A lease is written anew this often."""

GIVE_UP_S = 90.0
"""The silence after which a run takes itself for dead."""

EXPIRES_S = 120.0
"""The silence after which others take it for dead: later, as a request may be under way."""

LOOK_AGAIN_S = 0.5
"""The seconds between two looks of a run that waits for another."""

_CLAIMS_S = 2.0
"""The claims of others are read anew after this long."""

_ALONE, _SHARES, _WAITS = "alone", "shares", "waits"
"""The states of a run: alone or about to be; at work beside others; doing nothing."""

UnitT = TypeVar("UnitT")


@dataclass(frozen=True)
class _Other:
    """The lease of another run that is alive."""

    name: str
    state: str
    owner: str
    claims: frozenset[int]
    silent_s: float


class Lease:
    """Says that this run is alive, and finds out who else is.

    Args:
        storage: of the workspace.
        folder: of the stage's commits.
        clock: seconds that go on while the machine sleeps.
    """

    def __init__(
        self, storage: Storage, folder: str, clock: Callable[[], float] | None = None
    ) -> None:
        self._storage, self._folder = storage, f"{folder}/runs"
        self._clock = clock or _seconds
        self._owner = f"{platform.node()}, process {os.getpid()}"
        self._name = ""
        self._state = _WAITS
        self._said_at = self._looked_at = 0.0
        self._others: list[_Other] = []
        self._written: dict[str, float] = {}
        """When each lease was written, as of the last look."""
        self._gone = False
        self._ended = threading.Event()
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._keep_beating, name="lease", daemon=True)
        self.claims: set[int] = set()
        """The ordinals of the units at hand."""

    def take(self) -> None:
        """Become known, after all that are, as one that wants to be alone."""
        names = self._storage.names(self._folder)
        number = 1 + max(
            (int(name.partition("-")[0]) for name in names if _is_lease(name)), default=0
        )
        self._name = f"{number:06d}-{uuid.uuid4().hex[:12]}.json"
        self._said_at = self._clock()
        self.say(_ALONE)

    def start_beating(self) -> None:
        """Write the lease anew from now on, in a thread."""
        self._thread.start()

    def leave(self) -> None:
        """End it; who was taken for dead has none any more."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        with contextlib.suppress(OSError, StopRun):  # on a store that is out of reach it expires
            self._storage.remove(f"{self._folder}/{self._name}")

    @property
    def lost(self) -> bool:
        """Say whether others may take this run for dead."""
        return self._gone or self._clock() - self._said_at > GIVE_UP_S

    def check(self) -> None:
        """Insist that this run is alive to the others.

        Raises:
            StopRun: it is not, or may not be.
        """
        if self.lost:
            raise StopRun(
                f"{self._storage.url}/{self._folder}/{self._name}: this run gave no sign of life"
                f" for {GIVE_UP_S:.0f} s or more, so that another may have taken its place. What is"
                " committed stays; run again."
            )

    def say(self, state: str | None = None) -> None:
        """Write it with the claims at hand, and in another state if one is given."""
        with self._writing:
            self.check()
            self._state = state or self._state
            said = {"owner": self._owner, "state": self._state, "claims": sorted(self.claims)}
            started = self._clock()
            self._storage.write(f"{self._folder}/{self._name}", json.dumps(said).encode())
            self._said_at = started

    def beat(self) -> None:
        """Give a sign of life, unless another run took this one for dead and its lease away."""
        try:
            self._storage.read(f"{self._folder}/{self._name}", anew=True)
        except FileNotFoundError:
            self._gone = True
        else:
            self.say()

    def _keep_beating(self) -> None:
        while not (self._ended.wait(BEAT_S) or self.lost):
            try:
                self.beat()
            except Exception:  # noqa: BLE001  a store that does not answer now may next time
                continue

    def become_alone(self) -> bool:
        """Become the only one at work, unless others are; of several at once the first is."""
        if self._state == _ALONE:
            self.check()  # that was said when it was taken, or since
        else:
            self.say(_ALONE)
        while True:
            others = self.look()
            before = [one for one in others if one.state == _ALONE and one.name < self._name]
            if before or any(one.state == _SHARES for one in others):
                self.say(_WAITS)
                return False
            if all(one.state == _WAITS for one in others):
                self._remove_dead()
                return True
            time.sleep(LOOK_AGAIN_S)

    def share(self, say: Callable[[str], None]) -> None:
        """Come in to work beside others, once nobody is alone.

        Args:
            say: told once of whom this waits for.
        """
        told = False
        while True:
            self.say(_SHARES)
            alone = [one for one in self.look() if one.state == _ALONE]
            if not alone:
                return
            self.say(_WAITS)
            while alone:
                if not told:
                    left_s = max(1.0, EXPIRES_S - alone[0].silent_s)
                    say(
                        f"{self._folder.split('/')[1]}: waits for another run ({alone[0].owner}) to"
                        f" let others in; if that is dead, for {left_s:.0f} s at most."
                    )
                    told = True
                time.sleep(LOOK_AGAIN_S)
                self.check()
                alone = [one for one in self.look() if one.state == _ALONE]

    def look(self) -> list[_Other]:
        """Return the others that are alive."""
        self._written = written = self._storage.times(self._folder)
        now = written.get(self._name)
        found = []
        for name in sorted(written.keys() - {self._name}):
            silent_s = _silent_s(now, written[name])
            if _is_lease(name) and silent_s <= EXPIRES_S:
                found += self._read(name, silent_s)
        self._others, self._looked_at = found, self._clock()
        return found

    def _read(self, name: str, silent_s: float) -> list[_Other]:
        """Read a lease; empty when it is gone. One that cannot be read is of a run at work."""
        try:
            said = json.loads(self._storage.read(f"{self._folder}/{name}", anew=True))
            owner, state, claims = str(said["owner"]), said["state"], frozenset(said["claims"])
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError):
            owner, state, claims = name, _SHARES, frozenset[int]()
        return [_Other(name, state, owner, claims, silent_s)]

    def _remove_dead(self) -> None:
        """Take the leases away that were over at the last look."""
        now = self._written.get(self._name)
        for name, at in self._written.items():
            if _is_lease(name) and _silent_s(now, at) > EXPIRES_S:
                self._storage.remove(f"{self._folder}/{name}")

    # The units at hand. Two runs that take one at the same instant do it twice: one commit stands.

    def is_claimed(self, ordinal: int) -> bool:
        """Say whether another run that is alive works on a unit."""
        if self._clock() - self._looked_at > (_CLAIMS_S if self._others else BEAT_S):
            self.look()
        return any(ordinal in other.claims for other in self._others)

    def in_turn(self, units: Sequence[UnitT]) -> list[UnitT]:
        """Return units in the order to take them: beside others from somewhere in the middle."""
        start = uuid.uuid4().int % len(units) if self._others and units else 0
        return [*units[start:], *units[:start]]


def _silent_s(now: float | None, at: float | None) -> float:
    """Return the silence of a run; 0 on a store that tells no times, where all are alive."""
    return 0.0 if now is None or at is None else now - at


def _is_lease(name: str) -> bool:
    return name.endswith(".json") and name.partition("-")[0].isdigit()


def _seconds() -> float:
    """Return seconds of a clock that nobody sets, and that goes on while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
