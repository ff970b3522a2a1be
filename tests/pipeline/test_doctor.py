from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli.doctor import Check, run_checks
from pipeline.config import Config, DownloadConfig, LabelConfig, ProposeConfig, RunConfig
from pipeline.records.schema import Source
from pipeline.run.gpus import VISIBLE
from pipeline.workspace.workspace import Workspace
from tests.conftest import ROOT
from tests.pipeline.shell import Shell


def checks(workspace: Workspace, download: DownloadConfig | None = None) -> dict[str, Check]:
    config = Config(download=download or DownloadConfig())
    return {check.name: check for check in run_checks(workspace.storage, config)}


def program(folder: Path, name: str, says: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\necho '{says}'\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def no_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the whole PATH, for those who look beside Python too."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path / "no-scripts"))
    return folder


def test_what_tests_need_is_not_bad(workspace: Workspace) -> None:
    found = checks(workspace, DownloadConfig(min_free_bytes=0))
    for name in ("Python", "yt-dlp-ejs", "decoders", "ffmpeg"):
        assert found[name].state == "ok", found[name]
    assert "not needed" in found["ffmpeg"].detail


@pytest.mark.parametrize(("days", "state"), [(60, "ok"), (61, "warn")])
def test_a_yt_dlp_older_than_sixty_days_is_a_warning(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, days: int, state: str
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2026.3.1")
    today = datetime.date(2026, 3, 1) + datetime.timedelta(days)
    found = {one.name: one for one in run_checks(workspace.storage, Config(), today)}
    assert found["yt-dlp"].state == state
    assert f"{days} days old" in found["yt-dlp"].detail


def test_no_javascript_runtime_is_a_warning(workspace: Workspace, no_programs: Path) -> None:
    found = checks(workspace)["JavaScript runtime"]
    assert found.state == "warn"
    assert "Install deno" in found.advice


def test_a_runtime_must_be_enabled_and_new_enough(workspace: Workspace, no_programs: Path) -> None:
    program(no_programs, "node", "v22.4.1")
    found = checks(workspace)["JavaScript runtime"]
    assert (found.state, found.detail) == ("warn", "node 22.4.1 is here, but enabled is deno")
    assert "options = {js_runtimes = {node = {}}}" in found.advice
    enabled = DownloadConfig(options={"js_runtimes": {"node": {}}})
    assert checks(workspace, enabled)["JavaScript runtime"].state == "ok"
    program(no_programs, "node", "v20.1.0")
    assert checks(workspace, enabled)["JavaScript runtime"].state == "warn"
    program(no_programs, "deno", "deno 2.5.0 (stable, release)")
    assert checks(workspace)["JavaScript runtime"] == Check(
        "JavaScript runtime", "ok", "deno 2.5.0"
    )


def test_cookies_must_be_there_and_private(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    config = DownloadConfig(identities=["direct", f"cookies:{path}"])
    assert checks(workspace, config)["cookies"].state == "bad"
    path.write_text("")
    path.chmod(0o644)
    found = checks(workspace, config)["cookies"]
    assert (found.state, found.advice) == ("warn", f"chmod 600 {path}")
    path.chmod(0o600)
    assert checks(workspace, config)["cookies"].state == "ok"


def test_the_disk_is_held_against_the_videos_that_wait(workspace: Workspace) -> None:
    assert checks(workspace, DownloadConfig(min_free_bytes=10**18))["disk"].state == "bad"
    import pyarrow.parquet as pq

    from pipeline.records.schema import arrow_schema

    schema = arrow_schema(Source)
    rows = [{"video_id": f"{n:011d}", "label": "a", "split": "b", "start_s": 0} for n in range(70)]
    path = workspace.storage.path("tables/sources/part.parquet")
    pq.write_table(schema.empty_table().from_pylist(rows, schema), path)
    workspace.storage.write("media/videos/00000000000.json", b"{}")
    found = checks(workspace, DownloadConfig(min_free_bytes=0))["disk"]
    assert "69 videos to fetch, about 692.0 MB to keep" in found.detail


def test_a_format_that_merges_needs_ffmpeg(workspace: Workspace, no_programs: Path) -> None:
    found = checks(workspace, DownloadConfig(format="bv*+ba/b"))["ffmpeg"]
    assert found.state == "bad"
    program(no_programs, "ffmpeg", "")
    assert checks(workspace, DownloadConfig(format="bv*+ba/b"))["ffmpeg"].state == "ok"


def test_gpus_are_counted_and_so_are_the_workers_they_make(
    workspace: Workspace, no_programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(**run: int) -> Check:
        config = Config(run=RunConfig.model_validate(run))
        return {check.name: check for check in run_checks(workspace.storage, config)}["GPU"]

    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(64)))
    assert found() == Check("GPU", "ok", "none seen; none is needed")
    program(no_programs, "nvidia-smi", "No devices were found")
    assert (found().state, found().detail) == ("warn", "nvidia-smi is here, but lists none")
    program(no_programs, "nvidia-smi", "GPU 0: NVIDIA H200 (UUID: GPU-11111111)")
    of = "workers of a stage whose model runs on GPUs"
    assert found().detail == f"visible: 1; {of}: 2 (run.workers_per_gpu: 2)"
    assert found(workers_per_gpu=3).detail == f"visible: 1; {of}: 3 (run.workers_per_gpu: 3)"
    monkeypatch.setenv(VISIBLE, "4,5,6,7")
    assert found(workers=5).detail == f"visible: 4; {of}: 5 (run.workers_per_gpu: 2)"
    monkeypatch.setenv(VISIBLE, "")
    assert found() == Check("GPU", "ok", f"none: {VISIBLE}='' shows none")


def test_what_is_not_ok_says_what_to_do(workspace: Workspace, no_programs: Path) -> None:
    for check in checks(workspace, DownloadConfig(min_free_bytes=10**18)).values():
        assert check.state == "ok" or check.advice, check


def test_the_doctor_imports_neither_torch_nor_yt_dlp(workspace: Workspace) -> None:
    code = (
        "import sys; from pipeline.cli.doctor import run_checks;"
        "from pipeline.config import Config;"
        "from pipeline.workspace.storage import Storage;"
        f"run_checks(Storage({workspace.storage.url!r}),"
        " Config()); print(sorted({'torch', 'yt_dlp', 'pandas', 'ray'} & sys.modules.keys()))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("section", "backend", "weights", "extra"),
    [
        ("hear", {"tagger": "cav-mae"}, "cav-mae-as-46.6", "models"),
        ("hear", {"tagger": "efficientat-mn10-as"}, "efficientat-mn10-as", "light"),
        ("propose", {"detector": "yolov8x-oiv7"}, "yolov8x-oiv7", "models"),
        ("propose", {"detector": "grounding-dino-tiny"}, "grounding-dino-tiny", "light"),
        ("segment", {"segmenter": "sam-vit-h"}, "sam-vit-h", "models"),
    ],
)
def test_a_chosen_backend_without_its_weights_or_packages_is_bad_and_says_what_mends_it(
    workspace: Workspace,
    section: str,
    backend: dict[str, str],
    weights: str,
    extra: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = Config.model_validate({section: backend})

    def found() -> Check:
        return {check.name: check for check in run_checks(workspace.storage, config)}[section]

    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert found().state == "bad"
    assert f"'avatar-build models fetch {weights}'" in found().advice
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert found().advice.startswith("torch")
    assert f"avatar-build[{extra}]" in found().advice
    assert checks(workspace)[section].state == "ok", "the offline profile needs none of it"


def test_the_profiles_that_could_run_here_are_told(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AVATAR_BUILD_MODELS", str(tmp_path / "none"))
    found = checks(workspace)
    assert found["profile offline"].detail == "can run"
    for profile, lacking in (("light", "dfine-small-obj365"), ("paper", "sam-vit-h")):
        check = found[f"profile {profile}"]
        assert check.state == "ok", "nobody asked for it"
        assert f"{lacking}: no weights on this machine" in check.detail
        assert check.advice == f"For it: avatar-build models fetch --profile {profile}"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for profile, extra in (("light", "light"), ("paper", "models")):
        advice = checks(workspace)[f"profile {profile}"].advice
        assert advice.startswith(f"For it: pip install 'avatar-build[{extra}]', then avatar-build")


def test_an_executor_that_is_not_installed_is_bad(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = Config(run=RunConfig(executor="ray"))
    states = {check.name: check.state for check in run_checks(workspace.storage, config)}
    assert states["executor"] == "bad"


def test_a_token_file_that_cannot_be_used_is_bad(workspace: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "a token"

    def found() -> Check:
        config = Config(label=LabelConfig(token_file=str(file)))
        return {check.name: check for check in run_checks(workspace.storage, config)}["label"]

    assert "label" not in checks(workspace)
    assert (found().state, "No such file" in found().detail) == ("bad", True)
    file.write_text("")
    file.chmod(0o600)
    assert (found().state, "empty" in found().detail) == ("bad", True)
    file.write_text("secret")
    assert (found().state, "secret" in str(found())) == ("ok", False)
    file.chmod(0o644)
    assert (found().state, found().advice) == ("bad", f"Run: chmod 600 '{file}'")


def test_a_gpu_that_is_not_there_is_bad(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VISIBLE, "0")
    monkeypatch.setattr("pipeline.cli.doctor.visible_gpus", lambda: ["0"])
    monkeypatch.setattr("stages.propose.propose_boxes.ProposeBoxes.fingerprint", lambda self: {})
    for device, state in (("cuda:0", "ok"), ("cuda:1", "bad"), ("cpu", "ok")):
        config = Config(propose=ProposeConfig(detectors=["yolov8n-oiv7"], device=device))
        found = {check.name: check for check in run_checks(workspace.storage, config)}["propose"]
        assert found.state == state, (device, found)


def test_the_doctor_fails_where_the_workspaces_settings_cannot_run(
    workspace: Workspace, shell: Shell
) -> None:
    words = ("doctor", "-w", workspace.storage.url, "--set", "download.min_free_bytes=0")
    shell(*words).check()
    error = shell(*words, "--set", "propose.detector='yolov8x-oiv7'").one_line()
    assert error == "Error: doctor: not ready to run: propose.\n"
