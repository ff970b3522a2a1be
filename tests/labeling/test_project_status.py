"""How far people are adds up, whoever was asked how often."""

from __future__ import annotations

import pytest

from labeling.label_studio.client import LabelStudio
from labeling.sync.project_status import COLUMNS, ProjectStatus, orphans, project_statuses
from pipeline.records.schema import Review
from pipeline.workspace.workspace import Workspace
from tests.labeling.exchange import differ, kept, pull, push
from tests.labeling.fake_label_studio import FakeLabelStudio
from tests.labeling.labelled_workspace import FAR, NEAR, add_reviews, detect, name, review

pytestmark = pytest.mark.usefixtures("filled")


def boxes(workspace: Workspace, server: LabelStudio) -> ProjectStatus:
    found = project_statuses(workspace, server)[0]
    assert found.tasks == found.to_do + found.done + found.gold
    return found


def test_nothing_is_said_of_a_server_without_our_projects(
    workspace: Workspace, server: LabelStudio
) -> None:
    assert project_statuses(workspace, server) == []


def test_time_left_is_what_is_to_do_at_the_rate_of_late(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    assert boxes(workspace, server).hours_left is None
    fake.annotate(fake.of_frame(name(10)), kept(10), lead_time=36.0)
    pull(workspace, server)
    found = boxes(workspace, server)
    assert (found.to_do, found.done, found.answers_to_do) == (2, 1, 2)
    assert found.seconds_per_task == 36.0
    assert found.hours_left == pytest.approx(2 * 36 / 3600)
    shown = dict(zip(COLUMNS, found.cells(), strict=True))
    assert (shown["to do"], shown["s per task"], shown["hours left"]) == ("2", "36.0", "0.0")


def test_only_the_newest_hundred_answers_make_the_rate(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    fake.annotate(fake.of_frame(name(10)), kept(10), lead_time=9.0)
    pull(workspace, server)
    (first,) = workspace.rows(Review)
    slow = [
        first.model_copy(
            update={
                "review_id": f"r_{number}",
                "lead_time_s": 90.0 if number < 50 else 10.0,
                "updated_at": f"2026-01-01T00:{number // 60:02d}:{number % 60:02d}+00:00",
            }
        )
        for number in range(150)
    ]
    add_reviews(workspace, *slow)
    assert boxes(workspace, server).seconds_per_task == 10.0


def test_frames_asked_of_two_people_take_two_answers(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server, overlap=2, share=1)
    fake.annotate(fake.of_frame(name(10)), kept(10), completed_by=1)
    pull(workspace, server)
    found = boxes(workspace, server)
    assert (found.to_do, found.done, found.answers_to_do) == (3, 0, 5), "as the server has it"


def test_gold_tasks_are_counted_apart(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    add_reviews(
        workspace, review(name(10), "dog", 1, purpose="gold", annotator="gold", annotation_id="")
    )
    push(workspace, server)
    found = boxes(workspace, server)
    assert (found.to_do, found.gold, found.answers_to_do) == (2, 1, 2)
    assert dict(zip(COLUMNS, found.cells(), strict=True))["gold"] == "1"


def test_frames_in_dispute_are_in_adjudication_until_they_are_adjudicated(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    differ(workspace, server, fake)
    assert boxes(workspace, server).in_adjudication == 1
    push(workspace, server, "adjudication")
    found = {row.kind: row for row in project_statuses(workspace, server)}
    assert list(found) == ["boxes", "adjudication"]
    assert (found["adjudication"].to_do, found["adjudication"].in_adjudication) == (1, 0)


def test_orphaned_answers_are_listed_with_what_happens_to_them(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    for index in (10, 11):
        fake.annotate(fake.of_frame(name(index)), kept(index))
    pull(workspace, server)
    assert orphans(workspace) == []
    detect(workspace, {10: FAR, 11: NEAR, 12: NEAR})
    (lost,) = orphans(workspace)
    assert (lost.frame_id, lost.annotator) == (name(10), "7")
    assert "no longer proposed" in lost.sentence()
    add_reviews(workspace, review("elsewhere", "dog", 1))
    assert [one.frame_id for one in orphans(workspace)] == [name(10), "elsewhere"]
    assert "sampled away" in orphans(workspace)[1].why
