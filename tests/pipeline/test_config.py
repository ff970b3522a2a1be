"""Defaults, then the file, then what was typed; and a typo is never a silent default."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.config import (
    PROFILES,
    Config,
    DownloadConfig,
    ProposeConfig,
    Section,
    load_config,
)
from pipeline.errors import ConfigError
from pipeline.workspace.settings_file import meanings, render_toml
from pipeline.workspace.workspace import Workspace


def test_the_written_file_is_the_defaults() -> None:
    assert load_config(render_toml()) == Config()


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_every_profile_loads(profile: str) -> None:
    found = load_config(render_toml(profile)).model_dump()
    for section, values in PROFILES[profile].items():
        assert found[section].items() >= values.items()


def test_what_config_show_prints_loads_to_the_same_settings() -> None:
    chosen = load_config("", ["sample.seed=3", "download.options={a = 1}", 'export.title=O\'x "y"'])
    assert load_config(render_toml(resolved=chosen)) == chosen


def test_typed_settings_win_over_the_file() -> None:
    found = load_config("[sample]\nseed = 1\nmax_frames = 2", ["sample.seed=9"])
    assert (found.sample.seed, found.sample.max_frames) == (9, 2)


@pytest.mark.parametrize(
    ("toml", "setting", "message"),
    [
        ("[sample]\nactive_rms = -1", "", r"avatar.toml: sample.active_rms: .*\(got -1\)"),
        ("[sample]\nactive_rsm = 1", "", r"sample.active_rsm: no such setting"),
        ("[sample", "", r"avatar.toml: not valid TOML"),
        ("[sample]\nseed = " + "9" * 5000, "", r"avatar.toml: not valid TOML"),
        ("[sample]\nseed = " + "[" * 9000, "", r"avatar.toml: not valid TOML"),
        ("[sample]\nseed = true", "", r"sample.seed: .*integer \(got True\)"),
        ("[sample]\nactive_rms = true", "", r"sample.active_rms: .*number \(got True\)"),
        ('[sample]\nseed = "7"', "", r"sample.seed: .*\(got '7'\)"),
        ("[export]\nmedia = 1", "", r"export.media: .*\(got 1\)"),
        ("", "sample.seed=" + "9" * 5000, r"sample.seed: .*integer"),
        ("", "sample.seed=" + "[" * 9000, r"sample.seed: .*integer"),
        ("", "sample.seed=1\nclip_s = 3", r"sample.seed: .*integer"),
        ("", ".seed=1", r"write it as section.key=value"),
        ("", "propose.device=gpu", r"cuda:N \(got 'gpu'\)\.$"),
        ("", "sample.seed", r"write it as section.key=value"),
        ("", "sample.min_active_s=11", r"min_active_s 11 is more than clip_s 10"),
        ("", "download.min_fps=50", r"min_fps 50.0 is above max_fps 40.0"),
        ("", "propose.detectors=[]", r"propose.detectors: .*at least 1"),
        ("", 'propose.detectors=["nope"]', r"should be 'motion', 'yolox-nano'.*\(got 'nope'\)"),
        ("", "propose.detector=nope", r"should be 'motion', 'yolox-nano'.*\(got 'nope'\)"),
        ("", 'propose.detectors=["motion", "motion"]', r"names motion twice; there are .*yolov8n"),
        (
            "[propose]\ndetector = 'motion'\ndetectors = ['motion']",
            "",
            r"detector is the old name of detectors: give one of them",
        ),
    ],
)
def test_a_wrong_setting_is_one_line_with_place_and_value(
    toml: str, setting: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(toml, [setting] if setting else [])
    assert "\n" not in str(caught.value)


def test_what_is_typed_is_refused_before_anything_is_asked_of_a_workspace(tmp_path: Path) -> None:
    Workspace.create(tmp_path / "ws")
    with pytest.raises(ConfigError, match=r"sample\.seed"):
        Workspace(tmp_path / "ws", ["sample.seed=none"])
    (tmp_path / "ws" / "avatar.toml").write_text("[sample]\nseed = 'none'\n")
    with pytest.raises(ConfigError, match=r"sample\.seed"):
        Workspace(tmp_path / "ws", ["run.workers=1"])
    with pytest.raises(ConfigError, match=r"sample\.seed"):
        _ = Workspace(tmp_path / "ws").config


def test_a_bound_may_be_a_number_or_a_share() -> None:
    assert load_config("[run]\nmax_failed = 5").run.max_failed == "5"
    assert load_config("", ["run.max_failed=5%"]).run.max_failed == "5%"


def test_every_setting_says_what_it_means() -> None:
    for name, info in Config.model_fields.items():
        section = info.annotation
        assert isinstance(section, type)
        assert issubclass(section, Section)
        told = meanings(section)
        for key in section.model_fields:
            assert re.search(r"[.)]$", told.get(key, "")), f"{name}.{key}"


def test_what_cannot_change_a_result_stays_out_of_the_stage_key() -> None:
    base = DownloadConfig().deciding()
    secret = DownloadConfig(identities=["http://me:secret@proxy"], retries=9, sleep_s=1.0)
    assert secret.deciding() == base
    assert "secret" not in str(secret.deciding())
    assert DownloadConfig(min_fps=10.0).deciding() != base
    assert DownloadConfig.unhashed <= set(DownloadConfig.model_fields)


def test_an_old_name_of_a_setting_is_todays_setting_wherever_it_stands() -> None:
    several = ["yolov8n-oiv7", "motion"]
    wanted = ProposeConfig(detectors=["yolov8n-oiv7"], classes="generic")
    old = '[propose]\ndetector = "yolov8n-oiv7"\nopenimages = "generic"\n'
    typed = ["propose.detector=yolov8n-oiv7", "propose.openimages=generic"]
    kept = {"detector": "yolov8n-oiv7", "openimages": "generic"}
    assert load_config(old).propose == load_config("", typed).propose == wanted
    assert ProposeConfig.model_validate(kept) == wanted
    assert load_config(old, [f"propose.detectors={several}"]).propose.detectors == several
    assert load_config(f"[propose]\ndetectors = {several}", typed[:1]).propose.detectors == [
        "yolov8n-oiv7"
    ]
