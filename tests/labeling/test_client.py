"""The client: tokens, tries, and errors of one line."""

from __future__ import annotations

import base64
import gc
import json
import logging
import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from labeling.label_studio.client import LabelServerError, LabelStudio, MissingError, read_token
from pipeline.errors import AvatarBuildError, UsageError
from tests.labeling.label_server import Answer, Asked, LabelServer, label_server

LEGACY = "0123456789abcdef0123456789abcdef01234567"


def personal_token() -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"token_type": "refresh"}).encode()).decode()
    return f"head.{claims.rstrip('=')}.signature"


def client(server: LabelServer, token: str = LEGACY) -> LabelStudio:
    return LabelStudio(server.url, token, sleep=lambda _: None)


def test_a_legacy_token_is_sent_as_it_is() -> None:
    with label_server(lambda _: (200, {"ok": 1})) as server:
        assert client(server).call("GET", "/api/x", query={"a": "b c"}) == {"ok": 1}
    assert [(a.method, a.path, a.authorization) for a in server.asked] == [
        ("GET", "/api/x?a=b+c", f"Token {LEGACY}")
    ]


def test_a_personal_token_is_changed_into_an_access_token_before_it_ends() -> None:
    now = [0.0]

    def answer(asked: Asked) -> Answer:
        if asked.path == "/api/token/refresh/":
            assert asked.body == {"refresh": personal_token()}
            return 200, {"access": f"access{now[0]:g}"}
        return 200, {}

    with label_server(answer) as server:
        api = LabelStudio(server.url, personal_token(), clock=lambda: now[0])
        for second in (0.0, 200.0, 250.0):
            now[0] = second
            api.call("GET", "/api/x")
    used = [a.authorization for a in server.asked if a.path == "/api/x"]
    assert used == ["Bearer access0", "Bearer access0", "Bearer access250"]


def test_an_access_token_that_ended_early_is_renewed_once_also_for_an_import() -> None:
    issued: list[str] = []

    def answer(asked: Asked) -> Answer:
        if asked.path == "/api/token/refresh/":
            issued.append(f"access{len(issued)}")
            return 200, {"access": issued[-1]}
        return (200, {"task_count": 1}) if asked.authorization == "Bearer access1" else (401, {})

    with label_server(answer) as server:
        assert client(server, personal_token()).import_tasks(3, [{"data": {}}]) == 1
    assert len(issued) == 2


@pytest.mark.parametrize("token", [LEGACY, personal_token()])
def test_a_refused_token_is_one_line_without_the_token(token: str) -> None:
    with (
        label_server(lambda _: (401, {"detail": token})) as server,
        pytest.raises(UsageError, match="token was refused") as caught,
    ):
        client(server, token).call("GET", "/api/x")
    assert token not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert token not in repr(client(server, token))


def test_reading_is_tried_again_and_importing_is_not() -> None:
    broken = [True, True]

    def answer(_: Asked) -> Answer | None:
        return None if broken and broken.pop() else (200, {"task_count": 0})

    with label_server(answer) as server:
        assert client(server).call("GET", "/api/x") == {"task_count": 0}
        assert len(server.asked) == 3
        broken.append(True)
        with pytest.raises(LabelServerError, match="run the same command again"):
            client(server).import_tasks(1, [])
        assert len(server.asked) == 4


def test_over_tls_one_connection_is_kept_for_all_calls_and_closed_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=here"
    words = [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1"]
    if not shutil.which("openssl"):
        pytest.skip("no openssl")
    subprocess.run(
        [*words, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
    )
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    with label_server(lambda _: (200, {}), tls) as server:
        with pytest.raises(LabelServerError, match="CERTIFICATE_VERIFY_FAILED"):
            client(server).call("GET", "/api/x")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))  # as the machine's own authorities
        api = client(server)
        for _ in range(3):
            api.call("GET", "/api/x")
        assert len(server.asked) == 3
        assert len({asked.connection for asked in server.asked}) == 1
        http = api._http
        del api
        gc.collect()
        assert http.is_closed


def test_over_plain_http_each_call_has_a_connection_of_its_own() -> None:
    with label_server(lambda _: (200, {})) as server:
        api = client(server)
        for _ in range(3):
            api.call("GET", "/api/x")
    assert len({asked.connection for asked in server.asked}) == 3


def test_a_redirect_is_not_followed() -> None:
    with (
        label_server(lambda _: (200, {"label-studio-os-package": {}})) as other,
        label_server(lambda _: (302, other.url.encode())) as server,
        pytest.raises(UsageError, match="sent elsewhere"),
    ):
        client(server).check()
    assert other.asked == []


def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with label_server(lambda _: (200, {})) as server:
        assert client(server).call("GET", "/api/x") == {}


@pytest.mark.parametrize("token", [LEGACY, personal_token()])
def test_no_log_line_holds_a_token(token: str, caplog: pytest.LogCaptureFixture) -> None:
    access = "an-access-token"
    with (
        caplog.at_level(logging.DEBUG),
        label_server(lambda _: (200, {"access": access})) as server,
    ):
        client(server, token).call("GET", "/api/x")
    assert "HTTP Request: GET" in caplog.text
    assert token not in caplog.text
    assert access not in caplog.text


def test_a_path_before_the_api_is_kept() -> None:
    with label_server(lambda _: (200, {"access": "a"})) as server:
        LabelStudio(f"{server.url}/labels/", personal_token()).call("GET", "/api/x")
    assert [a.path for a in server.asked] == ["/labels/api/token/refresh/", "/labels/api/x"]


def test_a_server_that_is_not_there_is_one_line() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(LabelServerError, match="no answer to GET") as caught:
            LabelStudio(url, LEGACY, sleep=lambda _: None).check()
    assert url in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        ((200, b"<html>"), UsageError, "not as a Label Studio does"),
        ((200, {"name": "else"}), UsageError, "not as a Label Studio does"),
        ((302, b"/"), UsageError, "sent elsewhere"),
        ((404, b""), MissingError, "not there"),
        ((400, {"validation_errors": {"a": "b\nc"}}), LabelServerError, "400: {'a'"),
        ((500, b"Traceback"), LabelServerError, "500: no reason given"),
    ],
)
def test_another_answer_is_named(answer: Answer, error: type[AvatarBuildError], text: str) -> None:
    with label_server(lambda _: answer) as server, pytest.raises(error) as caught:
        client(server).check()
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8080",
        "ftp://x",
        "",
        "http://me:secret@host",
        "http://me:secret@host:99999",
        "http://[::1",
        "http://host:port",
    ],
)
def test_an_address_that_is_none_is_refused_and_its_password_not_shown(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        LabelStudio(url, LEGACY)
    assert "secret" not in str(caught.value)


def test_tasks_come_page_by_page() -> None:
    def answer(asked: Asked) -> Answer:
        page = int(asked.path.rpartition("page=")[2])
        return 200, {"total": 3, "tasks": [{"id": 1}, {"id": 2}] if page == 1 else [{"id": 3}]}

    with label_server(answer) as server:
        assert [task["id"] for task in client(server).tasks(5)] == [1, 2, 3]
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("second", "says"),
    [((404, {}), "not there"), ((200, {"total": 3, "tasks": []}), "page 2 is empty, 2 of 3 read")],
)
def test_a_list_that_breaks_off_is_an_error(second: Answer, says: str) -> None:
    def answer(asked: Asked) -> Answer:
        first = asked.path.endswith("page=1")
        return (200, {"total": 3, "tasks": [{"id": 1}, {"id": 2}]}) if first else second

    with label_server(answer) as server, pytest.raises(LabelServerError, match=says):
        list(client(server).tasks(5))


@pytest.mark.parametrize(
    ("page", "says"),
    [
        ([], r"\[\] for an object"),
        ({"total": 1, "tasks": None}, "tasks of number None is null"),
        ({"total": None, "tasks": []}, "total of number None is null"),
        ({"total": 1, "tasks": [None]}, "null for an object"),
        ({"total": 1, "tasks": [{"data": {}}]}, "id of number None is null"),
        ({"total": 1, "tasks": [{"id": 4, "overlap": "2"}]}, "overlap of number 4 is '2'"),
    ],
)
def test_a_page_that_is_none_is_one_line_with_the_place(page: object, says: str) -> None:
    with (
        label_server(lambda _: (200, page)) as server,
        pytest.raises(LabelServerError, match=rf"/api/tasks: .*Label Studio does \({says}"),
    ):
        list(client(server).task_columns(5, "id", "overlap"))


def test_the_token_is_read_from_the_environment_first_then_from_a_private_file(
    tmp_path: Path,
) -> None:
    file = tmp_path / "token"
    with pytest.raises(UsageError, match="AVATAR_LABEL_TOKEN"):
        read_token(file, {})
    assert read_token(file, {"AVATAR_LABEL_TOKEN": " abc\n"}) == "abc"
    file.write_text("from-file\n")
    file.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600") as caught:
        read_token(file, {})
    assert "from-file" not in str(caught.value)
    file.chmod(0o600)
    assert read_token(file, {}) == "from-file"


def test_a_token_with_a_line_break_cannot_become_a_header() -> None:
    with pytest.raises(UsageError, match="odd signs"):
        LabelStudio("http://127.0.0.1:1", "abc\r\nX: y")
