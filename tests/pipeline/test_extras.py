"""Commands on a machine that has the core alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.extras import EXTRAS, need_packages
from tests.conftest import ROOT
from tests.tavlo.release_factory import heatmaps, make_release

HIDDEN = """
import json, sys
for name in {hidden!r}:
    sys.modules[name] = None
from pipeline.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["avatar-build", *words]
    try:
        main()
        print("done", file=sys.stderr)
    except SystemExit as error:
        assert error.code in (2, None, 0), error.code
    except BaseException as error:
        print("traceback:", repr(error), file=sys.stderr)
"""


def test_each_extra_brings_the_packages_that_are_named_and_the_core_none_of_them() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core = {line.partition(">")[0] for line in project["dependencies"]}
    for extra, packages in EXTRAS.items():
        names = {"pillow" if name == "PIL" else name.replace("_", "-") for name in packages}
        brought = project["optional-dependencies"][extra]
        assert names == {line.partition(">")[0] for line in brought}, extra
        assert not names & core, extra


def test_a_package_that_is_not_installed_is_one_line_that_says_how_to_get_it() -> None:
    need_packages("click")
    with pytest.raises(UsageError, match=r"no_such_package: not installed.*avatar-build\[models\]"):
        need_packages("click", "no_such_package")


def test_without_httpx_only_what_talks_to_a_label_server_names_its_extra(tmp_path: Path) -> None:
    workspace = str(tmp_path / "w")
    status = ["label", "status", "--workspace", workspace, "--url", "http://127.0.0.1:9"]
    commands = [["init", workspace, "--profile", "offline"], ["status", "-w", workspace], status]
    done = subprocess.run(
        [sys.executable, "-c", HIDDEN.format(hidden=["httpx"]), json.dumps(commands)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "AVATAR_LABEL_TOKEN": "0" * 40},
    )
    assert [line for line in done.stderr.splitlines() if ": " in line][-1:] == [
        "Error: 'avatar-build label status' needs httpx, which is not installed:"
        " pip install 'avatar-build[label]'."
    ], done.stderr
    assert done.stderr.count("Error: ") == 1
    assert "traceback" not in done.stderr


def test_without_torch_a_command_works_or_names_the_extra(tmp_path: Path) -> None:
    release = str(make_release(tmp_path / "r", images=False))
    out, heat = str(tmp_path / "out"), heatmaps(Path(release), tmp_path / "heat", 0)
    scores = tmp_path / "scores.json"
    rows = {"Total": {"CIoU": {"value": 1.0, "low": 1.0, "high": 1.0, "n": 1}}}
    scores.write_text(json.dumps({"rows": rows, "model": {"window_s": 5.0}}))
    needing = [
        ["train-tavlo", "--data", release, "--out", out],
        ["evaluate", "--release", release, "--checkpoint", "no.pt", "--out", out],
        ["evaluate-images", "--release", release, "--model", "ezvsl", "--checkpoint", "no.pth",
         "--out", out],
        ["tables", "windows", f"a={scores}", "--out", out],
    ]  # fmt: skip
    working = [
        ["synth", str(tmp_path / "w"), "--clips", "1", "--seconds", "2", "--fps", "4",
         "--height", "36", "--workers", "1"],
        ["tables", "paper"],
        ["tables", "windows", f"a={scores}"],
        ["evaluate", "--release", release, "--predictions", str(heat)],
    ]  # fmt: skip
    done = subprocess.run(
        [
            *(sys.executable, "-c", HIDDEN.format(hidden=sorted(set(chain(*EXTRAS.values()))))),
            json.dumps([*needing, *working]),
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    said = [line for line in done.stderr.splitlines() if "avatar-build" in line or "back:" in line]
    assert len(said) == len(needing), done.stderr
    for words, line in zip(needing, said, strict=True):
        command = " ".join(words[: 2 if words[0] == "tables" else 1])
        assert line.startswith(f"Error: 'avatar-build {command}' needs "), line
        assert line.endswith("which is not installed: pip install 'avatar-build[train]'."), line
    assert not Path(out).exists()
    assert (tmp_path / "w" / "annotations" / "instances.json").exists()
