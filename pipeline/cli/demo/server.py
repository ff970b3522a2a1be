"""A file server for the demo: loopback only, one flat folder."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve the files that lie directly in ``folder`` for the time of the ``with``.

    Yields:
        The address, ``http://127.0.0.1:PORT``, without a slash at its end.
    """
    files = {f"/{path.name}": path for path in folder.iterdir() if path.is_file()}

    class Handler(_FileHandler):
        """Bound to this folder's files."""

        def translate_path(self, path: str) -> str:
            """Find a file by its name: one that is not in the list leads nowhere."""
            return str(files.get(unquote(urlsplit(path).path), folder / "no such file"))

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class _FileHandler(SimpleHTTPRequestHandler):
    """Answers in silence: the demo prints what happened per stage."""

    protocol_version = "HTTP/1.1"
    timeout = 60

    def handle(self) -> None:
        """Serve one connection; a reader may go away whenever it has seen enough."""
        with contextlib.suppress(ConnectionError, TimeoutError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
