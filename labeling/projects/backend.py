"""The server annotators' points and boxes are answered by, in Label Studio's model protocol.

It listens on the loopback interface and answers a Label Studio of the same machine. Requests are
bounded in size and time, and carry no address or path that is ever opened: pictures come from the
workspace. The token that Label Studio sends along is not looked at.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from labeling.label_studio.client import LabelServerError, LabelStudio
from labeling.projects.connect import Project
from labeling.projects.prompts import Prompts
from pipeline.errors import InputError, UsageError

TITLE = "avatar-build backend"
"""Of the model at the server. Not the predictions' model version: a project whose version is a
model's title asks that model for every task it opens."""

MAX_BYTES = 64 * 1024 * 1024
"""Of a request: it holds the whole task, all strokes and drafts of it."""

_QUIET = {"/setup", "/webhook", "/train"}
"""Asked by the server; there is nothing to do."""


class Backend:
    """A running server; a context manager that ends it.

    Args:
        prompts: what answers.
        port: on the loopback interface; 0 takes a free one.
        say: told each error, in one line.

    Raises:
        UsageError: the port is taken.
    """

    def __init__(self, prompts: Prompts, port: int, say: Callable[[str], None]) -> None:
        handler = type("Handler", (_Handler,), {"prompts": prompts, "say": staticmethod(say)})
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        except OSError as error:
            raise UsageError(
                f"127.0.0.1:{port}: {error.strerror}. Take another port with"
                " --set label.backend_port=9091."
            ) from error
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)

    def __enter__(self) -> Backend:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait(self) -> None:
        """Until the server ends."""
        self._thread.join()


def connect_backend(server: LabelStudio, project: Project, backend: Backend) -> None:
    """Let the annotators of a project ask a running backend.

    Raises:
        LabelServerError: the server refuses, with what to do.
    """
    try:
        server.connect_backend(project.number, backend.url, TITLE)
    except LabelServerError as error:
        raise LabelServerError(
            f"{error} Label Studio must run on this machine, with LABEL_STUDIO_ML_BLOCK_LOCAL_IP=0"
            " and LABEL_STUDIO_SSRF_PROTECTION_ENABLED=0, as 'avatar-build label serve' does."
        ) from error


class _Handler(BaseHTTPRequestHandler):
    """One request; the connection ends with its answer."""

    prompts: Prompts
    say: Callable[[str], None]
    timeout = 30
    """Seconds without a byte before a connection is given up."""

    def do_GET(self) -> None:
        if self.path.partition("?")[0] == "/versions":
            self._answer(200, {"versions": [self.prompts.name]})
        elif self.path in ("/", "/health"):
            self._answer(200, {"status": "UP", "model_class": self.prompts.name})
        else:
            self._refuse(404, f"{self.path[:80]!r} is none of ours")

    def do_POST(self) -> None:
        # Only programs send this type; a page in somebody's browser would have to ask first.
        if self.headers.get_content_type() != "application/json":
            self._refuse(415, "send application/json")
            return
        size = self.headers.get("Content-Length", "")
        if not size.isascii() or not size.isdigit():
            self._refuse(411, "no Content-Length")
            return
        if int(size) > MAX_BYTES:
            self._refuse(413, f"{size} bytes, at most {MAX_BYTES}")
            return
        try:
            request = json.loads(self.rfile.read(int(size)))
        except (ValueError, RecursionError, TimeoutError) as error:
            self._refuse(400, f"not JSON ({error!s:.80})")
            return
        if self.path in _QUIET:
            self._answer(200, {"model_version": self.prompts.name})
        elif self.path == "/predict":
            self._predict(request)
        else:
            self._refuse(404, f"{self.path[:80]!r} is none of ours")

    def _predict(self, request: Any) -> None:
        try:
            answer = self.prompts.predict(request)
        except InputError as error:
            self._refuse(422, f"{error.kind}: {error.detail}")
        except Exception as error:  # noqa: BLE001  one request may fail; the server goes on
            self._refuse(500, f"{type(error).__name__}: {error}")
        else:
            self._answer(200, answer)

    def _refuse(self, status: int, why: str) -> None:
        line = " ".join(why.split())[:300]
        self.say(f"label backend: {status}: {line}")
        # Label Studio shows its user the reason of the status line and not the body.
        reason = line.encode("ascii", "replace").decode()
        self._answer(status, {"error": line}, reason)

    def _answer(self, status: int, content: Any, reason: str | None = None) -> None:
        data = json.dumps(content).encode()
        self.send_response(status, reason)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass
