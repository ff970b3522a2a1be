"""The server of ours starts with nothing of the user's settings, or says why not."""

from __future__ import annotations

import socket
import stat
import sys
from pathlib import Path

import pytest

from labeling.serve import server_settings, start_server
from pipeline.errors import AvatarBuildError, UsageError
from pipeline.workspace import Workspace
from tests.labeling.label_server import label_server


def opened(root: Path, port: int, *command: str) -> Workspace:
    words = ", ".join(f"'{word}'" for word in command)
    settings = [f"label.server_port={port}", f"label.server_command=[{words}]"]
    return Workspace(root, settings)


@pytest.fixture
def root(workspace: Workspace) -> Path:
    assert workspace.storage.local is not None
    return workspace.storage.local


@pytest.fixture
def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_settings_label_studio_would_take_from_the_environment_stay_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HOST", "PORT", "DEBUG", "CI", "USERNAME", "HEARTEX_HOST", "LABEL_STUDIO_HOST"):
        monkeypatch.setenv(name, "theirs")
    found = server_settings(tmp_path, tmp_path, "password", "token")
    assert "theirs" not in found.values()
    assert found["LABEL_STUDIO_COLLECT_ANALYTICS"] == "0"
    assert found["LABEL_STUDIO_SENTRY_DSN"] == found["LABEL_STUDIO_FRONTEND_SENTRY_DSN"] == ""


def test_a_port_that_answers_is_not_taken_over(root: Path) -> None:
    with label_server(lambda _: (200, {})) as other:
        port = int(other.url.rpartition(":")[2])
        with pytest.raises(UsageError, match=r"label\.server_port"):
            start_server(opened(root, port, sys.executable))


def test_a_server_that_ends_at_once_is_one_line_with_its_last_words(
    root: Path, free_port: int
) -> None:
    script = root / "broken.py"
    script.write_text("import sys; sys.exit('the database is locked')")
    with pytest.raises(AvatarBuildError, match="the database is locked") as caught:
        start_server(opened(root, free_port, sys.executable, str(script)))
    assert "\n" not in str(caught.value)
    assert not (root / "label-studio" / "server.json").exists()
    for name in ("token", "password"):
        assert stat.S_IMODE((root / "label-studio" / name).stat().st_mode) == 0o600


def test_a_command_that_is_not_there_is_one_line(root: Path, free_port: int) -> None:
    with pytest.raises(UsageError, match=r"label\.server_command"):
        start_server(opened(root, free_port, "/nowhere/label-studio"))
