"""Which reviews count, and which outlive a change of the detector."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records.reviews import (
    DELETED,
    SKIPPED,
    counting_reviews,
    deciding,
    holds,
    is_withdrawn,
)
from pipeline.records.schema import Review
from tests.rows import KEPT, frame, gone, proposal, said


def rule(name: str = "rule:accept") -> Review:
    return said(name, 1, annotation_id="", updated_at="", verified=False, review_id=f"r_{name}")


def test_each_persons_newest_answer_counts_and_the_newest_of_all_decides() -> None:
    rows = [said("1", 1), said("1", 3), said("2", 2)]
    assert counting_reviews(rows, "boxes") == [rows[1], rows[2]]
    assert deciding(rows) == rows[1]


def test_taking_back_the_newest_of_several_annotations_brings_the_older_one_into_force() -> None:
    older, newer = said("1", 1), said("2", 2)
    for reason in (DELETED, SKIPPED):
        assert deciding([older, newer, gone("2", 3, reason=reason)]) == older
    mine = said("1", 2, "second")
    assert deciding([older, mine, gone("1", 3, "second")]) == older


def test_when_all_is_taken_back_the_frame_is_open_whatever_a_rule_had_said() -> None:
    rows = [rule(), said("1", 1), said("2", 2), gone("2", 3), gone("1", 4)]
    (last,) = counting_reviews(rows, "boxes")
    assert is_withdrawn(last)
    assert last == rows[-1]


def test_an_answer_given_again_after_it_was_taken_back_counts() -> None:
    rows = [said("1", 1), gone("1", 2), said("1", 3)]
    assert counting_reviews(rows, "boxes") == [rows[-1]]


def test_an_adjudication_settles_what_others_say_before_and_after() -> None:
    settled = said("3", 3, purpose="adjudicate")
    rows = [said("1", 1), said("2", 2), settled, said("2", 4)]
    assert counting_reviews(rows, "boxes") == [settled]
    assert counting_reviews([*rows, gone("3", 5)], "boxes") == [rows[0], rows[3]], (
        "unless it is deleted"
    )


def test_of_two_adjudications_the_newer_one_counts() -> None:
    rows = [said("3", 3, purpose="adjudicate"), said("1", 4, purpose="adjudicate")]
    assert counting_reviews(rows, "boxes") == [rows[1]]


def test_a_gold_answer_decides_its_frame_alone_so_that_it_is_there_once() -> None:
    known = said("gold", 1, purpose="gold", updated_at="", annotation_id="")
    rows = [known, said("1", 2), said("2", 3), said("3", 4, purpose="adjudicate")]
    for order in itertools.permutations(rows):
        assert counting_reviews(order, "boxes") == [known]


def test_boxes_sent_back_from_the_masks_count_until_there_are_newer_ones() -> None:
    settled = said("3", 2, purpose="adjudicate")
    back = said("4", 3, "mask", kind="masks", decision="back_to_boxes", instances=[])
    assert deciding([said("1", 1), settled, back]) == settled
    again = said("1", 4, "again")
    assert counting_reviews([said("2", 1), settled, back, again], "boxes") == [again]
    no_more = gone("4", 5, "mask").model_copy(update={"kind": "masks"})
    assert counting_reviews([said("2", 1), settled, back, again, no_more], "boxes") == [settled]


def test_the_word_that_sent_a_frame_back_counts_until_there_are_newer_boxes() -> None:
    masks = [
        said("3", 1, "m1", kind="masks"),
        said("1", 3, "m2", kind="masks", decision="back_to_boxes", instances=[]),
    ]
    sent_back = [said("1", 2), *masks]
    assert deciding(sent_back, "masks") == masks[1]
    assert deciding([*sent_back, gone("1", 4)], "masks") == masks[1], "not done again yet"
    again = [*sent_back, gone("1", 4), said("2", 5)]
    assert counting_reviews(again, "masks") == masks[:1]
    assert counting_reviews([*sent_back, rule()], "masks") == sorted(masks, key=lambda row: row.id)


def test_where_no_person_spoke_the_newest_of_the_rules_counts() -> None:
    assert counting_reviews([rule("rule:accept"), rule("simulated:x")], "boxes") == [
        rule("simulated:x")
    ]
    assert counting_reviews([rule(), said("1", 1)], "boxes") == [said("1", 1)]
    assert counting_reviews([], "boxes") == []
    assert deciding([]) is None


rows_of_people = st.lists(
    st.tuples(
        st.sampled_from("12"),
        st.sampled_from("ab"),
        st.sampled_from(["said", "gone"]),
        st.sampled_from(["label", "adjudicate"]),
    ),
    max_size=7,
)


@given(rows_of_people)
def test_the_rule_agrees_with_reading_the_rows_one_after_another(story: list[Any]) -> None:
    """A slow second definition: walk through time and keep what is in force."""
    rows, now = [], dict[tuple[str, str], Review]()
    for day, (who, annotation, what, purpose) in enumerate(story, 1):
        make = gone if what == "gone" else said
        row = make(who, day, annotation).model_copy(update={"purpose": purpose})
        rows.append(row)
        now.pop((who, annotation), None)
        if what == "said":
            now[who, annotation] = row
    in_force = list(now.values())
    if settled := [row for row in in_force if row.purpose == "adjudicate"]:
        expected = settled[-1:]
    else:
        expected = [
            [row for row in in_force if row.annotator == who][-1]
            for who in {row.annotator for row in in_force}
        ]
    found = counting_reviews(rows, "boxes")
    if expected:
        assert sorted(row.id for row in found) == sorted(row.id for row in expected)
    else:
        assert all(is_withdrawn(row) for row in found)


def moved(bbox: list[float], origin: str) -> Review:
    return said("1", 1, instances=[{**KEPT, "bbox": bbox, "origin": origin}])


@pytest.mark.parametrize(
    ("bbox", "origin", "proposed", "expected"),
    [
        ([10.0, 10.0, 40.0, 40.0], "kept", [10.0, 10.0, 40.0, 40.0], True),
        ([10.0, 10.0, 40.0, 40.0], "kept", [12.0, 10.0, 40.0, 40.0], True),  # IoU 38 / 42
        ([10.0, 10.0, 40.0, 40.0], "kept", [30.0, 10.0, 40.0, 40.0], False),  # IoU 20 / 60
        ([10.0, 10.0, 40.0, 40.0], "moved", [30.0, 10.0, 40.0, 40.0], True),
        ([10.0, 10.0, 40.0, 40.0], "added", [30.0, 10.0, 40.0, 40.0], True),
        ([300.0, 10.0, 40.0, 40.0], "added", [30.0, 10.0, 40.0, 40.0], False),  # half outside
    ],
)
def test_a_review_holds_while_frame_and_geometry_hold(
    bbox: list[float], origin: str, proposed: list[float], expected: bool
) -> None:
    assert holds(moved(bbox, origin), frame(), [proposal("p_9", bbox=proposed)], 0.8) is expected


def test_a_kept_box_without_a_proposal_left_no_longer_holds_but_off_screen_does() -> None:
    assert not holds(said("1", 1), frame(), [], 0.8)
    off = said("1", 1, decision="off_screen", off_screen_category="dog", instances=[])
    assert holds(off, frame(), [], 0.8)
