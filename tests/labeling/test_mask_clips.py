"""Masks that are alike in a clip's frames are accepted together, and only as they were shown."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from labeling.label_studio import brush
from labeling.label_studio.client import LabelStudio
from labeling.projects.mask_project import MaskQuestions, mask_digest
from labeling.projects.pages import frames_of
from labeling.quality.agreement import agreement
from labeling.quality.cost import cost_report
from labeling.sync import push as pushing
from labeling.sync.project_status import project_statuses
from labeling.sync.push import Pushed
from pipeline.cli import cli
from pipeline.records import rle
from pipeline.records.moved_masks import Point, moved, overlap
from pipeline.records.schema import Frame, Instance, Mask, Proposal, Review
from pipeline.workspace.workspace import Workspace
from tests.labeling.exchange import (
    MASKS,
    accepted,
    choice,
    kept,
    painted,
    project_kind,
    pull,
    push,
)
from tests.labeling.fake_label_studio import TOKEN, FakeLabelStudio
from tests.labeling.labelled_workspace import (
    VOCABULARY,
    commit,
    mask_of,
    name,
    pixels,
    propose,
)

NAMES = [name(10), name(11), name(12)]


@pytest.fixture
def tracked(filled: None, workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio) -> None:
    """The boxes of the three frames are of one thing, and its masks are alike."""
    rows = workspace.rows(Proposal)
    propose(workspace, [row.model_copy(update={"track_id": 7}) for row in rows])
    push(workspace, server)
    for index in (10, 11, 12):
        fake.annotate(fake.of_frame(name(index)), kept(index))
    pull(workspace, server)
    segment(workspace)


def segment(workspace: Workspace, **drawn: Any) -> None:
    """Masks for the instances, those of some frames other ones."""
    ledger = workspace.ledger("segment")
    ledger.retire(ledger.commits(), "former")
    masks = [
        mask_of(row, drawn.get(f"of_{row.frame_id[-2:]}", pixels()))
        for row in workspace.rows(Instance)
    ]
    commit(workspace, "segment", Mask, masks)


def send(workspace: Workspace, server: LabelStudio) -> Any:
    return push(workspace, server, "masks", task="clip")


def the_task(fake: FakeLabelStudio, first: str = NAMES[0]) -> dict[str, Any]:
    (task,) = [
        task
        for task in fake.tasks.values()
        if task["project"] == MASKS and frames_of(task)[0] == first
    ]
    return task


def verified(workspace: Workspace) -> list[str]:
    return sorted(row.frame_id for row in workspace.rows(Mask) if row.verified)


def done(task: dict[str, Any], status: str = "Masks done") -> list[Any]:
    """The masks as they were found, and this status."""
    return [*accepted(task)[:-1], choice("mask_status", status)]


def test_a_mask_is_moved_and_stretched_with_its_box() -> None:
    mask = np.zeros((60, 80), bool)
    mask[10:20, 20:40] = True
    assert (moved(mask, [20, 10, 20, 10], [20, 10, 20, 10], (60, 80)) == mask).all()
    there = moved(mask, [20, 10, 20, 10], [5, 30, 40, 20], (60, 80))
    assert (there.sum(), there[30:50, 5:45].sum()) == (800, 800)
    assert (moved(there, [5, 30, 40, 20], [20, 10, 20, 10], (60, 80)) == mask).all()
    outside = moved(mask, [20, 10, 20, 10], [70, 50, 20, 10], (60, 80))
    assert outside.sum() == outside[50:, 70:].sum() == 100, "what leaves the picture is cut off"
    assert overlap(mask, [20, 10, 20, 10], there, [5, 30, 40, 20]) == 1.0
    assert overlap(mask, [20, 10, 20, 10], there, [5, 30, 20, 20]) == 0.5
    assert overlap(~mask & mask, [0, 0, 1, 1], ~mask & mask, [0, 0, 1, 1]) == 0.0


@pytest.mark.usefixtures("tracked")
def test_alike_masks_are_accepted_once_and_pulling_twice_changes_nothing(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    found = send(workspace, server)
    assert (found.frames, found.new, found.clips) == (3, 3, 1)
    assert "3 sent in 1 new task" in found.lines()[0]
    again = send(workspace, server)
    assert (again.new, again.known, again.renewed) == (0, 3, 0)
    assert [project["title"] for project in fake.projects][1:] == ["avatar-build mask clips"]
    before = {row.frame_id: row for row in workspace.rows(Mask)}
    task = the_task(fake)
    shown = task["data"]["beside_html"]
    square = "3.1% 11.1%, 15.6% 11.1%, 15.6% 33.3%, 3.1% 33.3%"
    assert (shown.count("<img"), shown.count(f"polygon(evenodd, {square})")) == (2, 2)
    assert "Done here only (0)" in shown
    answer = fake.annotate(task, done(task))
    assert pull(workspace, server, "masks").new == 3
    assert {row.frame_id: row for row in workspace.rows(Mask)} == {
        frame: row.model_copy(update={"verified": True}) for frame, row in before.items()
    }
    reviews = [row for row in workspace.rows(Review) if row.kind == "masks"]
    assert {(row.annotator, row.lead_time_s, row.decision) for row in reviews} == {
        ("7", 4.0 / 3, "labelled")
    }
    assert len({row.review_id for row in reviews}) == 3
    assert [one.origin for row in reviews for one in row.instances] == ["kept"] * 3
    assert cost_report(workspace.rows(Review), []).seconds_per_mask_frame["all"] == 4.0 / 3
    state = workspace.digest("reviews")
    assert pull(workspace, server, "masks").new == 0
    assert workspace.digest("reviews") == state
    assert send(workspace, server).frames == 0
    (standing,) = [row for row in project_statuses(workspace, server) if row.kind == "mask clips"]
    assert (standing.tasks, standing.done, standing.seconds_per_task) == (1, 1, 4.0)

    fake.delete(task, answer)
    assert pull(workspace, server, "masks").taken_back == 3
    assert verified(workspace) == []
    assert send(workspace, server).known == 3


@pytest.mark.usefixtures("tracked")
@pytest.mark.parametrize("answer", ["here", "mended", "rejected", "back"])
def test_what_was_not_accepted_as_shown_is_asked_again(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, answer: str
) -> None:
    send(workspace, server)
    task = the_task(fake)
    said = {
        "here": done(task, "Done here only"),
        "mended": painted(task),
        "rejected": [choice("mask_status", "Reject")],
        "back": [choice("mask_status", "Back to boxes")],
    }[answer]
    fake.annotate(task, said)
    assert send(workspace, server).new == 0, "its answer was not pulled yet"
    assert pull(workspace, server, "masks").new == 1
    assert verified(workspace) == ([NAMES[0]] if answer in ("here", "mended") else [])
    found = send(workspace, server)
    assert (found.frames, found.new, found.clips) == (2, 2, 1)
    assert send(workspace, server).known == 2
    other = the_task(fake, NAMES[1])
    fake.annotate(other, done(other))
    assert pull(workspace, server, "masks").new == 2
    assert set(NAMES[1:]) <= set(verified(workspace))
    assert pull(workspace, server, "masks").taken_back == 0


@pytest.mark.usefixtures("tracked")
def test_an_edit_takes_back_what_it_no_longer_accepts(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    send(workspace, server)
    task = the_task(fake)
    answer = fake.annotate(task, done(task))
    pull(workspace, server, "masks")
    fake.edit(task, answer, result=done(task, "Done here only"))
    found = pull(workspace, server, "masks")
    assert (found.edited, found.taken_back) == (1, 2)
    assert verified(workspace) == NAMES[:1]
    fake.edit(task, answer, result=done(task))
    assert pull(workspace, server, "masks").edited == 3
    assert verified(workspace) == NAMES
    fake.edit(task, answer, was_cancelled=True)
    assert pull(workspace, server, "masks").taken_back == 3
    assert verified(workspace) == []


@pytest.mark.usefixtures("tracked")
def test_a_mask_that_is_not_alike_and_a_thing_of_another_category_are_asked_alone(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    segment(workspace, of_11=pixels(60))
    found = send(workspace, server)
    assert (found.new, found.clips) == (3, 2)
    assert frames_of(the_task(fake)) == [NAMES[0], NAMES[2]]
    of_boxes = fake.of_frame(NAMES[2])
    fake.edit(of_boxes, of_boxes["annotations"][0], result=kept(12, "cat"))
    pull(workspace, server)
    segment(workspace)
    found = send(workspace, server)
    assert (found.frames, found.clips) == (3, 2)
    assert frames_of(the_task(fake)) == NAMES[:2], "what is a cat there on purpose is asked there"


@pytest.mark.usefixtures("segmented")
def test_boxes_that_nobody_linked_are_asked_one_by_one(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    assert send(workspace, server).clips == 3


@pytest.mark.usefixtures("tracked")
def test_masks_made_anew_after_the_push_are_verified_as_they_were_shown(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    send(workspace, server)
    task = the_task(fake)
    segment(workspace, of_12=pixels(14))
    fake.annotate(task, done(task))
    pull(workspace, server, "masks")
    (found,) = [row for row in workspace.rows(Mask) if row.frame_id == NAMES[2]]
    assert found.verified
    assert (rle.decode(found.rle) == pixels()).all()


@pytest.mark.usefixtures("tracked")
def test_an_unanswered_task_is_replaced_when_a_mask_beside_it_changed(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    send(workspace, server)
    segment(workspace, of_12=pixels(11))
    found = send(workspace, server)
    assert (found.new, found.clips, found.renewed) == (3, 1, 1)
    said = the_task(fake)["data"]["pages"][2]["masks"]
    assert said == [rle.encode(pixels(11)).model_dump()]


@pytest.mark.usefixtures("tracked")
def test_a_mask_beside_that_was_changed_at_the_server_is_listed_and_verifies_nothing(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    send(workspace, server)
    task = the_task(fake)
    task["data"] = copy.deepcopy(task["data"])
    task["data"]["pages"][1]["masks"] = [rle.encode(pixels(50)).model_dump()]
    fake.annotate(task, done(task))
    ((frame, why),) = pull(workspace, server, "masks").bad
    assert frame == NAMES[0]
    assert "not as it was sent" in why
    assert verified(workspace) == []
    task["data"]["pages"] = [{"beside": NAMES[0]}] * 3
    task["data"].pop("frame_id")
    assert "what it asks about" in pull(workspace, server, "masks").bad[0][1]


@pytest.mark.usefixtures("tracked")
def test_a_frame_whose_video_was_taken_down_meanwhile_is_left_out(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    send(workspace, server)
    task = the_task(fake)
    fake.annotate(task, done(task))
    frames = [row for row in workspace.rows(Frame) if row.frame_id != NAMES[2]]
    ledger = workspace.ledger("choose")
    ledger.retire(ledger.commits(), "taken down")
    commit(workspace, "choose", Frame, frames)
    assert pull(workspace, server, "masks").new == 2
    ledger.retire(ledger.commits(), "taken down")
    fake.edit(task, task["annotations"][0])
    found = pull(workspace, server, "masks")
    assert [frame for frame, _ in found.bad] == [NAMES[0]]
    assert "no such frame" in found.bad[0][1]


@pytest.mark.usefixtures("tracked")
def test_two_people_accept_or_mend_and_their_masks_are_compared(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    found = push(workspace, server, "masks", task="clip", overlap=2, share=1.0)
    assert found.opened == 1
    task = the_task(fake)
    assert task["overlap"] == 2
    fake.annotate(task, done(task), completed_by=1)
    changed = [*accepted(task)[:-1], choice("mask_status", "Masks done")]
    changed[0] = {**changed[0], "value": {**changed[0]["value"], "rle": brush.encode(pixels(12))}}
    fake.annotate(task, changed, completed_by=2)
    assert pull(workspace, server, "masks").new == 4
    masks = agreement(workspace.rows(Review), 0.5).as_dict()["all"]["masks"]
    assert masks["compared"] == 1, "of the others the second said nothing"
    assert verified(workspace) == NAMES


@pytest.mark.usefixtures("tracked")
def test_what_was_begun_frame_by_frame_stays_there(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server, "masks")
    begun = fake.of_frame(NAMES[1], MASKS)
    begun["drafts"] = [{"id": 1}]
    found = send(workspace, server)
    assert (found.new, found.clips, found.elsewhere, found.moved) == (2, 1, 1, 2)
    fake.annotate(begun, accepted(begun))
    (task,) = [task for task in fake.tasks.values() if task["project"] == 3]
    assert frames_of(task) == [NAMES[0], NAMES[2]]
    fake.annotate(task, done(task))
    assert pull(workspace, server, "masks").new == 3
    assert verified(workspace) == NAMES


@dataclass
class Told:
    """A segmenter that answers one mask, and remembers what it was told."""

    drawn: Any
    name: str = "fake"
    digest: str = "d"
    predicted_iou: float | None = 0.5
    asked: list[tuple[str, list[Point]]] = field(default_factory=list)

    @property
    def mask(self) -> Any:
        return self.drawn

    def refine(self, frame: Frame, box: list[float], points: list[Point]) -> Told:
        self.asked.append((frame.frame_id, points))
        return self


def send_carried(workspace: Workspace, server: LabelStudio, told: Told, **settings: str) -> Pushed:
    """As ``label push masks`` does with ``label.carry_masks``."""
    kind = replace(project_kind("masks"), questions=partial(MaskQuestions, refiner=told))
    words = [f"label.{key}={value}" for key, value in settings.items()]
    return pushing.push(Workspace(workspace.storage.url, words), server, kind, VOCABULARY)


def verify_first(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, left: int
) -> dict[str, Any]:
    """A person paints the first frame's mask; the answer."""
    push(workspace, server, "masks")
    task = fake.of_frame(NAMES[0], MASKS)
    answer = fake.annotate(task, painted(task, left))
    pull(workspace, server, "masks")
    return answer


@pytest.mark.usefixtures("tracked")
def test_a_verified_mask_leads_to_those_of_the_same_thing(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    verify_first(workspace, server, fake, 60)
    table = workspace.digest("masks")
    told = Told(pixels(62))
    found = send_carried(workspace, server, told)
    assert (found.frames, found.new, found.renewed) == (2, 2, 2)
    assert [frame for frame, _ in told.asked] == NAMES[1:]
    for _, points in told.asked:
        assert {inside for *_, inside in points} == {True, False}
        assert all((60 < x < 100 and 20 < y < 60) == inside for x, y, inside in points)
    assert workspace.digest("masks") == table, "the table waits for a person"
    again = send_carried(workspace, server, told)
    assert (again.new, again.known, again.renewed) == (0, 2, 0)
    assert len(told.asked) == 2, "nor is the segmenter asked again"
    task = fake.of_frame(NAMES[1], MASKS)
    (question,) = task["data"]["asked"]
    first = next(row for row in workspace.rows(Instance) if row.frame_id == NAMES[0])
    assert question["prompted_by"][0] == first.instance_id
    fake.annotate(task, accepted(task))
    assert pull(workspace, server, "masks").new == 1
    mask = next(row for row in workspace.rows(Mask) if row.frame_id == NAMES[1])
    assert (rle.decode(mask.rle) == pixels(62)).all()
    assert (mask.source, mask.model_digest, mask.verified) == ("fake-carried", "d", True)

    found = send_carried(workspace, server, told)
    assert (found.new, found.renewed) == (1, 1), "a nearer frame says it now"
    (last,) = fake.of_frame(NAMES[2], MASKS)["data"]["asked"]
    assert last["prompted_by"] == [question["instance_id"], mask_digest(rle.encode(pixels(62)))]


@pytest.mark.usefixtures("tracked")
def test_a_task_is_replaced_when_the_mask_that_led_to_its_own_changes(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    answer = verify_first(workspace, server, fake, 60)
    told = Told(pixels(62))
    send_carried(workspace, server, told)
    task = fake.of_frame(NAMES[0], MASKS)
    fake.edit(task, answer, result=painted(task, 64))
    pull(workspace, server, "masks")
    found = send_carried(workspace, server, told)
    assert (found.new, found.renewed) == (2, 2)
    fake.delete(task, answer)
    pull(workspace, server, "masks")
    found = send_carried(workspace, server, told)
    assert (found.new, found.renewed) == (2, 2)
    fresh = fake.of_frame(NAMES[1], MASKS)["data"]["asked"][0]
    assert "prompted_by" not in fresh
    assert fresh["drawn_by"]["source"] == "grabcut"


@pytest.mark.usefixtures("tracked")
def test_alike_masks_and_verified_ones_stay_as_they_are(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    verify_first(workspace, server, fake, 11)
    told = Told(pixels(62))
    assert send_carried(workspace, server, told).known == 2
    assert told.asked == []


@pytest.mark.usefixtures("tracked")
@pytest.mark.parametrize(
    ("drawn", "guess"),
    [(pixels() & ~pixels(), 0.5), (pixels(200), 0.5), (pixels(62), float("nan"))],
)
def test_an_answer_that_is_none_leaves_the_segmenters_own(
    workspace: Workspace,
    server: LabelStudio,
    fake: FakeLabelStudio,
    drawn: Any,
    guess: float,
) -> None:
    verify_first(workspace, server, fake, 60)
    told = Told(drawn, predicted_iou=guess)
    send_carried(workspace, server, told)
    assert len(told.asked) == 2
    question = fake.of_frame(NAMES[1], MASKS)["data"]["asked"][0]
    assert question["mask"] == mask_digest(rle.encode(pixels()))
    assert question["drawn_by"]["source"] == "grabcut"
    assert send_carried(workspace, server, told).renewed == 0


@pytest.mark.usefixtures("tracked")
def test_masks_that_one_led_to_are_accepted_together_where_they_are_alike(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    verify_first(workspace, server, fake, 60)
    segment(workspace, of_12=pixels(20))
    found = send_carried(workspace, server, Told(pixels(62)), task="clip")
    assert (found.new, found.clips) == (2, 1)
    (task,) = [task for task in fake.tasks.values() if task["project"] == 3]
    fake.annotate(task, done(task))
    assert pull(workspace, server, "masks").new == 2
    sources = {row.frame_id: row.source for row in workspace.rows(Mask)}
    assert sources == dict(zip(NAMES, ["annotator", "fake-carried", "fake-carried"], strict=True))


@pytest.mark.usefixtures("tracked")
def test_the_command_asks_the_segmenter_of_the_settings(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    verify_first(workspace, server, fake, 60)
    words = ["label", "push", "masks", "--workspace", workspace.storage.url]
    words += ["--url", server.url, "--set", "label.carry_masks=true", "--json"]
    for new in (2, 0):  # asked again it says the same, so no task is replaced
        result = CliRunner().invoke(cli, words, env={"AVATAR_LABEL_TOKEN": TOKEN})
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["result"]["new"] == new
    questions = [fake.of_frame(name, MASKS)["data"]["asked"][0] for name in NAMES[1:]]
    assert all(one["prompted_by"] for one in questions)
    assert {one["drawn_by"]["source"] for one in questions} == {"grabcut-carried"}
