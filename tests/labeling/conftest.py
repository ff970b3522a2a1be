"""A real Label Studio, one per session, where one is installed."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from labeling.client import LabelStudio
from labeling.projects import connect
from labeling.serve import start_server
from pipeline.workspace import Workspace
from tests.conftest import ROOT
from tests.labeling.labelled_workspace import fill


@dataclass
class Studio:
    """The server and the workspace it serves."""

    workspace: Workspace
    api: LabelStudio
    token: str


def label_studio_command() -> Path:
    """The real one's command; the test skips where none is installed."""
    command = Path(
        os.environ.get("AVATAR_LABEL_STUDIO", ROOT / ".venv-labelstudio" / "bin" / "label-studio")
    )
    if not command.exists():
        pytest.skip("no Label Studio; 'make test-labelstudio' installs one in .venv-labelstudio")
    return command


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """Started as ``label serve`` does; it installs nothing, so the test skips where none is."""
    command = label_studio_command()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = [f"label.server_port={port}", f"label.server_command=['{command}']"]
    root = tmp_path_factory.mktemp("label") / "ws"
    Workspace.create(root)
    workspace = fill(Workspace(root, settings), frames=6)
    running = start_server(workspace)
    try:
        token = (running.home / "token").read_text(encoding="utf-8")
        yield Studio(workspace, connect(workspace), token)
    finally:
        running.stop()
