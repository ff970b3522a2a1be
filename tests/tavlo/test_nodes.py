"""Two nodes on the loopback interface, as torchrun starts them; a process of one is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tavlo.training.checkpoint import load_checkpoint
from tavlo.training.train import LAST
from tavlo.training.training_log import LOG, read_log
from tests.conftest import ROOT
from tests.tavlo import small

pytestmark = pytest.mark.slow
EPOCHS = 4
ENVIRONMENT = os.environ | {
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    # The order of sums on one thread is one order.
    "OMP_NUM_THREADS": "1",
}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def two_nodes(folder: Path, listed: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start the documented command on two nodes that share no folder but the videos'."""
    port = free_port()
    nodes = []
    for number in (0, 1):
        place = folder / f"node{number}"
        place.mkdir(parents=True)
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2"]
        # Each node counts the deaths of its own processes; one kill is the death of both.
        torchrun += ["--nproc-per-node=1", "--max-restarts=6", "--rdzv-id=test"]
        torchrun += ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}"]
        torchrun += ["--local-addr=127.0.0.1", "-m", "pipeline.cli", "train-tavlo"]
        command = [*torchrun, "--data", str(listed), "--out", str(place / "run")]
        command += ["--cache", str(place / "cache"), "--device", "cpu", *small.settings()]
        command += ["--set", f"train.epochs={EPOCHS}", "--set", "train.validation=0"]
        command += ["--set", "train.timeout_min=2"]
        with (place / "said").open("w") as said:
            nodes.append(
                subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said, env=ENVIRONMENT)
            )
    try:
        yield nodes
    finally:
        for node in nodes:
            node.terminate()
            with suppress(subprocess.TimeoutExpired):
                node.wait(20)
            node.kill()


def worker_of(node: subprocess.Popen[bytes]) -> int:
    """The process that torchrun started."""
    children = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()
    (worker,) = [one for one in children if b"train-tavlo" in cmdline(one)]
    return int(worker)


def cmdline(process: str) -> bytes:
    return Path(f"/proc/{process}/cmdline").read_bytes()


def finish(nodes: list[subprocess.Popen[bytes]], folder: Path) -> None:
    codes: list[int | None] = []
    deadline = time.monotonic() + 400
    for node in nodes:
        with suppress(subprocess.TimeoutExpired):
            node.wait(max(deadline - time.monotonic(), 0.1))
        codes.append(node.returncode)
    said = "\n".join((folder / f"node{number}" / "said").read_text() for number in (0, 1))
    assert codes == [0, 0], said


def test_two_nodes_go_on_by_themselves_after_a_kill_and_no_tensor_differs(tmp_path: Path) -> None:
    listed = small.draw_videos(tmp_path / "videos")
    with two_nodes(tmp_path / "whole", listed) as nodes:
        finish(nodes, tmp_path / "whole")

    with two_nodes(tmp_path / "killed", listed) as nodes:
        log = tmp_path / "killed" / "node0" / "run" / LOG
        deadline = time.monotonic() + 400
        while not log.exists() or sum("loss" in row for row in read_log(log)) < 6:
            assert time.monotonic() < deadline, "no training began"
            time.sleep(0.05)
        os.kill(worker_of(nodes[1]), signal.SIGKILL)
        finish(nodes, tmp_path / "killed")

    def end(name: str) -> object:
        done = load_checkpoint(tmp_path / name / "node0" / "run" / LAST)
        assert done.step == EPOCHS * len(small.NAMES) // 2
        return {"model": done.model, "optimizer": done.optimizer}

    assert small.equal(end("whole"), end("killed"))
    assert any("BatchNorm counts each" in note for note in read_log(log)[0]["notes"])
    starts = [row["step"] for row in read_log(log) if row.get("event") == "start"]
    assert len(starts) == 2
    assert starts[0] == 0 < starts[1], "it went on and did not begin anew"
    # Each node made what its own cache lacked; the second has no checkpoint and needed none.
    for number in (0, 1):
        place = tmp_path / "killed" / f"node{number}"
        assert len(list((place / "cache").glob("*.mkv"))) == len(small.NAMES)
    assert not (place / "run" / LAST).exists()


def test_restarts_that_share_a_store_are_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    listed = small.draw_videos(tmp_path / "videos", small.NAMES[:2])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts=1"]
    command += ["--nproc-per-node=2", "-m", "pipeline.cli", "train-tavlo", "--data", str(listed)]
    command += ["--out", str(tmp_path / "run"), *small.settings()]
    shared = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("TORCH_")}
    ended = subprocess.run(command, cwd=ROOT, env=shared, stderr=subprocess.PIPE, text=True)
    assert ended.returncode
    assert "Start it as TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun" in ended.stderr
    assert not (tmp_path / "run").exists()
