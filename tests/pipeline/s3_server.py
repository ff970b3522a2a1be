"""An S3 on a free port of the loopback interface, for tests: moto's, one request after the other.

What goes over the wire is counted, whoever sends it, and a test may refuse some of it.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from xml.sax.saxutils import escape

import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from s3fs import S3FileSystem
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wsgi import get_input_stream

_numbers = count()

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
"""Credentials of nobody."""


@dataclass(frozen=True)
class Request:
    """A request as it arrives."""

    method: str
    path: str
    query: str
    headers: dict[str, str]

    @property
    def kind(self) -> str:
        """Return the method, and ``LIST`` for a listing."""
        return "LIST" if "list-type=2" in self.query else self.method


@dataclass(frozen=True)
class Refusal:
    """An error in place of an answer."""

    status: int
    code: str
    message: str = "refused by the test"


@dataclass
class S3:
    """The server."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    """All that arrived."""
    refuse: Callable[[Request], Refusal | None] = lambda _request: None
    lose: Callable[[Request], bool] = lambda _request: False
    """Asked of each request: do it and lose the answer."""
    forget: set[str] = field(default_factory=set)
    """Headers a store would not know, as WSGI names them."""
    _one: Any = field(default_factory=threading.Lock)

    def environment(self) -> dict[str, str]:
        """Return what makes programs find it."""
        return {**KEYS, "AWS_ENDPOINT_URL": self.url, "AWS_DEFAULT_REGION": "us-east-1"}

    def since(self, before: int) -> Counter[str]:
        """Count the requests since there were so many, by kind."""
        return Counter(request.kind for request in self.requests[before:])

    def make_bucket(self, name: str) -> str:
        """Make a bucket, of a name that begins so, and return its URL."""
        import boto3

        name = f"{name}-{next(_numbers)}"  # moto's buckets outlive the server
        client = boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", **_keys())
        with contextlib.closing(client):
            client.create_bucket(Bucket=name)
        return f"s3://{name}"

    def app(self, inner: Any) -> Any:
        """Wrap moto's application."""

        def answer(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
            headers = {
                name.removeprefix("HTTP_"): str(value)
                for name, value in environ.items()
                if name.startswith("HTTP_")
            }
            path, query = str(environ["PATH_INFO"]), str(environ.get("QUERY_STRING", ""))
            request = Request(str(environ["REQUEST_METHOD"]), path, query, headers)
            # A store decides about conditional writes one after the other; moto alone does not.
            with self._one:
                self.requests.append(request)
                if refusal := self.refuse(request):
                    _body_of(environ)
                    return _refused(refusal, request, start)
                for name in self.forget:
                    environ.pop(name, None)
                lost = self.lose(request)
                answered = inner(environ, _Unanswered() if lost else start)
                if lost:
                    answered = _refused(Refusal(500, "InternalError"), request, start)
                return list(answered)

        return answer


class _Unanswered:
    """Takes the start of an answer that nobody gets."""

    def __call__(self, *_args: object) -> Callable[[bytes], None]:
        return lambda _data: None


def _keys() -> dict[str, str]:
    return {name.lower(): value for name, value in KEYS.items()}


def _body_of(environ: dict[str, Any]) -> bytes:
    """Read what was sent, so that the connection can go on."""
    return get_input_stream(environ).read()


def _refused(refusal: Refusal, request: Request, start: Any) -> list[bytes]:
    text = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{refusal.code}</Code>'
        f"<Message>{escape(refusal.message)}</Message></Error>"
    ).encode()
    start(f"{refusal.status} {refusal.code}", [("Content-Type", "application/xml")])
    return [b""] if request.method == "HEAD" else [text]


class _Quiet(WSGIRequestHandler):
    """Tells nobody of a request."""

    protocol_version = "HTTP/1.1"

    def log(self, *_args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def s3_server() -> Iterator[S3]:
    """Serve until the end of the ``with``."""
    found = S3()
    app = found.app(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, name="s3", daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def served(patch: pytest.MonkeyPatch) -> Iterator[S3]:
    """Serve, and let this process and its children find it."""
    with s3_server() as server:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        S3FileSystem.clear_instance_cache()  # those before talk to another server
        yield server
        S3FileSystem.clear_instance_cache()
