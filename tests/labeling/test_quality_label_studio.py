"""Two people, gold frames and an adjudicator, against a real Label Studio."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from labeling.quality.agreement import agreement
from labeling.review.gold import set_gold
from labeling.review.overlap import is_sampled
from labeling.sync.project_status import ProjectStatus, project_statuses
from pipeline.records.schema import Frame, Instance, Review
from pipeline.workspace.workspace import Workspace
from tests.labeling.conftest import Studio
from tests.labeling.exchange import accepted, frame_of, pull, push
from tests.labeling.labelled_workspace import fill, name
from tests.labeling.people import Person, sign_up

pytestmark = [pytest.mark.labelstudio, pytest.mark.slow]

GOLD = 17
"""The frame whose answer is known."""


class Team:
    """A workspace of eight frames, a project of its own, and two people."""

    def __init__(self, studio: Studio, root: Path) -> None:
        self.api = studio.api
        self.first = sign_up(studio.api, "first@example.com")
        self.second = sign_up(studio.api, "second@example.com")
        self.root = root
        fill(Workspace.create(root), frames=8)

    def workspace(self, *settings: str) -> Workspace:
        url = f"label.url={self.api.url}"
        return Workspace(self.root, [url, "label.project=quality", *settings])

    def tasks(self, project: int) -> dict[str, dict[str, Any]]:
        return {str(frame_of(task)): task for task in self.api.tasks(project)}

    def boxes(self) -> ProjectStatus:
        return project_statuses(self.workspace(), self.api)[0]


@pytest.fixture(scope="module")
def team(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Team:
    return Team(studio, tmp_path_factory.mktemp("team") / "ws")


def said(task: dict[str, Any], category: str = "dog") -> list[dict[str, Any]]:
    """The prediction as a person accepts it, perhaps with another category."""
    return list(json.loads(json.dumps(accepted(task)).replace('["dog"]', f'["{category}"]')))


def work(person: Person, project: int, team: Team, category: str = "dog") -> list[str]:
    """Take what the server offers until nothing is left; which frames that was."""
    tasks = {int(task["id"]): task for task in team.api.tasks(project)}
    seen: list[str] = []
    while (number := person.next_task(project)) is not None:
        assert len(seen) < 20, "the server offers the same again and again"
        task = tasks[number]
        person.answer(number, said(task, category))
        seen.append(str(frame_of(task)))
    return seen


def test_the_server_offers_the_share_to_two_people_the_rest_to_one_and_gold_to_all(
    team: Team, tmp_path: Path
) -> None:
    frames = [row.frame_id for row in team.workspace().rows(Frame)]
    known = {
        "frame_id": name(GOLD),
        "decision": "labelled",
        "instances": [
            {"bbox": [10.0, 20.0, 100.0, 80.0], "category": "dog", "scenario": "Single-sound"}
        ],
    }
    file = tmp_path / "gold.jsonl"
    file.write_text(json.dumps(known))
    set_gold(team.workspace(), file)
    settings = "label.overlap=2", "label.share=0.5", "label.seed=6"
    twice = {frame for frame in frames if is_sampled(frame, 0.5, 6)} - {name(GOLD)}
    assert 0 < len(twice) < 7, "the seed takes some and leaves some"
    found = push(team.workspace(*settings), team.api)
    assert (found.new, found.opened) == (8, len(twice) + 1)
    again = push(team.workspace(*settings), team.api)
    assert (again.new, again.opened, again.renewed) == (0, 0, 0)
    waiting = team.boxes()
    assert (waiting.to_do, waiting.gold, waiting.answers_to_do) == (7, 1, 7 + len(twice))
    project = found.project.number
    first = work(team.first, project, team)
    assert sorted(first) == sorted(frames)
    second = work(team.second, project, team, "cat")
    assert sorted(second) == sorted({*twice, name(GOLD)})
    assert all(team.tasks(project)[frame]["is_labeled"] for frame in frames if frame != name(GOLD))
    pulled = pull(team.workspace(), team.api)
    assert (pulled.new, pulled.bad, pulled.gone) == (8 + len(second), [], [])
    standing = team.boxes()
    assert (standing.to_do, standing.done, standing.gold) == (0, 7, 1)
    assert standing.in_adjudication == len(twice)


def test_a_done_task_is_offered_again_when_the_share_grows(team: Team) -> None:
    settings = "label.overlap=2", "label.share=1.0", "label.seed=6"
    before = {
        row.frame_id for row in team.workspace().rows(Review) if row.annotator == second(team)
    }
    found = push(team.workspace(*settings), team.api)
    assert found.opened == 8 - len(before)
    offered = work(team.second, found.project.number, team)
    assert sorted(offered) == sorted(
        row.frame_id for row in team.workspace().rows(Frame) if row.frame_id not in before
    )
    assert pull(team.workspace(), team.api).new == len(offered)


def second(team: Team) -> str:
    return str(team.second.number)


def test_agreement_is_told_by_pair_and_against_gold(team: Team) -> None:
    found = agreement(team.workspace().rows(Review), 0.5)
    pair = f"{team.first.number} / {team.second.number}"
    assert list(found.by_pair) == [pair]
    assert found.frames == 8
    assert found.everyone.f1 == 1.0
    cats = len(found.disputed) + 1  # the gold frame is no dispute
    category = found.as_dict()["all"]["category"]
    assert (category["n"], category["agreed"]) == (8, 8 - cats)
    assert category["kappa"] == 0.0, "one of them said the same throughout"
    gold = found.as_dict()["gold"]
    assert gold[str(team.first.number)]["category"]["agreed"] == 1
    assert gold[second(team)]["category"]["agreed"] == 0


def test_the_known_answer_of_a_gold_frame_is_its_only_instance(team: Team) -> None:
    rows = [row for row in team.workspace().rows(Instance) if row.frame_id == name(GOLD)]
    assert [row.audio_visual_category for row in rows] == ["dog"]
    reviews = [row for row in team.workspace().rows(Review) if row.frame_id == name(GOLD)]
    assert len(reviews) == 3
    (known,) = [row for row in reviews if row.purpose == "gold"]
    assert rows[0].review_ids == [known.review_id]


def test_disputes_become_a_project_whose_answers_decide(team: Team) -> None:
    workspace = team.workspace()
    disputed = [one.frame_id for one in agreement(workspace.rows(Review), 0.5).disputed]
    found = push(workspace, team.api, "adjudication")
    assert found.new == len(disputed)
    assert push(workspace, team.api, "adjudication").new == 0
    tasks = team.tasks(found.project.number)
    assert sorted(tasks) == disputed
    task = tasks[disputed[0]]
    labels = [
        (item["value"]["rectanglelabels"], item["meta"]["text"])
        for item in task["predictions"][0]["result"]
        if item["from_name"] == "category"
    ]
    assert sorted(labels) == [(["cat"], ["B"]), (["dog"], ["A"])]
    assert team.first.next_task(found.project.number) is not None
    keep = [item for item in accepted(task) if item.get("meta", {}).get("text") != ["B"]]
    answer = team.first.answer(int(task["id"]), keep)
    assert pull(workspace, team.api, "adjudication").new == 1
    assert categories(workspace, disputed[0]) == ["dog"]
    assert agreement(workspace.rows(Review), 0.5).adjudicated == 1
    team.api.delete_annotation(int(answer["id"]))
    assert pull(workspace, team.api, "adjudication").taken_back == 1
    assert categories(workspace, disputed[0]) == ["cat"], "the newest of the two decides again"


def categories(workspace: Workspace, frame_id: str) -> list[str]:
    return [
        row.audio_visual_category for row in workspace.rows(Instance) if row.frame_id == frame_id
    ]


def test_deleting_the_newest_answer_and_deleting_a_whole_task_are_told_apart(team: Team) -> None:
    workspace = team.workspace()
    tasks = team.tasks(standing_project(team))
    frame_id = agreement(workspace.rows(Review), 0.5).disputed[-1].frame_id
    task = tasks[frame_id]
    newest = max(task["annotations"], key=lambda answer: str(answer["updated_at"]))
    team.api.delete_annotation(int(newest["id"]))
    assert pull(workspace, team.api).taken_back == 1
    assert categories(workspace, frame_id) == ["dog"], "the first person's answer stands"
    team.api.delete_task(int(task["id"]))
    found = pull(workspace, team.api)
    assert (found.gone, found.taken_back) == ([frame_id], 0)
    assert categories(workspace, frame_id) == ["dog"]
    assert push(workspace, team.api).new == 0, "it is answered"


def standing_project(team: Team) -> int:
    (found,) = team.api.find_projects("quality boxes")
    return int(found["id"])
