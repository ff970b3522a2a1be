"""Network identities: who asks, how often each may, and when the site has had enough of one.

A site counts requests per address or account, not per process. So the state of every identity is
one small JSON file that all threads and processes on this machine share, changed under a lock the
kernel drops when its holder dies. It holds labels and times, never a password or a cookie.
"""

from __future__ import annotations

import fcntl
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import StopRun, UsageError
from pipeline.files import write_whole
from pipeline.records.schema import digest_of

_HOUR_S = 3600.0
_SLICE_S = 0.5
"""Waits are cut into slices this long, so that a stop is noticed."""

log = logging.getLogger("avatar_build.download")


@dataclass(frozen=True)
class Identity:
    """An address or account to fetch with.

    ``key`` and ``label`` are safe to write down: a proxy's password is in neither.
    """

    proxy: str = ""
    cookies: Path | None = None

    @property
    def label(self) -> str:
        """The name that people see."""
        if self.cookies:
            return f"cookies:{self.cookies.name}"
        if self.proxy:
            parts = urlsplit(self.proxy)
            return f"{parts.scheme}://{parts.hostname}:{parts.port}"
        return "direct"

    @property
    def key(self) -> str:
        """The name in the state file."""
        return f"{self.label} {digest_of([self.proxy, str(self.cookies)])[:8]}"


def parse_identities(entries: Sequence[str]) -> list[Identity]:
    """Read the ``identities`` setting.

    Raises:
        UsageError: an entry is none of 'direct', a proxy URL, 'cookies:FILE', or comes twice.
    """
    found = []
    for number, entry in enumerate(entries or ["direct"], 1):
        where = f"download.identities, entry {number}"
        if entry == "direct":
            identity = Identity()
        elif entry.startswith("cookies:"):
            path = Path(entry.removeprefix("cookies:")).expanduser().absolute()
            if not path.is_file():
                raise UsageError(f"{where}: no cookies file at {path}. Export one, or drop it.")
            identity = Identity(cookies=path)
        elif re.match(r"(https?|socks[45][ah]?)://[^/]+", entry) and _has_port(entry):
            identity = Identity(proxy=entry)
        else:
            # The entry itself may hold a password: it is not repeated here.
            raise UsageError(
                f"{where}: write 'direct', a proxy as 'http://host:port', or 'cookies:FILE'."
            )
        if identity in found:
            raise UsageError(f"{where}: the same identity twice.")
        found.append(identity)
    return found


def _has_port(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname and parts.port)
    except ValueError:
        return False


@dataclass(frozen=True)
class Pace:
    """The pace of an identity: how often it may start, and how long it rests when blocked."""

    sleep_s: float
    """Seconds between two starts."""
    max_per_hour: int | None
    """Starts in any 3600 s; none for no bound."""
    pause_s: float = _HOUR_S
    max_pauses: int = 0
    """Pauses in a row without a success, after which the identity is given up."""
    max_refusals: int = 0
    """Different videos in a row refused without a reason that are a block; 0 for no bound."""


class IdentityPool:
    """Hands out identities at their pace, and rests those the site has blocked.

    Args:
        identities: at least one.
        pace: of each of them.
        state: the shared file; made when missing.
        beat: called while waiting.
        stop: ends every wait when set.
        clock: seconds since the epoch; shared between processes, so not monotonic.
    """

    def __init__(
        self,
        identities: Sequence[Identity],
        pace: Pace,
        state: Path,
        *,
        beat: Callable[[], None] = lambda: None,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._identities, self._pace, self._path = list(identities), pace, state
        self._beat, self._clock = beat, clock
        self._stop = stop or threading.Event()
        state.parent.mkdir(parents=True, exist_ok=True)

    def start(self) -> Identity:
        """Wait until an identity may start one more video, and take that start.

        Raises:
            StopRun: the wait was ended by ``stop``.
        """
        while True:
            with self._state() as state:
                now = self._clock()
                at, identity = min(
                    ((self._free_at(state, one, now), one) for one in self._identities),
                    key=lambda pair: pair[0],
                )
                if at <= now:
                    mine = state[identity.key]
                    mine["last"] = now
                    if self._pace.max_per_hour is not None:
                        mine["starts"] = [t for t in mine["starts"] if t > now - _HOUR_S] + [now]
                    return identity
            self.wait(at - now, once=True)

    def succeeded(self, identity: Identity) -> None:
        """Note that the site served it: earlier pauses and refusals are forgotten."""
        with self._state() as state:
            state[identity.key] |= {"pauses": 0, "refused": [], "served": self._clock()}

    def has_served_since(self, at: float) -> bool:
        """Say whether the site has served any identity since then."""
        with self._state() as state:
            return any(state[one.key]["served"] >= at for one in self._identities)

    def refused(self, identity: Identity, video_id: str, why: str) -> bool:
        """Note that the site refused a video without a reason.

        One refusal says nothing. A row of them, of different videos and with none served between,
        is a block of the identity, as is every one that comes in while it rests.

        Returns:
            Whether a block was the reason.

        Raises:
            StopRun: as ``block``.
        """
        with self._state() as state:
            mine = state[identity.key]
            if mine["until"] > self._clock():
                return True
            row: list[str] = mine["refused"]
            if video_id not in row:
                row.append(video_id)
            if not 0 < self._pace.max_refusals <= len(row):
                return False
            mine["refused"] = []
        self.block(identity, f"{why} for {len(row)} videos in a row")
        return True

    def block(self, identity: Identity, why: str) -> float:
        """Let an identity rest that the site has turned against.

        Returns:
            Until when, by the pool's clock.

        Raises:
            StopRun: every identity has had its pauses and is still blocked.
        """
        with self._state() as state:
            now = self._clock()
            mine = state[identity.key]
            if mine["until"] <= now:  # else it rests already, for another thread's sake
                mine["pauses"] += 1
                mine["until"] = now + self._pace.pause_s
                log.warning("%s: %s; rests until %s", identity.label, why, _hour(mine["until"]))
            until: float = mine["until"]
            spent = [state[i.key]["pauses"] > self._pace.max_pauses for i in self._identities]
            again = min(state[one.key]["until"] for one in self._identities)
            if all(spent):
                for one in self._identities:
                    state[one.key]["pauses"] = 0  # the next run gets its own pauses
        if all(spent):
            raise StopRun(
                f"download: the site blocks {', '.join(i.label for i in self._identities)}"
                f" ({why}) after {self._pace.max_pauses} pauses. Run again after {_hour(again)},"
                " or add an identity: the unfinished rows stay pending."
            )
        return until

    def wait(self, seconds: float, *, once: bool = False) -> None:
        """Sleep on purpose; a run that stops ends it.

        Args:
            seconds: how long.
            once: sleep one slice at most; the caller looks again.

        Raises:
            StopRun: ended by ``stop``.
        """
        limit = time.monotonic() + (min(seconds, _SLICE_S) if once else seconds)
        while not self._stop.is_set():
            self._beat()
            left = limit - time.monotonic()
            if left <= 0:
                return
            self._stop.wait(min(left, _SLICE_S))
        raise StopRun("download: stopped.")

    def _free_at(self, state: dict[str, Any], identity: Identity, now: float) -> float:
        mine = state[identity.key]
        # A clock that was set back must not lock an identity away.
        mine["last"] = min(mine["last"], now)
        mine["until"] = min(mine["until"], now + self._pace.pause_s)
        at = float(max(mine["last"] + self._pace.sleep_s, mine["until"]))
        bound = self._pace.max_per_hour
        recent = sorted(t for t in mine["starts"] if now - _HOUR_S < t <= now)
        if bound is not None and len(recent) >= bound:
            at = max(at, recent[-bound] + _HOUR_S)
        return at

    @contextmanager
    def _state(self) -> Iterator[dict[str, Any]]:
        """Yield the state under its lock, and write what the ``with`` leaves in it."""
        with self._path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = _read(self._path)
            for one in self._identities:
                state[one.key] = _new() | state.get(one.key, {})
            before = json.dumps(state)
            yield state
            after = json.dumps(state)
            if after != before:
                write_whole(self._path, after)


def _new() -> dict[str, Any]:
    return {"last": 0.0, "until": 0.0, "served": 0.0, "pauses": 0, "starts": [], "refused": []}


def _read(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return state


def _hour(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
