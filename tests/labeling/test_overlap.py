"""Who is asked again, and who is not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling.review.overlap import EVERYBODY, OverlapPlan, is_sampled
from pipeline.config import LabelConfig
from pipeline.records.schema import Frame, Proposal, Review
from tests.rows import KEPT, frame, gone, proposal, said

NAME = frame().frame_id
SHOWN = [proposal()]


def answered(who: str = "1", day: int = 1, **changes: Any) -> Review:
    return said(who, day, f"a{who}", frame_id=NAME, **changes)


def plan(
    reviews: list[Review],
    proposals: list[Proposal] = SHOWN,
    frames: list[Frame] | None = None,
    **config: Any,
) -> OverlapPlan:
    return OverlapPlan(
        [frame()] if frames is None else frames, proposals, reviews, LabelConfig(**config)
    )


names = st.lists(st.text("abcdef0123456789", min_size=1, max_size=12), unique=True, max_size=30)


@given(names, st.integers(0, 3), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_fraction_contains_a_smaller_one_whatever_the_order(
    frames: list[str], seed: int, one: float, other: float
) -> None:
    small, large = sorted((one, other))
    few = {name for name in frames if is_sampled(name, small, seed)}
    many = {name for name in reversed(frames) if is_sampled(name, large, seed)}
    assert few <= many
    assert {name for name in frames if is_sampled(name, 1.0, seed)} == set(frames)
    assert not any(is_sampled(name, 0.0, seed) for name in frames)


def test_the_fraction_is_met_and_another_seed_takes_other_frames() -> None:
    frames = [f"v_{number:05d}" for number in range(20_000)]
    taken = [{name for name in frames if is_sampled(name, 0.1, seed)} for seed in (0, 1)]
    # Three standard deviations of a draw of 20,000 with probability 0.1 are 127.
    assert all(abs(len(found) - 2000) < 130 for found in taken)
    assert abs(len(taken[0] & taken[1]) - 200) < 45


def test_a_frame_is_answered_once_and_a_sampled_one_by_several() -> None:
    assert plan([]).missing == {NAME: 1}
    assert plan([answered()]).missing == {NAME: 0}
    assert plan([answered()], overlap=2, share=0.0).missing == {NAME: 0}
    assert plan([answered()], overlap=2, share=1.0).missing == {NAME: 1}
    assert plan([answered("1"), answered("2")], overlap=2, share=1.0).missing == {NAME: 0}
    assert plan([answered("1"), answered("1", 2)], overlap=2, share=1.0).missing == {NAME: 1}


def test_what_a_rule_said_or_a_person_took_back_answers_nothing() -> None:
    rule = answered("rule:accept", verified=False)
    back = gone("1", 2, "a1").model_copy(update={"frame_id": NAME})
    assert plan([rule, answered(), back]).missing == {NAME: 1}


def test_an_adjudicated_frame_needs_no_more_answers() -> None:
    adjudicated = answered("3", purpose="adjudicate")
    assert plan([answered(), adjudicated], overlap=5, share=1.0).missing == {NAME: 0}


def test_a_gold_frame_is_open_for_everybody_whoever_answered_it() -> None:
    known = answered("gold", purpose="gold", annotation_id="", updated_at="")
    found = plan([known, answered("1"), answered("2")])
    assert found.gold == {NAME}
    assert found.missing[NAME] > 900
    assert found.task_overlap(NAME, [1, 2]) == EVERYBODY


def test_boxes_that_were_sent_back_are_asked_again_until_they_are_answered() -> None:
    back = said("2", 2, "m", kind="masks", decision="back_to_boxes", frame_id=NAME, instances=[])
    assert plan([answered(), back]).missing == {NAME: 1}
    assert plan([answered(), back, answered("1", 3)]).missing == {NAME: 0}


def test_an_answer_whose_geometry_no_longer_holds_is_orphaned_and_asked_again() -> None:
    elsewhere = [proposal("p_2", bbox=[200.0, 10.0, 40.0, 40.0], detector="other")]
    near = [proposal("p_2", bbox=[11.0, 10.0, 40.0, 40.0], detector="other")]
    review = answered()
    assert plan([review], near).missing == {NAME: 0}, "another detector, the same thing"
    found = plan([review], elsewhere)
    assert (found.missing, found.orphaned) == ({NAME: 1}, [review])
    drawn = answered(instances=[{**KEPT, "origin": "added", "proposal_id": None}])
    assert plan([drawn], elsewhere).orphaned == []


def test_the_bound_is_a_setting() -> None:
    shifted = [proposal("p_2", bbox=[20.0, 10.0, 40.0, 40.0])]  # IoU 30 / 50
    assert plan([answered()], shifted, reuse_iou=0.6).orphaned == []
    assert len(plan([answered()], shifted, reuse_iou=0.61).orphaned) == 1


def test_answers_of_frames_that_are_gone_are_orphaned_and_ask_nothing() -> None:
    found = plan([answered()], frames=[])
    assert (len(found.orphaned), found.missing) == (1, {})


@pytest.mark.parametrize(
    ("there", "expected"),
    [([], 1), ([1], 2), ([2], 1), ([2, 3], 2), ([1, 2, 3], 3)],
)
def test_a_task_is_opened_for_those_who_are_missing_and_never_closed(
    there: list[int], expected: int
) -> None:
    # Person 1's answer is in the tables; two people are to answer.
    found = plan([answered("1")], overlap=2, share=1.0)
    assert found.task_overlap(NAME, there) == expected
