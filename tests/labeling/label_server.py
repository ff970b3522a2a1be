"""A small stand-in for a Label Studio server, for what a real one does too slowly or never."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any]


@dataclass
class Asked:
    """One request as it came in."""

    method: str
    path: str
    authorization: str
    body: Any
    connection: int
    """The port at the client's side."""


@dataclass
class LabelServer:
    """``answer`` decides; every request is written down."""

    answer: Callable[[Asked], Answer | None]
    url: str = ""
    asked: list[Asked] = field(default_factory=list)


@contextlib.contextmanager
def label_server(
    answer: Callable[[Asked], Answer | None], tls: ssl.SSLContext | None = None
) -> Iterator[LabelServer]:
    """Serve on the loopback interface; an answer of None breaks the connection.

    The content of a 3xx is where it sends to. A cookie is offered, and must not come back.
    """
    server = LabelServer(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            size = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(size)) if size else None
            authorization = self.headers.get("Authorization", "")
            assert "Cookie" not in self.headers
            port = self.client_address[1]
            asked = Asked(self.command, self.path, authorization, body, port)
            server.asked.append(asked)
            found = server.answer(asked)
            if found is None:
                self.close_connection = True
                return
            status, content = found
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Set-Cookie", "sessionid=1; Path=/")
            if 300 <= status < 400:
                self.send_header("Location", data.decode())
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = do_PATCH = _serve

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        if tls is not None:
            http.socket = tls.wrap_socket(http.socket, server_side=True)
        thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        server.url = f"http{'s' if tls else ''}://127.0.0.1:{http.server_address[1]}"
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
