"""A changed detector costs no decision, and only what is new or orphaned is sent."""

from __future__ import annotations

import pytest

from labeling.label_studio.client import LabelStudio
from pipeline.records.schema import Instance, Review
from pipeline.workspace.workspace import Workspace
from tests.labeling.exchange import accepted, choice, kept, pull, push
from tests.labeling.fake_label_studio import FakeLabelStudio
from tests.labeling.labelled_workspace import (
    FAR,
    NEAR,
    OLD,
    add_reviews,
    detect,
    name,
    propose,
    review,
)
from tests.rows import proposal

pytestmark = pytest.mark.usefixtures("filled")


def instances(workspace: Workspace) -> dict[str, list[float]]:
    return {row.frame_id: row.bbox for row in workspace.rows(Instance)}


def test_an_unchanged_detector_sends_nothing(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    fake.annotate(fake.of_frame(name(10)), kept(10))
    pull(workspace, server)
    before, tasks = workspace.digest("reviews"), dict(fake.tasks)
    propose(workspace, [proposal(f"p_{n}", frame_id=name(n), bbox=OLD) for n in (10, 11, 12)])
    for _ in range(2):
        found = push(workspace, server)
        assert (found.new, found.renewed, found.doubled) == (0, 0, 0)
    assert fake.tasks == tasks
    assert workspace.digest("reviews") == before


def test_reviews_survive_a_detector_that_finds_the_same_things(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    for index in (10, 11):
        fake.annotate(fake.of_frame(name(index)), kept(index))
    pull(workspace, server)
    before = workspace.digest("instances")
    detect(workspace, {10: NEAR, 11: NEAR, 12: NEAR})
    found = push(workspace, server)
    assert (found.new, found.renewed) == (1, 1), "only the frame nobody had answered"
    shown = fake.of_frame(name(12))["predictions"][0]["result"][0]
    assert shown["id"] == "p_other_12", "it shows the new boxes"
    pull(workspace, server)
    assert workspace.digest("instances") == before


def test_an_orphaned_review_is_asked_for_again_and_stands_until_it_is_answered(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    for index in (10, 11, 12):
        fake.annotate(fake.of_frame(name(index)), kept(index))
    pull(workspace, server)
    detect(workspace, {10: FAR, 11: NEAR, 12: NEAR})
    found = push(workspace, server)
    assert (found.new, found.renewed) == (1, 1)
    assert any(
        "1 answer no longer holds; to list them: avatar-build label status --workspace " in note
        for note in found.notes
    )
    pull(workspace, server)
    assert instances(workspace)[name(10)] == OLD, "the task was replaced, not the decision"
    again = push(workspace, server)
    assert (again.new, again.renewed) == (0, 0)
    task = fake.of_frame(name(10))
    fake.annotate(task, accepted(task))
    pull(workspace, server)
    assert instances(workspace)[name(10)] == FAR
    assert push(workspace, server).notes == ["3 frames are answered already."]


def test_an_answer_that_was_not_pulled_yet_or_is_being_given_is_never_thrown_away(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    fake.annotate(fake.of_frame(name(10)), kept(10))
    fake.of_frame(name(11))["drafts"].append({"id": 1})
    detect(workspace, {10: FAR, 11: FAR, 12: FAR})
    assert push(workspace, server).renewed == 1
    assert fake.of_frame(name(10))["annotations"]
    assert fake.of_frame(name(11))["drafts"]


def test_what_a_person_drew_moved_or_said_of_the_frame_outlives_every_detector(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    off = [choice("status", "Off-screen"), choice("off_screen_category", "lion")]
    push(workspace, server)
    fake.annotate(fake.of_frame(name(10)), off)
    fake.annotate(fake.of_frame(name(11)), [choice("status", "Reject")])
    moved = kept(12)
    moved[1]["value"]["width"] = 50.0
    fake.annotate(fake.of_frame(name(12)), moved)
    pull(workspace, server)
    detect(workspace, {10: FAR, 11: FAR, 12: [250.0, 100.0, 20.0, 20.0]})
    found = push(workspace, server)
    assert (found.new, found.renewed, found.frames) == (0, 0, 0)


def test_a_new_server_gets_only_what_nobody_has_answered(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    fake.annotate(fake.of_frame(name(10)), kept(10))
    pull(workspace, server)
    with FakeLabelStudio().serve() as another:
        assert push(workspace, another).new == 2


def test_a_review_of_the_proposals_shown_remembers_them(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    fake.annotate(fake.of_frame(name(10)), [choice("status", "Reject")])
    pull(workspace, server)
    (row,) = workspace.rows(Review)
    assert row.shown == ["p_10"]


def overlaps(fake: FakeLabelStudio) -> list[int]:
    return sorted(task["overlap"] for task in fake.tasks.values())


def test_a_share_of_the_tasks_is_opened_for_two_and_a_larger_share_for_more(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    assert push(workspace, server).opened == 0
    assert overlaps(fake) == [1, 1, 1]
    opened = [push(workspace, server, overlap=2, share=share).opened for share in (0, 0.5, 1, 1)]
    assert sum(opened) == 3
    assert opened[0] == opened[3] == 0
    assert overlaps(fake) == [2, 2, 2]
    assert push(workspace, server).opened == 0, "nothing is closed again"
    assert overlaps(fake) == [2, 2, 2]


def test_a_done_task_is_opened_again_for_a_second_person_only(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    task = fake.of_frame(name(10))
    fake.annotate(task, kept(10), completed_by=1)
    task["is_labeled"] = True
    pull(workspace, server)
    push(workspace, server, overlap=2, share=1)
    assert (task["overlap"], task["is_labeled"]) == (2, False)
    fake.annotate(task, kept(10), completed_by=2)
    task["is_labeled"] = True
    pull(workspace, server)
    assert push(workspace, server, overlap=2, share=1).opened == 0
    assert task["is_labeled"]
    assert len(workspace.rows(Review)) == 2


def test_a_task_somebody_skipped_stays_open_for_two(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    task = fake.of_frame(name(10))
    fake.annotate(task, [], completed_by=1, was_cancelled=True)
    fake.annotate(task, kept(10), completed_by=2)
    task["is_labeled"] = True
    push(workspace, server, overlap=2, share=1)
    assert (task["overlap"], task["is_labeled"]) == (2, False)


def test_gold_frames_are_open_for_everybody_also_when_they_were_answered(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    add_reviews(workspace, review(name(10), "dog", 1))
    known = review(
        name(10), "dog", 1, purpose="gold", annotator="gold", annotation_id="", review_id="r_g"
    )
    add_reviews(workspace, known)
    found = push(workspace, server)
    assert (found.new, found.opened) == (3, 1)
    assert fake.of_frame(name(10))["overlap"] == 1000
