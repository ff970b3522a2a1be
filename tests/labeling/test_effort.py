"""What answers took, by page, clip and thing, and what one by one would have cost."""

from __future__ import annotations

from typing import Any

import pytest

from labeling.quality.cost import cost_report
from labeling.quality.effort import ENOUGH
from pipeline.records.schema import Proposal, Review
from tests.rows import KEPT, proposal, said


def at(second: float) -> str:
    return f"2026-01-01T00:{int(second) // 60:02d}:{second % 60:06.3f}000+00:00"


def answer(
    frame: str,
    annotation: str,
    seconds: float,
    submitted: float,
    *boxes: dict[str, Any],
    **changes: Any,
) -> Review:
    values: dict[str, Any] = {
        "review_id": f"r_{frame}_{annotation}",
        "frame_id": frame,
        "lead_time_s": seconds,
        "updated_at": at(submitted),
        "instances": list(boxes),
        "shown": [box["proposal_id"] for box in boxes if box["proposal_id"]],
    }
    return said("1", 1, annotation, **(values | changes))


def box(name: str, track: int | None, **changes: Any) -> dict[str, Any]:
    return {**KEPT, "proposal_id": name, "track_id": track, **changes}


def boxes_of(reviews: list[Review]) -> list[Proposal]:
    return [
        proposal(one.proposal_id, frame_id=row.frame_id, track_id=one.track_id)
        for row in reviews
        for one in row.instances
        if one.proposal_id is not None
    ]


def clips(count: int = 3) -> list[Review]:
    """So many clips of three frames, a page turn of 4 s between two; each answer took 12 s."""
    return [
        answer(
            f"v{clip}_0_{frame:04d}",
            f"a{clip}",
            4.0,
            16.0 * (clip + 1),
            box(f"p{clip}{frame}", clip),
        )
        for clip in range(count)
        for frame in range(3)
    ]


def test_a_page_turn_is_an_answer_and_lasts_what_lies_between_two() -> None:
    reviews = clips()
    found = cost_report(reviews, boxes_of(reviews)).effort
    assert (found.page_turns, found.frames, found.clip_answers) == (3, 9, 3)
    assert found.seconds_per_page_turn == pytest.approx(4.0)
    assert found.seconds_per_clip == pytest.approx(12.0)
    assert found.things == 3
    assert found.seconds_per_thing == pytest.approx(12.0)
    assert found.hours * 3600 == pytest.approx(3 * (12 + 4))


def test_without_answers_about_one_frame_the_cost_by_frame_is_a_lower_bound() -> None:
    reviews = clips()
    report = cost_report(reviews, boxes_of(reviews))
    assert report.effort.at_least
    assert report.effort.hours_by_frame * 3600 == pytest.approx(36 + 9 * 4)
    assert any("frame by frame it would have been at least" in line for line in report.lines())


def test_answers_about_one_frame_say_what_a_frame_costs() -> None:
    reviews = clips() + [
        answer(
            f"w{number}_0_0000", f"s{number}", 10.0, 1000.0 + 14.0 * number, box(f"q{number}", None)
        )
        for number in range(ENOUGH)
    ]
    found = cost_report(reviews, boxes_of(reviews)).effort
    assert not found.at_least
    assert found.hours_by_frame * 3600 == pytest.approx((9 + ENOUGH) * (10.0 + 4.0))
    assert found.things == 3 + ENOUGH, "a box in no track is a thing of its own"


def test_a_pause_is_no_page_turn() -> None:
    reviews = clips(2)
    late = [row.model_copy(update={"updated_at": at(600)}) for row in reviews[3:]]
    found = cost_report([*reviews[:3], *late], boxes_of(reviews)).effort
    assert found.seconds_per_page_turn is None


def test_what_was_carried_without_change_is_told_from_what_needed_a_hand() -> None:
    reviews = [
        answer("v_0_0000", "a", 4.0, 20.0, box("p0", 1), box("q0", 2)),
        answer("v_0_0001", "a", 4.0, 20.0, box("p1", 1), box("q1", 2, category="cat")),
        answer("v_0_0002", "a", 4.0, 20.0, box("p2", 1, origin="moved"), shown=["p2", "q2"]),
    ]
    known = [*boxes_of(reviews), proposal("q2", frame_id="v_0_0002", track_id=2)]
    found = cost_report(reviews, known).effort
    assert (found.carried, found.carried_unchanged) == (4, 1)
    assert found.as_dict()["carried_share"] == pytest.approx(0.25)
    assert found.things == 2


def test_nobodys_answers_are_no_effort() -> None:
    found = cost_report([], []).effort
    assert (found.page_turns, found.hours, found.lines()) == (0, 0.0, [])
