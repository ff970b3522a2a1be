"""Ctrl-C, and what Slurm sends, leave a workspace that goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.schema import Video
from pipeline.workspace import Workspace
from tests.conftest import ROOT
from tests.video_factory import bursts, make_video, scene
from tests.video_server import Fault, VideoServer, serving

IDS = [f"interrupt_{letter}" for letter in "abcd"]


def avatar(*words: str) -> subprocess.Popen[str]:
    """A command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *words],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_hear_interrupts,
    )


def _hear_interrupts() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so would its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def wait_for(server: VideoServer, requests: int) -> None:
    """Until so many requests have come in."""
    limit = time.monotonic() + 60
    while len(server.requests) < requests and time.monotonic() < limit:
        time.sleep(0.05)
    assert len(server.requests) >= requests


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_download_says_so_and_the_same_command_finishes_it(
    tmp_path: Path, sent: signal.Signals
) -> None:
    video = tmp_path / "v.mp4"
    make_video(video, frames=260, draw=scene(640, 360), sound=bursts(10.4, [1.0, 5.0]))
    listed, root = tmp_path / "list.csv", tmp_path / "ws"
    listed.write_text("".join(f"{video_id},0,dog barking,test\n" for video_id in IDS))
    Workspace.create(root)
    with serving({f"{video_id}.mp4": video.read_bytes() for video_id in IDS}) as server:
        server.faults[f"{IDS[-1]}.mp4"].append(Fault(stall_after=1000))
        place = ("--workspace", str(root), "--source-template", server.template)
        command = ("download", *place, "--list", str(listed))
        first = avatar(*command)
        wait_for(server, len(IDS))
        first.send_signal(sent)
        _, said = first.communicate(timeout=30)
        assert first.returncode == 130
        assert "Stopped. What is committed stays" in said
        assert "Traceback" not in said
        server.released.set()
        second = avatar(*command)
        _, said = second.communicate(timeout=60)
        assert second.returncode == 0, said
    failed = Workspace(root).ledger("download").failures()
    assert not failed, failed
    assert [row.video_id for row in Workspace(root).rows(Video)] == IDS
