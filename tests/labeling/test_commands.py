"""The commands of quality, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from labeling.label_studio.client import LabelStudio
from pipeline.cli import cli
from pipeline.records.schema import Instance, Review
from pipeline.workspace.workspace import Workspace
from tests.labeling.exchange import accepted, kept
from tests.labeling.fake_label_studio import TOKEN, FakeLabelStudio
from tests.labeling.labelled_workspace import categories, name

pytestmark = pytest.mark.usefixtures("filled")


def label(workspace: Workspace, server: LabelStudio, *words: str) -> Result:
    place = ["--workspace", workspace.storage.url]
    if words[0] in ("push", "pull", "status"):
        place += ["--url", server.url]
    return CliRunner().invoke(
        cli, ["label", *words, *place], env={"AVATAR_LABEL_TOKEN": TOKEN}, catch_exceptions=False
    )


def as_json(workspace: Workspace, server: LabelStudio, *words: str) -> Any:
    done = label(workspace, server, *words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["result"]


def gold_file(folder: Path) -> Path:
    box = {"bbox": [10.0, 20.0, 100.0, 80.0], "category": "dog", "scenario": "Single-sound"}
    answer = {"frame_id": name(12), "decision": "labelled", "instances": [box]}
    file = folder / "gold.jsonl"
    file.write_text(json.dumps(answer))
    return file


def test_double_annotation_gold_agreement_and_adjudication_from_the_command_line(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, tmp_path: Path
) -> None:
    options = "--overlap", "2", "--share", "1", "--gold", str(gold_file(tmp_path))
    pushed = as_json(workspace, server, "push", "boxes", *options)
    assert (pushed["new"], pushed["opened"]) == (3, 3)
    assert sorted(task["overlap"] for task in fake.tasks.values()) == [2, 2, 1000]
    for person, category in ((1, "dog"), (2, "cat")):
        fake.annotate(fake.of_frame(name(10)), kept(10, category), completed_by=person)
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
    task = fake.of_frame(name(10), project=2)
    keep = [item for item in accepted(task) if item["id"] != "p_10~A0"]
    fake.annotate(task, keep, completed_by=3)
    assert as_json(workspace, server, "pull", "adjudication")["new"] == 1
    assert categories(workspace)[name(10)] == "cat"
    report = as_json(workspace, server, "report")
    assert (report["frames"], report["answers"]) == (1, 3)
    assert report["seconds_per_frame"]["all"] == 4.0


def test_status_before_anything_was_pushed_says_how_to_start(
    workspace: Workspace, server: LabelStudio
) -> None:
    assert "label push boxes" in label(workspace, server, "status").output


def test_gold_goes_with_boxes_only_and_bad_gold_sends_nothing(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, tmp_path: Path
) -> None:
    file = gold_file(tmp_path)
    refused = label(workspace, server, "push", "masks", "--gold", str(file))
    assert (refused.exit_code, "--gold goes with boxes" in refused.output) == (2, True)
    file.write_text("{}")
    with pytest.raises(Exception, match=r"gold\.jsonl, line 1: frame_id"):
        label(workspace, server, "push", "boxes", "--gold", str(file))
    assert fake.tasks == {}
    assert workspace.rows(Review) == []
