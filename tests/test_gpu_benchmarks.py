"""What shall run once on a lent GPU is rehearsed whole, with small networks on the CPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu import run, without_opencv
from benchmarks.gpu.prepare import ABOUT, ARCHIVE, PACKAGES, prepare


def test_the_folder_holds_the_code_and_what_a_machine_may_lack(tmp_path: Path) -> None:
    prepare(tmp_path / "work", ["einops", "typing-extensions"])
    names = zipfile.ZipFile(tmp_path / "work" / ARCHIVE).namelist()
    assert {"einops/einops.py", "typing_extensions.py"} <= set(names)
    assert not [name for name in names if "/tests/" in name or name.endswith(".pyi")]
    about = json.loads((tmp_path / "work" / ABOUT).read_text())
    assert set(about["packages"]) == {"einops", "typing-extensions"}
    assert (tmp_path / "work" / "benchmarks" / "gpu" / "run.py").exists()
    assert not list((tmp_path / "work").rglob("__pycache__"))


def test_only_what_is_lacking_is_unpacked_and_for_another_python_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path / "work", ["einops", "typing-extensions"])
    run.unpack(tmp_path / "work", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "einops" else name
    )
    run.unpack(tmp_path / "work", tmp_path / "some")
    assert (tmp_path / "some" / "einops" / "einops.py").exists()
    assert not (tmp_path / "some" / "typing_extensions.py").exists()
    about = json.loads((tmp_path / "work" / ABOUT).read_text())
    (tmp_path / "work" / ABOUT).write_text(json.dumps(about | {"python": [3, 1]}))
    with pytest.raises(SystemExit, match=r"no einops here, .* for Python 3\.1\."):
        run.unpack(tmp_path / "work", tmp_path / "other")


def test_every_package_is_installed_here_under_the_name_it_is_looked_for() -> None:
    for module in PACKAGES.values():
        assert importlib.util.find_spec(module), module


def test_without_opencv_pictures_of_their_size_pass_and_others_do_not() -> None:
    stand_in = without_opencv._stand_in()
    picture = np.zeros((4, 6, 3), np.uint8)
    assert stand_in.resize(picture, (6, 4), interpolation=stand_in.INTER_AREA).shape == (4, 6, 3)
    with pytest.raises(NotImplementedError, match="takes OpenCV"):
        stand_in.resize(picture, (4, 4))


def test_a_step_that_fails_or_hangs_costs_itself_alone(tmp_path: Path) -> None:
    hung = run.run_step("machine", 0.05, ["--device", "cpu", "--tiny"], dict(os.environ))
    assert hung["error"] == "over 0 s"
    unknown = run.run_step("machine", 60, ["--device", "none"], dict(os.environ))
    assert "none" in unknown["error"]


@pytest.mark.slow
@pytest.mark.long
def test_all_of_it_runs_in_the_folder(tmp_path: Path) -> None:
    prepare(tmp_path / "work", ["einops"])
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "benchmarks.gpu.run", "--device", "cpu", "--tiny"]
    command += ["--out", str(out), "--seconds", "900"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=tmp_path / "work", env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(out.read_text())
    steps = results["steps"]
    assert list(steps) == list(run.STEPS)
    assert not {name: step["error"] for name, step in steps.items() if "error" in step}
    for name in ("tavlo", "cav-mae", "efficientat", "sam"):
        found = steps["parity"][name]
        assert found["float32"] < 1e-5
        assert 0 < found["bf16"] < 0.1
    for name in ("train", "train-recomputed", "train-compiled"):
        assert steps[name]["batch"] == 4
        assert steps[name]["share_of_matrix_rate"] > 0
    assert steps["resume"]["tensors_that_differ"] == 0, "on a CPU"
    assert 0 < steps["resume"]["went_on_after"] < steps["resume"]["steps"]
    assert steps["feed"]["clips_per_s"] > 0
    assert results["feed_over_training"] > 0
