"""docs/cluster.md: its files parse, its commands run, and its figures are those of the code."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli.doctor import _locks
from pipeline.config import RunConfig, SlurmConfig, load_config
from pipeline.workspace.leases import BEAT_S, EXPIRES_S, GIVE_UP_S
from pipeline.workspace.storage import Storage
from pipeline.workspace.stores.mounts import Mount
from pipeline.workspace.workspace import Workspace
from tests.conftest import ROOT
from tests.flow_world import draw
from tests.pipeline.command_line import check_parses
from tests.pipeline.slurm_stand_in import options_in, parsed

PAGE = ROOT / "docs" / "cluster.md"
TEXT = PAGE.read_text(encoding="utf-8")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
BIN = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    """The page's fenced blocks in a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    return [block for named, block in found if named == language]


def commands(start: str) -> list[str]:
    """The lines of the page's shell blocks that begin so."""
    every = [line for block in blocks("") for line in block.splitlines()]
    found = [line for line in every if line.startswith(start)]
    assert found, start
    return found


def test_every_command_of_ours_parses() -> None:
    for line in commands("avatar-build "):
        check_parses(line.removeprefix("avatar-build "))
    for line in re.findall(r"`avatar-build ([a-z][^`]*)`", TEXT):
        check_parses(line)


def test_the_settings_of_slurm_are_settings_and_sbatch_takes_them() -> None:
    from pipeline.run.slurm import batch_script

    (toml,) = blocks("toml")
    config = load_config(toml).slurm
    options, rest = parsed(options_in(batch_script(config, "/data/ws", [], 0, redo=False)))
    assert rest == []
    assert options["time"] == config.time == "12:00:00"
    assert options["qos"] == "normal"
    assert set(tomllib.loads(toml)["slurm"]) <= set(SlurmConfig.model_fields)


def test_ray_up_takes_the_cluster_file() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with Ray")
    util = pytest.importorskip("ray.autoscaler._private.util", reason="the ray extra is missing")
    pytest.importorskip("jsonschema", reason="Ray's own check needs it")
    (text,) = blocks("yaml")
    config = util.prepare_config(yaml.safe_load(text))
    util.validate_config(config)
    nodes = {config["provider"]["head_ip"], *config["provider"]["worker_ips"]}
    assert len(nodes) == 1 + config["max_workers"]
    told = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    for line in [*told, *config["setup_commands"]]:
        subprocess.run(["bash", "-n"], input=line, text=True, check=True)


def test_the_containers_hold_extras_there_are_and_run_our_command() -> None:
    (text,) = blocks("singularity")
    parts = re.split(r"^%(\w+)\n", text, flags=re.MULTILINE)
    header = dict(line.split(": ") for line in parts[0].strip().splitlines())
    assert header["Bootstrap"] == "docker"
    docker = (ROOT / "Dockerfile").read_text()
    assert f"\nFROM {header['From']}\n" in docker, "one base for both"
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert sections.keys() == {"files", "post", "runscript"}
    assert sections["files"].split() == [".", "/src"]
    for name in ("post", "runscript"):
        subprocess.run(["sh", "-n"], input=sections[name], text=True, check=True)
    assert shlex.split(sections["runscript"]) == ["exec", "avatar-build", "$@"]
    (line,) = commands("docker build")
    assert "\nARG EXTRAS=" in docker
    named = re.findall(r"(?:\[|EXTRAS=)([a-z,]+)", line + sections["post"])
    (installed,) = commands("python3 -m venv")
    named += re.findall(r"\[([a-z,]+)\]", installed)
    assert len(named) == 3
    assert {extra for one in named for extra in one.split(",")} <= set(EXTRAS)


@pytest.mark.parametrize(
    "mount",
    [
        Mount("/data", "nfs4", frozenset()),
        Mount("/data", "lustre", frozenset()),
        Mount("/", "ext4", frozenset()),
        None,
        "memory://bucket/ws",
    ],
    ids=str,
)
def test_the_page_quotes_what_doctor_says_of_locks(tmp_path: Path, mount: Mount | str) -> None:
    storage = Storage(mount if isinstance(mount, str) else tmp_path)
    if not isinstance(mount, str):
        storage.__dict__["mount"] = mount
    assert f"`locks: {_locks(storage).detail}`" in TEXT


def test_its_figures_are_those_of_the_code() -> None:
    assert f"every {BEAT_S:.0f} s. After {GIVE_UP_S:.0f} s" in TEXT
    assert f"after {EXPIRES_S:.0f} s the others do" in TEXT
    assert f"`run.workers_per_gpu` ({RunConfig().workers_per_gpu})" in TEXT
    assert f"`slurm.restarts` ({SlurmConfig().restarts})" in TEXT


def test_the_failures_it_quotes_are_what_the_code_says() -> None:
    every = "".join(path.read_text() for path in (ROOT / "pipeline").rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", every)
    table = TEXT.partition("## What a failure looks like")[2]
    quoted = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    assert len(quoted) > 5
    for cell in quoted:
        for words in re.findall(r"`([^`]+)`", cell):
            if words in ("OUT_OF_MEMORY", "oom-kill", "sacct", "InvalidAuthToken", "ray start"):
                continue
            for part in re.split(r"\.\.\.|\(.*?\)|--job\S+|\d+", words):
                assert part.strip(" :") in source, words


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """A folder for Ray, of a short name: its sockets lie there."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.long
def test_the_commands_for_ray_make_a_cluster_on_which_the_run_runs(
    ray_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="the ray extra is not installed")
    videos, listed = draw(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "of this test alone, 0123456789abcdef",
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }
    nodes = []
    try:
        for number, line in enumerate(commands("ray start ")):
            here = f"--node-ip-address=127.0.0.{number + 2} --num-cpus=1 --block"
            here += f" --temp-dir={ray_folder}" if "--head" in line else ""
            here += " --include-dashboard=false" if "--head" in line else ""
            line = line.replace("node0:6379", f"127.0.0.2:{port}").replace("=6379", f"={port}")
            with (tmp_path / f"node-{number}.log").open("w") as log:
                words = shlex.split(f"{line} {here}")
                nodes.append(
                    subprocess.Popen(
                        words, env=environment, stdout=log, stderr=log, start_new_session=True
                    )
                )
            time.sleep(8)
        Workspace.create(tmp_path / "ws", "offline")
        (line,) = commands("avatar-build run --workspace ws --set run.executor=ray")
        words = shlex.split(line.replace("=auto", f"=127.0.0.2:{port}"))[1:]
        source = ["--list", str(listed), "--source-template", f"{videos}/{{video_id}}.mp4"]
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.cli", *words, *source, "--json"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400, check=False,
        )  # fmt: skip
        logs = "".join(path.read_text() for path in tmp_path.glob("node-*.log"))
        assert done.returncode == 0, done.stderr + logs
        stages = {one["stage"]: one for one in json.loads(done.stdout)["result"]["stages"]}
        assert (stages["sample"]["ok"], stages["hear"]["ok"], stages["propose"]["ok"]) == (2, 2, 10)
    finally:
        for node in reversed(nodes):
            os.killpg(node.pid, signal.SIGTERM)
        for node in nodes:
            try:
                node.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(node.pid, signal.SIGKILL)
                node.wait()
