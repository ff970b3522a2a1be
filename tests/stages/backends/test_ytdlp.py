"""yt-dlp's real youtube extractor against a YouTube of our own on loopback."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pipeline.config import DownloadConfig
from stages.download import ytdlp
from stages.download.failure_kinds import SiteFailure
from stages.download.fetching import Fetched, Refused, Watch
from stages.download.identity import Identity

ID = "-1pRmoJIGQc"
CC_BY = "Creative Commons Attribution license (reuse allowed)"
CLIENT = {"client": {"clientName": "WEB_EMBEDDED_PLAYER", "clientVersion": "1.0"}}
PAGE = f"<script>ytcfg.set({json.dumps({'INNERTUBE_CONTEXT': CLIENT})});</script>"
HLS = """#EXTM3U
#EXT-X-STREAM-INF:BANDWIDTH=700000,CODECS="avc1.4D401E,mp4a.40.2",RESOLUTION=640x360
https://www.youtube.com/playlist/itag/93/index.m3u8
"""
MEDIA = b"not a film, but whole" * 1000


@dataclass
class FakeYouTube:
    """What the player says, and who asked."""

    url: str = ""
    status: int = 200
    """Of every page."""
    playability: dict[str, Any] = field(default_factory=lambda: {"status": "OK"})
    details: dict[str, Any] = field(default_factory=dict)
    formats: bool = True
    itag: int = 18
    """Of the one file with picture and sound."""
    hls: bool = False
    """Whether the same comes as HLS too."""
    asked: list[str] = field(default_factory=list)

    def player(self) -> dict[str, Any]:
        """A player response of YouTube's inner API, as far as the extractor looks."""
        media = {
            "itag": self.itag,
            "url": f"{self.url}/videoplayback?id={ID}&expire=9999999999",
            "mimeType": 'video/mp4; codecs="avc1.42001E, mp4a.40.2"',
            "width": 640,
            "height": 360 if self.itag == 18 else 480,
            "fps": 30,
            "audioQuality": "AUDIO_QUALITY_LOW",
            "audioSampleRate": "44100",
            "audioChannels": 2,
        }
        return {
            "playabilityStatus": self.playability,
            "videoDetails": {"videoId": ID, "title": "A car", "author": "Somebody"}
            | {"lengthSeconds": "20"}
            | self.details,
            "microformat": {"playerMicroformatRenderer": {"uploadDate": "2015-03-01"}},
            "streamingData": {
                **({"formats": [media]} if self.formats else {}),
                **({"hlsManifestUrl": f"{self.url}/list.m3u8"} if self.hls else {}),
            },
        }


def watch_page() -> dict[str, Any]:
    """What surrounds the player: the owner's name and the licence stand there."""
    row = {"title": {"simpleText": "License"}, "contents": [{"simpleText": CC_BY}]}
    about = {
        "owner": {"videoOwnerRenderer": {"title": {"simpleText": "Somebody"}}},
        "metadataRowContainer": {
            "metadataRowContainerRenderer": {"rows": [{"metadataRowRenderer": row}]}
        },
    }
    contents = {"results": {"results": {"contents": [{"videoSecondaryInfoRenderer": about}]}}}
    return {"contents": {"twoColumnWatchNextResults": contents}}


@pytest.fixture
def youtube(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeYouTube]:
    state = FakeYouTube()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            state.asked.append(path)
            if path == "/list.m3u8":
                self.answer(200, HLS.encode(), "application/vnd.apple.mpegurl")
            elif path == "/videoplayback":
                self.answer(200, MEDIA, "video/mp4")
            elif path.endswith("/player"):
                self.answer(state.status, json.dumps(state.player()).encode(), "application/json")
            elif path.endswith("/next"):
                self.answer(state.status, json.dumps(watch_page()).encode(), "application/json")
            else:
                self.answer(state.status, PAGE.encode(), "text/html")

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.do_GET()

        def answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        send = ytdlp._Session._send

        def rerouted(self: Any, request: Any) -> Any:
            parts = urlsplit(request.url)
            request.url = f"{state.url}{parts.path}?{parts.query}"
            return send(self, request)

        # The addresses are in the extractor's code: only the wire can lead elsewhere.
        monkeypatch.setattr(ytdlp._Session, "_send", rerouted)
        yield state
        server.shutdown()
        thread.join()


def fetch(folder: Path, license_wanted: bool = True, **settings: Any) -> Fetched:
    def wanted(text: str) -> None:
        if not license_wanted:
            raise Refused("license", text)

    config = DownloadConfig(timeout_s=5, **settings)
    site = ytdlp.YtDlp(config, [Identity()], Watch(), wanted, folder / "cache")
    try:
        return site.fetch(ID, folder, Identity())
    finally:
        site.close()


def test_a_video_comes_with_what_the_site_says_of_it(youtube: FakeYouTube, tmp_path: Path) -> None:
    fetched = fetch(tmp_path)
    assert fetched.file == tmp_path / f"{ID}.mp4"
    assert fetched.file.read_bytes() == MEDIA
    facts = fetched.facts
    assert facts.source_url == f"https://www.youtube.com/watch?v={ID}"
    assert (facts.title, facts.uploader, facts.format_id) == ("A car", "Somebody", "18")
    assert (facts.license, facts.upload_date) == (CC_BY, "20150301")
    assert youtube.asked.count("/videoplayback") == 1


@pytest.mark.parametrize(
    ("playability", "expected"),
    [
        ({"status": "ERROR", "reason": "Video unavailable"}, "removed"),
        ({"status": "LOGIN_REQUIRED", "reason": "Private video"}, "private"),
        (
            {"status": "LOGIN_REQUIRED", "reason": "Sign in to confirm you\u2019re not a bot"},
            "bot_check",
        ),
        ({"status": "LOGIN_REQUIRED", "reason": "Sign in to confirm your age"}, "age_gate"),
        (
            {
                "status": "UNPLAYABLE",
                "reason": "Video unavailable",
                "errorScreen": {
                    "playerErrorMessageRenderer": {
                        "subreason": {
                            "simpleText": "The uploader has not made this video available"
                            " in your country"
                        }
                    }
                },
            },
            "geo_blocked",
        ),
        (
            {"status": "ERROR", "reason": "This content isn't available, try again later."},
            "rate_limited",
        ),
        ({"status": "LIVE_STREAM_OFFLINE", "reason": "Premieres in 5 hours"}, "not_yet"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_player_refuses_has_its_kind(
    youtube: FakeYouTube, tmp_path: Path, playability: dict[str, Any], expected: str
) -> None:
    youtube.playability, youtube.formats = playability, False
    with pytest.raises(SiteFailure) as caught:
        fetch(tmp_path)
    assert caught.value.kind == expected, caught.value
    assert "/videoplayback" not in youtube.asked


def test_too_many_requests_is_the_identitys_matter(youtube: FakeYouTube, tmp_path: Path) -> None:
    youtube.status = 429
    with pytest.raises(SiteFailure) as caught:
        fetch(tmp_path)
    assert caught.value.kind == "rate_limited"
    assert caught.value.meaning.pause


def test_a_video_too_long_or_of_another_licence_is_not_transferred(
    youtube: FakeYouTube, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match="license: Creative Commons"):
        fetch(tmp_path, license_wanted=False)
    with pytest.raises(Refused, match="too_long: 20 s, over 10"):
        fetch(tmp_path, max_duration_s=10)
    assert "/videoplayback" not in youtube.asked


def test_a_running_stream_is_not_yet_a_video(youtube: FakeYouTube, tmp_path: Path) -> None:
    youtube.details = {"isLive": True, "isLiveContent": True}
    with pytest.raises(SiteFailure) as caught:
        fetch(tmp_path)
    assert caught.value.kind == "not_yet"


@pytest.mark.parametrize("itag", [18, 59])
def test_a_whole_file_is_taken_before_hls(youtube: FakeYouTube, tmp_path: Path, itag: int) -> None:
    youtube.hls, youtube.itag = True, itag
    assert fetch(tmp_path).facts.format_id == str(itag)


@pytest.mark.parametrize("settings", [{}, {"format": "b"}], ids=repr)
def test_a_video_there_is_as_hls_only_is_not_transferred_and_may_be_had_later(
    youtube: FakeYouTube, tmp_path: Path, settings: dict[str, Any]
) -> None:
    youtube.hls, youtube.formats = True, False
    with pytest.raises(SiteFailure, match=r"m3u8_native, 640x360") as caught:
        fetch(tmp_path, **settings)
    assert (caught.value.kind, caught.value.retryable) == ("hls_only", True)
    assert not any("playlist" in path for path in youtube.asked)


@pytest.mark.parametrize("status", [400, 401, 404, 410])
def test_a_page_that_is_refused_or_missing_is_no_verdict_on_a_video(
    youtube: FakeYouTube, tmp_path: Path, status: int
) -> None:
    youtube.status = status
    with pytest.raises(SiteFailure) as caught:
        fetch(tmp_path)
    assert caught.value.retryable
    assert caught.value.meaning.vague
