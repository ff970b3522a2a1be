"""Ctrl-C, and what Slurm sends, leave a workspace that goes on."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.cli.common.output import Output
from pipeline.records.schema import Video
from pipeline.run.local import ProcessWorker
from pipeline.run.unit import Job
from pipeline.workspace.storage import Storage
from pipeline.workspace.workspace import Workspace
from tests.conftest import ROOT
from tests.pipeline.faulty import add_sources
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


def test_an_import_that_a_signal_cuts_short_is_no_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], workspace: Workspace
) -> None:
    def cut_short(_: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            raise ImportError("initialization failed") from None  # as some compiled modules do

    before = {sent: signal.getsignal(sent) for sent in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job with & was given none
    monkeypatch.setattr(Output, "stopped", False)
    monkeypatch.setattr("pipeline.run.status.stage_status", cut_short)
    place = ["--workspace", workspace.storage.url]
    monkeypatch.setattr(sys, "argv", ["avatar-build", "status", *place, "--json"])
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        for sent, handler in before.items():
            signal.signal(sent, handler)
    assert ended.value.code == 130
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "KeyboardInterrupt"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_a_stream_that_is_closed_stops_nothing(tmp_path: Path, closed: str) -> None:
    root = tmp_path / "ws"
    add_sources(Workspace.create(root), ["ok"])
    words = ["download", "--workspace", str(root), "--source-template", "/none/{video_id}"]
    for command in (words, ["status", "--workspace", str(root)]):
        line = shlex.join([sys.executable, "-m", "pipeline.cli", *command])
        done = subprocess.run(["bash", "-c", f"{line} {closed}"], cwd=ROOT, timeout=60, check=False)
        assert done.returncode == 0
    assert len(Workspace(root).ledger("download").failures()) == 1


def test_ctrl_c_says_nothing_of_a_worker_that_is_still_starting(tmp_path: Path) -> None:
    job = Job(Storage(tmp_path), "sample", "key", "nowhere:Nothing")
    worker = ProcessWorker(job, {})
    try:
        status = Path(f"/proc/{worker.process.pid}/status").read_text()
        (blocked,) = (int(line[8:], 16) for line in status.splitlines() if line[:7] == "SigBlk:")
        assert blocked >> (signal.SIGINT - 1) & 1
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        worker.kill()
