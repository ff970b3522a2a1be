"""Nothing sent twice, nothing decided lost: push and pull against a server that misbehaves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from labeling.label_studio.client import LabelServerError, LabelStudio
from labeling.projects.box_project import BOXES
from labeling.projects.labeling_config import BadTaskError
from labeling.sync import push as pushing
from pipeline.errors import UsageError
from pipeline.records.schema import Review, Sounds
from pipeline.workspace.takedowns import record_takedown
from pipeline.workspace.workspace import Workspace
from tests.labeling.exchange import VISIBLE, choice, kept, pull, push
from tests.labeling.fake_label_studio import FakeLabelStudio
from tests.labeling.labelled_workspace import VOCABULARY, categories, commit, name
from tests.rows import frame, sounds

pytestmark = pytest.mark.usefixtures("filled")


def test_pushing_again_sends_nothing(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    assert push(workspace, server).new == 3
    again = push(workspace, server)
    assert (again.new, again.known, again.doubled) == (0, 3, 0)
    assert len(fake.tasks) == 3
    assert [project["title"] for project in fake.projects] == ["avatar-build boxes"]


def test_only_frames_that_are_new_or_whose_task_is_gone_are_sent(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    del fake.tasks[3]
    assert push(workspace, server).new == 1


def test_an_import_whose_answer_got_lost_is_not_sent_again(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    fake.lose_answers = True
    with pytest.raises(LabelServerError, match="nothing is doubled"):
        push(workspace, server)
    fake.lose_answers = False
    assert push(workspace, server).known == 3
    assert len(fake.tasks) == 3


def test_of_two_tasks_of_a_frame_the_one_worked_on_stays(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    worked_on = fake.add(dict(fake.of_frame(name())["data"]))
    fake.annotate(worked_on, kept())
    fake.add(dict(fake.of_frame(name(11))["data"]))
    found = push(workspace, server)
    assert (found.new, found.doubled) == (0, 2)
    assert fake.of_frame(name()) is worked_on
    assert fake.of_frame(name(11))["id"] == 2


def test_a_push_waits_for_another_terminals_push_and_then_finds_its_tasks(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    with ThreadPoolExecutor(2) as terminals:
        both = list(terminals.map(lambda _: push(workspace, server), range(2)))
    assert sorted(found.new for found in both) == [0, 3]
    assert len(fake.tasks) == 3
    assert len(fake.projects) == 1


def test_a_frame_whose_video_is_gone_is_named_and_the_others_are_sent(
    workspace: Workspace, server: LabelStudio
) -> None:
    workspace.storage.path(frame(11).path).unlink()
    found = push(workspace, server)
    assert found.new == 2
    assert [skipped for skipped, _ in found.skipped] == [name(11)]
    assert "retry --stage sample --kind missing_file" in found.lines()[1]


def test_a_video_that_was_taken_down_is_not_asked_about_and_that_is_said(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    record_takedown(workspace.storage, frame(10).video_id, "asked for")
    found = push(workspace, server)
    assert (found.frames, list(fake.tasks)) == (0, [])
    assert found.notes[-1] == "3 frames not asked about: their videos were taken down."


def test_a_task_that_its_config_cannot_show_is_never_sent(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    with pytest.raises(BadTaskError, match="an empty value"):
        pushing.push(workspace, server, BOXES, [*VOCABULARY, ""])
    assert fake.tasks == {}


def test_what_was_heard_around_the_frame_comes_before_what_its_clip_sounds_like(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    lion = {"category": "lion", "score": 0.9, "active": True}
    around = sounds(frame_id=name(11), categories=[lion])
    commit(workspace, "hear-frames", Sounds, [around])
    push(workspace, server)
    first = {index: fake.of_frame(name(index))["data"]["categories"][0] for index in (10, 11)}
    assert {index: item["value"] for index, item in first.items()} == {10: "dog", 11: "lion"}


def test_a_project_with_another_config_is_refused(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    fake.projects[0]["label_config"] = "<View/>"
    for act in (push, pull):
        with pytest.raises(UsageError, match=r"project 1 .* another labeling config"):
            act(workspace, server)


def test_pulling_before_anything_was_pushed_says_so(
    workspace: Workspace, server: LabelStudio
) -> None:
    with pytest.raises(UsageError, match="label push boxes"):
        pull(workspace, server)


def test_pulling_twice_changes_nothing(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    fake.annotate(fake.of_frame(name()), kept())
    assert pull(workspace, server).new == 1
    before = [workspace.digest(table) for table in ("reviews", "instances")]
    files = workspace.files("reviews")
    assert pull(workspace, server).new == 0
    assert [workspace.digest(table) for table in ("reviews", "instances")] == before
    assert workspace.files("reviews") == files
    assert categories(workspace) == {name(): "dog"}


def test_only_changed_tasks_are_asked_for_after_the_first_pull(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    fake.second += 3600
    fake.annotate(fake.of_frame(name()), kept())
    assert pull(workspace, server).tasks == 3
    assert pull(workspace, server).tasks == 1, "the overlap reads the newest again"


def test_an_edit_is_a_new_row_and_decides(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    task = fake.of_frame(name())
    annotation = fake.annotate(task, kept())
    pull(workspace, server)
    fake.edit(task, annotation, result=kept(label="cat"))
    assert pull(workspace, server).edited == 1
    assert len(workspace.rows(Review)) == 2
    assert categories(workspace) == {name(): "cat"}


@pytest.mark.parametrize("how", ["deleted", "skipped"])
def test_an_answer_taken_back_reopens_its_frame_once(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, how: str
) -> None:
    push(workspace, server)
    task = fake.of_frame(name())
    annotation = fake.annotate(task, kept())
    pull(workspace, server)
    if how == "deleted":
        fake.delete(task, annotation)
    else:
        fake.edit(task, annotation, was_cancelled=True)
    assert pull(workspace, server).taken_back == 1
    assert pull(workspace, server).taken_back == 0
    assert categories(workspace) == {}
    assert len(workspace.rows(Review)) == 2, "the first decision stays in the table"
    fake.annotate(task, kept())
    pull(workspace, server)
    assert categories(workspace) == {name(): "dog"}


def test_the_answers_of_a_deleted_task_stand_and_that_it_is_gone_is_said(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    for index in (10, 11):
        fake.annotate(fake.of_frame(name(index)), kept(index))
    assert pull(workspace, server).gone == []
    del fake.tasks[1], fake.tasks[3]
    found = pull(workspace, server)
    assert (found.gone, found.taken_back) == ([name(10)], 0)
    assert "1 answered tasks are gone" in found.lines()[-1]
    assert sorted(categories(workspace)) == [name(10), name(11)]
    assert push(workspace, server).new == 1, "the frame nobody had answered"


def test_deleting_the_newest_of_several_answers_brings_the_older_one_into_force(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    task = fake.of_frame(name())
    fake.annotate(task, kept(), completed_by=1)
    second = fake.annotate(task, kept(label="cat"), completed_by=2)
    pull(workspace, server)
    assert categories(workspace) == {name(): "cat"}
    fake.delete(task, second)
    assert pull(workspace, server).taken_back == 1
    assert categories(workspace) == {name(): "dog"}


def test_a_server_that_lost_its_data_takes_no_decision_back(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    fake.annotate(fake.of_frame(name()), kept())
    pull(workspace, server)
    fake.projects.clear()
    fake.tasks.clear()
    push(workspace, server)
    assert pull(workspace, server).taken_back == 0
    assert categories(workspace) == {name(): "dog"}


def test_a_bad_answer_is_listed_with_a_link_until_it_is_mended(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    good, bad = fake.of_frame(name()), fake.of_frame(name(11))
    status, box, _ = kept(11)
    annotation = fake.annotate(bad, [status, box])
    fake.second += 3600
    fake.annotate(good, kept())
    found = pull(workspace, server)
    assert (found.new, len(found.bad)) == (1, 1)
    assert f"{server.url}/projects/1/data?task={bad['id']}" in found.bad[0][1]
    ledger = workspace.ledger("pull")
    commits = ledger.commits()
    assert len(pull(workspace, server).bad) == 1, "it is said again"
    assert ledger.commits() == commits, "and written once"
    assert [row.kind for row in ledger.failures()] == ["no_scenario"]
    fake.edit(bad, annotation, result=kept(11))
    assert pull(workspace, server).new == 1
    assert ledger.failures() == []
    assert categories(workspace) == {name(): "dog", name(11): "dog"}


def test_a_bad_answer_that_was_deleted_needs_no_mending(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    task = fake.of_frame(name())
    annotation = fake.annotate(task, [VISIBLE])
    pull(workspace, server)
    fake.delete(task, annotation)
    assert pull(workspace, server).bad == []
    assert workspace.ledger("pull").failures() == []


def test_what_is_none_of_ours_is_named_and_the_rest_is_pulled(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    fake.annotate(fake.add({"image": "/x"}), kept())
    fake.annotate(fake.add({"frame_id": "elsewhere"}), kept())
    fake.annotate(fake.of_frame(name()), kept())
    fake.annotate(fake.of_frame(name(11)), [{"from_name": "category"}])
    found = pull(workspace, server)
    assert (found.new, len(found.foreign), len(found.bad)) == (1, 1, 2)
    kinds = sorted(row.kind for row in workspace.ledger("pull").failures())
    assert kinds == ["no_status", "unknown_frame"]


def test_a_server_that_stops_in_the_middle_of_a_pull_leaves_nothing_half_done(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    fake.annotate(fake.of_frame(name()), kept())
    fake.fault = lambda asked: None if asked.path.startswith("/api/tasks") else True
    with pytest.raises(LabelServerError, match="no answer"):
        pull(workspace, server)
    assert workspace.files("reviews") == []
    fake.fault = lambda asked: True
    assert pull(workspace, server).new == 1


def test_off_screen_and_reject_leave_no_instances(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    off = [choice("status", "Off-screen"), choice("off_screen_category", "lion")]
    fake.annotate(fake.of_frame(name()), off)
    fake.annotate(fake.of_frame(name(11)), [choice("status", "Reject")])
    assert pull(workspace, server).new == 2
    assert categories(workspace) == {}
    decisions = {row.frame_id: row.decision for row in workspace.rows(Review)}
    assert decisions == {name(): "off_screen", name(11): "rejected"}
