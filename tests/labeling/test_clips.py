"""A clip as one task: what is sent, and that its answers are those of its frames."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from labeling.label_studio.client import LabelServerError, LabelStudio
from labeling.projects.connect import find_projects
from labeling.projects.pages import PAGES, frames_of
from labeling.quality.agreement import agreement
from labeling.sync.project_status import project_statuses
from labeling.sync.reopen import reopen_boxes
from pipeline.records.schema import Frame, Instance, Proposal, Review
from pipeline.workspace.workspace import Workspace
from tests.labeling.exchange import VISIBLE, choice, kept, painted, project_kind, pull, push
from tests.labeling.fake_label_studio import FakeLabelStudio
from tests.labeling.labelled_workspace import (
    FAR,
    OLD,
    categories,
    detect,
    fill,
    name,
    propose,
    segment,
)
from tests.rows import frame, proposal

pytestmark = pytest.mark.usefixtures("filled")

NAMES = [name(10), name(11), name(12)]
REJECTED = [choice("status", "Reject"), choice("reject_reason", "Blurred")]
OFF = [choice("status", "Off-screen"), choice("off_screen_category", "lion")]


def said(*pages: list[Any]) -> list[Any]:
    """What a person said of each page of a clip, as one answer."""
    return [{**item, "item_index": page} for page, items in enumerate(pages) for item in items]


ALL_KEPT = said(kept(10), kept(11), kept(12))


@pytest.fixture
def task(workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio) -> dict[str, Any]:
    """The clip's task, which was pushed."""
    assert push(workspace, server, task="clip").clips == 1
    return fake.of_clip(*NAMES)


def test_a_clip_is_one_task_and_pushing_again_sends_nothing(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    first = push(workspace, server, task="clip")
    assert (first.frames, first.new, first.clips) == (3, 3, 1)
    assert "3 sent in 1 new task" in first.lines()[0]
    again = push(workspace, server, task="clip")
    assert (again.new, again.known, again.clips) == (0, 3, 0)
    assert [project["title"] for project in fake.projects] == ["avatar-build clips"]
    (task,) = fake.tasks.values()
    assert task["meta"] == {"clip_id": frame().clip_id, "frame_ids": NAMES}


def test_the_task_has_a_page_for_each_frame_and_says_of_none_what_it_is(
    task: dict[str, Any],
) -> None:
    data = task["data"]
    assert [len(data[f"loop_{page}"]) > 60 for page in range(1, 6)] == [True] * 3 + [False] * 2
    assert data["clips_html"].count("<video") == 1
    assert [page["proposals"] for page in data["pages"]] == [["p_10"], ["p_11"], ["p_12"]]
    assert [one["value"] for one in data["categories"]] == ["dog", "cat", "lion"]
    (prediction,) = task["predictions"]
    boxes = [item for item in prediction["result"] if item["from_name"] == "category"]
    assert [(box["id"], box["item_index"]) for box in boxes] == [
        ("p_10", 0),
        ("p_11", 1),
        ("p_12", 2),
    ]
    assert "status" not in {item["from_name"] for item in prediction["result"]}


def test_an_answer_about_a_clip_is_the_answers_of_its_frames(
    workspace: Workspace,
    server: LabelStudio,
    fake: FakeLabelStudio,
    task: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    pages = [kept(10), OFF, REJECTED]
    fake.annotate(task, said(*pages), lead_time=12.0)
    assert pull(workspace, server).new == 3
    other = fill(Workspace.create(tmp_path_factory.mktemp("frames") / "ws"))
    by_frame = FakeLabelStudio()
    with by_frame.serve() as client:
        push(other, client)
        for one, page in zip(NAMES, pages, strict=True):
            by_frame.annotate(by_frame.of_frame(one), page)
        pull(other, client)
    assert contents(workspace) == contents(other)
    assert [row.lead_time_s for row in workspace.rows(Review)] == [4.0] * 3, "shared out equally"
    assert len({row.review_id for row in workspace.rows(Review)}) == 3
    assert len({row.annotation_id for row in workspace.rows(Review)}) == 1


def contents(workspace: Workspace) -> tuple[list[Any], list[Any]]:
    """What the tables say, but for who said it where, when and in which time."""
    of_the_answer = {"review_id", "annotation_id", "updated_at", "lead_time_s"}
    reviews = [row.model_dump(exclude=of_the_answer) for row in workspace.rows(Review)]
    instances = [row.model_dump(exclude={"review_ids"}) for row in workspace.rows(Instance)]
    return (
        sorted(reviews, key=lambda row: row["frame_id"]),
        sorted(instances, key=lambda row: row["instance_id"]),
    )


def test_a_page_that_was_skipped_is_listed_to_mend_and_the_others_count(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: dict[str, Any]
) -> None:
    _, *boxes = kept(11)
    answer = fake.annotate(task, said(kept(10), boxes, kept(12)))
    found = pull(workspace, server)
    assert (found.new, [one for one, _ in found.bad]) == (2, [name(11)])
    assert "set 7, 8 or 9" in found.bad[0][1]
    assert f"/data?task={task['id']}" in found.bad[0][1]
    assert set(categories(workspace)) == {name(10), name(12)}
    assert len(pull(workspace, server).bad) == 1, "it is said again"
    assert push(workspace, server, task="clip").new == 0, "it waits to be mended"
    fake.edit(task, answer, result=ALL_KEPT)
    found = pull(workspace, server)
    assert (found.new, found.edited, found.bad) == (1, 2, [])
    assert workspace.ledger("pull").failures() == []
    assert set(categories(workspace)) == set(NAMES)


@pytest.mark.parametrize(
    ("index", "what"),
    [(3, "picture 4, of 3"), (-1, "picture 0, of 3"), ("1", "item_index"), (0.5, "item_index")],
)
def test_what_is_said_of_no_page_is_one_line_to_mend(
    workspace: Workspace,
    server: LabelStudio,
    fake: FakeLabelStudio,
    task: dict[str, Any],
    index: object,
    what: str,
) -> None:
    answer = fake.annotate(task, [*ALL_KEPT, {**VISIBLE, "item_index": index}])
    found = pull(workspace, server)
    assert (found.new, len(found.bad)) == (0, 1)
    assert what in found.bad[0][1]
    fake.edit(task, answer, result=ALL_KEPT)
    assert pull(workspace, server).new == 3
    assert workspace.ledger("pull").failures() == []


def test_an_edit_is_a_new_answer_about_each_frame_of_the_clip(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: dict[str, Any]
) -> None:
    answer = fake.annotate(task, ALL_KEPT)
    pull(workspace, server)
    changed = said(kept(10), kept(11, "cat"), REJECTED)
    fake.edit(task, answer, result=changed, lead_time=30.0)
    assert pull(workspace, server).edited == 3
    assert categories(workspace) == {name(10): "dog", name(11): "cat"}
    newest = [row for row in workspace.rows(Review) if row.lead_time_s == 10.0]
    assert len(newest) == 3
    assert pull(workspace, server).edited == 0


@pytest.mark.parametrize("how", ["deleted", "skipped"])
def test_an_answer_taken_back_opens_all_frames_of_the_clip_once(
    workspace: Workspace,
    server: LabelStudio,
    fake: FakeLabelStudio,
    task: dict[str, Any],
    how: str,
) -> None:
    answer = fake.annotate(task, ALL_KEPT)
    pull(workspace, server)
    if how == "deleted":
        fake.delete(task, answer)
    else:
        fake.edit(task, answer, was_cancelled=True)
    assert pull(workspace, server).taken_back == 3
    assert pull(workspace, server).taken_back == 0
    assert categories(workspace) == {}
    assert len({row.review_id for row in workspace.rows(Review)}) == 6
    assert push(workspace, server, task="clip").known == 3, "the task is there for the next one"


def test_a_frame_whose_proposals_changed_after_its_answer_is_asked_about_alone(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: dict[str, Any]
) -> None:
    fake.annotate(task, ALL_KEPT)
    pull(workspace, server)
    detect(workspace, {10: OLD, 11: FAR, 12: OLD})
    found = push(workspace, server, task="clip")
    assert (found.frames, found.new, found.renewed) == (1, 1, 0)
    alone = fake.of_clip(name(11))
    assert [page["proposals"] for page in alone["data"]["pages"]] == [["p_other_11"]]
    assert push(workspace, server, task="clip").new == 0
    fake.annotate(alone, said(REJECTED))
    assert pull(workspace, server).new == 1
    assert set(categories(workspace)) == {name(10), name(12)}
    # What somebody does to the clip's first task leaves the answer to the second alone.
    fake.edit(task, task["annotations"][0], was_cancelled=True)
    assert pull(workspace, server).taken_back == 3
    decisions = {row.frame_id: row.decision for row in deciding(workspace)}
    assert decisions[name(11)] == "rejected"


def deciding(workspace: Workspace) -> list[Review]:
    """The newest row of each frame that says something."""
    rows = sorted(workspace.rows(Review), key=lambda row: row.updated_at)
    return list({row.frame_id: row for row in rows if row.decision != "back_to_boxes"}.values())


def test_a_task_nobody_has_begun_gets_the_new_proposals(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: dict[str, Any]
) -> None:
    detect(workspace, {10: FAR, 11: FAR, 12: FAR})
    found = push(workspace, server, task="clip")
    assert (found.renewed, found.new, found.clips) == (1, 3, 1)
    (task,) = fake.tasks.values()
    assert task["data"]["pages"][2]["proposals"] == ["p_other_12"]


def test_a_task_none_of_whose_answers_hold_is_replaced_once_they_are_pulled(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: dict[str, Any]
) -> None:
    fake.annotate(task, ALL_KEPT)
    pull(workspace, server)
    detect(workspace, {10: FAR, 11: FAR, 12: FAR})
    found = push(workspace, server, task="clip")
    assert (found.renewed, found.new, found.clips) == (1, 3, 1)
    (task,) = fake.tasks.values()
    assert task["annotations"] == []


def test_boxes_kept_before_the_proposals_changed_stand_as_the_persons_own(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: dict[str, Any]
) -> None:
    fake.annotate(task, ALL_KEPT)
    detect(workspace, {10: FAR, 11: FAR, 12: FAR})
    assert push(workspace, server, task="clip").new == 0, "its answers were not pulled"
    pull(workspace, server)
    origins = {one.origin for row in workspace.rows(Review) for one in row.instances}
    assert origins == {"added"}
    assert push(workspace, server, task="clip").frames == 0


def test_a_mixed_workspace_moves_what_nobody_has_begun_and_pulls_both(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    fake.of_frame(name(10))["drafts"] = [{"id": 1}]
    found = push(workspace, server, task="clip")
    assert (found.new, found.known, found.elsewhere, found.moved) == (2, 1, 1, 2)
    assert "1 frame stays to do in project 1, 'avatar-build boxes', begun there" in found.notes[-1]
    clip = fake.of_clip(name(11), name(12), project=2)
    fake.annotate(clip, said(kept(11), kept(12)))
    fake.annotate(fake.of_frame(name(10)), kept(10))
    assert pull(workspace, server).new == 3
    assert set(categories(workspace)) == set(NAMES)
    assert push(workspace, server).frames == push(workspace, server, task="clip").frames == 0
    titles = [project.title for project in find_projects(server, "avatar-build", BOXES)]
    assert titles == ["avatar-build boxes", "avatar-build clips"]
    assert [row.project for row in project_statuses(workspace, server)] == titles


BOXES = project_kind("boxes")


def test_going_back_to_frames_moves_the_clips_that_nobody_has_begun(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: dict[str, Any]
) -> None:
    found = push(workspace, server)
    assert (found.new, found.moved, found.elsewhere) == (3, 1, 0)
    assert sorted(frames_of(one)[0] for one in fake.tasks.values()) == NAMES


def test_a_second_person_is_asked_about_whole_clips_and_a_dispute_is_one_task(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: dict[str, Any]
) -> None:
    assert push(workspace, server, task="clip", overlap=2, share=1.0).opened == 1
    assert task["overlap"] == 2
    fake.annotate(task, ALL_KEPT, completed_by=1)
    fake.annotate(task, said(kept(10, "cat"), kept(11, "cat"), kept(12, "cat")), completed_by=2)
    assert pull(workspace, server).new == 6
    found = agreement(workspace.rows(Review), 0.5)
    assert (found.frames, len(found.disputed)) == (3, 3)
    settled = push(workspace, server, "adjudication", task="clip")
    assert (settled.new, settled.clips) == (3, 1)
    dispute = fake.of_clip(*NAMES, project=2)
    assert "<b>A</b>" in dispute["data"]["loop_2"]
    fake.annotate(dispute, ALL_KEPT, completed_by=3)
    assert pull(workspace, server, "adjudication").new == 3
    assert set(categories(workspace).values()) == {"dog"}
    assert push(workspace, server, "adjudication", task="clip").frames == 0


def test_one_answer_of_two_leaves_the_clip_open_for_the_other_person(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: dict[str, Any]
) -> None:
    fake.annotate(task, ALL_KEPT, completed_by=1)
    pull(workspace, server)
    found = push(workspace, server, task="clip", overlap=2, share=1.0)
    assert (found.frames, found.known, found.opened) == (3, 3, 1)
    assert (task["overlap"], task["is_labeled"]) == (2, False)


def test_a_frame_sent_back_from_the_masks_is_asked_about_alone_with_its_boxes(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: dict[str, Any]
) -> None:
    fake.annotate(task, said(kept(10), kept(11, "cat"), kept(12)))
    pull(workspace, server)
    segment(workspace)
    push(workspace, server, "masks")
    back = [choice("mask_status", "Back to boxes")]
    for index in (10, 12):
        mask = fake.of_frame(name(index), project=2)
        fake.annotate(mask, painted(mask))
    fake.annotate(fake.of_frame(name(11), project=2), back)
    pull(workspace, server, "masks")
    assert reopen_boxes(workspace, server).frames == [name(11)]
    assert reopen_boxes(workspace, server).frames == [], "once"
    alone = fake.of_clip(name(11))
    (prediction,) = alone["predictions"]
    boxes = [item for item in prediction["result"] if item["from_name"] == "category"]
    assert [(box["item_index"], box["value"]["rectanglelabels"]) for box in boxes] == [(0, ["cat"])]
    assert push(workspace, server, task="clip").new == 0
    fake.annotate(alone, said(kept(11)))
    assert pull(workspace, server).new == 1
    assert categories(workspace)[name(11)] == "dog"
    assert reopen_boxes(workspace, server).frames == []
    assert push(workspace, server, task="clip").frames == 0


def test_frames_of_a_clip_that_was_taken_down_meanwhile_are_listed(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: dict[str, Any]
) -> None:
    fake.annotate(task, ALL_KEPT)
    ledger = workspace.ledger("choose")
    ledger.retire(ledger.commits(), "taken down")
    found = pull(workspace, server)
    assert (found.new, [one for one, _ in found.bad]) == (0, NAMES)
    assert all("no such frame" in why for _, why in found.bad)
    assert workspace.rows(Instance) == []


def test_an_import_whose_answer_got_lost_is_not_sent_again(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    fake.lose_answers = True
    with pytest.raises(LabelServerError, match="nothing is doubled"):
        push(workspace, server, task="clip")
    fake.lose_answers = False
    assert push(workspace, server, task="clip").known == 3
    assert len(fake.tasks) == 1


def test_of_two_tasks_of_a_clip_the_one_worked_on_stays(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: dict[str, Any]
) -> None:
    twin = fake.add(dict(task["data"]))
    fake.annotate(twin, ALL_KEPT)
    assert push(workspace, server, task="clip").doubled == 1
    assert list(fake.tasks.values()) == [twin]


def test_two_pushes_at_once_send_a_clip_once(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    with ThreadPoolExecutor(2) as terminals:
        both = list(terminals.map(lambda _: push(workspace, server, task="clip"), range(2)))
    assert sorted(found.new for found in both) == [0, 3]
    assert len(fake.tasks) == 1


def test_a_server_that_stops_in_the_middle_of_a_pull_leaves_nothing_half_done(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: dict[str, Any]
) -> None:
    fake.annotate(task, ALL_KEPT)
    fake.fault = lambda asked: None if asked.path.startswith("/api/tasks") else True
    with pytest.raises(LabelServerError, match="no answer"):
        pull(workspace, server)
    assert workspace.files("reviews") == []
    fake.fault = lambda asked: True
    assert pull(workspace, server).new == 3


def test_a_picture_that_is_gone_leaves_its_frame_out_of_the_task(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    workspace.storage.path(frame(11).path).unlink()
    found = push(workspace, server, task="clip")
    assert (found.new, [one for one, _ in found.skipped]) == (2, [name(11)])
    assert fake.of_clip(name(10), name(12))["data"]["images"][1].endswith("_0012.png")


def test_a_clip_of_more_frames_than_pages_is_more_tasks(
    tmp_path_factory: pytest.TempPathFactory, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    many = fill(Workspace.create(tmp_path_factory.mktemp("many") / "ws"), frames=PAGES + 2)
    found = push(many, server, task="clip")
    assert (found.new, found.clips) == (PAGES + 2, 2)
    shown = [len(frames_of(one)) for one in fake.tasks.values()]
    assert shown == [PAGES, 2]


def test_boxes_of_one_thing_start_from_what_its_best_box_may_be(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    box = {"bbox": [10.0, 20.0, 100.0, 80.0], "track_id": 5}
    guesses = {10: ("cat", 0.4), 11: ("lion", 0.9), 12: ("cat", 0.5)}
    rows = [
        proposal(f"p_{at}", frame_id=name(at), categories=[what], detector_score=score, **box)
        for at, (what, score) in guesses.items()
    ]
    propose(workspace, [*rows, proposal("p_z", frame_id=name(12), categories=["cat"])])
    push(workspace, server, task="clip")
    shown = boxes_of(fake.of_clip(*NAMES))
    assert {one: label for one, (label, _) in shown.items()} == {
        "p_10": "lion",
        "p_11": "lion, carried on",
        "p_12": "lion, carried on",
        "p_z": "cat",
    }
    assert [shown[one][1] for one in ("p_10", "p_12", "p_z")] == ["thing 1", "thing 1", ""]


def test_boxes_of_one_thing_start_from_what_a_person_said_of_it_first(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    rows = [row.model_copy(update={"track_id": 5}) for row in workspace.rows(Proposal)]
    propose(workspace, rows)
    push(workspace, server)
    answer = kept(10, "cat")
    answer[2]["value"]["choices"] = ["Multi-entity"]
    fake.annotate(fake.of_frame(name(10)), answer)
    pull(workspace, server)
    push(workspace, server, task="clip")
    task = fake.of_clip(name(11), name(12), project=2)
    assert {label for label, _ in boxes_of(task).values()} == {"cat, carried on"}
    found = [item for item in task["predictions"][0]["result"] if item["from_name"] == "scenario"]
    assert {item["value"]["choices"][0] for item in found} == {"Multi-entity"}


def boxes_of(task: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Label and note of each prefilled box, by its id."""
    return {
        item["id"]: (
            item["value"]["rectanglelabels"][0],
            item.get("meta", {"text": [""]})["text"][0],
        )
        for item in task["predictions"][0]["result"]
        if item["from_name"] == "category"
    }


def test_a_thing_that_differs_between_frames_on_purpose_stays_as_it_was_said(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    rows = [row.model_copy(update={"track_id": 5}) for row in workspace.rows(Proposal)]
    propose(workspace, rows)
    push(workspace, server, task="clip")
    fake.annotate(fake.of_clip(*NAMES), said(kept(10), kept(11, "cat"), kept(12)))
    pull(workspace, server)
    assert categories(workspace) == {name(10): "dog", name(11): "cat", name(12): "dog"}
    assert {row.track_id for row in workspace.rows(Instance)} <= {5, None}


def test_the_status_counts_clips_and_the_time_of_whole_answers(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: dict[str, Any]
) -> None:
    fake.annotate(task, ALL_KEPT, lead_time=12.0)
    pull(workspace, server)
    (found,) = project_statuses(workspace, server)
    assert (found.kind, found.tasks, found.done) == ("clips", 1, 1)
    assert found.seconds_per_task == pytest.approx(12.0)


def test_a_gold_frame_opens_its_clip_for_everybody(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    from labeling.review.gold import set_gold

    file = workspace.storage.path("gold.jsonl")
    file.write_text(f'{{"frame_id": "{name(11)}", "decision": "rejected"}}\n')
    set_gold(workspace, file)
    assert push(workspace, server, task="clip").opened == 1
    task = fake.of_clip(*NAMES)
    for person in (1, 2):
        fake.annotate(task, ALL_KEPT, completed_by=person)
    pull(workspace, server)
    found = agreement(workspace.rows(Review), 0.5)
    assert sorted(found.gold) == ["1", "2"]
    assert set(categories(workspace)) == {name(10), name(12)}, "the known answer decides"
    assert len(workspace.rows(Frame)) == 3
