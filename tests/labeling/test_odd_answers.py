"""Whatever one answer holds, it is what a person saw or it is named, and the others come in."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labeling.label_studio import brush
from labeling.label_studio.client import LabelServerError, LabelStudio
from labeling.label_studio.shapes import Question
from labeling.projects.box_project import BOXES
from labeling.projects.box_results import read_boxes
from labeling.projects.connect import open_project
from labeling.projects.mask_project import read_masks
from labeling.sync.reopen import reopen_boxes
from pipeline.errors import InputError
from pipeline.records.schema import Instance, Review
from pipeline.workspace.workspace import Workspace
from tests.labeling.exchange import VISIBLE, accepted, choice, kept, pull, push, scenario
from tests.labeling.fake_label_studio import FakeLabelStudio
from tests.labeling.labelled_workspace import VOCABULARY, categories, fill, name, pixels, segment
from tests.labeling.odd_json import mutated
from tests.rows import frame, proposal

UNREADABLE = "unreadable_answer"

PLACE = {"x": 3.125, "y": 100 / 9, "width": 31.25, "height": 400 / 9}
"""Of the box 10, 20, 100, 80 in percent of 320x180."""


def box(item: dict[str, Any] | None = None, **value: Any) -> dict[str, Any]:
    made: dict[str, Any] = kept()[1]
    return {**made, **(item or {}), "value": {**made["value"], **value}}


def whole(*result: Any, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "id": 1,
        "created_at": "2026-11-21T01:00:00.000000Z",
        "updated_at": "2026-11-21T01:02:03.000000Z",
        "completed_by": 7,
        "lead_time": 4.0,
        "was_cancelled": False,
        "result": list(result),
    }
    return values | changes


def read(answer: object) -> Review:
    there = proposal("p_10", bbox=[10.0, 20.0, 100.0, 80.0])
    return read_boxes(answer, frame(), [there], VOCABULARY, "k/1")


def refused(answer: object) -> InputError:
    with pytest.raises(InputError) as caught:
        read(answer)
    assert len(caught.value.detail.splitlines()) == 1
    return caught.value


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ({"rotation": 360}, [10, 20, 100, 80]),
        ({"rotation": -720.0}, [10, 20, 100, 80]),
        ({"rotation": 1e-14}, [10, 20, 100, 80]),
        ({"rotation": 359.99999}, [10, 20, 100, 80]),
        ({"rotation": None}, [10, 20, 100, 80]),
        ({"x": 34.375, "y": 500 / 9, "width": -31.25, "height": -400 / 9}, [10, 20, 100, 80]),
        ({"x": 34.375, "width": -31.25}, [10, 20, 100, 80]),
        ({"x": -5, "y": -3, "width": 40, "height": 120}, [0, 0, 112, 180]),
        ({"x": 110.0, "width": -20.0}, [288, 20, 32, 80]),
    ],
)
def test_a_box_is_the_one_a_person_saw(value: dict[str, Any], seen: list[float]) -> None:
    (found,) = read(whole(VISIBLE, box(**value), scenario("p_10"))).instances
    assert found.bbox == pytest.approx(seen)


@pytest.mark.parametrize("side", ["x", "y", "width", "height", "rotation"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, 1e9, "3.125", True])
def test_a_number_that_is_none_or_of_another_scale_is_no_geometry(side: str, value: Any) -> None:
    said = refused(whole(VISIBLE, box(**{side: value}), scenario("p_10")))
    assert said.kind == ("rotated_box" if (side, value) == ("rotation", 1e9) else UNREADABLE)
    assert "p_10" in said.detail


@pytest.mark.parametrize(
    ("kind", "item"),
    [
        (UNREADABLE, box({"image_rotation": 90})),
        (UNREADABLE, box({"image_rotation": 180.0})),
        (UNREADABLE, box({"image_rotation": -90})),
        (UNREADABLE, box({"image_rotation": math.nan})),
        (UNREADABLE, box({"id": None})),
        (UNREADABLE, box({"id": ["p_10"]})),
        (UNREADABLE, box({"type": "ellipselabels"}, radiusX=3, radiusY=4)),
        (UNREADABLE, box({"type": "polygonlabels"}, points=[[1, 1], [9, 1], [9, 9]])),
        (UNREADABLE, box({"type": "brushlabels"}, rle=[1, 2])),
        (UNREADABLE, {**box(), "value": None}),
        (UNREADABLE, {**box(), "value": [PLACE]}),
        (UNREADABLE, None),
        (UNREADABLE, box(rectanglelabels=[["dog"]])),
        (UNREADABLE, box(rectanglelabels="dog")),
        (UNREADABLE, box(x=312.5, y=1111.1, width=3125.0, height=4444.4)),
        (UNREADABLE, box(x=0, y=0, width=3125.0, height=4444.4)),
        ("other_size", box({"original_width": None})),
        ("other_size", box({"original_width": 180, "original_height": 320})),
        ("rotated_box", box(rotation=296.7)),
        ("rotated_box", box(rotation=180)),
        ("zero_area", box(width=1e-6)),
        ("no_category", box(rectanglelabels=["dog", "cat"])),
    ],
)
def test_a_box_nobody_can_have_seen_so_is_named(kind: str, item: Any) -> None:
    assert refused(whole(VISIBLE, item, scenario("p_10"))).kind == kind


def test_a_region_that_stands_there_twice_is_one_box_when_alike_and_named_when_not() -> None:
    assert len(read(whole(VISIBLE, box(), box(), scenario("p_10"))).instances) == 1
    said = refused(whole(VISIBLE, box(), box(x=50.0), scenario("p_10")))
    assert (said.kind, "twice" in said.detail) == (UNREADABLE, True)


@pytest.mark.parametrize(
    "changes",
    [
        {"result": None},
        {"result": {}},
        {"result": "[]"},
        {"completed_by": {"id": None}},
        {"completed_by": {}},
        {"completed_by": "gold"},
        {"completed_by": [7]},
        {"completed_by": True},
        {"updated_at": None},
        {"updated_at": "yesterday"},
        {"updated_at": "0001-01-01T00:00:00+02:00"},
    ],
)
def test_an_answer_of_another_shape_is_unreadable(changes: dict[str, Any]) -> None:
    assert refused(whole(*kept(), **changes)).kind == UNREADABLE


@pytest.mark.parametrize(
    ("said", "known"),
    [(4, 4.0), (0, 0.0), (None, None), (-3.0, None), (math.nan, None), (1e300, None), ("4", None)],
)
def test_a_lead_time_no_clock_can_have_measured_is_not_known(said: object, known: object) -> None:
    assert read(whole(*kept(), lead_time=said)).lead_time_s == known


@pytest.mark.parametrize(
    ("who", "annotator"), [(7, "7"), ({"id": 7, "email": "a@b"}, "7"), (None, "unknown")]
)
def test_who_answered_is_an_account_or_not_known(who: object, annotator: str) -> None:
    assert read(whole(*kept(), completed_by=who)).annotator == annotator


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("in_tokyo")
def test_a_time_without_a_zone_is_utc_wherever_it_is_read() -> None:
    review = read(whole(*kept(), updated_at="2026-11-21T02:00:00"))
    assert review.updated_at == "2026-11-21T02:00:00.000000+00:00"


def inside(review: Review) -> bool:
    return all(
        all(math.isfinite(side) for side in one.bbox)
        and min(one.bbox[:2]) >= 0
        and min(one.bbox[2:]) > 0
        and one.bbox[0] + one.bbox[2] <= 320 + 1e-9
        and one.bbox[1] + one.bbox[3] <= 180 + 1e-9
        for one in review.instances
    )


@settings(max_examples=400, deadline=None)
@given(mutated(whole(*kept(), {"from_id": "p_10", "to_id": "a", "type": "relation"})))
def test_any_json_is_a_review_inside_the_frame_or_named(answer: dict[str, Any]) -> None:
    with contextlib.suppress(InputError):
        assert inside(read(answer))


@settings(deadline=None)
@given(st.tuples(*[st.floats(-110, 210)] * 4))
def test_any_box_is_inside_the_frame_or_named(sides: tuple[float, ...]) -> None:
    value = dict(zip(PLACE, sides, strict=True))
    with contextlib.suppress(InputError):
        assert inside(read(whole(VISIBLE, box({"id": "drawn"}, **value), scenario("drawn"))))


SOUNDING = Instance(
    instance_id="i_1",
    frame_id=frame().frame_id,
    bbox=[10.0, 20.0, 40.0, 40.0],
    audio_visual_category="dog",
    scenario="Single-sound",
    review_ids=["r"],
    proposal_id="p_1",
    verified=True,
)
PAINTED: dict[str, Any] = {
    "id": "i_1",
    "from_name": "mask",
    "to_name": "frame",
    "type": "brushlabels",
    "original_width": 320,
    "original_height": 180,
    "image_rotation": 0,
    "value": {"format": "rle", "rle": brush.encode(pixels()), "brushlabels": ["1 dog"]},
}


def read_painted(answer: object) -> Review:
    name = SOUNDING.instance_id
    asked = Question(label="1 dog", instance_id=name, mask=None, drawn_by=None)
    return read_masks(answer, frame(), [asked], {name: SOUNDING}, "k/1")


@settings(max_examples=200, deadline=None)
@given(mutated(whole(choice("mask_status", "Masks done"), PAINTED)))
def test_any_json_about_masks_is_a_review_or_named(answer: dict[str, Any]) -> None:
    with contextlib.suppress(InputError):
        review = read_painted(answer)
        assert all(one.rle is not None and one.rle.size == [180, 320] for one in review.instances)


@pytest.mark.parametrize(
    ("kind", "item"),
    [
        (UNREADABLE, {**PAINTED, "image_rotation": 90}),
        (UNREADABLE, {**PAINTED, "type": "rectanglelabels"}),
        (UNREADABLE, {**PAINTED, "value": None}),
        (UNREADABLE, {**PAINTED, "value": {**PAINTED["value"], "rotation": 45}}),
        (UNREADABLE, {**PAINTED, "value": {**PAINTED["value"], "brushlabels": [{}]}}),
        ("other_size", {**PAINTED, "original_width": 10**9, "original_height": 10**9}),
        ("bad_brush", {**PAINTED, "value": {**PAINTED["value"], "rle": None}}),
        ("bad_brush", {**PAINTED, "value": {**PAINTED["value"], "rle": [math.nan]}}),
    ],
)
def test_masks_are_checked_as_boxes_are(kind: str, item: Any) -> None:
    with pytest.raises(InputError) as caught:
        read_painted(whole(choice("mask_status", "Masks done"), item))
    assert caught.value.kind == kind
    assert "delete it and" in caught.value.detail


# Through the whole way


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Eight frames to label."""
    root: Path = tmp_path_factory.mktemp("odd") / "ws"
    Workspace.create(root)
    return fill(Workspace(root, ["label.url='http://x'"]), frames=8)


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_a_pull_names_what_it_cannot_read_and_takes_in_everybody_elses(
    asked: Workspace, data: st.DataObject
) -> None:
    fake = FakeLabelStudio(second=len(asked.rows(Review)))  # so that its project is another one
    frames = [name(index) for index in range(10, 18)]
    with fake.serve() as server:
        open_project(server, asked.config.label.project, BOXES)
        tasks = [fake.add({"frame_id": frame_id}) for frame_id in frames]
        for index, task in enumerate(tasks, 10):
            fake.annotate(task, kept(index))
        for task in tasks[1:]:
            task["annotations"] = [data.draw(mutated(task["annotations"][0]))]
        found = pull(asked, server)
    answered = {
        row.frame_id
        for row in asked.rows(Review)
        if row.annotation_id.startswith(found.project.key)
    }
    named = {frame_id for frame_id, _ in found.bad}
    assert name() in answered
    assert len(answered) + len(named) + found.skipped == len(frames)
    assert all(f"/data?task={fake.of_frame(frame_id)['id']}" in why for frame_id, why in found.bad)
    assert all(inside(row) for row in asked.rows(Review))


@pytest.fixture
def pushed(filled: None, workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio) -> None:
    """Three frames were answered and pulled."""
    push(workspace, server)
    for index in (10, 11, 12):
        fake.annotate(fake.of_frame(name(index)), kept(index))
    assert pull(workspace, server).new == 3


@pytest.mark.usefixtures("pushed")
def test_an_answer_that_nothing_names_takes_no_decision_back(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    (answer,) = fake.of_frame(name())["annotations"]
    for field in ("id", "created_at"):
        was = answer.pop(field)
        found = pull(workspace, server)
        assert (found.taken_back, [frame_id for frame_id, _ in found.bad]) == (0, [name()])
        assert name() in categories(workspace)
        answer[field] = was
        assert pull(workspace, server).bad == []
        assert workspace.ledger("pull").failures() == []


@pytest.mark.usefixtures("pushed")
def test_a_task_without_data_is_none_of_ours_and_the_others_come_in(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    odd, task = fake.of_frame(name()), fake.of_frame(name(11))
    no_data: list[object] = [None, [], {"frame_id": 7}, {"frame_id": "\ud800"}]
    for data in no_data:
        fake.edit(task, task["annotations"][0], lead_time=9.0)
        odd["data"] = data
        found = pull(workspace, server)
        assert (found.edited, len(found.foreign)) == (1, 1)


@pytest.mark.usefixtures("pushed")
def test_a_task_the_server_itself_has_not_whole_is_named(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    good = dict(fake.tasks[2])
    odd: dict[str, object] = {"updated_at": "now", "created_at": None, "annotations": {}}
    for field, value in odd.items():
        fake.tasks[2] = {**good, field: value}
        for act in (pull, push):
            with pytest.raises(LabelServerError, match=rf"/data\?task=2: the task: {field}: "):
                act(workspace, server)


@pytest.mark.usefixtures("pushed")
def test_a_task_whose_data_somebody_changed_is_named(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    task = fake.of_frame(name())
    odd: list[object] = ["p_10", [7], ["\ud800"]]
    for proposals in odd:
        task["data"]["proposals"] = proposals
        fake.edit(task, task["annotations"][0], lead_time=9.0)
        ((frame_id, why),) = pull(workspace, server).bad
        assert (frame_id, "push again" in why) == (name(), True)


@pytest.mark.usefixtures("pushed")
def test_a_server_whose_clock_runs_ahead_hides_no_later_answer(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    fake.of_frame(name())["updated_at"] = "9000-01-01T00:00:00.000000Z"
    pull(workspace, server)
    task = fake.of_frame(name(11))
    fake.edit(task, task["annotations"][0], lead_time=9.0)
    task["updated_at"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    task["annotations"][0]["updated_at"] = task["updated_at"]
    assert pull(workspace, server).edited == 1


@pytest.mark.usefixtures("pushed")
def test_an_odd_answer_beside_boxes_that_were_sent_back_is_named_and_nothing_is_deleted(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    segment(workspace)
    push(workspace, server, "masks")
    fake.annotate(fake.of_frame(name(), project=2), [choice("mask_status", "Back to boxes")])
    pull(workspace, server, "masks")
    boxes = fake.of_frame(name())
    fake.annotate(boxes, [])["updated_at"] = None
    found = reopen_boxes(workspace, server)
    assert [frame_id for frame_id, _ in found.waiting] == [name()]
    assert len(boxes["annotations"]) == 2


@pytest.mark.usefixtures("pushed")
@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_pull_of_masks_names_what_it_cannot_read_and_takes_in_everybody_elses(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, data: st.DataObject
) -> None:
    if not workspace.files("masks"):
        segment(workspace)
        push(workspace, server, "masks")
    tasks = [fake.of_frame(name(index), project=2) for index in (10, 11, 12)]
    for task in tasks:
        task["annotations"] = []
    for task in tasks:
        fake.annotate(task, accepted(task))
    for task in tasks[1:]:
        task["annotations"] = [data.draw(mutated(task["annotations"][0]))]
    found = pull(workspace, server, "masks")
    assert found.new + len(found.bad) + found.skipped == len(tasks)
    assert name() not in {frame_id for frame_id, _ in found.bad}
