"""The kinds of failure while fetching, found from yt-dlp's exceptions and texts.

yt-dlp reports nearly everything as one ``DownloadError`` with free text; what made it is sometimes
in its ``exc_info`` or ``cause``. Classes and HTTP status are judged first, then the text, by the
first pattern that is found. yt-dlp's classes are known here by their names, so that only the
backend imports it. The texts are those of yt-dlp's youtube extractor and downloaders, and the
reasons YouTube's player gives, which the extractor passes on. Only what is said of the video itself
is final: a status of one of the site's own pages, or a text that names no reason, never is.
"""

from __future__ import annotations

import datetime
import email.utils
import html
import re
from collections.abc import Iterator
from typing import NamedTuple

from pipeline.errors import InputError

_DETAIL_LENGTH = 300


class Kind(NamedTuple):
    """A kind of failure: what it means for the row and for the identity that met it."""

    retryable: bool
    """The same video may come later, or through another identity."""
    again: bool = False
    """Another attempt in the same run is worth it."""
    pause: bool = False
    """The site has turned against the identity, and the row is not to blame."""
    vague: bool = False
    """The site names no reason, so that many in a row, of different videos, are a block."""


_GONE = Kind(retryable=False)
_LATER = Kind(retryable=True)
_PASSING = Kind(retryable=True, again=True)
_REFUSED = Kind(retryable=True, again=True, vague=True)
_BLOCKED = Kind(retryable=True, pause=True)

KINDS: dict[str, Kind] = {
    "removed": _GONE,
    "private": _GONE,
    "terminated": _GONE,
    "unavailable": _LATER,
    "geo_blocked": _LATER,
    "age_gate": _LATER,
    "members_only": _LATER,
    "login_required": _LATER,
    "bot_check": _BLOCKED,
    "rate_limited": _BLOCKED,
    "http_403": _REFUSED,
    "http_404": _GONE,
    "http_410": _GONE,
    "http_429": _PASSING,
    "http_4xx": _REFUSED,
    "http_5xx": _PASSING,
    "not_yet": _LATER,
    "drm": _GONE,
    "truncated": _PASSING,
    "timeout": _PASSING,
    "connection": _PASSING,
    "no_format": _LATER,
    "hls_only": _LATER,
    "unsupported": _GONE,
    "stale_partial": _PASSING,
    "extractor": _LATER,
    "site_error": _REFUSED,
    "postprocessing": _LATER,
    "local_disk": _LATER,
    "missing_file": _LATER,
    "cookies": _LATER,
    "unknown": _PASSING,
}
"""Every kind a download may fail with, besides those of ``pipeline.media.probe``."""

_CLASSES: dict[str, str] = {
    "GeoRestrictedError": "geo_blocked",
    "UserNotLive": "not_yet",
    "ContentTooShortError": "truncated",
    "IncompleteRead": "truncated",
    "UnsupportedError": "unsupported",
    "CookieLoadError": "cookies",
    "PostProcessingError": "postprocessing",
    "RegexNotFoundError": "extractor",
    "SSLError": "connection",
    "ProxyError": "connection",
}
"""Names of yt-dlp's exception classes that say enough by themselves; subclasses count."""

_PATTERNS: tuple[tuple[str, str], ...] = (
    # The identity: first, for these texts also speak of signing in and of content not available.
    (r"rate.?limit|request limit|too many requests", "rate_limited"),
    (r"content (isn't|is not) available\W*((please )?try again|$)", "rate_limited"),
    # "Bot" and "robot" are the same word in most languages that YouTube may answer in.
    (r"\b(ro)?bots?\b|captcha|unusual traffic|\bIP\b.* blocked", "bot_check"),
    # The video. What is gone is gone everywhere, whatever else is said of countries or accounts.
    (r"private video|video is private", "private"),
    (r"account .*terminated|closed their (YouTube )?account", "terminated"),
    (r"(has|have|had) been (removed|deleted|taken down)|was (removed|deleted)", "removed"),
    (r"removed (by|for|because|due)|copyright (claim|infringement|strike)", "removed"),
    (r"no longer available(?! (in|from) )|isn't available any ?more|does not exist", "removed"),
    (r"live stream recording is not available|blocked it on", "removed"),
    (r"(in|from|for) your (country|location|region)|country domain", "geo_blocked"),
    (r"geo.?(restrict|block)", "geo_blocked"),
    (r"members.only|channel's members|join this channel|requires payment", "members_only"),
    (r"Premium members|only available to .*(members|subscribers)", "members_only"),
    (r"(confirm|verify) your age|age.?(restrict|verif)|inappropriate for some", "age_gate"),
    (r"DRM protected", "drm"),
    (r"will (begin|start)|premier\w* in\b|begins? shortly|upcoming", "not_yet"),
    (r"not currently live|(hasn't|has not|not yet) (started|begun)|check back later", "not_yet"),
    (r"(live|stream|event|premiere)\w* (has|have) ended|(^|is )offline\b", "not_yet"),
    (r"(processing|processed) (this|the) video|video is .*process(ing|ed)", "not_yet"),
    (r"^video unavailable\W*$", "removed"),
    (r"not available on this app|no longer supported in this application", "extractor"),
    (r"(video|content|item) ?(is|isn't)? (un|not )?available|playback on other", "unavailable"),
    # Without a reason of the video's own, who is asked to sign in is an address.
    (r"please sign in|^sign in\W*$|sign in to (continue|YouTube)|LOGIN_REQUIRED", "bot_check"),
    (r"registered users|login details are needed|sign in|log in", "login_required"),
    (r"page needs to be reloaded|Failed to extract any player response", "site_error"),
    (r"an error occurred\W*please try again", "site_error"),
    (r"Requested format is not available|No video formats found|Only images", "no_format"),
    (r"Unsupported URL|No suitable extractor", "unsupported"),
    # This machine
    (r"No space left on device|Disk quota exceeded|File too large", "local_disk"),
    (r"unable to (write data|open for writing|create directory|rename file)", "local_disk"),
    (r"failed to load cookies", "cookies"),
    (r"ffmpeg|ffprobe|Postprocessing:", "postprocessing"),
    # The transfer
    (r"Connection (refused|reset|aborted|broken)|Remote end closed|Broken pipe", "connection"),
    (r"more expected|content too short|Downloaded \d+ bytes, expected", "truncated"),
    (r"Did not get any data blocks|downloaded file is empty", "truncated"),
    (r"timed? ?out", "timeout"),
    (r"EOF occurred|Max retries exceeded", "connection"),
    (r"Name or service not known|name resolution|getaddrinfo|nodename nor serv", "connection"),
    (r"resolve host|Network is (unreachable|down)|No route to host", "connection"),
    (r"\bSSL|\bproxy|CERTIFICATE_", "connection"),
    (r"Unable to extract|An extractor error|Signature extraction failed", "extractor"),
    (r"challenge solving failed|nsig extraction failed", "extractor"),
    (r"Unable to download (API page|webpage|JSON)", "site_error"),
)
_COMPILED = tuple((re.compile(pattern, re.IGNORECASE), kind) for pattern, kind in _PATTERNS)

_STATUS = re.compile(r"HTTP ?Error (\d{3})")
_PAGE = re.compile(r"unable to download (?!video data)", re.IGNORECASE)
"""The words yt-dlp has for the site's own pages; a file of a video is "video data"."""
_APOSTROPHES = str.maketrans("\u2018\u2019\u02bc\u0060\u00b4", "'" * 5)
_PREFIX = re.compile(
    r"^\s*(?:ERROR:\s*)?(?:\[[^\]]*\]\s*)?(?:[A-Za-z0-9_-]{11}:\s*)?(?:YouTube said:\s*)?",
    re.IGNORECASE,
)
_BOILERPLATE = re.compile(
    r"; please report this issue on .*|\s*Use --cookies-from-browser.*|"
    r"\s*You might want to use a VPN.*",
    re.DOTALL,
)


class SiteFailure(InputError):
    """A fetch failed: of which kind, and why.

    Args:
        kind: one of ``KINDS``, which says what follows from it.
        detail: the sentence for people.
        retry_after_s: what the server asked for, when it asked.
    """

    def __init__(self, kind: str, detail: str, *, retry_after_s: float | None = None) -> None:
        self.meaning = KINDS[kind]
        super().__init__(kind, detail, retryable=self.meaning.retryable)
        self.retry_after_s = retry_after_s


def classify(error: BaseException, response_error: BaseException | None = None) -> SiteFailure:
    """Find the kind of a yt-dlp exception.

    Args:
        error: as caught.
        response_error: the last HTTP error seen during the same fetch; yt-dlp's downloader keeps
            only the text of some.
    """
    chain = [*_chain(error), *([response_error] if response_error else [])]
    text = " ".join(str(error).split())
    reason = _BOILERPLATE.sub("", _PREFIX.sub("", text, count=1)).strip()
    detail = reason if len(reason) <= _DETAIL_LENGTH else reason[: _DETAIL_LENGTH - 3] + "..."
    for link in chain:
        names = {base.__name__ for base in type(link).__mro__}
        if "HTTPError" in names and _STATUS.search(text):
            status = int(getattr(link, "status", 0))
            kind = _kind_of_status(status, text)
            return SiteFailure(kind, detail, retry_after_s=_retry_after(link))
        for name, kind in _CLASSES.items():
            if name in names:
                return SiteFailure(kind, detail + _countries(link))
    if match := _STATUS.search(text):
        return SiteFailure(_kind_of_status(int(match[1]), text), detail)
    plain = html.unescape(reason).translate(_APOSTROPHES)
    for pattern, kind in _COMPILED:
        if pattern.search(plain):
            return SiteFailure(kind, detail)
    for link in chain:
        if isinstance(link, TimeoutError):
            return SiteFailure("timeout", detail)
        if isinstance(link, ConnectionError):
            return SiteFailure("connection", detail)
        if isinstance(link, OSError) and link.errno is not None:
            return SiteFailure("local_disk", detail)
    return SiteFailure("unknown", detail)


def _kind_of_status(status: int, text: str) -> str:
    exact = f"http_{status}"
    if 400 <= status < 500 and status not in (403, 429) and _PAGE.search(text):
        return "site_error"
    if exact in KINDS:
        return exact
    if status == 416:
        return "stale_partial"
    return "http_5xx" if status >= 500 else "http_4xx"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the exception and everything it is said to come from, nearest first."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        link = waiting.pop(0)
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        exc_info = getattr(link, "exc_info", None)
        inner = exc_info[1] if isinstance(exc_info, tuple) and len(exc_info) == 3 else None
        cause = getattr(link, "cause", None)
        waiting += [
            inner,
            cause if isinstance(cause, BaseException) else None,
            link.__cause__,
            None if link.__suppress_context__ else link.__context__,
        ]


def _countries(error: BaseException) -> str:
    countries = getattr(error, "countries", None)
    return f" Available in: {', '.join(sorted(countries))}." if countries else ""


def _retry_after(error: BaseException) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", None)
    return parse_retry_after(headers.get("Retry-After") or "") if headers else None


def parse_retry_after(value: str) -> float | None:
    """Return the seconds of a Retry-After header, which holds seconds or a date (RFC 9110, 10.2.3).

    >>> parse_retry_after("120"), parse_retry_after("soon")
    (120.0, None)
    """
    value = value.strip()
    if re.fullmatch(r"\d{1,9}", value):
        return float(value)
    try:
        when = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=datetime.UTC)
    return max(0.0, (when - datetime.datetime.now(datetime.UTC)).total_seconds())
