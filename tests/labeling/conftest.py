"""Label Studio: one in memory for each test, and where it is installed a real one per session."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from labeling.label_studio.client import LabelStudio
from labeling.projects.connect import connect
from labeling.projects.serve import start_server
from pipeline.workspace.workspace import Workspace
from tests.conftest import ROOT
from tests.labeling.exchange import kept, pull, push
from tests.labeling.fake_label_studio import FakeLabelStudio
from tests.labeling.labelled_workspace import fill, name, segment


@pytest.fixture
def fake() -> FakeLabelStudio:
    """A Label Studio in memory."""
    return FakeLabelStudio()


@pytest.fixture
def server(fake: FakeLabelStudio) -> Iterator[LabelStudio]:
    """A client of the one in memory, which is being served."""
    with fake.serve() as client:
        yield client


@pytest.fixture
def filled(workspace: Workspace) -> None:
    """The workspace has three frames to label."""
    fill(workspace)


@pytest.fixture
def segmented(
    filled: None, workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    """Their boxes were accepted at the server in memory, and segmented."""
    push(workspace, server)
    for index in (10, 11, 12):
        fake.annotate(fake.of_frame(name(index)), kept(index))
    pull(workspace, server)
    segment(workspace)


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


def serve_settings() -> list[str]:
    """What a workspace is opened with to start the real one, on a free port."""
    command = label_studio_command()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [f"label.server_port={port}", f"label.server_command=['{command}']"]


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """Started as ``label serve`` does; it installs nothing, so the test skips where none is."""
    settings = serve_settings()
    root = tmp_path_factory.mktemp("label") / "ws"
    Workspace.create(root)
    workspace = fill(Workspace(root, settings), frames=6)
    running = start_server(workspace)
    try:
        token = (running.home / "token").read_text(encoding="utf-8")
        yield Studio(workspace, connect(workspace), token)
    finally:
        running.stop()
