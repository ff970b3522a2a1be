"""What is wrong at a real Label Studio is one line that says what to do, and the rest goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from labeling.label_studio import brush
from labeling.label_studio.client import LabelServerError, LabelStudio
from labeling.projects.connect import connect, open_project
from pipeline.errors import AvatarBuildError, UsageError
from pipeline.records.reviews import Kind
from pipeline.records.schema import Review
from pipeline.workspace.workspace import Workspace
from tests.labeling.conftest import Studio
from tests.labeling.exchange import accepted, project_kind, pull, push, submit
from tests.labeling.labelled_workspace import fill, pixels, segment

pytestmark = [pytest.mark.labelstudio, pytest.mark.slow]


def opened(root: Path, studio: Studio, project: str, frames: int = 4) -> Workspace:
    """A workspace of its own on the session's server."""
    Workspace.create(root)
    token = studio.workspace.storage.path("label-studio") / "token"
    settings = [f"label.token_file='{token}'", f"label.project='{project}'"]
    return fill(Workspace(root, [*settings, f"label.url='{studio.api.url}'"]), frames)


def tasks(studio: Studio, workspace: Workspace, kind: Kind) -> list[dict[str, Any]]:
    """Ours, by frame."""
    project = open_project(studio.api, workspace.config.label.project, project_kind(kind)).number
    found = [task for task in studio.api.tasks(project) if "frame_id" in task["data"]]
    return sorted(found, key=lambda task: str(task["data"]["frame_id"]))


def make_one_by_hand(studio: Studio, like: dict[str, Any]) -> None:
    """A task of the same look that no push made."""
    data = {key: value for key, value in like["data"].items() if key != "frame_id"}
    studio.api.import_tasks(like["project"], [{"data": data}])


def one_line(error: AvatarBuildError, *words: str) -> None:
    """The error names the trouble and the next step on one line."""
    assert "\n" not in str(error)
    for word in words:
        assert word in str(error)


def test_a_wrong_address_is_one_line(studio: Studio) -> None:
    closed = LabelStudio("http://127.0.0.1:9", "f" * 40, sleep=lambda _: None)
    with pytest.raises(LabelServerError) as caught:
        closed.check()
    one_line(caught.value, "http://127.0.0.1:9", "Is it running?")
    with pytest.raises(LabelServerError) as below:
        LabelStudio(f"{studio.api.url}/projects", studio.token).check()
    one_line(below.value, f"{studio.api.url}/projects", "Is the address a Label Studio's?")
    with pytest.raises(UsageError) as no_address:
        LabelStudio("labels.example.org", studio.token)
    one_line(no_address.value, "'labels.example.org'", "http://127.0.0.1:8080")


def test_a_refused_token_is_one_line_without_the_token(tmp_path: Path, studio: Studio) -> None:
    wrong = tmp_path / "token"
    wrong.touch(0o600)
    wrong.write_text("f" * 40, encoding="utf-8")
    Workspace.create(tmp_path / "ws")
    settings = [f"label.url='{studio.api.url}'", f"label.token_file='{wrong}'"]
    with pytest.raises(UsageError) as caught:
        connect(Workspace(tmp_path / "ws", settings))
    one_line(caught.value, studio.api.url, "token was refused", "Account & Settings")
    assert "f" * 40 not in str(caught.value)


@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_a_project_with_another_config_is_left_alone(
    tmp_path: Path, studio: Studio, kind: Kind
) -> None:
    workspace = opened(tmp_path / "ws", studio, "others")
    theirs = '<View><Image name="i" value="$image"/></View>'
    studio.api.create_project(title=f"others {kind}", label_config=theirs)
    for act in (pull, push):
        with pytest.raises(UsageError) as caught:
            act(workspace, studio.api, kind)
        one_line(caught.value, f"'others {kind}'", "another labeling config", "label.project")
    (found,) = studio.api.find_projects(f"others {kind}")
    assert studio.api.project(int(found["id"]))["label_config"] == theirs
    assert list(studio.api.tasks(int(found["id"]))) == []


def test_bad_box_answers_are_named_and_the_others_pulled(tmp_path: Path, studio: Studio) -> None:
    workspace = opened(tmp_path / "ws", studio, "bad boxes")
    pushed = push(workspace, studio.api)
    good, unknown, garbage, late = tasks(studio, workspace, "boxes")
    make_one_by_hand(studio, good)
    submit(studio.api, good, accepted(good))
    unicorn = json.loads(json.dumps(accepted(unknown)).replace('["dog"]', '["unicorn"]'))
    submit(studio.api, unknown, unicorn)
    submit(studio.api, garbage, [{"from_name": "category", "value": 7}, *accepted(garbage)[1:]])
    submit(studio.api, late, accepted(late))

    pulled = pull(workspace, studio.api)
    assert (pulled.new, len(pulled.bad), len(pulled.foreign)) == (2, 2, 1)
    decided = {row.frame_id for row in workspace.rows(Review)}
    assert decided == {good["data"]["frame_id"], late["data"]["frame_id"]}
    summary, *lines = pulled.lines()
    assert "2 to mend" in summary
    assert len(lines) == 3
    assert all("\n" not in line for line in lines)
    link = f"{studio.api.url}/projects/{pushed.project.number}/data?task="
    said = {line.rpartition("task=")[2].split()[0]: line for line in lines}
    assert "'unicorn', which is no target category" in said[str(unknown["id"])]
    assert "delete it" in said[str(garbage["id"])]
    (foreign,) = [line for line in lines if "not ours" in line]
    assert "has no frame_id; delete it there" in foreign
    assert all(link in line for line in lines)
    # A push says the same of what somebody made by hand, and leaves it there.
    again = push(workspace, studio.api)
    assert (again.new, again.foreign) == (0, pulled.foreign)


def test_bad_masks_are_named_and_the_others_pulled(tmp_path: Path, studio: Studio) -> None:
    workspace = opened(tmp_path / "ws", studio, "bad masks")
    push(workspace, studio.api)
    for task in tasks(studio, workspace, "boxes"):
        submit(studio.api, task, accepted(task))
    pull(workspace, studio.api)
    segment(workspace)
    push(workspace, studio.api, "masks")
    good, larger, cut, stray = tasks(studio, workspace, "masks")
    make_one_by_hand(studio, good)
    submit(studio.api, good, accepted(good))
    region, status = accepted(larger)
    submit(studio.api, larger, [{**region, "original_width": 640, "original_height": 360}, status])
    region, status = accepted(cut)
    small = {**region["value"], "rle": brush.encode(pixels(120)[:90, :160])}
    submit(studio.api, cut, [{**region, "value": small}, status])
    region, status = accepted(stray)
    unknown = {**region["value"], "brushlabels": ["9 cow"]}
    submit(studio.api, stray, [{**region, "value": unknown}, status])

    pulled = pull(workspace, studio.api, "masks")
    assert (pulled.new, len(pulled.bad), len(pulled.foreign)) == (1, 3, 1)
    summary, *lines = pulled.lines()
    assert "3 to mend" in summary
    assert all("\n" not in line for line in lines)
    said = {line.rpartition("task=")[2].split()[0]: line for line in lines}
    assert "of a picture of 640x360, the frame is 320x180" in said[str(larger["id"])]
    assert "paint it again" in said[str(larger["id"])]
    assert "not 320x180x4" in said[str(cut["id"])]
    assert "'9 cow', no instance of this frame" in said[str(stray["id"])]
    reviews = [row for row in workspace.rows(Review) if row.kind == "masks"]
    assert [row.frame_id for row in reviews] == [good["data"]["frame_id"]]
