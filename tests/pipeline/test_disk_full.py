"""A disk that really is full stops the run in one line, and nothing is lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import StopRun
from pipeline.records.schema import Clip
from pipeline.run.runner import RunOptions, run_stage
from pipeline.workspace.workspace import Workspace
from tests.pipeline.faulty import ENTRY, FaultyConfig, add_sources

LABELS = ["ok", "drop", "fail", "ok"] * 60


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB of our own; only root may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine does not let us mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_stops_the_run_and_room_lets_it_finish(
    small_disk: Path, tmp_path: Path
) -> None:
    workspace = Workspace.create(small_disk / "ws")
    add_sources(workspace, LABELS)
    filler = small_disk / "filler"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    filler.write_bytes(b"\0" * (free - 120_000))
    options = RunOptions(workers=2)
    with pytest.raises(StopRun, match=r"the disk is full\. Make room and run again"):
        run_stage(workspace, "faulty", options, step=ENTRY, config=FaultyConfig())
    done = sum(commit.counts["input"] for commit in workspace.ledger("faulty").commits())
    assert 0 < done < len(LABELS)

    filler.unlink()
    run_stage(workspace, "faulty", options, step=ENTRY, config=FaultyConfig())
    alone = Workspace.create(tmp_path / "alone")
    add_sources(alone, LABELS)
    run_stage(alone, "faulty", options, step=ENTRY, config=FaultyConfig())
    assert workspace.digest("clips") == alone.digest("clips")
    failed = {row.input_id: row.kind for row in workspace.ledger("faulty").failures()}
    assert failed == {row.input_id: row.kind for row in alone.ledger("faulty").failures()}


def test_rows_that_find_no_room_stay_pending_and_are_no_failures(small_disk: Path) -> None:
    workspace = Workspace.create(small_disk / "ws")
    add_sources(workspace, ["ok", "big", "ok"])
    filler = small_disk / "filler"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    filler.write_bytes(b"\0" * (free - 600_000))
    options = RunOptions(workers=1)
    with pytest.raises(StopRun, match="the disk is full"):
        run_stage(workspace, "faulty", options, step=ENTRY, config=FaultyConfig())
    assert workspace.ledger("faulty").failures() == []
    filler.unlink()
    run_stage(workspace, "faulty", options, step=ENTRY, config=FaultyConfig())
    assert workspace.ledger("faulty").failures() == []
    assert len(workspace.rows(Clip)) == 6
