"""The commands of quality, as they are typed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipeline.cli import cli
from pipeline.schema import Instance, Review
from pipeline.workspace import Workspace
from tests.labeling.fake_label_studio import FakeLabelStudio
from tests.labeling.label_server import LabelServer, label_server
from tests.labeling.labelled_workspace import fill
from tests.labeling.test_push_pull import TOKEN, kept, name


@pytest.fixture
def workspace(workspace: Workspace) -> Workspace:
    return fill(workspace)


@pytest.fixture
def studio() -> FakeLabelStudio:
    return FakeLabelStudio()


@pytest.fixture
def server(studio: FakeLabelStudio) -> Iterator[LabelServer]:
    with label_server(studio.answer) as running:
        yield running


def label(workspace: Workspace, server: LabelServer, *words: str) -> Result:
    place = ["--workspace", workspace.storage.url]
    if words[0] in ("push", "pull", "status"):
        place += ["--url", server.url]
    return CliRunner().invoke(
        cli, ["label", *words, *place], env={"AVATAR_LABEL_TOKEN": TOKEN}, catch_exceptions=False
    )


def as_json(workspace: Workspace, server: LabelServer, *words: str) -> Any:
    done = label(workspace, server, *words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout.splitlines()[0])


def gold_file(folder: Path) -> Path:
    box = {"bbox": [10.0, 20.0, 100.0, 80.0], "category": "dog", "scenario": "Single-sound"}
    answer = {"frame_id": name(12), "decision": "labelled", "instances": [box]}
    file = folder / "gold.jsonl"
    file.write_text(json.dumps(answer))
    return file


def test_double_annotation_gold_agreement_and_adjudication_from_the_command_line(
    workspace: Workspace, server: LabelServer, studio: FakeLabelStudio, tmp_path: Path
) -> None:
    options = "--overlap", "2", "--share", "1", "--gold", str(gold_file(tmp_path))
    pushed = as_json(workspace, server, "push", "boxes", *options)
    assert (pushed["new"], pushed["opened"]) == (3, 3)
    assert sorted(task["overlap"] for task in studio.tasks.values()) == [2, 2, 1000]
    labels = {1: "dog", 2: "cat"}
    for person, category in labels.items():
        answer = kept(10)
        answer[1]["value"]["rectanglelabels"] = [category]
        studio.annotate(studio.of_frame(name(10)), answer, completed_by=person)
    assert as_json(workspace, server, "pull", "boxes")["new"] == 2
    assert {row.frame_id for row in workspace.rows(Instance)} == {name(10), name(12)}
    found = as_json(workspace, server, "agreement")
    assert found["all"]["category"] == {"n": 1, "agreed": 0, "kappa": 0.0}
    assert [one["frame_id"] for one in found["disputed"]] == [name(10)]
    said = label(workspace, server, "agreement").output
    assert "| 1 / 2" in said
    assert as_json(workspace, server, "push", "adjudication")["new"] == 1
    books = as_json(workspace, server, "status")
    assert [one["kind"] for one in books["projects"]] == ["boxes", "adjudication"]
    assert books["projects"][0]["in_adjudication"] == 1
    assert books["orphaned"] == []
    task = studio.of_frame(name(10), project=2)
    items = task["predictions"][0]["result"]
    keep = [{**item, "origin": "prediction"} for item in items if item["id"] != "p_10~A0"]
    studio.annotate(task, keep, completed_by=3)
    assert as_json(workspace, server, "pull", "adjudication")["new"] == 1
    categories = {row.frame_id: row.audio_visual_category for row in workspace.rows(Instance)}
    assert categories[name(10)] == "cat"
    report = as_json(workspace, server, "report")
    assert (report["frames"], report["answers"]) == (1, 3)
    assert report["seconds_per_frame"]["all"] == 4.0


def test_status_before_anything_was_pushed_says_how_to_start(
    workspace: Workspace, server: LabelServer
) -> None:
    assert "label push boxes" in label(workspace, server, "status").output


def test_gold_goes_with_boxes_only_and_bad_gold_sends_nothing(
    workspace: Workspace, server: LabelServer, studio: FakeLabelStudio, tmp_path: Path
) -> None:
    file = gold_file(tmp_path)
    refused = label(workspace, server, "push", "masks", "--gold", str(file))
    assert (refused.exit_code, "--gold goes with boxes" in refused.output) == (2, True)
    file.write_text("{}")
    with pytest.raises(Exception, match=r"gold\.jsonl, line 1: frame_id"):
        label(workspace, server, "push", "boxes", "--gold", str(file))
    assert studio.tasks == {}
    assert workspace.rows(Review) == []
