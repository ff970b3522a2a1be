"""Masks through a real Label Studio: pixels unchanged, boxes opened again, prompts answered."""

from __future__ import annotations

from typing import Any

import pytest

from labeling.label_studio import brush
from labeling.label_studio.client import LabelStudio
from labeling.projects.backend import Backend, Prompts, connect_backend
from labeling.projects.connect import open_project
from labeling.review.verified_masks import bring_masks_up_to_date
from labeling.sync.project_status import project_statuses
from labeling.sync.reopen import reopen_boxes
from pipeline.config import SegmentConfig
from pipeline.records import rle
from pipeline.records.schema import Instance, Mask, Review
from pipeline.workspace.workspace import Workspace
from stages.segment.refine import FrameRefiner
from tests.labeling.conftest import Studio
from tests.labeling.exchange import accepted, choice, project_kind, pull, push, submit
from tests.labeling.labelled_workspace import fill, name, pixels, segment

pytestmark = [pytest.mark.labelstudio, pytest.mark.slow]


@pytest.fixture(scope="module")
def masks(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """Another workspace on the same server: boxes accepted, masks made and pushed."""
    root = tmp_path_factory.mktemp("masks") / "ws"
    Workspace.create(root)
    settings = [f"label.url='{studio.api.url}'", "label.project='of masks'"]
    workspace = fill(Workspace(root, settings), frames=4)
    made = Studio(workspace, LabelStudio(studio.api.url, studio.token), studio.token)
    push(workspace, made.api)
    for task in tasks(made, "boxes").values():
        submit(made.api, task, accepted(task))
    pull(workspace, made.api)
    segment(workspace)
    assert push(workspace, made.api, "masks").new == 4
    assert push(workspace, made.api, "masks").known == 4
    return made


def tasks(made: Studio, kind: str) -> dict[str, dict[str, Any]]:
    project = open_project(made.api, made.workspace.config.label.project, project_kind(kind))
    return {task["data"]["frame_id"]: task for task in made.api.tasks(project.number)}


def mask(made: Studio, index: int) -> Mask:
    (found,) = [row for row in made.workspace.rows(Mask) if row.frame_id == name(index)]
    return found


def test_annotators_are_shown_the_masks_and_nothing_of_them_is_lost_on_the_way(
    masks: Studio,
) -> None:
    task = tasks(masks, "masks")[name(10)]
    number = task["project"]
    opened = masks.api.call("GET", f"/api/projects/{number}/next")
    (shown,) = opened["predictions"]
    (region,) = [item for item in shown["result"] if item["type"] == "brushlabels"]
    assert region["id"] == mask(masks, 10).instance_id
    assert region["value"]["rle"] == brush.encode(rle.decode(mask(masks, 10).rle))


def test_a_mask_accepted_as_it_was_comes_back_bit_by_bit(masks: Studio) -> None:
    before = mask(masks, 10)
    task = tasks(masks, "masks")[name(10)]
    submit(masks.api, task, accepted(task))
    pull(masks.workspace, masks.api, "masks")
    assert mask(masks, 10) == before.model_copy(update={"verified": True})
    state = masks.workspace.digest("reviews")
    pull(masks.workspace, masks.api, "masks")
    assert masks.workspace.digest("reviews") == state


def test_a_painted_mask_is_the_annotators(masks: Studio) -> None:
    task = tasks(masks, "masks")[name(11)]
    region, status = accepted(task)
    value = {**region["value"], "rle": brush.encode(pixels(120))}
    submit(masks.api, task, [{**region, "origin": "manual", "value": value}, status])
    pull(masks.workspace, masks.api, "masks")
    found = mask(masks, 11)
    assert (found.source, found.verified) == ("annotator", True)
    assert (rle.decode(found.rle) == pixels(120)).all()


def test_a_frame_sent_back_is_to_do_again_and_opens_with_the_boxes_it_had(masks: Studio) -> None:
    before = project_statuses(masks.workspace, masks.api)[0]
    note = choice("boxes_note", "the cat is missing", key="text")
    status = choice("mask_status", "Back to boxes")
    said = [{**item, "to_name": "frame"} for item in (status, note)]
    submit(masks.api, tasks(masks, "masks")[name(12)], said)
    pull(masks.workspace, masks.api, "masks")
    (review,) = [
        row
        for row in masks.workspace.rows(Review)
        if row.kind == "masks" and row.frame_id == name(12)
    ]
    assert (review.decision, review.reject_reasons) == ("back_to_boxes", ["the cat is missing"])
    former = tasks(masks, "boxes")[name(12)]["annotations"][0]["result"]
    assert reopen_boxes(masks.workspace, masks.api).frames == [name(12)]
    assert reopen_boxes(masks.workspace, masks.api).frames == []
    after = project_statuses(masks.workspace, masks.api)[0]
    assert (after.to_do, after.done) == (before.to_do + 1, before.done - 1)
    opened = masks.api.call(
        "GET", f"/api/projects/{tasks(masks, 'boxes')[name(12)]['project']}/next"
    )
    assert opened["data"]["frame_id"] == name(12)
    (shown,) = opened["predictions"]
    assert {item["id"] for item in shown["result"]} == {item["id"] for item in former}

    again = tasks(masks, "boxes")[name(12)]
    result = accepted(again)
    result[0]["value"]["rectanglelabels"] = ["cat"]
    submit(masks.api, again, result)
    assert pull(masks.workspace, masks.api).new == 1
    segment(masks.workspace)
    bring_masks_up_to_date(masks.workspace)
    (instance,) = [row for row in masks.workspace.rows(Instance) if row.frame_id == name(12)]
    assert instance.audio_visual_category == "cat"
    pushed = push(masks.workspace, masks.api, "masks")
    assert (pushed.new, pushed.renewed) == (1, 1)
    task = tasks(masks, "masks")[name(12)]
    assert [item["value"] for item in task["data"]["instances"]] == ["1 cat"]
    submit(masks.api, task, accepted(task))
    pull(masks.workspace, masks.api, "masks")
    assert mask(masks, 12).verified


def test_a_point_is_answered_through_the_server_and_what_was_accepted_is_pulled(
    masks: Studio,
) -> None:
    project = open_project(masks.api, masks.workspace.config.label.project, project_kind("masks"))
    said: list[str] = []
    refiner = FrameRefiner(masks.workspace.storage, SegmentConfig(), kept=4)
    with Backend(Prompts(masks.workspace, refiner), 0, said.append) as backend:
        for _ in range(2):
            connect_backend(masks.api, project, backend)
        (known,) = masks.api.call("GET", "/api/ml", query={"project": project.number})
        assert (known["readable_state"], known["is_interactive"]) == ("Connected", True)
        task = tasks(masks, "masks")[name(13)]
        value = {"x": 18.0, "y": 30.0, "width": 0.5, "keypointlabels": ["1 dog"]}
        point = {"type": "keypointlabels", "from_name": "sam_point", "value": value}
        asked = {"task": task["id"], "context": {"result": [{**point, "is_positive": True}]}}
        place = f"/api/ml/{known['id']}/interactive-annotating"
        answer = masks.api.call("POST", place, asked)
        (region,) = answer["data"]["result"]
        wrong = {**point, "value": {**value, "keypointlabels": ["9 cow"]}}
        refused = masks.api.call("POST", place, {**asked, "context": {"result": [wrong]}})
        assert "9 cow" in refused["errors"][0], "the annotator is told"
    assert len(said) == 1
    opened = masks.api.call("GET", f"/api/projects/{project.number}/next")
    assert opened["predictions"], "annotators still start from the masks that were pushed"

    assert region["id"] == mask(masks, 13).instance_id
    drawn = brush.decode(region["value"]["rle"], 180, 320)
    assert drawn[54, 58], "what was pointed at"
    # Label Studio adds a copy under the prompt's name, and prompts nobody accepted.
    result = [{**region, "origin": "manual"}, {**region, "from_name": "sam_point"}]
    stray = {**point, "id": "stray", "to_name": "frame", "origin": "manual"}
    submit(masks.api, task, [*result, stray, accepted(task)[-1]])
    pull(masks.workspace, masks.api, "masks")
    assert (rle.decode(mask(masks, 13).rle) == drawn).all()
    assert (mask(masks, 13).source, mask(masks, 13).verified) == ("annotator", True)
