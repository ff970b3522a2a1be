"""The package from Python: a workspace is made, run and read without the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import Workspace
from pipeline.errors import UsageError
from tests.conftest import ROOT
from tests.flow_world import Flow

SCRIPT = """
from pipeline import Workspace

workspace = Workspace.create({root!r}, "offline")
workspace = Workspace({root!r}, ["download.source_template={videos}/{{video_id}}.mp4"])
print(workspace.download({listed!r}))
print(workspace.run("sample", workers=1))
"""
"""No guard around it, as in a notebook's cells."""


def test_every_stage_is_called_and_a_release_comes_out(flow: Flow) -> None:
    workspace, release = flow.workspace, flow.release
    assert release.verify() == []
    assert len(release) == len(workspace.table("frames"))
    assert {thing.category for frame in release for thing in frame.instances} == {"dog", "car"}
    assert workspace.report(clips=True).is_file()


def test_tables_are_pandas_frames_and_the_books_too(flow: Flow) -> None:
    workspace = flow.workspace
    frames = workspace.table("frames")
    assert list(frames.frame_id) == sorted(frames.frame_id)
    assert workspace.table("masks").merge(workspace.table("instances"), on="instance_id").size
    status = workspace.status().set_index("stage")
    assert (status.loc["sample", "input"], status.loc["sample", "ok"]) == (2, 2)
    assert list(workspace.drops().reason) == ["duration"]
    assert (len(workspace.failures()), "kind" in workspace.failures()) == (0, True)
    with pytest.raises(UsageError, match="no table: there is sources, videos"):
        workspace.table("frame")


def test_what_is_opened_prints_as_one_short_line(flow: Flow) -> None:
    workspace, release = flow.workspace, flow.release
    frame = release[0]
    for shown in (workspace, release, frame, frame.instances[0], workspace.run("sample")):
        assert "\n" not in repr(shown)
        assert len(repr(shown)) < 300
    assert "2 videos, 2 clips" in repr(workspace)
    assert "0.1+unverified: 2 videos" in repr(release)
    assert repr(frame) == f"LabelledFrame({frame.id!r}: {frame.instances[0].category})"


def test_a_changed_setting_or_a_wrong_name_is_an_error_of_ours(
    flow: Flow,
) -> None:
    workspace = flow.workspace
    changed = Workspace(workspace.storage.url, ["sample.max_frames=2"])
    with pytest.raises(UsageError, match="max_frames"):
        changed.run("sample")
    with pytest.raises(UsageError, match="'samples' is no stage: there is download, sample"):
        workspace.run("samples")


@pytest.mark.parametrize("way", ["file", "stdin"])
def test_a_script_without_a_guard_runs_its_stages_once(
    flow: Flow, tmp_path: Path, way: str
) -> None:
    root = tmp_path / "ws"
    script = SCRIPT.format(root=str(root), videos=flow.videos, listed=str(flow.listed))
    path = tmp_path / "script.py"
    path.write_text(script)
    done = subprocess.run(
        [sys.executable, *([str(path)] if way == "file" else ["-"])],
        input=script if way == "stdin" else None,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "download: 2 ok, 1 dropped, 0 failed; made 2 videos",
        "sample: 2 ok, 0 dropped, 0 failed; made 2 clips, 10 frames",
    ]


def test_importing_the_package_is_light() -> None:
    code = "import pipeline, sys; print({'numpy', 'pyarrow', 'pandas'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
