"""Actors of a Ray cluster give the table that processes give, and take their share of its GPUs."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli.python import Workspace as FromPython
from pipeline.errors import ConfigError, UsageError
from pipeline.models.catalogue import worker_bytes
from pipeline.run.gpus import VISIBLE
from pipeline.run.runner import RunOptions, RunSummary, run_stage
from pipeline.run.stage_progress import Progress
from pipeline.workspace.commit import Unit
from pipeline.workspace.workspace import Workspace
from tests.flow_world import draw
from tests.pipeline import gpu_stage
from tests.pipeline.faulty import (
    ENTRY,
    EXPECTED_KIND,
    LONG,
    PATIENT,
    FaultyConfig,
    add_sources,
)
from tests.pipeline.gpu_stage import UNSET, GpuConfig, filled, noted

LABELS = ["ok", "drop", "raise", "ok", "kill", "ok", "ok", "fail"] * 3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray's own, on sockets and deprecations
]


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[None]:
    """A Ray on the loopback interface that takes itself for one of four cores and some GPUs."""
    ray = pytest.importorskip("ray", reason="the ray extra is not installed")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.delenv(VISIBLE, raising=False)
        ray.init(
            num_cpus=4,
            num_gpus=request.param,
            _memory=MEMORY,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    yield
    ray.shutdown()


MEMORY = 8e9
"""What the node says it has, bytes."""


with_gpus = pytest.mark.parametrize("cluster", [2], indirect=True)
without_gpus = pytest.mark.parametrize("cluster", [0], indirect=True)


def run(workspace: Workspace, workers: int, device: str) -> RunSummary:
    options, config = RunOptions(workers=workers), GpuConfig(device=device)
    return run_stage(workspace, "ongpu", options, Progress(shown=False), gpu_stage.ENTRY, config)


@with_gpus
def test_ray_and_local_give_the_same_table_and_the_same_failures(
    cluster: None, tmp_path: Path
) -> None:
    results = []
    for executor in ("local", "ray"):
        root = tmp_path / executor
        Workspace.create(root)
        workspace = Workspace(root, [f"run.executor={executor}"])
        add_sources(workspace, LABELS)
        options = RunOptions(workers=2)
        run_stage(workspace, "faulty", options, step=ENTRY, config=FaultyConfig())
        failed = {row.input_id: row.kind for row in workspace.ledger("faulty").failures()}
        results.append((workspace.digest("clips"), failed))
    assert results[0] == results[1]
    expected = sorted(EXPECTED_KIND[label] for label in LABELS if label in EXPECTED_KIND)
    assert sorted(results[1][1].values()) == expected


@with_gpus
def test_every_stage_from_the_list_to_masks_gives_on_ray_what_processes_give(
    cluster: None, tmp_path: Path
) -> None:
    videos, listed = draw(tmp_path)
    results = []
    for executor in ("local", "ray"):
        root = tmp_path / executor
        template = f"download.source_template={videos}/{{video_id}}.mp4"
        FromPython.create(root, "offline")
        workspace = FromPython(root, [f"run.executor={executor}", template])
        counts = [workspace.download(listed, workers=2).counts]
        for stage in ("sample", "propose", "accept", "segment"):
            counts.append(workspace.run(stage, workers=2).counts)
            assert counts[-1]["ok"] > 0
        made = ("clips", "frames", "sounds", "proposals", "instances", "masks")
        results.append((counts, [workspace.digest(table) for table in made]))
    assert results[0] == results[1]


@with_gpus
def test_a_hang_shows_after_its_rows_time_and_rows_count_while_their_unit_is_under_way(
    cluster: None, tmp_path: Path
) -> None:
    counted: list[int] = []

    class Noted(Progress):
        def rows(self, unit: Unit, done: int) -> None:
            counted.append(done)

    workspace = filled(tmp_path / "ws", [*["slow"] * 40, "hang", *["ok"] * 23], "run.executor=ray")
    options = RunOptions(workers=1)
    summary = run_stage(workspace, "faulty", options, Noted(shown=False), LONG, FaultyConfig())
    assert summary.kinds == {"hang": 1}
    assert summary.counts["ok"] == 63
    assert summary.seconds < 64 * 5, "the time of the whole unit"
    assert {10, 20, 30, 40, 41, 50} <= {*counted}


@with_gpus
def test_a_row_that_kills_its_worker_names_the_node_and_the_log_with_its_last_words(
    cluster: None, tmp_path: Path
) -> None:
    workspace = filled(tmp_path / "ws", ["ok", "segfault"], "run.executor=ray")
    run_stage(workspace, "faulty", RunOptions(workers=1), step=PATIENT, config=FaultyConfig())
    (failure,) = workspace.ledger("faulty").failures()
    assert failure.kind == "worker_crash"
    found = re.search(r"SIGSEGV, on node [0-9.]+, its log there is (\S+)\)", failure.detail)
    assert found, failure.detail
    assert "Segmentation fault" in Path(found[1]).read_text()


@with_gpus
def test_a_resource_no_node_has_is_waited_for_and_one_that_is_there_is_taken(
    cluster: None, tmp_path: Path
) -> None:
    resources = "run.ray_resources={memory = 1e8, CPU = 1}"
    with pytest.raises(ConfigError, match=r"run\.ray_resources"):
        filled(tmp_path / "wrong", ["ok"] * 8, "run.executor=ray", resources)
    resources = "run.ray_resources={memory = 1e8}"
    workspace = filled(tmp_path / "ws", ["four"] * 8, "run.executor=ray", resources)
    assert run(workspace, 0, "cpu").workers == 4


@with_gpus
def test_a_worker_takes_the_memory_of_the_models_it_loads(cluster: None, tmp_path: Path) -> None:
    import ray

    left: list[float] = []

    class Looks(Progress):
        def rows(self, unit: Unit, done: int) -> None:
            left.append(ray.available_resources()["memory"])  # type: ignore[no-untyped-call]

    workspace = filled(tmp_path / "ws", ["slow"] * 8, "run.executor=ray")
    config = gpu_stage.ModelledConfig(device="cpu")
    looks = Looks(shown=False)
    run_stage(workspace, "ongpu", RunOptions(), looks, gpu_stage.ENTRY, config)
    each = worker_bytes(["sam-vit-b"])
    assert 4 * each > MEMORY > 3 * each, "room for three"
    assert min(left) == pytest.approx(MEMORY - 3 * each)


def test_a_ray_client_address_is_refused_with_what_to_give_instead(tmp_path: Path) -> None:
    settings = ("run.executor=ray", "run.ray_address=ray://10.0.0.1:10001")
    workspace = filled(tmp_path / "ws", ["ok"], *settings)
    with pytest.raises(UsageError, match=r"ray://10\.0\.0\.1:10001: .* give 'auto', or"):
        run(workspace, 1, "cpu")


@with_gpus
def test_actors_share_the_gpus_of_a_cluster_and_replace_one_another_there(
    cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ["four", "kill", *["ok"] * 16]
    workspace = filled(tmp_path / "ws", labels, "run.executor=ray")
    assert run(workspace, 9, "auto").workers == 4
    assert noted(workspace).keys() == {"0", "1"}
    assert noted(workspace).total() >= 4
    assert max((noted(workspace) - noted(workspace, "killed")).values()) <= 2
    said = capsys.readouterr().err.splitlines()
    assert said == ["ongpu: workers: 4, not 9 (GPUs: 2, run.workers_per_gpu: 2)."]
    local = filled(tmp_path / "local", labels)
    run(local, 4, "cpu")
    assert workspace.digest("clips") == local.digest("clips")


@with_gpus
def test_on_the_cpu_actors_take_no_gpu_and_are_one_per_core_of_the_cluster(
    cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("run.executor=ray", "run.workers_per_gpu=1")
    workspace = filled(tmp_path / "ws", ["four"] * 8, *settings)
    assert run(workspace, 0, "cpu").workers == 4
    assert noted(workspace).total() == 4
    assert noted(workspace).keys() <= {UNSET, ""}, "which of the two is Ray's affair"
    assert capsys.readouterr().err == ""


@without_gpus
def test_a_cluster_without_gpus_says_so_once_and_runs_on_its_cpus(
    cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = filled(tmp_path / "ws", ["ok"] * 8, "run.executor=ray")
    assert run(workspace, 2, "auto").workers == 2
    assert noted(workspace).keys() == {""}
    said = capsys.readouterr().err.splitlines()
    assert said == ["ongpu: the Ray cluster has no GPU; the model runs on CPUs."]
