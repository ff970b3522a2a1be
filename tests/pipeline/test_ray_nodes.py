"""Nodes of a Ray cluster come, differ and go while a stage runs: the table stays the same."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from pipeline.run.runner import RunOptions, run_stage
from pipeline.workspace.workspace import Workspace
from tests.pipeline.faulty import PATIENT, FaultyConfig, add_sources, outcome_digest
from tests.pipeline.ray_nodes import HEAD, RayNodes, until

pytestmark = [pytest.mark.slow, pytest.mark.long]

LABELS = ["slow", "ok", "drop", "slow", "fail"] * 64


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    cluster = RayNodes(26379)
    yield cluster
    cluster.close()


def filled(root: Path, labels: list[str]) -> Workspace:
    workspace = Workspace.create(root)
    add_sources(workspace, labels)
    return workspace


def expected(root: Path, labels: list[str]) -> tuple[str, list[str], list[str]]:
    """What one process makes of it."""
    workspace = filled(root, labels)
    options = RunOptions(workers=1)
    run_stage(workspace, "faulty", options, step=PATIENT, config=FaultyConfig())
    return outcome_digest(workspace)


def commits(workspace: Workspace) -> int:
    return len(workspace.storage.names("commits/faulty/units"))


def last_commit(workspace: Workspace) -> float:
    times = workspace.storage.times("commits/faulty/units")
    return max(times.values())


def test_a_run_starts_without_nodes_grows_loses_some_and_ends_with_its_work(
    nodes: RayNodes, tmp_path: Path
) -> None:
    labels = [*["nap"] * 8 * 24, *LABELS]
    workspace = filled(tmp_path / "ws", labels)
    driver = nodes.drive(tmp_path / "ws", 4)
    assert driver.stderr is not None
    waits = "faulty: waits for room on the Ray cluster; a worker takes CPU 1.\n"
    assert driver.stderr.readline() == waits
    nodes.begin("127.0.0.3", 1)
    nodes.await_node("127.0.0.3")
    nodes.begin("127.0.0.4", 1)
    until(lambda: commits(workspace) > 0)
    nodes.await_node("127.0.0.4")
    until(lambda: len(nodes.workers("127.0.0.4")) == 1)
    before = commits(workspace)
    nodes.kill("127.0.0.3")
    until(lambda: commits(workspace) > before)
    os.kill(nodes.workers("127.0.0.4")[0], signal.SIGKILL)
    out, said = driver.communicate(timeout=120)
    stalled_s = time.time() - last_commit(workspace)
    assert driver.returncode == 0, said
    assert stalled_s < 15, "two of its four actors never had room"
    assert "127.0.0.3" in said
    assert "127.0.0.4" in said
    assert out == ""
    assert outcome_digest(workspace) == expected(tmp_path / "alone", labels)


def test_a_run_whose_driver_is_killed_leaves_no_worker_and_is_done_by_the_next(
    nodes: RayNodes, tmp_path: Path
) -> None:
    labels = ["nap"] * 8 * 8
    workspace = filled(tmp_path / "ws", labels)
    if "127.0.0.4" not in nodes.nodes:
        nodes.start("127.0.0.4", 1)
    driver = nodes.drive(tmp_path / "ws", 2)
    until(lambda: commits(workspace) > 0)
    driver.kill()
    until(lambda: not nodes.workers("127.0.0.4"), within_s=15)
    assert 0 < commits(workspace) < 8
    again = nodes.drive(tmp_path / "ws", 2)
    said = again.communicate(timeout=120)[1]
    assert again.returncode == 0, said
    assert outcome_digest(workspace) == expected(tmp_path / "alone", labels)
    assert workspace.storage.folders("commits/faulty/work") == []


def test_nodes_with_other_code_or_without_the_workspace_are_refused_in_a_line_each(
    nodes: RayNodes, tmp_path: Path
) -> None:
    labels = ["slow"] * 64
    workspace = filled(tmp_path / "ws", labels)
    other = tmp_path / "other"
    info = other / "numpy-9.9.9.dist-info" / "METADATA"
    info.parent.mkdir(parents=True)
    info.write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 9.9.9\n")
    here = version("numpy")
    if "127.0.0.4" not in nodes.nodes:
        nodes.start("127.0.0.4", 1)
    nodes.start("127.0.0.5", 1, environment={"PYTHONPATH": str(other)})
    nodes.start("127.0.0.6", 1, before=without(tmp_path))
    nodes.kill("127.0.0.4")  # its cluster believes in it for a while, and gives it actors
    driver = nodes.drive(tmp_path / "ws", 2)
    said = lines_of(driver)
    assert driver.returncode == 1
    assert said[-1].startswith("Error: faulty: node 127.0.0."), "for no node is left"
    told = {line.removeprefix("Error: ").removesuffix(" No unit runs there.") for line in said}
    assert len(told) == 2, "a line each"
    assert f"node 127.0.0.5: numpy is 9.9.9 there and {here} here." in "\n".join(told)
    assert f"node 127.0.0.6: {tmp_path}/ws is not there" in "\n".join(told)
    assert commits(workspace) == 0

    nodes.start("127.0.0.3", 1)
    driver = nodes.drive(tmp_path / "ws", 3)
    said = lines_of(driver)
    assert driver.returncode == 0, said
    assert len(said) == 2
    assert all(line.endswith("No unit runs there.") for line in said)
    assert outcome_digest(workspace) == expected(tmp_path / "alone", labels)
    for commit in workspace.ledger("faulty").commits():
        assert commit.versions["numpy"] == here


def test_what_a_lost_head_leaves_in_reach_is_done_without_it(
    nodes: RayNodes, tmp_path: Path
) -> None:
    labels = ["nap"] * 8 * 6
    workspace = filled(tmp_path / "ws", labels)
    if "127.0.0.3" not in nodes.nodes:
        nodes.start("127.0.0.3", 1)
    driver = nodes.drive(tmp_path / "ws", 1)
    until(lambda: commits(workspace) > 0)
    nodes.kill(HEAD)
    said = driver.communicate(timeout=60)[1]
    assert driver.returncode == 0, said
    assert time.time() - last_commit(workspace) < 15
    assert outcome_digest(workspace) == expected(tmp_path / "alone", labels)


def test_a_run_that_loses_all_nodes_ends_in_a_line_and_is_done_by_the_next(tmp_path: Path) -> None:
    labels = ["nap"] * 8 * 12
    workspace = filled(tmp_path / "ws", labels)
    with contextlib.closing(RayNodes(26389)) as nodes:
        nodes.start("127.0.0.3", 1)
        driver = nodes.drive(tmp_path / "ws", 1)
        until(lambda: commits(workspace) > 0)
        nodes.kill(HEAD)
        nodes.kill("127.0.0.3")
        said = driver.communicate(timeout=60)[1]
        assert time.time() - last_commit(workspace) < 15 + 2, "a unit takes 1.6 s"
        assert driver.returncode == 1
        assert said.splitlines()[-1] == (
            f"Error: faulty: the head of the Ray cluster, {nodes.address}, does not answer. What is"
            " committed stays; run again when it does."
        )
    assert 0 < commits(workspace) < 12
    run_stage(workspace, "faulty", RunOptions(workers=2), step=PATIENT, config=FaultyConfig())
    assert outcome_digest(workspace) == expected(tmp_path / "alone", labels)


def lines_of(driver: subprocess.Popen[str]) -> list[str]:
    """What a driver said when it has ended, but for rooms it waited for and nodes that died."""
    lines = driver.communicate(timeout=120)[1].splitlines()
    return [line for line in lines if "waits for room" not in line and "node has died" not in line]


def without(folder: Path) -> tuple[str, ...]:
    """What makes a command see a folder empty, as a node that does not mount it."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("only root may give a process mounts of its own")
    script = f'mount -t tmpfs none {folder} && exec "$@"'
    return ("unshare", "-m", "sh", "-c", script, "sh")
