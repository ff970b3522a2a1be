"""What is said of one picture of a clip and holds for the pictures after it."""

from __future__ import annotations

from typing import Any

import pytest

from labeling.label_studio.client import LabelStudio
from labeling.projects.labeling_config import CARRIED_COLOUR, carried_label
from labeling.sync.reopen import reopen_boxes
from pipeline.records.schema import Proposal, Review
from pipeline.workspace.takedowns import record_takedown
from pipeline.workspace.workspace import Workspace
from tests.labeling.exchange import accepted, choice, painted, pull, push, rectangle, scenario
from tests.labeling.fake_label_studio import FakeLabelStudio
from tests.labeling.labelled_workspace import FAR, OLD, categories, detect, name, propose, segment
from tests.rows import proposal, video

pytestmark = pytest.mark.usefixtures("filled")

NAMES = [name(10), name(11), name(12)]


@pytest.fixture
def linked(workspace: Workspace) -> None:
    """The three frames show one thing, a dog."""
    propose(workspace, [_of_track(row, 5) for row in workspace.rows(Proposal)])


@pytest.fixture
def task(
    linked: None, workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> dict[str, Any]:
    """The clip's task."""
    push(workspace, server, task="clip")
    return fake.of_clip(*NAMES)


def _of_track(row: Proposal, track_id: int) -> Proposal:
    return row.model_copy(update={"track_id": track_id})


def status(page: int, *values: str) -> dict[str, Any]:
    return {**choice("status", *values, region=f"s{page}"), "item_index": page}


def reason(page: int, *values: str) -> dict[str, Any]:
    return {**choice("reject_reason", *values, region=f"r{page}"), "item_index": page}


def mark(page: int, value: str) -> dict[str, Any]:
    """Of the page's box."""
    return {**choice("onward", value, region=f"p_{10 + page}"), "item_index": page}


def relabelled(result: list[Any], page: int, label: str) -> list[Any]:
    """The same, with another category for the page's box."""
    return [
        {**item, "value": {**item["value"], "rectanglelabels": [label]}}
        if item["from_name"] == "category" and item["item_index"] == page
        else item
        for item in result
    ]


def rescored(result: list[Any], page: int, value: str) -> list[Any]:
    """The same, with another scenario for the page's box."""
    return [
        {**item, "value": {**item["value"], "choices": [value]}}
        if item["from_name"] == "scenario" and item["item_index"] == page
        else item
        for item in result
    ]


def by_frame(workspace: Workspace) -> dict[str, Review]:
    rows = sorted(workspace.rows(Review), key=lambda row: row.updated_at)
    return {row.frame_id: row for row in rows}


def decisions(workspace: Workspace) -> list[str]:
    found = by_frame(workspace)
    return [found[one].decision if one in found else "" for one in NAMES]


def test_a_picture_of_the_same_things_starts_as_before_and_the_first_one_does_not(
    task: dict[str, Any],
) -> None:
    said = [item for item in accepted(task) if item["from_name"] == "status"]
    assert [(one["item_index"], one["value"]["choices"]) for one in said] == [
        (1, ["As before"]),
        (2, ["As before"]),
    ]


def test_a_picture_with_another_thing_or_without_one_is_to_be_said(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    rows = [_of_track(row, 5) for row in workspace.rows(Proposal)]
    new = proposal("p_new", frame_id=name(11), bbox=FAR, track_id=6)
    propose(workspace, [*rows, new, proposal("p_last", frame_id=name(12), track_id=6)])
    push(workspace, server, task="clip")
    said = [item for item in accepted(fake.of_clip(*NAMES)) if item["from_name"] == "status"]
    assert [one["item_index"] for one in said] == [2]


def test_a_picture_with_a_box_of_no_known_thing_is_to_be_said(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server, task="clip")
    assert not [one for one in accepted(fake.of_clip(*NAMES)) if one["from_name"] == "status"]


def test_only_the_first_picture_counts_as_seen_beforehand(task: dict[str, Any]) -> None:
    seen = [item["item_index"] for item in accepted(task) if item["from_name"] == "seen"]
    assert seen == [0]


def test_carried_boxes_have_a_label_and_a_colour_of_their_own(task: dict[str, Any]) -> None:
    boxes = [item for item in accepted(task) if item["from_name"] == "category"]
    labels = [box["value"]["rectanglelabels"] for box in boxes]
    assert labels == [["dog"], [carried_label("dog")], [carried_label("dog")]]
    last = task["data"]["categories"][-1]
    assert (last["value"], last["background"]) == (carried_label("dog"), CARRIED_COLOUR)
    assert carried_label("dog") not in {
        one["value"] for one in task["data"]["off_screen_categories"]
    }


def test_of_a_frame_alone_nothing_is_carried(
    linked: None, workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    push(workspace, server)
    data = fake.of_frame(name(11))["data"]
    assert "things" not in data
    assert carried_label("dog") not in {one["value"] for one in data["categories"]}


def test_as_before_takes_what_was_said_of_the_first_picture(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: dict[str, Any]
) -> None:
    fake.annotate(task, [*accepted(task), status(0, "Visible")])
    assert pull(workspace, server).bad == []
    assert categories(workspace) == dict.fromkeys(NAMES, "dog")
    assert {one.origin for row in workspace.rows(Review) for one in row.instances} == {"kept"}


def test_as_before_takes_what_sounds_off_screen(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: dict[str, Any]
) -> None:
    sounds = {**choice("off_screen_category", "lion", region="o"), "item_index": 0}
    fake.annotate(task, [*accepted(task), status(0, "Off-screen"), sounds])
    pull(workspace, server)
    assert decisions(workspace) == ["off_screen"] * 3
    assert {row.off_screen_category for row in workspace.rows(Review)} == {"lion"}


def test_as_before_takes_a_rejection_for_what_is_of_the_whole_clip(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: dict[str, Any]
) -> None:
    why = reason(0, "Background music")
    fake.annotate(task, [*accepted(task), status(0, "Reject"), why])
    pull(workspace, server)
    assert decisions(workspace) == ["rejected"] * 3
    assert {tuple(row.reject_reasons) for row in workspace.rows(Review)} == {("Background music",)}


@pytest.mark.parametrize("why", [["Blurred"], ["Background music", "Blurred"], []])
def test_a_rejection_of_one_picture_is_not_carried_and_the_next_is_to_mend(
    workspace: Workspace,
    server: LabelStudio,
    fake: FakeLabelStudio,
    task: dict[str, Any],
    why: list[str],
) -> None:
    reasons = [reason(0, *why)] if why else []
    fake.annotate(task, [*accepted(task), status(0, "Reject"), *reasons])
    found = pull(workspace, server)
    assert (found.new, [one for one, _ in found.bad]) == (1, NAMES[1:])
    assert "nothing said before holds for it; set 7, 8 or 9" in found.bad[0][1]


def test_what_was_said_of_a_later_picture_stands_and_is_what_is_before_the_next(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: dict[str, Any]
) -> None:
    result = [item for item in accepted(task) if item["id"] != "status-2"]
    off = {**choice("off_screen_category", "lion", region="o"), "item_index": 1}
    fake.annotate(task, [*result, status(0, "Visible"), status(1, "Off-screen"), off])
    pull(workspace, server)
    assert decisions(workspace) == ["labelled", "off_screen", "off_screen"]


def test_a_picture_after_one_that_nobody_said_is_to_mend_with_it(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: dict[str, Any]
) -> None:
    fake.annotate(task, accepted(task))
    found = pull(workspace, server)
    assert (found.new, [one for one, _ in found.bad]) == (0, NAMES)


def test_a_mark_takes_category_and_scenario_to_the_same_thing_later(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: dict[str, Any]
) -> None:
    result = rescored(relabelled(accepted(task), 1, "cat"), 1, "Multi-entity")
    answer = fake.annotate(task, [*result, status(0, "Visible"), mark(1, "From here on")])
    assert pull(workspace, server).bad == []
    found = {row.frame_id: row.instances[0] for row in workspace.rows(Review)}
    assert [found[one].category for one in NAMES] == ["dog", "cat", "cat"]
    assert [found[one].scenario for one in NAMES] == [
        "Single-sound",
        "Multi-entity",
        "Multi-entity",
    ]
    fake.edit(task, answer, result=[*result, status(0, "Visible")])
    assert pull(workspace, server).edited == 3
    assert categories(workspace) == dict(zip(NAMES, ["dog", "cat", "dog"], strict=True))


def test_a_category_that_was_typed_goes_along_with_its_text(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: dict[str, Any]
) -> None:
    typed = {**choice("category_text", "wolf", region="p_10", key="text"), "item_index": 0}
    result = [*relabelled(accepted(task), 0, "Other"), typed]
    fake.annotate(task, [*result, status(0, "Visible"), mark(0, "From here on")])
    assert pull(workspace, server).bad == []
    assert categories(workspace) == dict.fromkeys(NAMES, "wolf")


def test_what_was_changed_in_a_later_picture_stands_each_for_itself(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: dict[str, Any]
) -> None:
    result = rescored(relabelled(accepted(task), 0, "cat"), 0, "Multi-entity")
    # The plain label says the category again; the scenario of the last picture was changed.
    result = rescored(relabelled(result, 1, "dog"), 2, "Mixed-sound")
    fake.annotate(task, [*result, status(0, "Visible"), mark(0, "From here on")])
    pull(workspace, server)
    found = {row.frame_id: row.instances[0] for row in workspace.rows(Review)}
    assert [found[one].category for one in NAMES] == ["cat", "dog", "cat"]
    assert [found[one].scenario for one in NAMES] == [
        "Multi-entity",
        "Multi-entity",
        "Mixed-sound",
    ]


def test_a_silent_thing_is_out_of_its_picture_and_those_after_it(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    rows = [_of_track(row, 5) for row in workspace.rows(Proposal)]
    bark = {"bbox": FAR, "track_id": 6}
    others = [proposal(f"p_b{at}", frame_id=name(at), **bark) for at in (10, 11, 12)]
    propose(workspace, [*rows, *others])
    push(workspace, server, task="clip")
    task = fake.of_clip(*NAMES)
    fake.annotate(task, [*accepted(task), status(0, "Visible"), mark(1, "Silent from here on")])
    assert pull(workspace, server).bad == []
    found = by_frame(workspace)
    kept = [[one.proposal_id for one in found[name].instances] for name in NAMES]
    assert kept == [["p_10", "p_b10"], ["p_b11"], ["p_b12"]]
    assert found[name(12)].shown == ["p_12", "p_b12"], "it was shown and taken out"


@pytest.mark.parametrize("how", ["moved", "category", "scenario"])
def test_a_box_somebody_changed_later_is_not_silent(
    workspace: Workspace,
    server: LabelStudio,
    fake: FakeLabelStudio,
    task: dict[str, Any],
    how: str,
) -> None:
    result = accepted(task)
    if how == "category":
        result = relabelled(result, 1, "cat")
    elif how == "scenario":
        result = rescored(result, 1, "Mixed-sound")
    else:
        (box,) = [one for one in result if one["id"] == "p_11" and one["from_name"] == "category"]
        box["value"], box["origin"] = {**box["value"], "x": 5.0}, "prediction-changed"
    fake.annotate(task, [*result, status(0, "Visible"), mark(0, "Silent from here on")])
    found = pull(workspace, server)
    assert [one for one, _ in found.bad] == [name(10), name(12)], "visible, and without a box"
    assert len(by_frame(workspace)[name(11)].instances) == 1


def test_a_mark_on_a_drawn_box_is_to_mend_as_no_box_follows_it(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: dict[str, Any]
) -> None:
    place = {"x": 60.0, "y": 60.0, "width": 20.0, "height": 20.0}
    drawn = [rectangle("new", place, "cat", origin="manual"), scenario("new")]
    marked = [*drawn, choice("onward", "From here on", region="new")]
    more = [{**item, "item_index": 0} for item in marked]
    fake.annotate(task, [*accepted(task), status(0, "Visible"), *more])
    found = pull(workspace, server)
    assert (found.new, [one for one, _ in found.bad]) == (2, [name(10)])
    assert "no box of a later picture follows it" in found.bad[0][1]


def test_a_drawn_box_with_a_carried_label_is_of_its_category(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: dict[str, Any]
) -> None:
    place = {"x": 60.0, "y": 60.0, "width": 20.0, "height": 20.0}
    drawn = [rectangle("new", place, carried_label("dog"), origin="manual"), scenario("new")]
    more = [{**item, "item_index": 2} for item in drawn]
    fake.annotate(task, [*accepted(task), status(0, "Visible"), *more])
    assert pull(workspace, server).bad == []
    assert [one.category for one in by_frame(workspace)[name(12)].instances] == ["dog", "dog"]


def test_a_mark_holds_for_what_was_shown_whatever_is_proposed_by_now(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: dict[str, Any]
) -> None:
    result = relabelled(accepted(task), 0, "cat")
    fake.annotate(task, [*result, status(0, "Visible"), mark(0, "From here on")])
    detect(workspace, {10: OLD, 11: FAR, 12: OLD})  # in none of these a thing is known
    assert pull(workspace, server).bad == []
    assert categories(workspace) == dict.fromkeys(NAMES, "cat")
    origins = {row.frame_id: row.instances[0].origin for row in workspace.rows(Review)}
    assert set(origins.values()) == {"added"}


def test_answers_about_a_video_taken_down_meanwhile_are_read_and_it_is_not_asked_about_again(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: dict[str, Any]
) -> None:
    fake.annotate(task, [*accepted(task), status(0, "Visible")])
    record_takedown(workspace.storage, video().video_id, "asked for")
    workspace.storage.path(video().path).unlink()
    found = pull(workspace, server)
    assert (found.new, found.bad) == (3, [])
    assert push(workspace, server, task="clip").frames == 0


@pytest.mark.parametrize("odd", [..., None, "dog", [], {}, {"rectanglelabels": "dog"}])
@pytest.mark.parametrize("marked", [False, True])
def test_a_region_of_another_shape_is_to_mend_and_the_other_pictures_come_in(
    workspace: Workspace,
    server: LabelStudio,
    fake: FakeLabelStudio,
    task: dict[str, Any],
    odd: object,
    marked: bool,
) -> None:
    result = [
        {**item, "value": odd}
        if (item["from_name"], item["item_index"]) == ("category", 1)
        else item
        for item in accepted(task)
    ]
    result = [{key: item[key] for key in item if item[key] is not ...} for item in result]
    said = [status(0, "Visible"), *([mark(0, "From here on")] if marked else [])]
    fake.annotate(task, [*result, *said])
    found = pull(workspace, server)
    assert [frame for frame, _ in found.bad] == [name(11)]
    assert set(by_frame(workspace)) == {name(10), name(12)}


def test_a_task_whose_things_are_not_as_pushed_is_to_mend(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: dict[str, Any]
) -> None:
    task["data"]["pages"][1]["things"] = {"p_11": {"thing": "one"}}
    fake.annotate(task, [*accepted(task), status(0, "Visible")])
    found = pull(workspace, server)
    assert [one for one, _ in found.bad] == [name(11)]
    assert "delete the task and push again" in found.bad[0][1]


def test_a_picture_sent_back_by_the_masks_shows_what_was_carried_to_it(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: dict[str, Any]
) -> None:
    result = relabelled(accepted(task), 0, "cat")
    fake.annotate(task, [*result, status(0, "Visible"), mark(0, "From here on")])
    pull(workspace, server)
    segment(workspace)
    push(workspace, server, "masks")
    for index in (10, 12):
        mask = fake.of_frame(name(index), project=2)
        fake.annotate(mask, painted(mask))
    back = [choice("mask_status", "Back to boxes")]
    fake.annotate(fake.of_frame(name(11), project=2), back)
    pull(workspace, server, "masks")
    assert reopen_boxes(workspace, server).frames == [name(11)]
    alone = fake.of_clip(name(11))
    shown = {item["from_name"]: item["value"] for item in accepted(alone)}
    assert shown["category"]["rectanglelabels"] == ["cat"]
    assert {"status", "onward"}.isdisjoint(shown)
    fake.annotate(alone, [*accepted(alone), status(0, "Visible")])
    assert pull(workspace, server).bad == []
    assert categories(workspace) == dict.fromkeys(NAMES, "cat")
