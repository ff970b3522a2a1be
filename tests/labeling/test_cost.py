"""What became of the proposals adds up."""

from __future__ import annotations

from typing import Any

from labeling.quality.cost import cost_report
from pipeline.records.schema import Review
from tests.labeling.labelled_workspace import review
from tests.rows import frame, proposal


def instance(origin: str, name: str | None, bbox: list[float], category: str = "dog") -> Any:
    return {
        "bbox": bbox,
        "category": category,
        "scenario": "Single-sound",
        "origin": origin,
        "proposal_id": name,
    }


def decided(*instances: Any, day: int = 1, **changes: Any) -> Review:
    return review(frame().frame_id, "dog", day, instances=list(instances), **changes)


BOXES = [
    proposal("p_1", bbox=[0.0, 0.0, 10.0, 10.0]),
    proposal("p_2", bbox=[50.0, 0.0, 10.0, 10.0], categories=["cat"]),
    proposal("p_3", bbox=[90.0, 0.0, 10.0, 10.0], audible=False),
    proposal("p_4", frame_id="elsewhere"),
]


def test_kept_moved_removed_and_added_boxes_add_up_to_what_was_shown() -> None:
    found = cost_report(
        [
            decided(
                instance("moved", "p_1", [0.0, 0.0, 10.0, 5.0]),
                instance("added", None, [20.0, 20.0, 5.0, 5.0], "lion"),
            )
        ],
        BOXES,
    ).as_dict()
    motion = found["by_class"]["motion/moving region"]
    assert (motion["shown"], motion["kept"], motion["moved"], motion["removed"]) == (2, 0, 1, 1)
    assert (motion["move_rate"], motion["remove_rate"], motion["mean_iou"]) == (0.5, 0.5, 0.5)
    assert found["by_class"]["drawn"]["added"] == found["by_category"]["lion"]["added"] == 1
    assert found["by_category"]["cat"]["removed"] == 1, "what the sound tagger's guess was"
    assert found["by_day"]["2026-01-01"]["shown"] == 2


def test_only_the_deciding_reviews_of_people_count() -> None:
    old = decided(instance("added", None, [1.0, 1.0, 2.0, 2.0]), lead_time_s=99.0)
    new = decided(instance("kept", "p_1", [0.0, 0.0, 10.0, 10.0]), day=2, lead_time_s=5.0)
    rule = review("elsewhere", "dog", 3, verified=False, annotator="rule:accept")
    known = decided(day=3, verified=True, annotator="gold", purpose="gold", lead_time_s=None)
    found = cost_report([old, new, rule, known], BOXES)
    assert (found.frames, found.answers) == (1, 1)
    assert found.seconds_per_frame == {"7": 5.0, "all": 5.0}
    assert found.as_dict()["by_day"]["2026-01-02"]["accept_rate"] == 0.5
    assert list(found.by_day) == ["2026-01-02"]


def test_an_off_screen_frame_removes_its_proposals_and_a_rejected_one_says_nothing() -> None:
    off = decided(decision="off_screen", off_screen_category="dog")
    assert cost_report([off], BOXES).by_category["cat"].as_dict()["removed"] == 1
    rejected = cost_report([decided(decision="rejected", reject_reasons=["Blurred"])], BOXES)
    assert rejected.decisions == {"rejected": 1}
    assert rejected.by_class == {}


def test_a_frame_that_was_taken_back_is_not_decided() -> None:
    back = decided(decision="back_to_boxes", day=2)
    assert cost_report([decided(), back], BOXES).frames == 0


def test_every_answer_costs_time_and_one_tells_what_became_of_the_boxes() -> None:
    kept = instance("kept", "p_1", [0.0, 0.0, 10.0, 10.0])
    first = decided(kept, day=1, annotator="1", lead_time_s=2.0)
    second = decided(day=2, annotator="2", lead_time_s=4.0, decision="rejected")
    adjudicated = decided(kept, day=3, annotator="3", lead_time_s=9.0, purpose="adjudicate")
    found = cost_report([first, second], BOXES)
    assert (found.frames, found.answers, found.decisions) == (1, 2, {"rejected": 1})
    found = cost_report([first, second, adjudicated], BOXES)
    assert (found.frames, found.answers, found.decisions) == (1, 3, {"labelled": 1})
    assert found.seconds_per_frame == {"1": 2.0, "2": 4.0, "3": 9.0, "all": 4.0}
    days = found.as_dict()["by_day"]
    assert {day: fate["seconds_per_answer"] for day, fate in days.items()} == {
        "2026-01-01": 2.0,
        "2026-01-02": 4.0,
        "2026-01-03": 9.0,
    }
    assert [day for day, fate in days.items() if fate["kept"]] == ["2026-01-03"]


def test_masks_have_a_time_of_their_own() -> None:
    masks = review("f", "dog", 1, kind="masks", lead_time_s=20.0)
    found = cost_report([masks], BOXES)
    assert (found.frames, found.seconds_per_mask_frame) == (0, {"7": 20.0, "all": 20.0})
    assert found.seconds_per_frame == {}


def test_after_another_detector_the_old_boxes_keep_their_fate_and_the_new_ones_have_none() -> None:
    kept = {**instance("kept", "p_old", [0.0, 0.0, 10.0, 10.0]), "proposal_iou": 1.0}
    moved = {**instance("moved", "p_gone", [0.0, 0.0, 10.0, 10.0]), "proposal_iou": 0.6}
    found = cost_report([decided(kept, moved, shown=["p_old", "p_gone", "p_removed"])], BOXES)
    old = found.as_dict()["by_class"]
    assert list(old) == ["no longer proposed"], "nobody was shown the new boxes"
    fate = old["no longer proposed"]
    assert (fate["kept"], fate["moved"], fate["removed"]) == (1, 1, 1)
    assert (fate["mean_iou"], fate["mean_iou_moved"]) == (0.8, 0.6)


def test_the_rates_add_up_and_the_report_is_markdown() -> None:
    found = cost_report(
        [
            decided(
                instance("moved", "p_1", [0.0, 0.0, 10.0, 5.0]),
                instance("added", None, [20.0, 20.0, 5.0, 5.0]),
            )
        ],
        BOXES,
    )
    (day,) = found.as_dict()["by_day"].values()
    assert day["accept_rate"] + day["move_rate"] + day["remove_rate"] == 1
    assert day["add_rate"] == 0.5
    lines = found.lines()
    assert lines[0] == "1 frame decided by people: 1 labelled."
    (row,) = [line for line in lines if line.startswith("| 2026-01-01")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == [
        "2026-01-01",
        "2",
        "0 % (0)",
        "50 % (1)",
        "50 % (1)",
        "50 % (1)",
        "0.50",
        "0.50",
        "3.0",
    ]


def test_nothing_decided_is_said_without_a_crash() -> None:
    assert cost_report([], []).lines()[0] == "0 frames decided by people: none."
