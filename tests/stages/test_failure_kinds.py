from __future__ import annotations

import datetime
import email.utils
import io
from collections.abc import Callable
from typing import Any

import pytest
import yt_dlp
from hypothesis import given
from hypothesis import strategies as st
from yt_dlp.extractor.common import InfoExtractor
from yt_dlp.networking.common import Response
from yt_dlp.networking.exceptions import (
    HTTPError,
    IncompleteRead,
    ProxyError,
    SSLError,
    TransportError,
)
from yt_dlp.utils import (
    ContentTooShortError,
    DownloadError,
    ExtractorError,
    GeoRestrictedError,
    UnavailableVideoError,
    UnsupportedError,
    UserNotLive,
)

from stages.download.failure_kinds import KINDS, SiteFailure, classify, parse_retry_after


class Silence:
    def debug(self, message: str) -> None: ...

    warning = error = debug


def through_yt_dlp(raising: Callable[[], BaseException]) -> BaseException:
    """What yt-dlp makes of an exception that an extractor raises."""

    class Extractor(InfoExtractor):  # type: ignore[misc]
        _VALID_URL = r"test:(?P<id>[A-Za-z0-9_-]{11})"
        IE_NAME = "youtube"

        def _real_extract(self, url: str) -> dict[str, Any]:
            raise raising()

    with yt_dlp.YoutubeDL({"logger": Silence(), "quiet": True}, auto_init=False) as downloader:
        downloader.add_info_extractor(Extractor())
        try:
            downloader.extract_info("test:-1pRmoJIGQc")
        except DownloadError as error:
            caught: BaseException = error
            return caught
    raise AssertionError("nothing was raised")


def said(text: str) -> Callable[[], BaseException]:
    return lambda: ExtractorError(text, expected=True)


SIGN_IN = "Use --cookies-from-browser or --cookies for the authentication. See  https://x/y"

# Reasons of YouTube's player, as the youtube extractor passes them on.
REASONS = [
    ("Video unavailable", "removed"),
    ("Video unavailable. This video has been removed by the uploader", "removed"),
    (
        "This video has been removed for violating YouTube's policy on hate speech. Learn more",
        "removed",
    ),
    (
        "Video unavailable. This video is no longer available due to a copyright claim by X",
        "removed",
    ),
    ("This video isn't available anymore", "removed"),
    ("This video does not exist.", "removed"),
    ("This live stream recording is not available.", "removed"),
    (
        "Video unavailable. This video contains content from X, who has blocked it on"
        " copyright grounds",
        "removed",
    ),
    (
        "Video unavailable. This video is no longer available because the YouTube account"
        " associated with this video has been terminated.",
        "terminated",
    ),
    (
        "Video unavailable. This video is no longer available because the uploader has closed"
        " their YouTube account.",
        "terminated",
    ),
    ("This account has been terminated for violating Google's Terms", "terminated"),
    (
        "Private video. Sign in if you've been granted access to this video. " + SIGN_IN,
        "private",
    ),
    ("This video is private", "private"),
    ("This video is not available", "unavailable"),
    (
        "Video unavailable. This video contains content from X, who has blocked it in your"
        " country on copyright grounds",
        "geo_blocked",
    ),
    ("The uploader has not made this video available in your country", "geo_blocked"),
    (
        "Sign in to confirm your age. This video may be inappropriate for some users. " + SIGN_IN,
        "age_gate",
    ),
    ("Sign in to confirm you\u2019re not a bot. " + SIGN_IN, "bot_check"),
    ("Sign in to confirm you're not a bot. " + SIGN_IN, "bot_check"),
    (
        "Video unavailable. YouTube is requiring a captcha challenge before playback",
        "bot_check",
    ),
    (
        "Video unavailable. This content isn't available, try again later. The current session"
        " has been rate-limited by YouTube for up to an hour. It is recommended to use `-t sleep`",
        "rate_limited",
    ),
    ("Join this channel to get access to members-only content like this video", "members_only"),
    (
        "This video is available to this channel's members on level: Fan (or any higher level).",
        "members_only",
    ),
    ("This video requires payment to watch", "members_only"),
    ("This video is only available to Music Premium members", "members_only"),
    ("This video is DRM protected", "drm"),
    ("Premieres in 5 hours", "not_yet"),
    ("Premiere will begin shortly", "not_yet"),
    ("This live event will begin in 3 days.", "not_yet"),
    ("We're processing this video. Check back later.", "not_yet"),
    ("The page needs to be reloaded.", "site_error"),
    ("Failed to extract any player response", "site_error"),
    ("Requested format is not available. Use --list-formats", "no_format"),
    ("No video formats found!", "no_format"),
    ("This video is only available for registered users. " + SIGN_IN, "login_required"),
    ("Please sign in. " + SIGN_IN, "bot_check"),
    ("LOGIN_REQUIRED: Please sign in to confirm that you are not a bot", "bot_check"),
    ("Inicia sesi\u00f3n para confirmar que no eres un bot", "bot_check"),
    ("Connectez-vous pour confirmer que vous n\u2019\u00eates pas un robot", "bot_check"),
    ("All player responses are invalid. Your IP is likely being blocked by Youtube", "bot_check"),
    ("This video is private. Please sign in to verify that you may see it.", "private"),
    ("You've hit the request limit.. Your limits will reset soon, usually within", "rate_limited"),
    ("Video unavailable. This content isn\u2019t available.", "rate_limited"),
    ("This live event has ended.", "not_yet"),
    ("Offline.", "not_yet"),
    ("This live stream is offline", "not_yet"),
    ("The live stream has not started", "not_yet"),
    ("This video is still being processed", "not_yet"),
    (
        "This video has been removed for violating YouTube's policy on hate speech. Learn more"
        " about combating hate speech in your country.",
        "removed",
    ),
    ("This video was removed because of a copyright strike in your country", "removed"),
    (
        "This account has been terminated. The channel is not available in your country",
        "terminated",
    ),
    ("This video is no longer available in your country", "geo_blocked"),
    ("This content isn't available in your country. Sorry", "geo_blocked"),
    (
        "This video is unavailable in your location due to a legal complaint from the government",
        "geo_blocked",
    ),
    ("Video unavailable. This video is unavailable on this device", "unavailable"),
    ("Video unavailable. Watch on YouTube. Error 153 Video player configuration", "unavailable"),
    ("Playback on other websites has been disabled by the video owner", "unavailable"),
    ("The following content is not available on this app.. Watch on the latest", "extractor"),
    ("An error occurred. Please try again later. Playback ID: x Learn More", "site_error"),
    ("An extractor error has occurred. (caused by KeyError('x'))", "extractor"),
]


@pytest.mark.parametrize(("text", "expected"), REASONS)
def test_each_reason_of_the_youtube_player_has_its_kind(text: str, expected: str) -> None:
    failure = classify(through_yt_dlp(said(text)))
    assert failure.kind == expected
    assert failure.detail.startswith(text[:15])
    assert "--cookies" not in failure.detail


HELP = (
    "; please report this issue on  https://github.com/yt-dlp/yt-dlp/issues?q= , filling out the"
    " appropriate issue template. Confirm you are on the latest version using  yt-dlp -U",
    "\nYou might want to use a VPN or a proxy server (with --proxy) to workaround.",
    " Use --cookies-from-browser or --cookies for the authentication. See  https://x/y  for how to"
    " manually pass cookies, and how to sign in as one who is not a bot in your country",
)


@given(
    reason=st.sampled_from(REASONS),
    apostrophe=st.sampled_from("'\u2019\u2018\u02bc`"),
    case=st.sampled_from([str.upper, str.lower, str.title, str]),
    prefix=st.sampled_from(["", "ERROR: ", "ERROR: [youtube] -1pRmoJIGQc: ", "[youtube+GetPOT] "]),
    help=st.sampled_from(["", *HELP]),
    gap=st.sampled_from([" ", "  ", "\n", "\u00a0"]),
)
def test_a_reason_has_its_kind_however_it_is_written(
    reason: tuple[str, str],
    apostrophe: str,
    case: Callable[[str], str],
    prefix: str,
    help: str,
    gap: str,
) -> None:
    text, expected = reason
    text = case(text.partition(" Use --")[0]).replace("\u2019", "'").replace("'", apostrophe)
    assert classify(DownloadError(prefix + text.replace(" ", gap) + help)).kind == expected


@pytest.mark.parametrize("status", [400, 401, 404, 410, 418])
@pytest.mark.parametrize("page", ["webpage", "API page", "JSON metadata"])
def test_a_page_of_the_site_that_is_refused_is_no_verdict_on_the_video(
    status: int, page: str
) -> None:
    error = http_error(status)
    wrapped = through_yt_dlp(lambda: ExtractorError(f"Unable to download {page}", cause=error))
    as_text = DownloadError(f"ERROR: [youtube] -1pRmoJIGQc: Unable to download {page}: {error}")
    for one in (wrapped, as_text):
        failure = classify(one)
        assert failure.kind == "site_error"
        assert failure.retryable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ERROR: \r[download] Got error: HTTP Error 503: Service Unavailable", "http_5xx"),
        ("ERROR: \r[download] Got error: 17 bytes read, 90 more expected", "truncated"),
        ("ERROR: \r[download] Got error: The read operation timed out", "timeout"),
        ("ERROR: content too short (expected 9 bytes and served 5)", "truncated"),
        ("ERROR: unable to write data: [Errno 28] No space left on device", "local_disk"),
        ("ERROR: unable to open for writing: [Errno 30] Read-only file system", "local_disk"),
        ("ERROR: unable to write data: [Errno 27] File too large", "local_disk"),
        ("ERROR: Postprocessing: ffprobe and ffmpeg not found", "postprocessing"),
        ("ERROR: [Errno -2] Name or service not known", "connection"),
        (
            "ERROR: ('Connection aborted.', ConnectionResetError(104, 'reset by peer'))",
            "connection",
        ),
        ("ERROR: Remote end closed connection without response", "connection"),
        (
            "ERROR: [youtube] -1pRmoJIGQc: Unable to download API page: HTTPSConnectionPool("
            "host='www.youtube.com', port=443): Max retries exceeded with url: /x",
            "connection",
        ),
        (
            "ERROR: [youtube] -1pRmoJIGQc: Unable to download API page: [Errno -3] Temporary"
            " failure in name resolution (caused by TransportError)",
            "connection",
        ),
        (
            "ERROR: ('Connection broken: IncompleteRead(9 bytes read, 5 more expected)'",
            "connection",
        ),
        ("ERROR: [youtube] -1pRmoJIGQc: Unable to download webpage: nobody knows", "site_error"),
        ("ERROR: The downloaded file is empty", "truncated"),
    ],
)
def test_each_text_of_the_downloader_has_its_kind(text: str, expected: str) -> None:
    assert classify(DownloadError(text)).kind == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (lambda: UserNotLive(video_id="-1pRmoJIGQc"), "not_yet"),
        (lambda: UnsupportedError("https://host/x"), "unsupported"),
        (lambda: ExtractorError("x", cause=IncompleteRead(3, 9)), "truncated"),
        (lambda: ExtractorError("x", cause=SSLError("handshake")), "connection"),
        (lambda: ExtractorError("x", cause=ProxyError("no tunnel")), "connection"),
        (lambda: ExtractorError("x", cause=TransportError("Read timed out.")), "timeout"),
    ],
)
def test_exception_classes_have_their_kinds(
    error: Callable[[], BaseException], expected: str
) -> None:
    assert classify(through_yt_dlp(error)).kind == expected


def test_a_short_file_and_a_full_disk_have_their_kinds() -> None:
    assert classify(ContentTooShortError(5, 9)).kind == "truncated"
    full = OSError(28, "No space left on device")
    assert classify(UnavailableVideoError(full)).kind == "local_disk"
    assert classify(full).kind == "local_disk"


def test_a_geo_block_names_the_countries() -> None:
    failure = classify(
        through_yt_dlp(lambda: GeoRestrictedError("Not here", countries=["FR", "DE"]))
    )
    assert failure.kind == "geo_blocked"
    assert failure.detail.endswith("Available in: DE, FR.")
    assert "VPN" not in failure.detail


def http_error(status: int, headers: dict[str, str] | None = None) -> HTTPError:
    return HTTPError(Response(io.BytesIO(b""), "http://host/x", headers or {}, status=status))


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, "http_4xx"),
        (403, "http_403"),
        (404, "http_404"),
        (410, "http_410"),
        (416, "stale_partial"),
        (418, "http_4xx"),
        (429, "http_429"),
        (500, "http_5xx"),
        (503, "http_5xx"),
    ],
)
def test_each_status_has_its_kind_however_it_arrives(status: int, expected: str) -> None:
    error = http_error(status)
    assert classify(error).kind == expected
    wrapped = through_yt_dlp(lambda: ExtractorError("Unable to download video data", cause=error))
    assert classify(wrapped).kind == expected
    as_text = DownloadError(f"ERROR: \r[download] Got error: {error}. Giving up after 3 retries")
    assert classify(as_text).kind == expected


def test_retry_after_is_found_in_the_chain_and_beside_it() -> None:
    asked = http_error(429, {"Retry-After": "90"})
    wrapped = through_yt_dlp(lambda: ExtractorError("Unable to download webpage", cause=asked))
    assert classify(wrapped).retry_after_s == 90
    only_text = DownloadError("ERROR: Got error: HTTP Error 503: Service Unavailable")
    beside = http_error(503, {"Retry-After": "7"})
    assert classify(only_text, beside).retry_after_s == 7
    assert classify(DownloadError("ERROR: Private video"), beside).kind == "private"


def test_retry_after_may_be_a_date() -> None:
    when = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=100)
    seconds = parse_retry_after(email.utils.format_datetime(when, usegmt=True))
    assert seconds is not None
    assert 97 <= seconds <= 100
    assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert parse_retry_after("") is None
    assert parse_retry_after("Wed, 99 Oct 2015") is None


def test_an_unknown_text_is_unknown_retryable_and_kept_shortened() -> None:
    failure = classify(DownloadError("ERROR: [youtube] -1pRmoJIGQc: Blorb " + "x" * 1000))
    assert failure.kind == "unknown"
    assert failure.retryable
    assert failure.detail.startswith("Blorb xxx")
    assert len(failure.detail) == 300


def test_what_each_kind_means() -> None:
    gone = {name for name, kind in KINDS.items() if not kind.retryable}
    assert gone == {
        "removed",
        "private",
        "terminated",
        "http_404",
        "http_410",
        "drm",
        "unsupported",
    }
    assert {name for name, kind in KINDS.items() if kind.pause} == {"bot_check", "rate_limited"}
    assert {name for name, kind in KINDS.items() if kind.vague} == {
        "http_403",
        "http_4xx",
        "site_error",
    }
    assert not any(kind.again and not kind.retryable for kind in KINDS.values())
    assert SiteFailure("geo_blocked", "").retryable
