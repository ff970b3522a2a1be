"""Masks to annotators and back, and boxes that were sent back, against a server in memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from exports.parts import parts_of
from exports.release.selection import ReleaseTables, Selection, select
from labeling.label_studio.client import LabelServerError, LabelStudio
from labeling.sync.project_status import project_statuses
from labeling.sync.reopen import Reopened, reopen_boxes
from pipeline.errors import UsageError
from pipeline.records import rle
from pipeline.records.schema import Instance, Mask, Review
from pipeline.workspace.workspace import Workspace
from tests.labeling.exchange import MASKS, accepted, choice, kept, painted, pull, push
from tests.labeling.fake_label_studio import FakeLabelStudio
from tests.labeling.labelled_workspace import name, pixels, segment

pytestmark = pytest.mark.usefixtures("segmented")


def of_masks(workspace: Workspace, index: int = 10) -> Mask:
    (found,) = [row for row in workspace.rows(Mask) if row.frame_id == name(index)]
    return found


def released(workspace: Workspace) -> Selection:
    with parts_of(workspace, ReleaseTables) as parts:
        (tables,) = parts
        return select(tables, unverified=False)


def test_pushing_again_sends_nothing(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    assert push(workspace, server, "masks").new == 3
    again = push(workspace, server, "masks")
    assert (again.new, again.known, again.doubled, again.renewed) == (0, 3, 0, 0)
    assert [project["title"] for project in fake.projects] == [
        "avatar-build boxes",
        "avatar-build masks",
    ]


def test_two_terminals_and_a_lost_answer_make_no_double(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    fake.lose_answers = True
    with pytest.raises(LabelServerError, match="nothing is doubled"):
        push(workspace, server, "masks")
    fake.lose_answers = False
    with ThreadPoolExecutor(2) as terminals:
        both = list(terminals.map(lambda _: push(workspace, server, "masks"), range(2)))
    assert [(found.new, found.known) for found in both] == [(0, 3), (0, 3)]


def test_a_frame_that_is_not_segmented_yet_waits_and_one_whose_segmenting_failed_is_sent(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    ledger = workspace.ledger("segment")
    ledger.retire(ledger.commits(), "none")
    found = push(workspace, server, "masks")
    assert (found.frames, found.notes) == (
        0,
        [
            "3 frames wait for their masks: avatar-build segment --workspace "
            + workspace.storage.url
        ],
    )


def test_accepted_masks_are_verified_and_released_and_pulling_twice_changes_nothing(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server, "masks")
    before = of_masks(workspace)
    task = fake.of_frame(name(), MASKS)
    fake.annotate(task, accepted(task))
    other = fake.of_frame(name(11), MASKS)
    fake.annotate(other, painted(other))
    assert [frame.frame.frame_id for frame in released(workspace).frames] == []
    assert pull(workspace, server, "masks").new == 2
    assert of_masks(workspace) == before.model_copy(update={"verified": True})
    changed = of_masks(workspace, 11)
    assert (changed.source, changed.verified) == ("annotator", True)
    assert (rle.decode(changed.rle) == pixels(90)).all()
    assert [frame.frame.frame_id for frame in released(workspace).frames] == [name(), name(11)]
    state = [workspace.digest(table) for table in ("reviews", "instances", "masks")]
    files = workspace.files("masks")
    assert pull(workspace, server, "masks").new == 0
    assert [workspace.digest(table) for table in ("reviews", "instances", "masks")] == state
    assert workspace.files("masks") == files
    again = push(workspace, server, "masks")
    assert (again.frames, again.notes) == (1, ["2 frames are decided already."])
    assert again.renewed == 0


def test_an_edit_and_a_deletion_are_seen(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server, "masks")
    task = fake.of_frame(name(), MASKS)
    annotation = fake.annotate(task, painted(task, 90))
    pull(workspace, server, "masks")
    fake.edit(task, annotation, result=painted(task, 120))
    assert pull(workspace, server, "masks").edited == 1
    assert of_masks(workspace).bbox[0] == 120
    fake.delete(task, annotation)
    assert pull(workspace, server, "masks").taken_back == 1
    assert (of_masks(workspace).source, of_masks(workspace).verified) == ("grabcut", False)
    assert push(workspace, server, "masks").known == 3


def test_a_rejected_frame_leaves_the_release_with_its_reason(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server, "masks")
    task = fake.of_frame(name(), MASKS)
    said = [choice("mask_status", "Reject"), choice("reject_reason", "Blurred")]
    fake.annotate(task, said)
    pull(workspace, server, "masks")
    (review,) = [row for row in workspace.rows(Review) if row.kind == "masks"]
    assert (review.decision, review.reject_reasons) == ("rejected", ["Blurred"])
    reasons = {item.frame_id: item.reason for item in released(workspace).left_out}
    assert reasons[name()] == "masks_rejected"
    assert push(workspace, server, "masks").notes == ["1 frame is decided already."]


def send_back(workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio) -> None:
    push(workspace, server, "masks")
    task = fake.of_frame(name(), MASKS)
    note = choice("boxes_note", "the cat is missing", key="text")
    fake.annotate(task, [choice("mask_status", "Back to boxes"), note])
    pull(workspace, server, "masks")


def test_back_to_boxes_opens_the_box_task_from_where_it_was_and_new_boxes_supersede(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    send_back(workspace, server, fake)
    assert "1 frame was sent back" in push(workspace, server, "masks").notes[0]
    reasons = {item.frame_id: item.reason for item in released(workspace).left_out}
    assert reasons[name()] == "masks_back_to_boxes"
    task = fake.of_frame(name())
    former = list(task["annotations"][0]["result"])
    assert reopen_boxes(workspace, server).frames == [name()]
    assert task["annotations"] == []
    start = task["predictions"][0]["result"]
    assert [item["id"] for item in start] == [item["id"] for item in former]
    assert not any("origin" in item for item in start)
    assert reopen_boxes(workspace, server).frames == [], "once"
    assert pull(workspace, server).taken_back == 1
    assert name() not in {row.frame_id for row in workspace.rows(Instance)}

    again = [{**item, "origin": "prediction"} for item in start]
    again[1]["value"]["rectanglelabels"] = ["cat"]
    fake.annotate(task, again)
    pull(workspace, server)
    assert reopen_boxes(workspace, server) == Reopened()
    segment(workspace, "segment-again")
    found = push(workspace, server, "masks")
    assert (found.new, found.renewed, found.known) == (1, 1, 2)
    new = fake.of_frame(name(), MASKS)
    assert [item["label"] for item in new["data"]["asked"]] == ["1 cat"]
    fake.annotate(new, accepted(new))
    assert pull(workspace, server, "masks").taken_back == 0
    assert of_masks(workspace).verified
    assert [frame.frame.frame_id for frame in released(workspace).frames] == [name()]


def test_boxes_confirmed_as_they_were_ask_for_the_masks_again(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    send_back(workspace, server, fake)
    reopen_boxes(workspace, server)
    pull(workspace, server)
    fake.annotate(fake.of_frame(name()), kept())
    pull(workspace, server)
    found = push(workspace, server, "masks")
    assert (found.new, found.renewed) == (1, 1)


def test_boxes_that_were_edited_and_not_pulled_are_not_deleted(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server, "masks")
    task = fake.of_frame(name())
    fake.edit(task, task["annotations"][0], lead_time=9.0)
    fake.annotate(fake.of_frame(name(), MASKS), [choice("mask_status", "Back to boxes")])
    pull(workspace, server, "masks")
    found = reopen_boxes(workspace, server)
    assert found.frames == []
    assert [frame for frame, _ in found.waiting] == [name()]
    assert "label pull boxes" in found.lines()[0]
    assert f"/data?task={task['id']}" in found.lines()[0]
    assert len(task["annotations"]) == 1
    pull(workspace, server)
    assert reopen_boxes(workspace, server).frames == [name()]


def test_a_server_that_stops_while_boxes_are_opened_goes_on_at_the_next_pull(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    send_back(workspace, server, fake)
    fake.fault = lambda asked: None if asked.method == "DELETE" else True
    with pytest.raises(LabelServerError, match="no answer"):
        reopen_boxes(workspace, server)
    fake.fault = lambda asked: True
    assert len(fake.of_frame(name())["annotations"]) == 1
    assert reopen_boxes(workspace, server).frames == [name()]
    assert len(fake.of_frame(name())["predictions"]) == 1


def test_an_unanswered_task_that_asks_about_other_masks_is_replaced_and_a_draft_is_not(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server, "masks")
    for index in (10, 11):
        fake.of_frame(name(index), MASKS)["data"]["asked"] = []
    fake.of_frame(name(11), MASKS)["drafts"] = [{"id": 1}]
    found = push(workspace, server, "masks")
    assert (found.new, found.renewed, found.known) == (1, 1, 2)


def test_an_answer_about_former_instances_is_kept_and_the_frame_is_asked_again(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server, "masks")
    task, of_boxes = fake.of_frame(name(), MASKS), fake.of_frame(name())
    relabelled = [dict(item) for item in kept()]
    relabelled[1] = {
        **relabelled[1],
        "value": {**relabelled[1]["value"], "rectanglelabels": ["cat"]},
    }
    fake.edit(of_boxes, of_boxes["annotations"][0], result=relabelled)
    pull(workspace, server)
    segment(workspace, "segment-again")
    fake.annotate(task, accepted(task))
    assert push(workspace, server, "masks").renewed == 0, "its answer was not pulled yet"
    assert pull(workspace, server, "masks").new == 1
    assert not any(row.verified for row in workspace.rows(Mask))
    assert push(workspace, server, "masks").renewed == 1


def test_bad_answers_are_listed_with_a_link_until_mended_and_the_rest_is_pulled(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server, "masks")
    good, small, odd = (fake.of_frame(name(index), MASKS) for index in (10, 11, 12))
    fake.annotate(good, accepted(good))
    other_size = [{**item, "original_width": 640} for item in accepted(small)]
    mended = fake.annotate(small, other_size)
    unknown = accepted(odd)
    unknown[0]["value"] = {**unknown[0]["value"], "brushlabels": ["7 cow"]}
    fake.annotate(odd, unknown)
    fake.add({"image": "/x"}, project=MASKS)
    fake.annotate(fake.add({"frame_id": name()}, project=MASKS), [choice("mask_status", "x")])
    found = pull(workspace, server, "masks")
    assert (found.new, len(found.bad), len(found.foreign)) == (1, 3, 1)
    assert f"/projects/{MASKS}/data?task={small['id']}" in found.bad[0][1]
    ledger = workspace.ledger("pull-masks")
    kinds = sorted(row.kind for row in ledger.failures())
    assert kinds == ["other_size", "unknown_label", "unreadable_answer"]
    assert [standing.to_mend for standing in project_statuses(workspace, server)] == [0, 3]
    fake.edit(small, mended, result=accepted(small))
    assert pull(workspace, server, "masks").new == 1
    assert len(ledger.failures()) == 2


def test_a_task_that_asks_about_somebody_elses_instances_is_named(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server, "masks")
    task = fake.of_frame(name(), MASKS)
    fake.annotate(task, accepted(task))
    task["data"]["asked"][0]["instance_id"] = fake.of_frame(name(11), MASKS)["data"]["asked"][0][
        "instance_id"
    ]
    ((_, reason),) = pull(workspace, server, "masks").bad
    assert "unknown_instance" in reason


def test_a_project_with_another_config_and_one_never_made_are_refused(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    with pytest.raises(UsageError, match="label push masks"):
        pull(workspace, server, "masks")
    push(workspace, server, "masks")
    fake.projects[1]["label_config"] = "<View/>"
    with pytest.raises(UsageError, match=r"project 2 .* another labeling config"):
        push(workspace, server, "masks")
