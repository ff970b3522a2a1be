"""A file server for the demo: loopback only, one flat folder, byte ranges."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

_BLOCK = 1 << 16
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve the files that lie directly in ``folder`` for the time of the ``with``.

    Yields:
        The address, ``http://127.0.0.1:PORT``, without a slash at its end.
    """
    files = {path.name: path for path in folder.iterdir() if path.is_file()}

    class Handler(_FileHandler):
        """Bound to this folder's files."""

        served = files

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class _FileHandler(BaseHTTPRequestHandler):
    """Answers with a file by its name: a name that is not in the list leads nowhere."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    served: dict[str, Path]

    def handle(self) -> None:
        """Serve one connection; a reader may go away whenever it has seen enough."""
        with contextlib.suppress(ConnectionError, TimeoutError):
            super().handle()

    def do_GET(self) -> None:
        """Send a file or a part of it."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Say what a GET would send."""
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet: the demo prints what happened per stage."""

    def _answer(self, *, with_body: bool) -> None:
        path = self.served.get(unquote(urlsplit(self.path).path).removeprefix("/"))
        if path is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        size = path.stat().st_size
        span = _span(self.headers.get("Range", ""), size)
        if span is None:
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        whole = span == range(size)
        self.send_response(HTTPStatus.OK if whole else HTTPStatus.PARTIAL_CONTENT)
        self.send_header("Content-Type", "video/mp4")
        self.send_header("Content-Length", str(len(span)))
        self.send_header("Accept-Ranges", "bytes")
        if not whole:
            self.send_header("Content-Range", f"bytes {span.start}-{span.stop - 1}/{size}")
        self.end_headers()
        if with_body:
            self._send(path, span)

    def _send(self, path: Path, span: range) -> None:
        with path.open("rb") as handle:
            handle.seek(span.start)
            for start in range(span.start, span.stop, _BLOCK):
                self.wfile.write(handle.read(min(_BLOCK, span.stop - start)))


def _span(header: str, size: int) -> range | None:
    """Return the bytes a Range header asks for, if there are any; odd headers get everything.

    >>> _span("bytes=2-", 10), _span("bytes=-3", 10), _span("bytes=0-99", 10), _span("", 10)
    (range(2, 10), range(7, 10), range(0, 10), range(0, 10))
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or match.groups() == ("", ""):
        return range(size)
    first, last = match.groups()
    if not first:
        span = range(max(size - int(last), 0), size)
    else:
        span = range(int(first), min(int(last) + 1, size) if last else size)
    return span or None
