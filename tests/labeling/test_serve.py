"""The server of ours starts with nothing of the user's settings, or says why not."""

from __future__ import annotations

import re
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from labeling.projects.serve import PINS, VERSION, find_command, server_settings, start_server
from pipeline.errors import AvatarBuildError, UsageError
from pipeline.workspace.workspace import Workspace
from tests.labeling.conftest import label_studio_command
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


def a_uv(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """The only program on the PATH: a uv that does as told."""
    uv = folder / "uv"
    uv.write_text(f"#!/bin/sh\n{script}\n")
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    return uv


def test_uv_fetches_the_pinned_packages_and_starts_them_without_asking_anybody_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = a_uv(tmp_path, monkeypatch, 'echo "$@" > "$0.asked"')
    command = find_command()
    pins = Path(command[command.index("--constraints") + 1])
    assert f"label-studio=={VERSION} " in pins.read_text(encoding="utf-8")
    tool = [str(uv), "tool", "run", "--constraints", str(pins), "--from"]
    tool.append(f"label-studio=={VERSION}")
    assert command == [*tool, "--offline", "label-studio"]
    asked = uv.with_suffix(".asked").read_text(encoding="utf-8")
    assert asked.split() == [*tool[1:], "python", "-c"]


def test_uv_that_cannot_fetch_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_uv(tmp_path, monkeypatch, "exit 2")
    with pytest.raises(AvatarBuildError, match=r"label\.server_command"):
        find_command()


def test_without_uv_and_label_studio_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_uv(tmp_path, monkeypatch, "").unlink()
    with pytest.raises(UsageError, match="pipx install label-studio"):
        find_command()


@pytest.mark.labelstudio
@pytest.mark.slow
def test_uv_really_gives_the_versions_that_were_tried() -> None:
    label_studio_command()  # where it was never installed, this is no place to fetch it either
    command = find_command()
    if "--constraints" not in command:
        pytest.skip("a label-studio on the PATH comes first")
    versions = "from importlib.metadata import version as v; print(v('label-studio'), v('pandas'))"
    words = [*command[:-1], "python", "-c", versions]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    pins = dict(re.findall(r"(?m)^([\w.-]+)==(\S+)", PINS.read_text(encoding="utf-8")))
    assert ended.stdout.split() == [VERSION, pins["pandas"]], ended.stderr


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
