"""A disagreement about a thing in several frames is one dispute, and one answer settles it."""

from __future__ import annotations

from typing import Any

import pytest

from labeling.label_studio.client import LabelStudio
from labeling.quality.agreement import agreement
from labeling.quality.disputes import Disputed, settled
from labeling.sync.project_status import project_statuses
from pipeline.records.schema import Frame, Proposal, Review
from pipeline.workspace.workspace import Workspace
from tests.labeling.exchange import VISIBLE, choice, kept, pull, push, rectangle, scenario
from tests.labeling.fake_label_studio import FakeLabelStudio
from tests.labeling.labelled_workspace import categories, commit, name, propose
from tests.labeling.opinions import FAR, LEFT, RIGHT, answer, box, off

NAMES = [name(10), name(11), name(12)]


def thing(
    bbox: list[float], track: int | None, category: str = "dog", sounds: str = "Single-sound"
) -> dict[str, Any]:
    return {**box(bbox, category, sounds), "track_id": track}


def of_clip(*frames: list[list[dict[str, Any]]], clip: str = "v_0") -> list[Review]:
    """What two people said of each frame of a clip."""
    return [
        answer(who, *boxes, frame=f"{clip}_{index:04d}")
        for index, said in enumerate(frames)
        for who, boxes in zip("12", said, strict=True)
    ]


def frames_of(rows: list[Review]) -> list[list[str]]:
    """The last letters of the frames of each dispute, the one to ask about first."""
    found = agreement(rows, 0.5).disputes
    return [[one.frame_id[-1] for one in dispute.frames] for dispute in found]


CAT_OR_DOG = [[thing(LEFT, 7, "cat")], [thing(LEFT, 7)]]


def test_the_same_disagreement_about_a_thing_is_one_dispute() -> None:
    rows = of_clip(*[CAT_OR_DOG] * 5)
    found = agreement(rows, 0.5)
    assert frames_of(rows) == [["0", "1", "2", "3", "4"]]
    assert len(found.disputed) == 5, "they are frames in dispute all the same"
    assert found.lines()[-1].startswith("1 dispute, 5 frames in dispute (category 1)")
    assert found.as_dict()["disputes"] == 1
    assert {one["settled_with"] for one in found.as_dict()["disputed"]} == {"v_0_0000"}


@pytest.mark.parametrize(
    "other",
    [
        [[thing(LEFT, 7)], [thing(LEFT, 7, "cat")]],  # the other way round
        [[thing(LEFT, 7, "cat")], [thing(LEFT, 7, "lion")]],
        [[thing(LEFT, 7, "cat")], [thing(LEFT, 7, sounds="Mixed-sound")]],
        [[thing(LEFT, 8, "cat")], [thing(LEFT, 8)]],  # another thing
        [[thing(LEFT, None, "cat")], [thing(LEFT, None)]],  # a box that nobody linked
        [[thing(LEFT, 7, "cat")], [thing(LEFT, 7), thing(FAR, None)]],  # and a box besides
        [[thing(LEFT, 7, "cat")], [thing(RIGHT, 7)]],  # and where it is
        [[thing(LEFT, 7, "cat"), thing(FAR, 7, "cat")], [thing(LEFT, 7), thing(FAR, 7)]],
    ],
)
def test_another_disagreement_is_another_dispute(other: list[list[dict[str, Any]]]) -> None:
    assert frames_of(of_clip(CAT_OR_DOG, other)) == [["0"], ["1"]]


def test_frames_of_other_clips_and_of_other_people_are_disputes_of_their_own() -> None:
    rows = of_clip(CAT_OR_DOG) + of_clip(CAT_OR_DOG, clip="v_1")
    assert len(frames_of(rows)) == 2
    other = [row.model_copy(update={"annotator": row.annotator * 2}) for row in of_clip(CAT_OR_DOG)]
    moved = [row.model_copy(update={"frame_id": "v_0_0001"}) for row in other]
    assert len(frames_of(of_clip(CAT_OR_DOG) + moved)) == 2


def test_a_frame_of_one_kind_of_entity_and_a_third_person_count_too() -> None:
    gone = of_clip(*[[[thing(LEFT, 7), thing(RIGHT, 8)], [thing(LEFT, 7)]]] * 3)
    assert frames_of(gone) == [["0", "1", "2"]], "who left a thing out did so in all of them"
    third = [answer("3", thing(LEFT, 7), frame="v_0_0000")]
    assert frames_of(of_clip(*[CAT_OR_DOG] * 2) + third) == [["0"], ["1"]]


def test_the_frame_with_most_of_them_is_asked_about() -> None:
    two = [[thing(LEFT, 7, "cat"), thing(RIGHT, 8)], [thing(LEFT, 7), thing(RIGHT, 8, "cat")]]
    eight = [[thing(RIGHT, 8)], [thing(RIGHT, 8, "cat")]]
    assert frames_of(of_clip(CAT_OR_DOG, two, eight)) == [["1", "0", "2"]]


def test_what_the_frame_is_is_asked_of_each() -> None:
    rows = [answer("1", thing(LEFT, 7), frame=f"v_0_000{index}") for index in range(2)]
    rows += [off("2", "dog", frame=f"v_0_000{index}") for index in range(2)]
    assert frames_of(rows) == [["0"], ["1"]]


def in_dispute(*said: list[dict[str, Any]]) -> Disputed:
    (found,) = agreement(of_clip(list(said)), 0.5).disputed
    return found


def test_a_thing_is_settled_as_decided_and_what_is_not_in_dispute_stays() -> None:
    near = [0.0, 0.0, 40.0, 38.0]
    other = in_dispute(
        [thing(near, 7, "cat"), thing(RIGHT, 8, "lion")], [thing(LEFT, 7), thing(RIGHT, 8, "lion")]
    )
    found = settled(answer("3", thing(FAR, 7, "wolf", "Mixed-sound")), other)
    assert found is not None
    newest = max(other.answers, key=lambda one: one.review_id)
    assert [(one.bbox, one.category, one.scenario) for one in found] == [
        (RIGHT, "lion", "Single-sound"),
        (newest.instances[0].bbox, "wolf", "Mixed-sound"),
    ]


def test_a_thing_that_was_left_out_goes_and_comes_as_decided() -> None:
    other = in_dispute([thing(LEFT, 7), thing(RIGHT, 8)], [thing(LEFT, 7)])
    out = settled(answer("3", thing(LEFT, 7)), other)
    within = settled(answer("3", thing(LEFT, 7), thing(FAR, 8, "cat")), other)
    assert out is not None
    assert within is not None
    assert [one.bbox for one in out] == [LEFT]
    assert [(one.bbox, one.category) for one in within] == [(LEFT, "dog"), (RIGHT, "cat")]


@pytest.mark.parametrize(
    "decision",
    [
        off("3", "dog"),
        answer("3", decision="rejected", reject_reasons=["Blurred"]),
        answer("3", thing(LEFT, 7), thing(RIGHT, 7, "cat")),
        answer("3", thing(RIGHT, None)),  # the thing is gone, and nothing would be left
    ],
)
def test_what_does_not_follow_settles_nothing(decision: Review) -> None:
    assert settled(decision, in_dispute(*CAT_OR_DOG)) is None


def test_the_order_of_the_rows_plays_no_part() -> None:
    rows = of_clip(*[CAT_OR_DOG] * 3)
    assert agreement(rows, 0.5).disputes == agreement(rows[::-1], 0.5).disputes


@pytest.fixture
def tracked(filled: None, workspace: Workspace) -> None:
    """The boxes of the three frames are of one thing."""
    rows = workspace.rows(Proposal)
    propose(workspace, [row.model_copy(update={"track_id": 7}) for row in rows])


def answer_twice(workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio) -> None:
    """One says dog, the other cat, of the thing in all frames."""
    push(workspace, server)
    for index in (10, 11, 12):
        fake.annotate(fake.of_frame(name(index)), kept(index), completed_by=1)
        fake.annotate(fake.of_frame(name(index)), kept(index, "cat"), completed_by=2)
    pull(workspace, server)


def decide(task: dict[str, Any], *letters: str) -> list[Any]:
    """An adjudicator keeps the boxes of some letters."""
    items = task["predictions"][0]["result"]
    boxes = [item for item in items if item.get("meta", {}).get("text", [""])[0] in letters]
    return [VISIBLE, *({**item, "origin": "prediction"} for item in boxes)]


@pytest.mark.usefixtures("tracked")
def test_it_is_asked_once_and_the_answer_settles_all_frames(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    answer_twice(workspace, server, fake)
    assert set(categories(workspace).values()) == {"cat"}
    assert project_statuses(workspace, server)[0].in_adjudication == 1
    found = push(workspace, server, "adjudication")
    assert (found.frames, found.new, found.clips) == (3, 3, 1)
    assert "3 frames: 3 sent in 1 new task" in found.lines()[0]
    again = push(workspace, server, "adjudication")
    assert (again.new, again.known, again.renewed) == (0, 3, 0)
    task = fake.of_frame(name(10), project=2)
    shown = task["data"]["clips_html"]
    assert "holds here too" in shown
    assert shown.count("<img") == 2, "the other frames are there to see"
    decision = fake.annotate(task, decide(task, "A"), completed_by=3)
    assert pull(workspace, server, "adjudication").new == 3
    assert categories(workspace) == dict.fromkeys(NAMES, "dog")
    state = workspace.digest("reviews")
    assert pull(workspace, server, "adjudication").new == 0
    assert workspace.digest("reviews") == state
    rows = [row for row in workspace.rows(Review) if row.purpose == "adjudicate"]
    assert [row.frame_id for row in sorted(rows, key=lambda row: row.frame_id)] == NAMES
    assert {(row.annotator, row.lead_time_s, row.verified) for row in rows} == {
        ("3", 4.0 / 3, True)
    }
    assert len({row.review_id for row in rows}) == 3
    assert agreement(workspace.rows(Review), 0.5).adjudicated == 3
    assert push(workspace, server, "adjudication").frames == 0

    fake.edit(task, decision, result=decide(task, "B"))
    assert pull(workspace, server, "adjudication").edited == 3
    assert categories(workspace) == dict.fromkeys(NAMES, "cat")
    fake.delete(task, decision)
    assert pull(workspace, server, "adjudication").taken_back == 3
    assert agreement(workspace.rows(Review), 0.5).adjudicated == 0
    assert push(workspace, server, "adjudication").known == 3


@pytest.mark.usefixtures("tracked")
def test_it_is_one_page_of_a_clip_too(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    answer_twice(workspace, server, fake)
    found = push(workspace, server, "adjudication", task="clip")
    assert (found.new, found.clips) == (3, 1)
    task = fake.of_clip(*NAMES, project=2)
    assert len(task["data"]["images"]) == 1
    assert task["data"]["loop_1"].count("<img") == 2
    said = [{**item, "item_index": 0} for item in decide(task, "A")]
    fake.annotate(task, said, completed_by=3)
    assert pull(workspace, server, "adjudication").new == 3
    assert categories(workspace) == dict.fromkeys(NAMES, "dog")
    assert push(workspace, server, "adjudication", task="clip").frames == 0


@pytest.mark.usefixtures("tracked")
def test_an_answer_that_says_nothing_of_the_thing_leaves_the_other_frames_to_ask(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    answer_twice(workspace, server, fake)
    push(workspace, server, "adjudication")
    task = fake.of_frame(name(10), project=2)
    rejected = [choice("status", "Reject"), choice("reject_reason", "Blurred")]
    fake.annotate(task, rejected, completed_by=3)
    before = push(workspace, server, "adjudication")
    assert (before.new, before.known) == (0, 3), "its answer was not pulled yet"
    assert pull(workspace, server, "adjudication").new == 1
    assert categories(workspace) == dict.fromkeys(NAMES[1:], "cat")
    found = push(workspace, server, "adjudication")
    assert (found.frames, found.new, found.clips, found.renewed) == (2, 2, 1, 0)
    assert push(workspace, server, "adjudication").known == 2
    other = fake.of_frame(name(11), project=2)
    fake.annotate(other, decide(other, "A"), completed_by=3)
    assert pull(workspace, server, "adjudication").new == 2
    assert categories(workspace) == dict.fromkeys(NAMES[1:], "dog")


@pytest.mark.usefixtures("tracked")
def test_an_edit_that_no_longer_says_it_takes_it_back_in_the_other_frames(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    answer_twice(workspace, server, fake)
    push(workspace, server, "adjudication")
    task = fake.of_frame(name(10), project=2)
    decision = fake.annotate(task, decide(task, "A"), completed_by=3)
    pull(workspace, server, "adjudication")
    fake.edit(task, decision, result=[choice("status", "Reject")])
    found = pull(workspace, server, "adjudication")
    assert (found.edited, found.taken_back) == (1, 2)
    assert categories(workspace) == dict.fromkeys(NAMES[1:], "cat"), "people's own stand again"
    fake.edit(task, decision, result=[VISIBLE])
    assert len(pull(workspace, server, "adjudication").bad) == 1, "once, not for each frame"


@pytest.mark.usefixtures("tracked")
def test_who_changed_an_answer_meanwhile_is_asked_again(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    answer_twice(workspace, server, fake)
    push(workspace, server, "adjudication")
    task, other = fake.of_frame(name(10), project=2), fake.of_frame(name(12))
    fake.edit(other, other["annotations"][1], result=kept(12, "lion"))
    fake.annotate(task, decide(task, "A"), completed_by=3)
    pull(workspace, server)
    assert pull(workspace, server, "adjudication").new == 2
    assert categories(workspace) == dict(zip(NAMES, ["dog", "dog", "lion"], strict=True))
    found = push(workspace, server, "adjudication")
    assert (found.frames, found.new) == (1, 1)


@pytest.mark.usefixtures("tracked")
def test_proposals_linked_anew_meanwhile_settle_the_frame_alone(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    answer_twice(workspace, server, fake)
    push(workspace, server, "adjudication")
    task = fake.of_frame(name(10), project=2)
    fake.annotate(task, decide(task, "A"), completed_by=3)
    rows = workspace.rows(Proposal)
    propose(workspace, [row.model_copy(update={"track_id": 8}) for row in rows])
    assert pull(workspace, server, "adjudication").new == 1
    assert categories(workspace) == dict(zip(NAMES, ["dog", "cat", "cat"], strict=True))
    assert push(workspace, server, "adjudication").frames == 2


@pytest.mark.usefixtures("tracked")
def test_a_frame_that_is_gone_by_the_time_of_the_answer_is_left_out(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    answer_twice(workspace, server, fake)
    push(workspace, server, "adjudication")
    task = fake.of_frame(name(10), project=2)
    fake.annotate(task, decide(task, "A"), completed_by=3)
    frames = [row for row in workspace.rows(Frame) if row.frame_id != name(12)]
    ledger = workspace.ledger("choose")
    ledger.retire(ledger.commits(), "sampled anew")
    commit(workspace, "choose", Frame, frames)
    found = pull(workspace, server, "adjudication")
    assert (found.new, found.bad) == (2, [])
    assert categories(workspace) == dict.fromkeys(NAMES[:2], "dog")


@pytest.mark.usefixtures("tracked")
def test_a_thing_that_is_another_in_one_frame_on_purpose_is_asked_there(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    for index, mine in ((10, "dog"), (11, "dog"), (12, "lion")):
        fake.annotate(fake.of_frame(name(index)), kept(index, mine), completed_by=1)
        fake.annotate(fake.of_frame(name(index)), kept(index, "cat"), completed_by=2)
    pull(workspace, server)
    assert push(workspace, server, "adjudication").clips == 2
    for index in (10, 12):
        task = fake.of_frame(name(index), project=2)
        fake.annotate(task, decide(task, "A"), completed_by=3)
    assert pull(workspace, server, "adjudication").new == 3
    assert categories(workspace) == dict(zip(NAMES, ["dog", "dog", "lion"], strict=True))


@pytest.mark.usefixtures("tracked")
def test_a_drawn_box_in_dispute_besides_is_asked_where_it_is(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    place = {"x": 60.0, "y": 10.0, "width": 20.0, "height": 20.0}
    drawn = [rectangle("drawn", place, "lion", origin="manual"), scenario("drawn")]
    for index in (10, 11, 12):
        fake.annotate(fake.of_frame(name(index)), kept(index), completed_by=1)
        more = drawn if index == 11 else []
        fake.annotate(fake.of_frame(name(index)), [*kept(index, "cat"), *more], completed_by=2)
    pull(workspace, server)
    found = push(workspace, server, "adjudication")
    assert (found.new, found.clips) == (3, 2)
