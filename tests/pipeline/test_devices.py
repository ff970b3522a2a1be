"""The name of a device, wherever it is typed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import load_config
from pipeline.devices import choose_device, parse_device
from pipeline.errors import AvatarBuildError, UsageError

BAD = ["mps", "mps:0", "cuda:", "cuda:-1", "cuda:1,2", "gpu", "0", "", "cuda 0", "meta", "cpu:0"]


@given(st.text() | st.from_regex(r"(cuda|cpu|mps|auto)[:0-9]{0,5}", fullmatch=True))
def test_a_device_is_named_or_refused_in_one_line(text: str) -> None:
    said = named = ""
    try:
        named = parse_device(text)
    except UsageError as error:
        said = str(error)
    if said:
        assert "auto, cpu, cuda or cuda:N" in said
        assert "\n" not in said
    else:
        assert re.fullmatch(r"auto|cpu|cuda(:\d+)?", named)
        assert parse_device(named) == named


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_device_is_refused_by_models_and_settings_alike(text: str) -> None:
    with pytest.raises(UsageError, match="auto, cpu, cuda or cuda:N"):
        choose_device(text)
    with pytest.raises(AvatarBuildError, match="auto, cpu, cuda or cuda:N") as error:
        load_config("", (f"segment.device='{text}'",))
    assert "\n" not in str(error.value)


def test_cuda_is_the_first_gpu_in_settings() -> None:
    assert load_config("", ("segment.device=cuda",)).segment.device == "cuda:0"


@pytest.mark.parametrize("named", ["cuda", "cuda:0", "cuda:99"])
def test_without_a_gpu_the_reason_is_said(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UsageError, match=r"sees no GPU \(built for CUDA 12.8, CUDA_VISIBLE_DEV"):
        choose_device(named)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(UsageError, match="built without CUDA"):
        choose_device(named)
    assert choose_device("auto").type == "cpu"


def test_each_process_of_torchrun_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for named in ("auto", "cuda"):
        assert [choose_device(named, rank).index for rank in (0, 1)] == [0, 1]
        with pytest.raises(UsageError, match="sees 2 GPUs, one for each process"):
            choose_device(named, 2)
    with pytest.raises(UsageError, match="torchrun gives each process a GPU of its own"):
        choose_device("cuda:0", 0)
    assert choose_device("cuda:1").index == 1


@pytest.mark.parametrize("command", ["train-tavlo", "evaluate", "evaluate-images", "segment"])
def test_every_command_refuses_what_is_no_device(command: str, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from pipeline.cli import cli
    from tests.tavlo import small
    from tests.tavlo.release_factory import make_release

    release = make_release(tmp_path / "r", images=False, clips=command == "train-tavlo")
    place = ["--out", str(tmp_path / "out")]
    words = {
        "train-tavlo": ["--data", str(release), *place, *small.settings()],
        "evaluate": ["--release", str(release), "--checkpoint", "no.pt", *place],
        "evaluate-images": [
            *("--release", str(release), "--model", "ezvsl", "--checkpoint", "no.pt", *place)
        ],
        "segment": ["--workspace", str(tmp_path / "ws")],
    }[command]
    if command == "segment":
        CliRunner().invoke(cli, ["init", str(tmp_path / "ws"), "--profile", "offline"])
    done = CliRunner().invoke(cli, [command, *words, "--device", "mps"])
    assert "it must be auto, cpu, cuda or cuda:N. Apple's GPUs (mps)" in str(done.exception)
    assert not (tmp_path / "out").exists()
