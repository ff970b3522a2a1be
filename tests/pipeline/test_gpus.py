"""Workers share the GPUs there are, as many on each as the settings say, and results stay the same.

No GPU is needed: which ones there are is said by the environment or by a program in nvidia-smi's
place.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from pipeline.config import HearConfig, ProposeConfig, SegmentConfig
from pipeline.models.catalogue import MODELS
from pipeline.run import gpus
from pipeline.run.gpus import VISIBLE, visible_gpus
from pipeline.run.runner import RunOptions, RunSummary, run_stage
from pipeline.run.stage_progress import Progress
from pipeline.workspace.workspace import Workspace
from stages.backends.interfaces import DETECTORS, SEGMENTERS, TAGGERS
from stages.propose.propose_boxes import ProposeBoxes
from stages.propose.tag_sounds import TagSounds
from stages.segment.segment_instances import SegmentInstances
from tests.pipeline.gpu_stage import ENTRY, UNSET, GpuConfig, filled, noted

TWO_GPUS = (
    "GPU 0: NVIDIA H200 (UUID: GPU-11111111-aaaa)\nGPU 1: NVIDIA H200 (UUID: GPU-22222222-bbbb)"
)


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without a GPU, whatever this one is: a PATH where programs may be put."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv(VISIBLE, raising=False)
    nvidia_smi(folder, "exit 9")
    return folder


def nvidia_smi(folder: Path, script: str) -> None:
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "nvidia-smi").chmod(0o755)


def listing(folder: Path, text: str = TWO_GPUS) -> None:
    nvidia_smi(folder, f'test "$*" = -L && cat <<EOF\n{text}\nEOF')


def run(
    workspace: Workspace, workers: int, device: str = "auto", *, dry_run: bool = False
) -> RunSummary:
    options = RunOptions(workers=workers, dry_run=dry_run)
    config = GpuConfig(device=device)
    return run_stage(workspace, "ongpu", options, Progress(shown=False), ENTRY, config)


# Which GPUs there are


def test_what_the_user_made_visible_is_what_there_is(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing(programs)
    monkeypatch.setenv(VISIBLE, "3,GPU-22222222")
    assert visible_gpus() == ["3", "GPU-22222222"]
    monkeypatch.setenv(VISIBLE, "")
    assert visible_gpus() == []


def test_else_the_driver_is_asked_for_their_uuids(programs: Path) -> None:
    listing(programs)
    assert visible_gpus() == ["GPU-11111111-aaaa", "GPU-22222222-bbbb"]


@pytest.mark.parametrize("script", ["exit 9", "echo 'No devices were found'", "exec sleep 60"])
def test_a_driver_that_does_not_answer_has_no_gpu(
    programs: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(gpus, "_TIMEOUT_S", 0.5)
    nvidia_smi(programs, script)
    assert visible_gpus() == []


def test_a_machine_without_the_program_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert visible_gpus() == []


# Who uses them


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda:1"])
def test_a_stage_uses_a_gpu_where_its_backend_is_a_model_and_its_device_allows_it(
    device: str,
) -> None:
    for tagger in TAGGERS:
        config = HearConfig.model_validate({"tagger": tagger, "device": device})
        assert TagSounds(config).device() == (device if tagger != "vggsound-label" else "cpu")
    for detector in DETECTORS:
        found = ProposeConfig.model_validate({"detector": detector, "device": device})
        on_gpus = detector in MODELS and MODELS[detector].loader != "onnx"
        assert ProposeBoxes(found).device() == (device if on_gpus else "cpu")
    for segmenter in SEGMENTERS:
        chosen = SegmentConfig.model_validate({"segmenter": segmenter, "device": device})
        assert SegmentInstances(chosen).device() == (device if segmenter in MODELS else "cpu")


# Local workers


def test_workers_take_turns_on_the_gpus_the_user_made_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VISIBLE, "4,GPU-ab,-1,7")
    workspace = filled(tmp_path / "ws", ["three"] * 12)
    assert run(workspace, 3).workers == 3
    assert noted(workspace) == {"4": 2, "GPU-ab": 1}


def test_as_many_workers_as_the_gpus_bear_and_a_line_that_says_so(
    programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing(programs)
    workspace = filled(tmp_path / "ws", ["two"] * 12, "run.workers_per_gpu=1")
    line = "workers: 2, not 5 (GPUs: 2, run.workers_per_gpu: 1)."
    planned = run(workspace, 5, dry_run=True)
    assert (planned.workers, planned.notes) == (2, [line])
    assert run(workspace, 5).workers == 2
    assert noted(workspace) == {"GPU-11111111-aaaa": 1, "GPU-22222222-bbbb": 1}
    assert capsys.readouterr().err.splitlines() == [f"ongpu: {line}"]


def test_without_a_word_from_the_user_there_are_no_more_workers_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VISIBLE, "0")
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(64)))
    workspace = filled(tmp_path / "ws", ["ok"] * 20)
    assert run(workspace, 0, dry_run=True).workers == 2


def test_a_gpu_the_settings_name_is_left_to_them_and_is_shared_by_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VISIBLE, "4,5,6")
    workspace = filled(tmp_path / "ws", ["two"] * 12, "run.workers_per_gpu=2")
    assert run(workspace, 5, "cuda:1").workers == 2
    assert noted(workspace) == {"4,5,6": 2}


@pytest.mark.parametrize(("visible", "device"), [("4", "cpu"), (None, "auto")])
def test_on_the_cpu_workers_are_as_many_as_asked_and_their_environment_is_left_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    visible: str | None,
    device: str,
) -> None:
    if visible:
        monkeypatch.setenv(VISIBLE, visible)
    workspace = filled(tmp_path / "ws", ["three"] * 12, "run.workers_per_gpu=1")
    assert run(workspace, 3, device).workers == 3
    assert noted(workspace) == {visible or UNSET: 3}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_replaces_a_dead_one_has_its_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setenv(VISIBLE, "0,1,2")
    workspace = filled(tmp_path / "ws", ["ok", "kill", "ok", "ok", "kill", "ok"])
    run(workspace, workers)
    killed = noted(workspace, "killed")
    assert killed.total() >= 4, "each such row kills two"
    own = {str(place): 1 for place in range(workers)}
    assert noted(workspace).keys() == own.keys(), "nobody went to the third GPU"
    left = noted(workspace) - killed  # where little work is left, fewer are replaced
    assert left
    assert left <= Counter(own)


def test_gpus_change_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results: list[tuple[str, list[str]]] = []
    for workers, visible in ((1, ""), (1, "0"), (3, "0,1")):
        monkeypatch.setenv(VISIBLE, visible)
        workspace = filled(tmp_path / f"{len(results)}", ["ok", "drop", "fail", "ok"] * 4)
        run(workspace, workers)
        ledger = workspace.ledger("ongpu")
        results.append(
            (workspace.digest("clips"), [commit.unit_key for commit in ledger.commits()])
        )
    assert results[0] == results[1] == results[2]
