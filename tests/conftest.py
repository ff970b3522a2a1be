"""Fixtures every test may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from pipeline.workspace.workspace import Workspace
from tests.flow_world import Flow, run_flow
from tests.pipeline.one_process import in_one_process
from tests.pipeline.shell import Shell

ROOT = Path(__file__).parents[1]

# How long an example takes depends on what else the machine does. And a change lands or not by its
# own merit; new counterexamples are for those who run tests by hand.
settings.register_profile("hand", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "hand")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of test data beside the checkout; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("AVATAR_SHARED", ROOT.parent / "shared"))
    if not (folder / "README.md").exists():
        pytest.skip("no test data: set AVATAR_SHARED or put it in ../shared")
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace."""
    return Workspace.create(tmp_path / "ws")


@pytest.fixture(autouse=True)
def models_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where weights are registered during a test: a folder of its own, never the user's."""
    folder = tmp_path / "models"
    monkeypatch.setenv("AVATAR_BUILD_MODELS", str(folder))
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread, on which the order of sums is one order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without workers, where a test is not about them."""
    in_one_process(monkeypatch)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Shell:
    """The command line, run in this process."""
    return Shell(monkeypatch)


@pytest.fixture(scope="session")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Flow:
    """A workspace after the whole flow, with a release; to read, or to copy."""
    return run_flow(tmp_path_factory.mktemp("flow"))
