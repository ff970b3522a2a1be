"""Every example of README.md, docs/ and the help runs, in the profile it stands in.

The flow of README.md runs first, command by command, on a small drawn world in the place of
YouTube; each other example then begins with a copy of the workspace as it was before its own
command. What cannot run here is in ``PARSED`` with its reason: its options are checked.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from exports import load_release
from pipeline.cli import cli
from tests.conftest import ROOT
from tests.flow_world import draw
from tests.pipeline.one_process import in_one_process

SHELL = ("", "sh", "bash", "zsh", "fish", "console", "shell")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

PARSED = {
    "demo": "tests/pipeline/test_demo_run.py runs it",
    "models fetch": "it needs the network",
    "models add": "the file is the authors'",
    "models path": "it needs weights that were fetched",
    "propose --set": "weights are not here; tests/stages/test_sam2_linker.py draws such",
    "tune": "it needs people's reviews; tests/stages/test_calibration.py makes such",
    "label serve": "it runs a server until it is stopped",
    "label backend": "it runs a server until it is stopped",
    "label push": "it needs a Label Studio; tests/labeling run it against one",
    "label pull": "it needs a Label Studio; tests/labeling run it against one",
    "label status": "it needs a Label Studio; tests/labeling run it against one",
    "import-release": "the files are the authors'; tests/exports/test_importing.py draws such",
    "fetch-media": "it asks YouTube; tests/exports/test_restore.py runs it on a local server",
    "evaluate --checkpoint": "training one takes minutes; tests/pipeline/test_demo_run.py does",
    "evaluate-images": "weights are the authors'; tests/tavlo/test_evaluate_images_command.py",
    "train-tavlo --recipe": "it needs neighbours; tests/tavlo/baselines/test_recipes.py trains so",
    "tables alignment": "it needs older sets; tests/tavlo/test_published_tables.py draws such",
    "tables windows": "it needs scores per window; tests/tavlo/test_evaluate_images_command.py",
    "run --slurm": "it needs Slurm; tests/pipeline/test_slurm.py submits to a stand-in",
    "run --check": "it fails where rows are left; tests/pipeline/test_slurm.py",
    "run --set": "it needs a Ray cluster; tests/pipeline/test_cluster_page.py starts one",
    "download --source-template": "nothing listens on port 8000; tests/stages serve videos",
}
"""Which examples are parsed alone, by their first words (and an option they have), and why."""

ELSEWHERE = {
    "make ": "Makefile targets, checked below",
    "python3 -m venv .venv && .venv/bin/pip install .": "a minute of installing",
    "python3 -m venv .venv && .venv/bin/pip install '.[light,ray]'": "minutes of installing",
    'eval "$(_AVATAR_BUILD_COMPLETE=': "for a shell's own start-up file",
    "_AVATAR_BUILD_COMPLETE=": "for a shell's own start-up file",
    "docker build --build-arg EXTRAS=": "tests/pipeline/test_cluster_page.py looks at its extras",
    "ray start ": "tests/pipeline/test_cluster_page.py runs them",
    "torchrun --nproc-per-node 8 -m pipeline.cli ": "eight GPUs; what follows is parsed",
    "torchrun --nnodes 4 ": "four nodes; what follows is parsed",
    "export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1": "a variable of torchrun's",
    "head=$(scontrol show hostnames ": "for Slurm alone",
    "srun torchrun --nnodes ": "nodes of Slurm; what follows is parsed",
    "python -m benchmarks.gpu.": "tests/test_gpu_benchmarks.py rehearses both",
}
"""Lines of blocks that are no command of ours alone."""

LIGHTER = {
    "--clips 2000": "--clips 2 --seconds 2 --fps 8 --height 72 --workers 1",
    "--clips 500": "--clips 2 --seconds 2 --fps 8 --height 72 --workers 1",
    "--device cuda:0": "--device cpu",
    "--profile light": "--profile offline",  # its weights are not here
    "--kind timeout": "",  # no row of the drawn world ends so
    "train.batch=8": "train.batch=2 --set train.validation=0",
}
"""What takes too long or needs a GPU, and what runs in its place."""

STARTS = {
    ("download",): "download",
    ("sample",): "sample",
    ("run",): "sample",
    ("propose",): "propose",
    ("label", "accept"): "label accept",
    ("segment",): "segment",
}
"""Commands that are shown on a workspace they have not run in, and its state."""


def blocks(path: Path, *languages: str) -> list[str]:
    """The fenced blocks of a page in any of some languages."""
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for named, block in found if named in languages]


def lines(block: str) -> list[str]:
    """A block's commands; those that end with a backslash go on."""
    return [line for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def commands(group: click.Group) -> Iterator[click.Command]:
    for command in group.commands.values():
        if isinstance(command, click.Group):
            yield from commands(command)
        else:
            yield command


FLOW = next(
    lines(b) for b in blocks(ROOT / "README.md", *SHELL) if b.startswith("avatar-build init")
)
IN_PAGES = [line for page in PAGES for block in blocks(page, *SHELL) for line in lines(block)]
IN_HELP = [
    line
    for command in commands(cli)
    for line in re.findall(r"^\s*(avatar-build .+)$", command.help or "", re.MULTILINE)
]
OURS = [
    line
    for line in dict.fromkeys(IN_PAGES + IN_HELP)
    if line.startswith("avatar-build ") and line not in FLOW
]


def words_of(line: str) -> list[str]:
    for heavy, light in LIGHTER.items():
        line = line.replace(heavy, light)
    words = shlex.split(line, comments=True)[1:]
    if words[0] != "train-tavlo":
        return words
    # A dry run reads all it needs; no weights are here, and it times steps of the whole network.
    small = ["--set", "tavlo.imagenet=false", "--set", "tavlo.sizes.width=8"]
    return [*words, *small, "--dry-run"]


def parse(words: list[str]) -> None:
    command: click.Command = cli
    rest = list(words)
    while isinstance(command, click.Group):
        command = command.commands[rest.pop(0)]
    command.make_context(command.name, rest)


def why_parsed(words: list[str]) -> str | None:
    for known, why in PARSED.items():
        names = [word for word in known.split() if not word.startswith("--")]
        options = [word for word in known.split() if word.startswith("--")]
        if words[: len(names)] == names and set(options) <= set(words):
            return why
    return None


def run(words: list[str]) -> str:
    done = CliRunner().invoke(cli, words)
    error = done.exception if not isinstance(done.exception, SystemExit) else None
    about_this_machine = words[0] == "doctor" and done.exit_code == 1
    assert done.exit_code == 0 or about_this_machine, f"{words}: {done.output} {error!r}"
    return done.output


@dataclass(frozen=True)
class Desk:
    """Where the examples run."""

    states: Path
    """The workspace before each command of the flow, and as it was left: ``end``."""
    files: Path
    """What examples name: lists, heatmaps, scores, videos."""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Run README's flow on the drawn world, and put what examples name beside it."""
    folder = tmp_path_factory.mktemp("examples")
    states, files = folder / "states", folder / "files"
    videos, listed = draw(files)
    with pytest.MonkeyPatch.context() as patch:
        in_one_process(patch)
        patch.setenv("AVATAR_BUILD_MODELS", str(folder / "models"))
        patch.chdir(folder)
        shutil.copy(listed, folder)
        for line in FLOW:
            words = words_of(line)
            name = " ".join(word for word in words[:2] if not word.startswith("-"))
            if (folder / "ws").exists():
                shutil.copytree(folder / "ws", states / name, dirs_exist_ok=True)
            run(words)
            if words[0] == "init":  # the drawn world in the place of YouTube
                toml = folder / "ws" / "avatar.toml"
                table = f'[download]\nsource_template = "{videos}/{{video_id}}.mp4"\n'
                text = toml.read_text()
                assert "\n[download]\n" in text
                toml.write_text(text.replace("[download]\n", table, 1))
    shutil.move(folder / "ws", states / "end")
    write_files(files, states / "end" / "releases" / "0.1")
    yield Desk(states, files)
    shutil.rmtree(folder)


def write_files(files: Path, release: Path) -> None:
    """Heatmaps, scores and lists, by the names examples give them."""
    opened = load_release(release)
    (files / "heat").mkdir()
    by_clip: dict[str, list[int]] = {}
    for frame in opened:
        by_clip.setdefault(frame.row.clip_id, []).append(frame.row.frame_index)
    for clip, indices in by_clip.items():
        heatmap = np.random.default_rng(0).random((len(indices), 14, 14))
        np.savez(files / "heat" / f"{clip}.npz", frame_index=indices, heatmap=heatmap)
    run(["evaluate", "--release", str(release), "--predictions", str(files / "heat"),
         "--out", str(files / "scored")])  # fmt: skip
    for name in ("tavlo", "control", "mean", "max", "ezvsl", "ezvsl/window-10"):
        shutil.copytree(files / "scored", files / name)
    shutil.copy(files / "vggsound.csv", files / "vggss_144k.csv")
    (files / "vggsound_10k.txt").write_text("abcdefghijk\n")
    for number in range(34):  # one batch, and what is kept for validation
        (files / "videos" / f"vid{number:08d}.mp4").hardlink_to(files / "videos/dogInMeadow.mp4")


def copied(source: Path, target: Path) -> Path:
    """A folder's copy, its media as hard links: they are large, and nothing writes in one."""

    def copy(one: str, other: str) -> None:
        if one.endswith((".mp4", ".jpg", ".npz")):
            Path(other).hardlink_to(one)
        else:
            shutil.copy2(one, other)

    return Path(shutil.copytree(source, target, copy_function=copy, dirs_exist_ok=True))


def lay_out(desk: Desk, words: list[str], folder: Path) -> Path:
    """A folder with all an example names; returns where it is typed."""
    copied(desk.files, folder)
    state = next((s for w, s in STARTS.items() if tuple(words[: len(w)]) == w), "end")
    if "--preview" in words or "cpu" in words:
        state = "end"
    ws = copied(desk.states / state, folder / "ws")
    copied(desk.files, ws)
    for place in (folder, ws):
        releases = place / "releases"
        for version in ("0.1", "0.2", "1.0"):
            if state == "end" and not (releases / version).exists():
                copied(desk.states / "end" / "releases" / "0.1", releases / version)
    if words[0] == "export" and "--version" in words:
        shutil.rmtree(ws / "releases" / words[words.index("--version") + 1], ignore_errors=True)
    return folder if "ws" in words or any(w.startswith("ws/") for w in words) else ws


@pytest.mark.parametrize("line", OURS)
def test_every_example_runs_or_is_parsed_for_a_reason(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    words = words_of(line)
    parse(words)
    if why_parsed(words):
        return
    place = lay_out(desk, words, tmp_path / "here")
    words = [word.replace("/data/", f"{desk.files}/videos/") for word in words]
    if "train-tavlo" in words:
        films = sorted(desk.files.glob("videos/vid*.mp4"))
        named = [film.stem if "--source-template" in words else film for film in films]
        (place / "train.csv").write_text("".join(f"{name},0\n" for name in named))
    monkeypatch.chdir(place)
    if "--workers" not in words:
        in_one_process(monkeypatch)
    if words[0] == "train-tavlo" and "worlds/train" in words:
        # What the two lines above it in the help draw, in the small.
        for world, clips, seed in (("train", 36, 1), ("test", 2, 2)):
            small = ["--seconds", "2", "--fps", "8", "--height", "36", "--workers", "1"]
            drawn = ["--clips", str(clips), "--seed", str(seed), *small]
            run(["synth", f"worlds/{world}", *drawn])
    run(words)


def test_every_line_of_a_block_is_an_example_of_ours_or_is_listed() -> None:
    others = [line for line in IN_PAGES if not line.startswith(("avatar-build ", "#"))]
    for line in others:
        assert any(line.startswith(known) for known in ELSEWHERE), line
        if " -m pipeline.cli " in line:
            parse(shlex.split(line.partition(" -m pipeline.cli ")[2]))
        if line.startswith("make "):
            target = line.split()[1]
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for known in ELSEWHERE:
        assert any(line.startswith(known) for line in others), f"{known} stands nowhere"
    for known in PARSED:
        assert any(why_parsed(words_of(line)) == PARSED[known] for line in OURS), known


def test_every_file_of_the_repository_that_a_page_names_is_there() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "using-a-release.md"], ids=str)
def test_every_python_block_runs(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_process: None, page: Path
) -> None:
    # Those of using-a-release.md run in tests/exports/test_loading.py.
    lay_out(desk, ["look"], tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    rng = np.random.default_rng(0)
    for block in blocks(page, "python"):
        names = {
            "clip_ids": [f"clip{number}" for number in range(8)],
            "pictures": rng.random((8, 4), dtype=np.float32),
            "sounds": rng.random((8, 4), dtype=np.float32),
        }
        block = block.replace("count=1000", "count=3")  # of eight clips
        block = block.replace("/data/", f"{desk.files}/videos/")
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.ipynb")), ids=lambda p: p.name)
def test_every_notebook_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_process: None
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    document = json.loads(path.read_text(encoding="utf-8"))
    assert (document["nbformat"], document["metadata"]["kernelspec"]["language"]) == (4, "python")
    names: dict[str, object] = {"__name__": "__main__"}
    cells = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, 1):
        assert cell["execution_count"] == number, "committed as it was run, from top to bottom"
        exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), names)


def test_every_json_block_is_json() -> None:
    for page in PAGES:
        for block in blocks(page, "json"):
            assert all(json.loads(line) for line in block.splitlines())
