"""Clips at a real Label Studio: two people, edits, deletions, and what changed meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from labeling.projects.pages import frames_of
from labeling.quality.agreement import agreement
from labeling.sync.project_status import project_statuses
from pipeline.records.schema import Frame, Instance, Proposal, Review
from pipeline.workspace.workspace import Workspace
from tests.labeling.conftest import Studio
from tests.labeling.exchange import accepted, choice, pull, push
from tests.labeling.labelled_workspace import FAR, categories, fill_clips, propose
from tests.labeling.people import Person, sign_up

pytestmark = [pytest.mark.labelstudio, pytest.mark.slow]

CLIPS, FRAMES = 4, 3
TRACKED = 1
"""The clips whose boxes are linked: they are one thing in all frames."""


class Team:
    """A workspace of four clips of three frames, a project of its own, and two people."""

    def __init__(self, studio: Studio, root: Path) -> None:
        self.api = studio.api
        self.first = sign_up(studio.api, "third@example.com")
        self.second = sign_up(studio.api, "fourth@example.com")
        self.root = root
        workspace = fill_clips(Workspace.create(root), CLIPS, FRAMES)
        rows = workspace.rows(Proposal)
        linked = {row.frame_id: 7 for row in rows[: TRACKED * FRAMES]}
        propose(
            workspace,
            [row.model_copy(update={"track_id": linked.get(row.frame_id)}) for row in rows],
        )
        self.names = [row.frame_id for row in self.workspace().rows(Frame)]

    def workspace(self, *settings: str) -> Workspace:
        url = f"label.url={self.api.url}"
        return Workspace(self.root, [url, "label.project=team", "label.task=clip", *settings])

    def tasks(self, project: int) -> list[dict[str, Any]]:
        return list(self.api.tasks(project))

    def categories(self) -> dict[str, str]:
        rows = self.workspace().rows(Instance)
        return {row.frame_id: row.audio_visual_category for row in rows}


@pytest.fixture(scope="module")
def team(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Team:
    return Team(studio, tmp_path_factory.mktemp("team") / "ws")


def said(task: dict[str, Any], *others: int) -> list[Any]:
    """All pages visible as proposed; on these pages the things are cats."""
    # What is said of a picture takes the place of "As before", with which it may begin.
    begun = [item for item in accepted(task) if item["from_name"] != "status"]
    result = json.loads(json.dumps(begun))
    for item in result:
        if item["from_name"] == "category" and item["item_index"] in others:
            item["value"]["rectanglelabels"] = ["cat"]
    return [*result, *(status(page) for page in range(len(frames_of(task))))]


def status(page: int, value: str = "Visible") -> dict[str, Any]:
    return {**choice("status", value, region=f"s{page}"), "to_name": "frame", "item_index": page}


def work(person: Person, project: int, team: Team, *others: int) -> int:
    """Take what the server offers until nothing is left; how many clips that was."""
    tasks = {int(task["id"]): task for task in team.tasks(project)}
    seen = 0
    while (number := person.next_task(project)) is not None:
        assert seen < 10, "the server offers the same again and again"
        person.answer(number, said(tasks[number], *others))
        seen += 1
    return seen


def test_two_people_answer_clips_and_their_disputes_are_settled_clip_by_clip(team: Team) -> None:
    settings = "label.overlap=2", "label.share=1.0"
    found = push(team.workspace(*settings), team.api)
    assert (found.new, found.clips, found.opened) == (CLIPS * FRAMES, CLIPS, CLIPS)
    assert push(team.workspace(*settings), team.api).known == CLIPS * FRAMES
    project = found.project.number
    assert work(team.first, project, team) == CLIPS
    assert work(team.second, project, team, 1, 2) == CLIPS
    pulled = pull(team.workspace(), team.api)
    assert (pulled.new, pulled.bad, pulled.gone) == (2 * CLIPS * FRAMES, [], [])
    reviews = team.workspace().rows(Review)
    assert {row.lead_time_s for row in reviews} == {5.0 / FRAMES}
    found_now = agreement(reviews, 0.5)
    assert len(found_now.disputed) == 2 * CLIPS
    disputes = 2 * CLIPS - TRACKED
    assert len(found_now.disputes) == disputes, "the same of one thing in two frames is one"
    (standing,) = [row for row in project_statuses(team.workspace(), team.api) if row.tasks]
    assert (standing.kind, standing.done, standing.answers_to_do) == ("clips", CLIPS, 0)
    assert standing.in_adjudication == disputes
    settled = push(team.workspace(), team.api, "adjudication")
    assert (settled.new, settled.clips) == (2 * CLIPS, CLIPS), "one task for what differs in a clip"
    tasks = sorted(team.tasks(settled.project.number), key=lambda task: len(task["data"]["images"]))
    assert [len(task["data"]["images"]) for task in tasks] == [1] * TRACKED + [2] * 3
    for task in (tasks[1], tasks[0]):
        first = [item for item in said(task) if item.get("meta", {}).get("text") != ["B"]]
        shown = [item for item in first if item["item_index"] < len(task["data"]["images"])]
        answer = team.first.answer(int(task["id"]), shown)
        assert pull(team.workspace(), team.api, "adjudication").new == 2
        assert {team.categories()[name] for name in frames_of(task)} == {"dog"}
    team.api.delete_annotation(int(answer["id"]))
    assert pull(team.workspace(), team.api, "adjudication").taken_back == 2
    assert {team.categories()[name] for name in frames_of(task)} == {"cat"}


def test_an_edit_and_a_deletion_are_of_all_frames_of_the_clip(team: Team) -> None:
    project = push(team.workspace(), team.api).project.number
    task = team.tasks(project)[-1]
    names = frames_of(task)
    newest = max(task["annotations"], key=lambda answer: str(answer["updated_at"]))
    path = f"/api/annotations/{newest['id']}/"
    rejected = [*said(task)[:-1], status(2, "Reject")]
    team.api.call("PATCH", path, {"result": rejected})
    assert pull(team.workspace(), team.api).edited == FRAMES
    found = team.categories()
    assert [found.get(name) for name in names] == ["dog", "dog", None]
    team.api.delete_annotation(int(newest["id"]))
    assert pull(team.workspace(), team.api).taken_back == FRAMES
    assert pull(team.workspace(), team.api).taken_back == 0
    found = team.categories()
    assert [found.get(name) for name in names] == ["dog"] * 3, "the first person's answer stands"


def test_a_frame_whose_proposals_changed_gets_a_task_of_its_own(team: Team) -> None:
    workspace = team.workspace()
    name = frames_of(team.tasks(push(workspace, team.api).project.number)[2])[1]
    propose(
        workspace,
        [
            row.model_copy(update={"proposal_id": f"{row.proposal_id}_new", "bbox": FAR})
            if row.frame_id == name
            else row
            for row in workspace.rows(Proposal)
        ],
    )
    found = push(workspace, team.api)
    assert (found.new, found.clips, found.renewed) == (1, 1, 0)
    assert push(workspace, team.api).new == 0
    (alone,) = [task for task in team.tasks(found.project.number) if frames_of(task) == [name]]
    team.first.answer(int(alone["id"]), said(alone, 0))
    assert pull(workspace, team.api).new == 1
    assert team.categories()[name] == "cat"
    assert pull(workspace, team.api).taken_back == 0


def test_a_clip_that_was_taken_down_meanwhile_is_listed(team: Team) -> None:
    workspace = team.workspace()
    project = push(workspace, team.api).project.number
    task = team.tasks(project)[0]
    team.api.call(
        "PATCH", f"/api/annotations/{task['annotations'][0]['id']}/", {"result": said(task, 0)}
    )
    ledger = workspace.ledger("choose")
    ledger.retire(ledger.commits(), "taken down")
    found = pull(workspace, team.api)
    assert {name for name, _ in found.bad} == set(frames_of(task))
    assert all("no such frame" in why for _, why in found.bad)


def test_what_is_carried_on_comes_back_from_the_server(
    studio: Studio, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("carried") / "ws"
    fill_clips(Workspace.create(root), 1, FRAMES)
    url = f"label.url={studio.api.url}"
    workspace = Workspace(root, [url, "label.project=carried", "label.task=clip"])
    linked = [row.model_copy(update={"track_id": 1}) for row in workspace.rows(Proposal)]
    propose(workspace, linked)
    project = push(workspace, studio.api).project.number
    (task,) = studio.api.tasks(project)
    result = accepted(task)
    found = [item["value"] for item in result if item["from_name"] == "status"]
    assert found == [{"choices": ["As before"]}] * (FRAMES - 1)
    first = next(item for item in result if item["from_name"] == "category")
    first["value"]["rectanglelabels"] = ["cat"]
    mark = {**first, "from_name": "onward", "type": "choices"}
    mark["value"] = {**first["value"], "choices": ["From here on"]}
    body = {"result": [*result, mark, status(0)], "lead_time": 9.0}
    answer = studio.api.call("POST", f"/api/tasks/{task['id']}/annotations/", body)
    assert pull(workspace, studio.api).bad == []
    assert categories(workspace) == dict.fromkeys(frames_of(task), "cat")
    body["result"] = [*result, status(0)]
    studio.api.call("PATCH", f"/api/annotations/{answer['id']}/", body)
    assert pull(workspace, studio.api).edited == FRAMES
    now = categories(workspace)
    assert [now[name] for name in frames_of(task)] == ["cat", "dog", "dog"]
    assert columns_hidden(studio, project) >= {"tasks:data.loop_1", "tasks:data.clips_html"}


def columns_hidden(studio: Studio, project: int) -> set[str]:
    """Those of the project's only view of its tasks, and that the server still lists them."""
    (view,) = studio.api.call("GET", "/api/dm/views", query={"project": project})
    hidden = view["data"]["hiddenColumns"]
    assert "tasks:data.frame_ids" not in hidden["explore"]
    assert set(hidden["explore"]) < set(hidden["labeling"])
    listed = studio.api.call("GET", "/api/tasks", query={"view": view["id"], "fields": "all"})
    assert listed["total"] == 1
    return set(hidden["explore"])
