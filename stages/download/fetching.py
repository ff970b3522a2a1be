"""The results of fetching a video, from wherever it comes."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from pipeline.errors import StopRun
from pipeline.records.schema import Record
from stages.download.identity import Identity


class SiteFacts(Record):
    """The source's statements about a video; empty where it says nothing."""

    source_url: str
    """The address without passwords and queries, which may hold tokens."""
    license: str = ""
    title: str = ""
    uploader: str = ""
    upload_date: str = ""
    """``YYYYMMDD``."""
    format_id: str = ""


@dataclass(frozen=True)
class Fetched:
    """A whole file on the local disk, not verified yet."""

    file: Path
    facts: SiteFacts


class Refused(Exception):
    """The video will not be had, by our own choice: too long, too large, wrong licence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class Site(Protocol):
    """A source of videos."""

    def fetch(self, video_id: str, folder: Path, identity: Identity) -> Fetched:
        """Fetch one whole video into ``folder``, going on from a valid part that lies there.

        Raises:
            SiteFailure: it cannot be had; ``local_disk`` when this machine is the reason.
            Refused: it is not wanted.
            StopRun: the run ends.
        """
        ...


@dataclass
class Watch:
    """The run's side of a wait: shows life, and hears that it should end."""

    heartbeat: Callable[[], None] = lambda: None
    stop: threading.Event = field(default_factory=threading.Event)
    _last: float = 0.0

    def beat(self) -> None:
        """Show life, at most once a second.

        Raises:
            StopRun: the run ends.
        """
        if self.stop.is_set():
            raise StopRun("download: stopped.")
        now = time.monotonic()
        if now - self._last >= 1:
            self._last = now
            self.heartbeat()


def public_url(url: str) -> str:
    """Return ``url`` without what may be secret: password, query, fragment.

    >>> public_url("https://me:pw@host:8000/a/-1pRmoJIGQc.mp4?token=x#y")
    'https://host:8000/a/-1pRmoJIGQc.mp4'
    """
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE)
_SECRET_NAMES = re.compile(r"pass|user|token|header|cookie|proxy|secret|key|auth|args", re.I)
_MIN_SECRET = 4


class Redactor:
    """Takes secrets out of texts that are kept or shown.

    URLs lose password and query, and every value of an option whose name sounds secret is replaced.

    Args:
        options: yt-dlp options, at any depth.
        urls: proxies and templates whose passwords and queries are secret.
    """

    def __init__(self, options: Mapping[str, Any], urls: Iterable[str] = ()) -> None:
        found = set(_secret_values(options, inside=False))
        for url in urls:
            parts = urlsplit(url)
            found |= {parts.netloc.rpartition("@")[0], parts.password or "", parts.query}
        self._secrets = sorted((s for s in found if len(s) >= _MIN_SECRET), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return ``text`` without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return _URL.sub(lambda match: public_url(match[0]), text)


def _secret_values(value: Any, *, inside: bool) -> Iterable[str]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _secret_values(part, inside=inside or bool(_SECRET_NAMES.search(str(name))))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _secret_values(part, inside=inside)
    elif inside and isinstance(value, str):
        yield value
