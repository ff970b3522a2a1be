"""The whole chain on real videos, word for word as a user types it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from pycocotools.coco import COCO

from pipeline.cli.demo.server import serve
from pipeline.records.schema import (
    Clip,
    Frame,
    Instance,
    Mask,
    Proposal,
    Review,
    Sounds,
    Source,
    Video,
)
from pipeline.workspace.workspace import Workspace
from tests.conftest import ROOT

# The test data's README says which videos pass the filter and why the others do not.
REJECTED = {
    "00W1lcxW-WU": "resolution",
    "54bz5yqN2IA": "resolution",
    "vasDog02677": "resolution",
}
GONE = {"goneAAAAAAA": "http_404", "goneBBBBBBB": "http_404"}
EACH_CASE = {*REJECTED, *GONE, "-1pRmoJIGQc", "compHarpBab", "longQuietMd", "silentWater"}
"""A video of each kind; that of all exactly those pass that fit, test_download.py tests too."""


def avatar(*words: str) -> str:
    """Run a command; its standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        # No ffmpeg can be found: none may be needed.
        env={**os.environ, "PATH": "/nonexistent", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module", params=["each", pytest.param("all", marks=pytest.mark.slow)])
def chain(
    request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, str]]:
    """A workspace after the whole chain, and what each command said."""
    root = tmp_path_factory.mktemp("chain") / "ws"
    place = ("--workspace", str(root))
    said = {"init": avatar("init", str(root), "--profile", "offline")}
    text = (shared / "data" / "raw_videos" / "vggsound_subset.csv").read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    listed = tmp_path_factory.mktemp("listed") / "list.csv"
    listed.write_text(
        "".join(
            line for line in lines if request.param == "all" or line.split(",")[0] in EACH_CASE
        ),
        encoding="utf-8",
    )
    with serve(shared / "data" / "raw_videos") as address:
        template = f"{address}/{{video_id}}.mp4"
        source = ("--list", str(listed), "--source-template", template)
        said["download"] = avatar("download", *place, *source)
    for stage in ("sample", "propose"):
        said[stage] = avatar(stage, *place)
    said["accept"] = avatar("label", "accept", *place, "--set", "label.accept_score=0.2")
    said["segment"] = avatar("segment", *place)
    said["export"] = avatar("export", *place, "--version", "0.1", "--unverified")
    said["verify"] = avatar("export", "--verify", str(root / "releases" / "0.1"))
    said["report"] = avatar("report", *place)
    return root, said


@pytest.fixture(scope="module")
def workspace(chain: tuple[Path, dict[str, str]]) -> Workspace:
    return Workspace(chain[0])


def test_exactly_the_videos_that_fit_pass_and_each_other_one_has_its_reason(
    workspace: Workspace,
) -> None:
    ledger = workspace.ledger("download")
    assert {row.input_id: row.reason for row in ledger.drops()} == REJECTED
    assert {row.input_id: row.kind for row in ledger.failures()} == GONE
    assert len(workspace.rows(Video)) == len(workspace.rows(Source)) - len(REJECTED) - len(GONE)
    assert len(workspace.rows(Source)) in (len(EACH_CASE), 17)


def test_a_muted_video_gives_no_clip_and_a_cross_event_one_does(workspace: Workspace) -> None:
    dropped = {row.input_id: row.reason for row in workspace.ledger("sample").drops()}
    assert dropped["silentWater"] == "no_active_window"
    clips = {clip.video_id: clip for clip in workspace.rows(Clip)}
    assert clips["compHarpBab"].candidates == 1
    quiet = clips["longQuietMd"]
    assert quiet.end_s <= 15 or quiet.start_s >= 21, "at least half of it is sound"


def test_every_row_of_every_stage_is_in_the_books(chain: tuple[Path, dict[str, str]]) -> None:
    root, _ = chain
    for stage in json.loads(avatar("status", "--workspace", str(root), "--json"))["result"][
        "stages"
    ]:
        ended = stage["ok"] + stage["dropped"] + stage["failed"]
        assert stage["input"] == ended, stage
        assert stage["pending"] == 0


def test_every_child_has_its_parent(workspace: Workspace) -> None:
    videos = {row.id for row in workspace.rows(Video)}
    clips = {row.id: row for row in workspace.rows(Clip)}
    frames = {row.id: row for row in workspace.rows(Frame)}
    instances = {row.id for row in workspace.rows(Instance)}
    assert {row.video_id for row in clips.values()} <= videos
    assert {row.clip_id for row in frames.values()} <= clips.keys()
    assert {row.clip_id for row in workspace.rows(Sounds)} == clips.keys()
    assert {row.frame_id for row in workspace.rows(Proposal)} <= frames.keys()
    assert {row.frame_id for row in workspace.rows(Review)} <= frames.keys()
    assert {row.instance_id for row in workspace.rows(Mask)} <= instances
    for frame in frames.values():
        clip = clips[frame.clip_id]
        assert clip.start_s <= frame.time_s < clip.end_s
        assert workspace.storage.exists(frame.path)


def test_the_release_says_unverified_and_others_tools_read_it(
    chain: tuple[Path, dict[str, str]],
) -> None:
    release = chain[0] / "releases" / "0.1"
    coco = COCO(str(release / "annotations" / "instances.json"))
    annotations = coco.loadAnns(coco.getAnnIds())
    assert annotations
    assert not any(annotation["verified"] for annotation in annotations)
    for annotation in annotations:
        assert coco.annToMask(annotation).sum() == annotation["area"]
    twin = pd.read_parquet(release / "annotations" / "instances.parquet")
    assert len(twin) == len(annotations)
    assert "unverified" in (release / "README.md").read_text(encoding="utf-8").lower()


def test_a_second_pass_does_nothing_and_the_release_is_the_same_bytes(
    chain: tuple[Path, dict[str, str]],
) -> None:
    root, _ = chain
    place = ("--workspace", str(root))
    for command in (["sample"], ["propose"], ["segment"]):
        assert "Nothing new" in avatar(*command, *place)
    avatar("export", *place, "--version", "0.2", "--unverified")
    first, second = (root / "releases" / version for version in ("0.1", "0.2"))
    same = (first / "annotations" / "frames.parquet").read_bytes()
    assert (second / "annotations" / "frames.parquet").read_bytes() == same


def test_why_tells_the_whole_history_of_a_mask(
    chain: tuple[Path, dict[str, str]], workspace: Workspace
) -> None:
    mask = workspace.rows(Mask)[0]
    told = json.loads(avatar("why", "--workspace", str(chain[0]), "--json", mask.id))["result"]
    tables = [step["table"] for step in told["history"]]
    for table in (
        "sources",
        "videos",
        "clips",
        "frames",
        "sounds",
        "reviews",
        "instances",
        "masks",
    ):
        assert table in tables
    assert all(step["made_by"]["code_revision"] for step in told["history"])
    text = avatar("why", "--workspace", str(chain[0]), "--", "-1pRmoJIGQc")
    assert "car engine knocking" in text


def test_the_report_is_one_page_without_network(chain: tuple[Path, dict[str, str]]) -> None:
    page = (chain[0] / "report.html").read_text(encoding="utf-8")
    loaded = re.findall(
        r"(?:src|srcset|data)\s*=\s*[\"'](?!data:|\./releases/)|url\((?!data:)|<link|@import", page
    )
    assert not loaded, "a page may link to a source, but loads only clips that lie beside it"
    own = ['<script type="application/json" id="data">', "<script>"]
    assert re.findall(r"<script[^>]*>", page) == own
    assert "silentWater" in page


def test_nothing_was_written_outside_the_workspace(chain: tuple[Path, dict[str, str]]) -> None:
    root, _ = chain
    assert [path.name for path in root.parent.iterdir()] == ["ws"]
    top = {path.name for path in root.iterdir()}
    assert top == {"avatar.toml", "tables", "commits", "media", "releases", "report.html"}
