"""A loopback file server with byte ranges that misbehaves when told to, and counts."""

from __future__ import annotations

import contextlib
import re
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

HTML = b"<!doctype html><html><body>Sign in to continue</body></html>" * 20


@dataclass(frozen=True)
class Fault:
    """What one request gets instead of a plain answer."""

    status: int = 0
    """Answer with this status and no file."""
    headers: tuple[tuple[str, str], ...] = ()
    cut_after: int | None = None
    """Close the connection after so many bytes of the body."""
    stall_after: int | None = None
    """Send so many bytes of the body, then nothing more."""
    body: bytes | None = None
    """Answer with this in place of the file."""
    announced: int | None = None
    """Send this Content-Length, whatever the body's is."""
    no_range: bool = False
    """Send the whole file even when a part is asked for."""
    endless: bool = False
    """Send bytes for ever, without a length."""
    ignore_condition: bool = False
    """Send a part even of another file than If-Range asks for."""


@dataclass
class Request:
    """What came in and what went out."""

    name: str
    range: str
    if_range: str = ""
    cookie: str = ""
    agent: str = ""
    status: int = 0
    sent: int = 0


@dataclass
class VideoServer:
    """Files by name, and the faults that wait for them."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    """Per file: one fault for each of its next requests."""
    etags: dict[str, str] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    """Ends the stalls."""

    @property
    def template(self) -> str:
        """For ``source_template``."""
        return f"{self.url}/{{video_id}}.mp4"

    def of(self, name: str) -> list[Request]:
        """The requests for one file."""
        return [request for request in self.requests if request.name == name]


@contextlib.contextmanager
def serving(files: dict[str, bytes] | Path) -> Iterator[VideoServer]:
    """Serve bytes by name, or every file of a folder, for the time of the ``with``."""
    if isinstance(files, Path):
        files = {path.name: path.read_bytes() for path in files.iterdir() if path.is_file()}
    state = VideoServer(files=dict(files))

    class Handler(_Handler):
        video_server = state

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield state
        finally:
            state.released.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    video_server: VideoServer
    protocol_version = "HTTP/1.1"
    timeout = 30

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        name = unquote(urlsplit(self.path).path).removeprefix("/")
        server = self.video_server
        sent = self.headers
        request = Request(
            name,
            sent.get("Range", ""),
            sent.get("If-Range", ""),
            sent.get("Cookie", ""),
            sent.get("User-Agent", ""),
        )
        server.requests.append(request)
        waiting = server.faults[name]
        fault = waiting.popleft() if waiting else Fault()
        data = fault.body if fault.body is not None else server.files.get(name)
        if fault.status or data is None:
            self._refuse(request, fault.status or 404, fault.headers)
        elif fault.endless:
            self._send_for_ever(request)
        else:
            self._send_file(request, fault, data)

    def _refuse(
        self, request: Request, status: int, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        request.status = status
        self.send_response(status)
        for key, value in headers:
            self.send_header(key, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_for_ever(self, request: Request) -> None:
        request.status = 200
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        while not self.video_server.released.is_set():
            self.wfile.write(bytes(1 << 16))
            request.sent += 1 << 16

    def _send_file(self, request: Request, fault: Fault, data: bytes) -> None:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.range)
        first, last = 0, len(data)
        request.status = HTTPStatus.OK
        etag = self.video_server.etags.get(request.name, "")
        other = bool(request.if_range) and request.if_range != etag
        if match and not fault.no_range and (fault.ignore_condition or not other):
            first = int(match[1])
            last = min(int(match[2] or len(data)) + 1, len(data))
            if first >= len(data):
                return self._refuse(request, 416)
            request.status = HTTPStatus.PARTIAL_CONTENT
        body = data[first:last]
        self.send_response(request.status)
        if request.status == HTTPStatus.PARTIAL_CONTENT:
            self.send_header("Content-Range", f"bytes {first}-{last - 1}/{len(data)}")
        if etag:
            self.send_header("ETag", etag)
        length = len(body) if fault.announced is None else fault.announced
        self.send_header("Content-Length", str(length))
        self.end_headers()
        stop = fault.cut_after if fault.stall_after is None else fault.stall_after
        body = body if stop is None else body[:stop]
        self.wfile.write(body)
        request.sent = len(body)
        if fault.stall_after is not None:
            self.video_server.released.wait()
        if stop is not None or length != len(body):
            self.close_connection = True
