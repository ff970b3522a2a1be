"""What people differ on is put before one more person, whose answer decides."""

from __future__ import annotations

from typing import Any

import pytest

from labeling.label_studio.client import LabelStudio
from labeling.projects.adjudication import ADJUDICATION, adjudication_task
from labeling.projects.box_results import read_boxes
from labeling.projects.labeling_config import check_task
from labeling.quality.agreement import agreement
from labeling.quality.disputes import Disputed
from pipeline.records.schema import Review
from pipeline.workspace.workspace import Workspace
from tests.labeling.exchange import VISIBLE, accepted, choice, differ, kept, pull, push
from tests.labeling.fake_label_studio import FakeLabelStudio
from tests.labeling.labelled_workspace import VOCABULARY, categories, name
from tests.labeling.opinions import FAR, LEFT, RIGHT, answer, box, off
from tests.rows import frame, proposal, sounds


def task_of(*answers: Review) -> dict[str, Any]:
    task = adjudication_task(
        frame(),
        Disputed("f", ("box",), answers),
        sounds(),
        VOCABULARY,
        "/image",
        "<video></video>",
        min_iou=0.5,
    )
    check_task(task, ADJUDICATION.config)
    return task


def regions(task: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Label and letters by region."""
    items = [item for made in task["predictions"] for item in made["result"]]
    return {
        item["id"]: (item["value"]["rectanglelabels"][0], item["meta"]["text"][0])
        for item in items
        if item["from_name"] == "category"
    }


def status_of(task: dict[str, Any]) -> list[str]:
    items = [item for made in task["predictions"] for item in made["result"]]
    return [item["value"]["choices"][0] for item in items if item["from_name"] == "status"]


def test_what_all_share_is_shown_once_and_what_they_do_not_side_by_side() -> None:
    task = task_of(
        answer("1", box(LEFT), box(RIGHT, "cat")), answer("2", box(LEFT), box(RIGHT), box(FAR))
    )
    assert sorted(regions(task).values()) == [
        ("cat", "A"),
        ("dog", "A and B"),
        ("dog", "B"),
        ("dog", "B"),
    ]
    assert status_of(task) == ["Visible"]


def test_a_dispute_about_the_status_leaves_it_to_the_adjudicator() -> None:
    task = task_of(answer("1", box(LEFT)), off("2", "<lion>"))
    assert len(regions(task)) == 1
    assert status_of(task) == []
    said = task["data"]["clips_html"]
    assert "<b>A</b> Visible: dog (Single-sound)" in said
    assert "<b>B</b> Off-screen: &lt;lion&gt;" in said, "what people typed is text"
    assert said.endswith("<video></video>")


def test_a_category_that_somebody_typed_can_be_chosen() -> None:
    task = task_of(answer("1", box(LEFT, "theremin")), answer("2", box(LEFT)))
    assert "theremin" in [item["value"] for item in task["data"]["categories"]]


def test_boxes_keep_their_link_to_what_was_proposed() -> None:
    mine = {**box(LEFT), "origin": "moved", "proposal_id": "p_1"}
    theirs = {**box(RIGHT), "origin": "moved", "proposal_id": "p_1"}
    task = task_of(answer("1", mine), answer("2", theirs, box(FAR)))
    said = {"result": accepted(task), "updated_at": "2026-01-01T00:00:00Z", "completed_by": 3}
    found = read_boxes(said, frame(), [proposal("p_1")], VOCABULARY, "k").instances
    assert [one.proposal_id for one in found] == ["p_1", "p_1", None]
    assert [one.bbox for one in found] == [LEFT, RIGHT, FAR]


def adjudicated(task: dict[str, Any], keep: str) -> list[Any]:
    """The adjudicator keeps the boxes of one letter."""
    items = task["predictions"][0]["result"]
    chosen = [item for item in items if item.get("meta", {}).get("text") == [keep]]
    return [VISIBLE, *({**item, "origin": "prediction"} for item in chosen)]


@pytest.mark.usefixtures("filled")
def test_a_disputed_frame_is_adjudicated_once_and_its_instances_follow(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    differ(workspace, server, fake)
    assert categories(workspace)[name(10)] == "cat", "the newest decides until it is adjudicated"
    found = push(workspace, server, "adjudication")
    assert (found.new, found.frames) == (1, 1)
    assert push(workspace, server, "adjudication").known == 1
    task = fake.of_frame(name(10), project=2)
    fake.annotate(task, adjudicated(task, "A"), completed_by=3)
    assert pull(workspace, server, "adjudication").new == 1
    assert categories(workspace)[name(10)] == "dog"
    again = push(workspace, server, "adjudication")
    assert (again.frames, again.new, again.renewed) == (0, 0, 0)
    assert again.notes == ["1 frame is settled already."]
    assert pull(workspace, server, "adjudication").new == 0
    found_now = agreement(workspace.rows(Review), 0.5)
    assert (found_now.adjudicated, found_now.disputed) == (1, [])
    row = next(row for row in workspace.rows(Review) if row.purpose == "adjudicate")
    assert (row.kind, row.shown, row.verified) == ("boxes", ["p_10"], True)
    assert (row.instances[0].origin, row.instances[0].proposal_id) == ("kept", "p_10")


@pytest.mark.usefixtures("filled")
def test_an_adjudication_stands_against_later_edits_until_it_is_deleted(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    second = differ(workspace, server, fake)
    push(workspace, server, "adjudication")
    task = fake.of_frame(name(10), project=2)
    decision = fake.annotate(task, adjudicated(task, "A"), completed_by=3)
    pull(workspace, server, "adjudication")
    fake.edit(fake.of_frame(name(10)), second, lead_time=9.0)
    pull(workspace, server)
    assert categories(workspace)[name(10)] == "dog"
    fake.delete(task, decision)
    assert pull(workspace, server, "adjudication").taken_back == 1
    assert categories(workspace)[name(10)] == "cat"


@pytest.mark.usefixtures("filled")
def test_who_comes_to_agree_takes_the_frame_out_of_the_project(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    second = differ(workspace, server, fake)
    push(workspace, server, "adjudication")
    fake.edit(fake.of_frame(name(10)), second, result=kept(10))
    pull(workspace, server)
    found = push(workspace, server, "adjudication")
    assert (found.frames, found.renewed) == (0, 1)
    assert [task for task in fake.tasks.values() if task["project"] == 2] == []


@pytest.mark.usefixtures("filled")
def test_an_answer_changed_since_is_shown_as_it_is_now(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    second = differ(workspace, server, fake)
    push(workspace, server, "adjudication")
    off_screen = [choice("status", "Off-screen"), choice("off_screen_category", "lion")]
    fake.edit(fake.of_frame(name(10)), second, result=off_screen)
    pull(workspace, server)
    found = push(workspace, server, "adjudication")
    assert (found.new, found.renewed) == (1, 1)
    task = fake.of_frame(name(10), project=2)
    assert "Off-screen: lion" in task["data"]["clips_html"]
    fake.annotate(task, off_screen, completed_by=3)
    pull(workspace, server, "adjudication")
    assert name(10) not in categories(workspace)


@pytest.mark.usefixtures("filled")
def test_a_category_that_somebody_typed_can_be_decided_on(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    typed = choice("category_text", "theremin", region="p_10", key="text")
    push(workspace, server)
    fake.annotate(fake.of_frame(name(10)), [*kept(10, "Other"), typed], completed_by=1)
    fake.annotate(fake.of_frame(name(10)), kept(10), completed_by=2)
    pull(workspace, server)
    assert categories(workspace)[name(10)] == "dog"
    push(workspace, server, "adjudication")
    task = fake.of_frame(name(10), project=2)
    fake.annotate(task, adjudicated(task, "A"), completed_by=3)
    assert pull(workspace, server, "adjudication").bad == []
    assert categories(workspace)[name(10)] == "theremin"
