"""Job arrays of Slurm do what a run on one machine does, whatever becomes of their tasks."""

from __future__ import annotations

import json
import random
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config import SlurmConfig, load_config
from pipeline.errors import ConfigError
from pipeline.run.slurm import batch_script
from pipeline.workspace.workspace import Workspace
from tests.conftest import ROOT
from tests.flow_world import draw
from tests.pipeline.faulty import add_sources
from tests.pipeline.shell import Shell
from tests.pipeline.slurm_stand_in import Cluster, Task, options_in

HOSTILE = "a b'c\"d$(touch owned);&%j\\é\n#SBATCH --array=0-9 @x@"
"""A name that a shell, a #SBATCH line or a file name pattern of Slurm would take apart."""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A stand-in for Slurm, on the PATH of the commands."""
    cluster = Cluster(tmp_path / "cluster")
    for name, value in cluster.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return cluster


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A workspace with a list of which nothing is fetched."""
    root = tmp_path / HOSTILE
    add_sources(Workspace.create(root, "offline"), ["ok"] * 40)
    return root


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """The same by a name of one line, for errors of one line."""
    root = tmp_path / "ws"
    add_sources(Workspace.create(root, "offline"), ["ok"] * 40)
    return root


def recorder(folder: Path, does: str) -> str:
    """A program in the place of ours that notes its arguments; the setting that names it."""
    program = folder / "our program"
    program.write_text(
        f'#!/bin/bash\nprintf "%s\\0" "$@" "" >> {shlex.quote(str(folder))}/args\n{does}\n'
    )
    program.chmod(0o755)
    return f"slurm.command={json.dumps(shlex.quote(str(program)))}"


def arguments(folder: Path) -> list[list[str]]:
    """The arguments of each start of the recorder."""
    calls = (folder / "args").read_text().split("\0\0")
    return [call.split("\0") for call in calls if call]


def test_each_stage_is_an_array_after_the_one_before_and_the_last_job_checks(
    cluster: Cluster, listed: Path, shell: Shell
) -> None:
    said = shell("run", "--slurm", "--workspace", listed, "--set", "slurm.tasks=5",
                 "--set", "slurm.at_once=2", "--set", "slurm.mem=4G", "--json")  # fmt: skip
    said.check()
    told = json.loads(said.out)["result"]
    jobs = cluster.jobs()
    names = ["download", "sample", "hear", "propose", "check"]
    assert [job["arguments"][0] for job in jobs] == names
    assert [int(one["id"]) for one in told["jobs"]] == [job["number"] for job in jobs]
    arrays = [job["options"]["array"] for job in jobs]
    assert arrays == ["1-1", "1-5%2", "1-5%2", "1-5%2", "1-1"], "download is one identity"
    assert [job["after"] for job in jobs] == [0, *(job["number"] for job in jobs[:-1])]
    assert jobs[3]["arguments"][1:] == ["--stage=download", "--stage=sample", "--stage=hear"]
    assert {job["options"]["mem"] for job in jobs} == {"4G"}
    assert not any("gres" in job["options"] for job in jobs), "offline backends use no GPU"
    assert "segment: left out" in told["left_out"][0]
    script = Path(told["script"])
    assert script.parent == listed / "slurm"
    assert script.stat().st_mode & 0o077 == 0


def test_stages_whose_model_runs_on_a_gpu_ask_for_one(
    cluster: Cluster, listed: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "stages.propose.tag_sounds.TagSounds.device", lambda stage: stage.config.device
    )
    place = ("run", "--slurm", "--workspace", listed, "--set", "slurm.gpu_partition=a100")
    for device in ("auto", "cpu"):
        shell(*place, "--device", device).check()
    asked = {
        (job["number"] < 105, job["arguments"][0]): job["options"].get("gres")
        for job in cluster.jobs()
    }
    assert [key for key, gres in asked.items() if gres] == [(True, "hear")]
    assert cluster.jobs()[2]["options"]["partition"] == "a100"
    assert "partition" not in cluster.jobs()[1]["options"]


def test_every_word_reaches_the_tasks_as_it_was_typed(
    cluster: Cluster, listed: Path, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "it's $HOME @RUN@"
    folder.mkdir()
    monkeypatch.chdir(folder)
    template = '/it\'s "here" $(touch owned)/@RUN@ {video_id}.mp4'
    shell("run", "--slurm", "--stage", "download", "--workspace", listed, "--redo",
          "--source-template", template, "--set", recorder(tmp_path, "pwd > pwd; exit 0"),
          "--set", "slurm.cpus=3", "--set", 'slurm.setup=["export A=1 # a comment"]')  # fmt: skip
    tasks = cluster.run()
    assert [task.exits for task in tasks] == [[0], [0]]
    did, checked = arguments(tmp_path)
    assert did[:2] == ["run", "--stage=download"]
    assert {"--redo", "--workers=3", f"--workspace={listed}"} <= set(did)
    assert f"--set=download.source_template={json.dumps(template)}" in did
    assert checked[:2] == ["run", "--check"]
    assert checked[-1] == "--stage=download"
    assert (folder / "pwd").exists(), "relative paths of settings are those of the submission"
    assert not [*tmp_path.rglob("owned")]
    assert len([*(listed / "slurm").glob("avatar-*.log")]) == 2


def test_a_task_at_its_time_limit_goes_back_into_the_queue_a_bounded_number_of_times(
    cluster: Cluster, listed: Path, shell: Shell, tmp_path: Path
) -> None:
    does = (
        "[ \"$2\" = --check ] && exit 0; trap 'exit 130' TERM; echo on\nwhile :; do sleep 0.1; done"
    )
    shell("run", "--slurm", "--stage", "download", "--workspace", listed,
          "--set", recorder(tmp_path, does), "--set", "slurm.restarts=2").check()  # fmt: skip

    warned: set[int] = set()

    def warn(cluster: Cluster, running: list[Task]) -> None:
        for task in running:
            if task.stage != "download" or task.restarts in warned:
                continue
            log = listed / "slurm" / f"avatar-download-{task.name}.log"
            if log.read_text().count("on\n") > task.restarts:
                warned.add(task.restarts)
                cluster.warn(task)

    download, check = cluster.run(warn, limit_s=60)
    assert download.restarts == 2
    assert download.exits[-1] == 130
    assert check.exits == [0]
    log = (listed / "slurm" / f"avatar-download-{download.name}.log").read_text()
    assert log.count("goes back into the queue") == 2
    assert "raise slurm.time" in log


def test_a_task_that_is_cancelled_stops_its_run_and_does_not_come_back(
    cluster: Cluster, listed: Path, shell: Shell, tmp_path: Path
) -> None:
    does = (
        "[ \"$2\" = --check ] && exit 0; trap 'echo heard; exit 130' TERM; echo on; sleep 5 & wait"
    )
    shell("run", "--slurm", "--stage", "download", "--workspace", listed,
          "--set", recorder(tmp_path, does)).check()  # fmt: skip

    def end(_: Cluster, running: list[Task]) -> None:
        for task in running:
            log = listed / "slurm" / f"avatar-download-{task.name}.log"
            if task.stage == "download" and "on\n" in log.read_text():
                assert task.process
                task.process.terminate()

    download, _ = cluster.run(end, limit_s=60)
    assert (download.exits, download.restarts) == ([130], 0)
    assert "heard" in (listed / "slurm" / f"avatar-download-{download.name}.log").read_text()


def test_a_dry_run_prints_a_script_that_bash_reads_and_submits_nothing(
    cluster: Cluster, listed: Path, shell: Shell
) -> None:
    said = shell("run", "--slurm", "--dry-run", "--workspace", listed,
                 "--set", "slurm.time=1:00:00",
                 "--set", "slurm.options=['--qos=long']")  # fmt: skip
    said.check()
    assert not cluster.jobs()
    assert not (listed / "slurm").exists()
    subprocess.run(["bash", "-n"], input=said.out, text=True, check=True)
    words = options_in(said.out)
    assert {"--time=1:00:00", "--qos=long", "--requeue"} <= set(words)
    assert "--array=0-9" not in words, "a name is no option"
    assert "# sample=$(sbatch --parsable" in said.out
    assert '--dependency="afterany:$download"' in said.out


def test_without_sbatch_or_where_it_refuses_one_line_says_so_and_nothing_is_left(
    cluster: Cluster, plain: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cluster.notes / "refuse").write_text("avatar-hear")
    line = shell("run", "--slurm", "--workspace", plain).one_line()
    assert "Invalid account" in line
    assert "avatar-hear" in line
    assert cluster.jobs() == [], "what it had taken is cancelled"
    assert not [*(plain / "slurm").iterdir()]
    (cluster.bin / "sbatch").write_text("#!/bin/sh\necho '7;other'")
    shell("run", "--slurm", "--workspace", plain).check()
    (cluster.bin / "sbatch").write_text("#!/bin/sh\necho 'welcome'")
    assert "no job id" in shell("run", "--slurm", "--workspace", plain).one_line()
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "sbatch: not found" in shell("run", "--slurm", "--workspace", plain).one_line()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--units", "1/2"), "--units"),
        (("--check",), "--check"),
        (("--set", "run.executor=ray"), "run.executor"),
        (("--stage", "upload"), "upload"),
        (("--set", "slurm.partition=a b"), "slurm.partition"),
        (("--set", "slurm.mem=4G\n#SBATCH --x"), "slurm.mem"),
        (("--set", "slurm.options=['long']"), "slurm.options"),
        (("--set", r'slurm.options=["--qos=a\nrm x"]'), "slurm.options"),
        (("--set", "slurm.command=it's"), "slurm.command"),
        (("--set", "slurm.tasks=0"), "slurm.tasks"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_submitted(
    cluster: Cluster, listed: Path, shell: Shell, words: tuple[str, ...], named: str
) -> None:
    said = shell("run", "--slurm", "--workspace", listed, *words)
    assert said.code == 2
    assert named in said.err.splitlines()[-1]
    assert not cluster.jobs()


def test_what_would_stop_a_run_stops_the_submission(
    cluster: Cluster, listed: Path, shell: Shell
) -> None:
    words = ("--set", "segment.segmenter=sam-vit-b")
    line = shell("run", "--slurm", "--workspace", listed, *words).one_line()
    assert "sam-vit-b" in line or "pip install" in line
    assert not cluster.jobs()


def test_check_says_what_is_left_and_fails_for_it(plain: Path, shell: Shell) -> None:
    line = shell("run", "--check", "--workspace", plain).one_line()
    assert "download 40" in line
    shell("run", "--check", "--stage", "sample", "--workspace", plain).check()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Seven short videos and their list, and the digests of a run on this machine."""
    folder = tmp_path_factory.mktemp("world")
    videos, listed = draw(folder)
    for number in range(4):
        name = f"copyOfDog_{number}"
        (videos / f"{name}.mp4").hardlink_to(videos / "dogInMeadow.mp4")
        with listed.open("a") as file:
            file.write(f"{name},0,dog barking,train\n")
    root = folder / "local"
    Workspace.create(root, "offline")
    words = ["run", "--workspace", str(root), "--list", str(listed), "--source-template"]
    template = f"{videos}/{{video_id}}.mp4"
    subprocess.run([sys.executable, "-m", "pipeline.cli", *words, template], cwd=ROOT, check=True)
    return folder, digests(root)


def digests(root: Path) -> dict[str, str]:
    workspace = Workspace(root)
    return {t: workspace.digest(t) for t in ("videos", "clips", "frames", "sounds", "proposals")}


def submitted(cluster: Cluster, shell: Shell, folder: Path, root: Path) -> None:
    """Submit the chain on the world's list, in units of two rows."""
    Workspace.create(root, "offline")
    ours = shlex.join([sys.executable, "-m", "tests.pipeline.small_units"])
    shell("run", "--slurm", "--workspace", root, "--list", folder / "vggsound.csv",
          "--source-template", f"{folder}/videos/{{video_id}}.mp4", "--workers", "1",
          "--set", "slurm.tasks=3",
          "--set", f"slurm.command={json.dumps(ours)}").check()  # fmt: skip


@pytest.mark.slow
@pytest.mark.long
def test_the_chain_gives_the_tables_of_one_machine(
    cluster: Cluster, shell: Shell, tmp_path: Path, world: tuple[Path, dict[str, str]]
) -> None:
    root = tmp_path / HOSTILE
    submitted(cluster, shell, world[0], root)
    tasks = cluster.run()
    logs = "".join(path.read_text() for path in (root / "slurm").glob("*.log"))
    assert {code for task in tasks for code in task.exits} == {0}, logs
    assert digests(root) == world[1]
    assert "Nothing is left to do" in logs
    workspace = Workspace(root)
    assert len(workspace.ledger("sample").commits()) >= 3, "units of at most two rows"


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("seed", range(2))
def test_tasks_that_are_killed_put_back_or_preempted_cost_their_units_and_nothing_else(
    cluster: Cluster,
    shell: Shell,
    tmp_path: Path,
    world: tuple[Path, dict[str, str]],
    seed: int,
) -> None:
    root = tmp_path / "ws"
    submitted(cluster, shell, world[0], root)
    rng = random.Random(seed)
    done: Counter[str] = Counter()
    ways: dict[str, Callable[[Task], None]] = {
        "kill": cluster.kill,
        "put back": cluster.put_back,
        "preempt": cluster.preempt,
        "warn": cluster.warn,
    }

    def meddle(_: Cluster, running: list[Task]) -> None:
        for task in running:
            if time.monotonic() - task.started < rng.uniform(0.3, 4) or rng.random() < 0.8:
                continue
            way = rng.choice([*ways])
            living = [t for t in running if t.job is task.job and t.state == "RUNNING"]
            waiting = [t for t in cluster.tasks.values() if t.job is task.job]
            if way == "kill" and len(living) + sum(t.state == "PENDING" for t in waiting) < 2:
                continue  # somebody has to be left to do its work
            if done[way] < 3 and task.stage != "check":
                done[way] += 1
                ways[way](task)

    tasks = cluster.run(meddle)
    assert done.total() > 3, done
    logs = "".join(path.read_text() for path in (root / "slurm").glob("*.log"))
    assert tasks[-1].exits == [0], logs
    assert digests(root) == world[1]
    assert not Workspace(root).ledger("sample").failures()


@pytest.mark.slow
@pytest.mark.long
def test_a_chain_whose_stage_is_cut_short_stops_there_says_so_and_goes_on_later(
    cluster: Cluster, shell: Shell, tmp_path: Path, world: tuple[Path, dict[str, str]]
) -> None:
    root = tmp_path / "ws"
    submitted(cluster, shell, world[0], root)

    def kill_all_of_sample(cluster: Cluster, running: list[Task]) -> None:
        for task in running:
            if task.stage == "sample":
                cluster.kill(task)

    tasks = cluster.run(kill_all_of_sample)
    ended = {task.stage: task.exits for task in tasks}
    assert (ended["hear"], ended["propose"], ended["check"]) == ([1], [1], [1])
    last = (root / "slurm" / f"avatar-check-{tasks[-1].name}.log").read_text()
    assert "rows are still to do (sample 6" in last
    assert not Workspace(root).ledger("hear").commits(), "nothing is made of half a table"
    shell("run", "--slurm", "--workspace", root).check()
    cluster.run()
    assert digests(root) == world[1]


def test_the_script_holds_no_path_where_slurm_would_read_one(tmp_path: Path) -> None:
    script = batch_script(
        SlurmConfig(), f"/{HOSTILE}", [f"hear.taxonomy='{HOSTILE}'"], 0, redo=False
    )
    assert all(HOSTILE[:5] not in word for word in options_in(script))
    assert "--array=0-9" not in options_in(script)


def test_settings_of_slurm_are_never_hashed() -> None:
    assert SlurmConfig().deciding() == {}
    with pytest.raises(ConfigError, match="partition"):
        load_config("[slurm]\npartition = 'a b'\n")
