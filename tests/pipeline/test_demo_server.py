"""The demo's file server."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pipeline.cli.demo.server import serve

BODY = bytes(range(256)) * 1000


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "secret").write_text("not in the folder")
    folder = tmp_path / "videos"
    (folder / "deeper").mkdir(parents=True)
    (folder / "deeper" / "b.mp4").write_bytes(b"b")
    (folder / "-aaaaaaaaaa.mp4").write_bytes(BODY)
    with serve(folder) as url:
        yield url


def ask(address: str, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=10)
    connection.request(method, path)
    answer = connection.getresponse()
    result = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return result


def test_it_listens_on_loopback_alone(address: str) -> None:
    assert urlsplit(address).hostname == "127.0.0.1"


def test_a_file_comes_whole(address: str) -> None:
    status, headers, body = ask(address, "/-aaaaaaaaaa.mp4")
    assert (status, body) == (200, BODY)
    assert headers["Content-Length"] == str(len(BODY))
    assert headers["Content-type"] == "video/mp4"


def test_head_says_what_get_would_send(address: str) -> None:
    status, headers, body = ask(address, "/-aaaaaaaaaa.mp4", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "256000", b"")


@pytest.mark.parametrize(
    "path",
    ["/", "/gone.mp4", "/../secret", "/%2e%2e/secret", "//etc/passwd", "/deeper/b.mp4", "/deeper"],
)
def test_what_is_not_a_file_of_the_folder_is_not_found(address: str, path: str) -> None:
    assert ask(address, path)[0] == 404


def test_a_reader_that_goes_away_leaves_no_trace(
    address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(3):
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=10)
        connection.request("GET", "/-aaaaaaaaaa.mp4")
        connection.getresponse().read(10)
        connection.close()
    assert ask(address, "/-aaaaaaaaaa.mp4", "HEAD")[0] == 200
    assert capfd.readouterr() == ("", "")


def test_the_server_is_gone_after_the_with(tmp_path: Path) -> None:
    with serve(tmp_path) as url:
        assert ask(url, "/x.mp4")[0] == 404
    with pytest.raises(ConnectionError):
        ask(url, "/x.mp4")
