"""yt-dlp, in this process. The only module that imports it.

A mirror goes through an extractor of our own, YouTube through yt-dlp's, and nothing else is loaded:
a video id can never reach another site. yt-dlp chooses the format, transfers and resumes; what it
takes on trust (parts, sizes, an endless body) is checked here, and all waiting and retrying is the
stage's. A ``YoutubeDL`` costs ten times as much as an item and is not safe to share between
threads, so each identity keeps a few and lends them out one by one.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import http.client
import io
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from yt_dlp import YoutubeDL
from yt_dlp.cookies import CookieLoadError
from yt_dlp.extractor.common import InfoExtractor
from yt_dlp.networking import Request
from yt_dlp.networking.exceptions import HTTPError
from yt_dlp.utils import OUTTMPL_TYPES, YoutubeDLError

from pipeline.config import DownloadConfig
from pipeline.errors import UsageError
from pipeline.partial import PartialFile, StalePartError
from stages.download.failure_kinds import SiteFailure, classify
from stages.download.fetching import Fetched, Redactor, Refused, SiteFacts, Watch, public_url
from stages.download.identity import Identity

_EXTENSIONS = frozenset({"mp4", "m4v", "mov", "webm", "mkv"})
_LEAST_BYTES_PER_S = 1000
"""A transfer slower than this for timeout_s is a stalled one that trickles."""

_RECORD = "part.json"
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_COOKIE_LINE = re.compile(r"[^\t]+(\t[^\t]*){3}\t(\d+(\.\d+)?)?\t[^\t]*\t[^\t]*")

_VAGUE = frozenset({"site_error", "extractor", "unknown"})
_PLAIN = ("http", "https", "http_dash_segments")
"""Protocols that give a file our reader takes; HLS comes in pieces of MPEG-TS."""

Wanted = Callable[[str], None]
"""Called with the licence before the transfer; raises ``Refused`` when it is not wanted."""


class YtDlp:
    """YouTube, or a mirror of it.

    Args:
        config: limits, format, template, options.
        identities: all that ``fetch`` may be asked to use.
        watch: shown life with every request and block.
        wanted: judges a licence before the video is transferred.
        cache: a folder for yt-dlp's own cache.

    Raises:
        UsageError: settings yt-dlp does not take, or cookies that are none.
    """

    def __init__(
        self,
        config: DownloadConfig,
        identities: Sequence[Identity],
        watch: Watch,
        wanted: Wanted,
        cache: Path,
    ) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._new = functools.partial(_Session, config, watch, wanted, cache)
        # One each at once: what is wrong with the settings shows before the first row.
        self._idle = {identity: [self._new(identity)] for identity in identities}

    def fetch(self, video_id: str, folder: Path, identity: Identity) -> Fetched:
        """Fetch one whole video, resuming a valid part.

        Raises:
            SiteFailure: of any kind.
            Refused: ``too_long``, ``too_large``, or what ``wanted`` raises.
        """
        template = self._config.source_template
        if template:
            source_url = public_url(template.replace("{video_id}", video_id))
            url = f"mirror:{video_id}"
        else:
            source_url = url = f"https://www.youtube.com/watch?v={video_id}"
        with self._session(identity) as session:
            file, info = session.fetch(video_id, url, source_url, folder)
        facts = SiteFacts(source_url=source_url, format_id=str(info.get("format_id") or ""))
        if template:
            return Fetched(file, facts)
        about = {
            "license": info.get("license"),
            "title": info.get("title"),
            "uploader": info.get("uploader") or info.get("channel"),
            "upload_date": info.get("upload_date"),
        }
        return Fetched(file, facts.model_copy(update={k: str(v or "") for k, v in about.items()}))

    def close(self) -> None:
        """Close every connection."""
        for session in (one for idle in self._idle.values() for one in idle):
            session.close()
        self._idle.clear()

    @contextlib.contextmanager
    def _session(self, identity: Identity) -> Iterator[_Session]:
        idle = self._idle[identity]
        with self._lock:
            session = idle.pop() if idle else None
        session = session or self._new(identity)
        try:
            yield session
        finally:
            with self._lock:
                idle.append(session)


class _Session(YoutubeDL):  # type: ignore[misc]  # yt-dlp has no types
    """A YoutubeDL, doing one video at a time."""

    def __init__(
        self,
        config: DownloadConfig,
        watch: Watch,
        wanted: Wanted,
        cache: Path,
        identity: Identity,
    ) -> None:
        self._config, self._watch, self._wanted = config, watch, wanted
        self._folder = Path()
        self._video_id = self._source_url = ""
        self._media_url: str | None = None
        self._partial: PartialFile | None = None
        self._http_error: HTTPError | None = None
        self._offered: list[dict[str, Any]] = []
        self._responses: list[Any] = []
        self._window: tuple[float, int] | None = None
        try:
            super().__init__(_params(config, identity, cache), auto_init=False)
            _ = self.cookiejar  # loaded now, so that a bad file fails here
        except CookieLoadError as error:
            raise UsageError(f"{identity.label}: yt-dlp cannot read these cookies.") from error
        except (SyntaxError, ValueError, TypeError, AttributeError) as error:
            said = " ".join(str(error).split())
            said = Redactor(config.options, [identity.proxy, config.source_template])(said)
            raise UsageError(
                f"download.format or download.options: yt-dlp does not take them ({said})."
            ) from error
        self.params["match_filter"] = self._check_wanted
        self.add_progress_hook(self._check_progress)
        if config.source_template:
            self.add_info_extractor(_MirrorIE(config.source_template))
        else:
            self.get_info_extractor("Youtube")  # adds it

    def fetch(
        self, video_id: str, url: str, source_url: str, folder: Path
    ) -> tuple[Path, dict[str, Any]]:
        """Fetch one video; the file and yt-dlp's description of it."""
        self._folder, self._video_id, self._source_url = folder, video_id, source_url
        self._partial = self._http_error = self._window = None
        self._offered = []
        for old in folder.glob(f"{video_id}.*"):
            if old.suffix != ".part":
                old.unlink()  # yt-dlp would take it for finished
        try:
            info = self.extract_info(url, download=True)
        except (YoutubeDLError, OSError) as error:
            raise self._failure(error) from error
        finally:
            while self._responses:  # yt-dlp leaves those open that end in an error
                self._responses.pop().close()
        done = (info or {}).get("requested_downloads") or [{}]
        file = Path(done[0].get("filepath") or folder / "missing")
        if not info or not file.is_file():
            raise SiteFailure("unknown", "yt-dlp reported no error and left no file")
        size = self._partial.size if self._partial else None
        if size is not None and file.stat().st_size != size:
            raise SiteFailure("truncated", f"{file.stat().st_size} of {size} bytes")
        return file, info

    def _failure(self, error: BaseException) -> SiteFailure:
        failure = classify(error, self._http_error)
        if failure.kind in _VAGUE and self._http_error is not None:
            # The extractor tries several clients, and speaks of none of their answers.
            said = classify(self._http_error)
            failure = SiteFailure(
                said.kind, f"{said.detail}; {failure.detail}", retry_after_s=said.retry_after_s
            )
        if failure.kind == "no_format" and _is_hls_only(self._offered):
            return _hls_only(self._offered)
        if self._config.source_template:
            return failure
        if failure.kind == "http_429":
            return SiteFailure("rate_limited", failure.detail)
        if failure.kind in ("http_404", "http_410"):
            # YouTube says in words what is gone; a page or an address that is missing is its fault.
            return SiteFailure("site_error", failure.detail)
        return failure

    def prepare_filename(
        self,
        info_dict: dict[str, Any],
        dir_type: str = "",
        *,
        outtmpl: Any = None,
        warn: bool = False,
    ) -> str:
        """Name files by id alone, inside the video's folder, whatever the title holds."""
        suffix = OUTTMPL_TYPES.get(dir_type) or info_dict.get("ext")
        name = f"{self._video_id}.{suffix if suffix in _EXTENSIONS or dir_type else 'mp4'}"
        return str(self._folder / name)

    def dl(
        self, name: str, info: dict[str, Any], subtitle: bool = False, test: bool = False
    ) -> Any:
        """Transfer one chosen format, from a valid part on."""
        part = Path(f"{name}.part")
        if info.get("protocol") not in _PLAIN:
            raise _hls_only([info])
        if info.get("protocol") in ("http", "https"):
            self._media_url = info["url"]
            self._partial = PartialFile(
                part, part.parent / _RECORD, self._source_url, str(info.get("format_id") or "")
            )
        else:  # fragments: yt-dlp resumes them unchecked
            for leftover in (part, Path(f"{name}.ytdl")):
                leftover.unlink(missing_ok=True)
        try:
            return super().dl(name, info, subtitle, test)
        finally:
            self._media_url = None

    def urlopen(self, req: Any) -> Any:
        """Open one request; the one for the media is held against the part."""
        request = Request(req) if isinstance(req, str) else req
        if self._partial is None or self._media_url is None or request.url != self._media_url:
            return self._send(request)
        match = _RANGE.fullmatch(request.headers.get("Range") or "")
        start = int(match[1]) if match else 0
        if match:
            request.headers.update(self._partial.headers(start, match[2]))
        # Later requests of the same transfer go on from bytes that are not on the disk yet.
        self._media_url = None
        try:
            response = self._send(request)
            self._partial.check(response.status, response.headers, response)
        except HTTPError as error:
            if error.status == 416:
                raise SiteFailure("stale_partial", "the part is longer than the file") from error
            raise
        except StalePartError as error:
            raise SiteFailure("stale_partial", str(error)) from error
        except http.client.IncompleteRead as error:
            raise SiteFailure("truncated", str(error)) from error
        self._check_size(self._partial.size)
        return response

    def _send(self, request: Any) -> Any:
        self._watch.beat()
        try:
            response = super().urlopen(request)
        except HTTPError as error:
            self._http_error = error
            self._responses.append(error.response)
            raise
        self._responses.append(response)
        return response

    def _check_wanted(self, info: dict[str, Any], *, incomplete: bool) -> None:
        self._offered = list(info.get("formats") or [])
        live = info.get("live_status")
        if live in ("is_live", "is_upcoming", "post_live"):
            raise SiteFailure("not_yet", f"the site says {live}")
        duration_s, longest_s = info.get("duration"), self._config.max_duration_s
        if duration_s and duration_s > longest_s:
            raise Refused("too_long", f"{duration_s:.0f} s, over {longest_s:.0f}")
        if not self._config.source_template and not incomplete:
            self._wanted(str(info.get("license") or ""))

    def _check_progress(self, progress: dict[str, Any]) -> None:
        self._watch.beat()
        if progress["status"] != "downloading":
            return
        now, done = time.monotonic(), int(progress.get("downloaded_bytes") or 0)
        self._check_size(done)
        self._check_size(progress.get("total_bytes"))
        since, before = self._window or (now, done)
        if now - since >= self._config.timeout_s or self._window is None:
            if done - before < _LEAST_BYTES_PER_S * (now - since):
                rate = (done - before) / (now - since)
                raise SiteFailure("timeout", f"only {rate:.0f} bytes per second")
            self._window = now, done

    def _check_size(self, size: int | None) -> None:
        if size is not None and size > self._config.max_bytes:
            raise Refused("too_large", f"{size} bytes, over {self._config.max_bytes}")


def _is_hls_only(formats: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether there are files of picture with sound, and HLS is the only way to get one."""
    joined = [one for one in formats if "none" not in (one.get("vcodec"), one.get("acodec"))]
    return bool(joined) and not any(one.get("protocol") in _PLAIN for one in joined)


def _hls_only(formats: Sequence[Mapping[str, Any]]) -> SiteFailure:
    named = ", ".join(
        f"{one.get('format_id')} ({one.get('protocol')}, {one.get('width')}x{one.get('height')})"
        for one in formats
    )
    return SiteFailure(
        "hls_only",
        f"offered in pieces of MPEG-TS alone, which no later stage reads: {named}; the site may"
        " offer a whole file later, and download.format must leave others out ([protocol^=http])",
    )


class _MirrorIE(InfoExtractor):  # type: ignore[misc]  # yt-dlp has no types
    """A file by its id, at an address made from the template."""

    IE_NAME = "mirror"
    IE_DESC = False
    _VALID_URL = r"mirror:(?P<id>[A-Za-z0-9_-]{11})"

    def __init__(self, template: str) -> None:
        super().__init__()
        self._template = template

    def _real_extract(self, url: str) -> dict[str, Any]:
        video_id = self._match_id(url)
        address = self._template.replace("{video_id}", video_id)
        extension = Path(public_url(address)).suffix.removeprefix(".").lower()
        return {
            "id": video_id,
            "title": video_id,
            "url": address,
            "ext": extension if extension in _EXTENSIONS else "mp4",
            "format_id": "mirror",
        }


class _Silence:
    """Takes yt-dlp's chatter: everything that matters comes as an exception."""

    def debug(self, message: str) -> None:
        """Drop a message."""

    info = warning = error = debug


def _params(config: DownloadConfig, identity: Identity, cache: Path) -> dict[str, Any]:
    ours: dict[str, Any] = {
        "format": config.format,
        "noplaylist": True,
        "quiet": True,
        "no_warnings": True,
        "noprogress": True,
        "color": "no_color",
        "logger": _Silence(),
        "cachedir": str(cache),
        "socket_timeout": config.timeout_s,
        "retries": 0,
        "extractor_retries": 1,
        "updatetime": False,
        "fixup": "never",
    }
    if identity.proxy:
        ours["proxy"] = identity.proxy
    if identity.cookies:
        # A copy in memory: parallel sessions would overwrite each other's file.
        ours["cookiefile"] = io.StringIO(_cookie_text(identity.cookies))
    # The one option that is not the user's: it would swallow our own exceptions.
    return ours | copy.deepcopy(config.options) | {"ignoreerrors": False}


def _cookie_text(path: Path) -> str:
    """Read and check a cookies file: yt-dlp would print a line it cannot parse, secret and all."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as a cookies file ({error}).") from error
    for number, line in enumerate(text.splitlines(), 1):
        line = line.removeprefix("#HttpOnly_")
        if line.strip() and not line.startswith("#") and not _COOKIE_LINE.fullmatch(line):
            raise UsageError(
                f"{path}, line {number}: no cookie in Netscape format (7 fields parted by tabs)."
                " Export cookies.txt again."
            )
    return text
