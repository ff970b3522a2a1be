"""Agreement adds up, and disputes are found."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling.quality.agreement import Agreement, agreement
from labeling.quality.matching import compare, match
from pipeline.records import rle
from pipeline.records.boxes import iou
from pipeline.records.schema import Review
from tests.labeling.opinions import FAR, LEFT, RIGHT, answer, box, off
from tests.rows import gone

places = st.integers(0, 60).map(float)
boxes = st.lists(st.tuples(places, places), max_size=4).map(
    lambda corners: [[x, y, 30.0, 30.0] for x, y in corners]
)


def best_by_trying(first: list[list[float]], second: list[list[float]], bound: float) -> float:
    """The largest sum of IoU of any one-to-one pairing: every one is tried."""
    short, long = sorted((first, second), key=len)
    return max(
        sum(
            overlap
            for mine, theirs in zip(short, chosen, strict=True)
            if (overlap := iou(mine, theirs)) >= bound
        )
        for chosen in itertools.permutations(long, len(short))
    )


@given(boxes, boxes, st.sampled_from([0.3, 0.5, 0.9]))
def test_no_other_pairing_overlaps_more(
    first: list[list[float]], second: list[list[float]], bound: float
) -> None:
    found = match(first, second, bound)
    assert sum(overlap for _, _, overlap in found) == pytest.approx(
        best_by_trying(first, second, bound)
    )
    assert all(overlap == pytest.approx(iou(first[a], second[b])) for a, b, overlap in found)
    assert all(overlap >= bound for _, _, overlap in found)
    assert len({a for a, _, _ in found}) == len({b for _, b, _ in found}) == len(found)


def test_boxes_match_from_the_bound_on_and_not_below() -> None:
    half = [0.0, 0.0, 40.0, 20.0]
    assert match([LEFT], [half], 0.5) == [(0, 0, 0.5)]
    assert match([LEFT], [half], 0.51) == []
    assert match([LEFT], [], 0.5) == match([], [], 0.5) == []


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (answer("1", box(LEFT)), answer("2", box(LEFT)), []),
        (answer("1", box(LEFT)), off("2", "dog"), ["status"]),
        (off("1", "Dog"), off("2", "dog"), []),
        (off("1", "cat"), off("2", "dog"), ["off_screen_category"]),
        (answer("1", box(LEFT), box(RIGHT)), answer("2", box(LEFT)), ["box"]),
        (answer("1", box(LEFT)), answer("2", box(RIGHT)), ["box"]),
        (answer("1", box(LEFT, "cat")), answer("2", box(LEFT)), ["category"]),
        (
            answer("1", box(LEFT, "cat", "Mixed-sound")),
            answer("2", box(LEFT)),
            ["category", "scenario"],
        ),
        (
            answer("1", decision="rejected", reject_reasons=["Blurred"]),
            answer("2", decision="rejected", reject_reasons=["Other reason"]),
            [],
        ),
    ],
)
def test_what_two_people_differ_on_is_named(
    first: Review, second: Review, expected: list[str]
) -> None:
    assert compare(first, second, 0.5).disputes() == expected
    assert compare(second, first, 0.5).disputes() == expected
    frames = agreement([first, second], 0.5).disputed
    assert [list(one.about) for one in frames] == ([sorted(expected)] if expected else [])


def story() -> list[Review]:
    """Two people on four frames."""
    return [
        answer("1", box(LEFT), box(RIGHT, "cat"), frame="a"),
        answer("2", box(LEFT), box(RIGHT, "dog"), frame="a"),
        answer("1", box(LEFT, "cat", "Mixed-sound"), frame="b"),
        answer("2", box([0.0, 0.0, 40.0, 20.0], "cat"), box(FAR), frame="b"),
        answer("1", box(LEFT), frame="c"),
        off("2", "dog", frame="c"),
        off("1", "dog", frame="d"),
        off("2", "cat", frame="d"),
        answer("1", box(LEFT), frame="alone"),
    ]


def test_frames_boxes_and_answers_add_up() -> None:
    found = agreement(story(), 0.5).as_dict()
    assert found["frames"] == found["by_pair"]["1 / 2"]["frames"] == 4
    whole = found["all"]
    assert whole == found["by_pair"]["1 / 2"]
    # Status: visible-visible twice, visible-off, off-off: p_o 3/4, p_e (3/4)(2/4) + (1/4)(2/4).
    assert whole["status"] == {"n": 4, "agreed": 3, "kappa": pytest.approx(0.5)}
    assert whole["off_screen_category"] == {"n": 1, "agreed": 0, "kappa": 0.0}
    assert whole["boxes"] == {
        "matched": 3,
        "only_first": 0,
        "only_second": 1,
        "f1": pytest.approx(6 / 7),
        "mean_iou": pytest.approx((1 + 1 + 0.5) / 3),
    }
    # dog-dog, cat-dog, cat-cat: p_o 2/3, p_e (1/3)(2/3) + (2/3)(1/3) = 4/9.
    assert whole["category"] == {"n": 3, "agreed": 2, "kappa": pytest.approx(0.4)}
    assert whole["scenario"]["agreed"] == 2


def test_categories_are_counted_by_what_each_side_gave() -> None:
    found = agreement(story(), 0.5).as_dict()["by_category"]
    dog, cat = found["dog"], found["cat"]
    assert (dog["first"], dog["second"], dog["both"], dog["mean_iou"]) == (1, 3, 1, 1.0)
    assert (cat["first"], cat["second"], cat["both"], cat["mean_iou"]) == (2, 1, 1, 0.5)
    assert cat["f1"] == pytest.approx(2 / 3)
    assert dog["kappa"] == cat["kappa"], "with two categories this or not is the same question"


def test_three_people_are_compared_two_by_two_and_each_with_the_others() -> None:
    rows = [answer("1", box(LEFT)), answer("2", box(LEFT)), answer("3", box(RIGHT))]
    found = agreement(rows, 0.5).as_dict()
    assert sorted(found["by_pair"]) == ["1 / 2", "1 / 3", "2 / 3"]
    assert found["frames"] == 1
    assert found["all"]["frames"] == 3
    third = found["by_annotator"]["3"]["boxes"]
    assert (third["matched"], third["only_first"], third["only_second"]) == (0, 2, 2)
    assert found["by_annotator"]["1"]["boxes"]["matched"] == 1


def test_the_order_of_the_rows_changes_nothing() -> None:
    assert agreement(story()[::-1], 0.5).as_dict() == agreement(story(), 0.5).as_dict()


def test_only_people_count_and_of_each_the_newest_answer_that_stands() -> None:
    ruled = answer("rule:accept", box(RIGHT), verified=False)
    first = answer("1", box(LEFT))
    edited = answer("1", box(RIGHT), updated_at="2026-01-02T00:00:00+00:00", review_id="r_new")
    other = answer("2", box(RIGHT))
    found = agreement([ruled, first, edited, other], 0.5)
    assert found.everyone.f1 == 1.0
    deleted = gone("2", 3, "f2").model_copy(update={"frame_id": "f"})
    assert agreement([ruled, first, edited, other, deleted], 0.5).frames == 0


def test_an_adjudicated_frame_is_no_longer_disputed_and_still_counts_as_disagreement() -> None:
    rows = [answer("1", box(LEFT)), answer("2", box(RIGHT))]
    assert [one.frame_id for one in agreement(rows, 0.5).disputed] == ["f"]
    adjudicated = answer("3", box(LEFT), purpose="adjudicate")
    found = agreement([*rows, adjudicated], 0.5)
    assert (found.disputed, found.adjudicated, found.frames) == ([], 1, 1)
    assert found.everyone.f1 == 0.0
    assert "3" not in found.by_annotator, "the adjudicator is no party"


def test_gold_frames_score_each_annotator_and_are_not_disputed() -> None:
    known = answer("gold", box(LEFT), box(RIGHT, "cat"), purpose="gold", annotation_id="")
    rows = [known, answer("1", box(LEFT), box(RIGHT, "dog")), answer("2", box(FAR))]
    found = agreement(rows, 0.5)
    gold = found.as_dict()["gold"]
    assert gold["1"]["boxes"]["f1"] == 1.0
    assert gold["1"]["category"]["agreed"] == 1
    assert gold["2"]["boxes"] == {
        "matched": 0,
        "only_first": 1,
        "only_second": 2,
        "f1": 0.0,
        "mean_iou": None,
    }
    assert found.disputed == []
    assert "gold" not in found.by_annotator


def test_masks_are_compared_by_instance_pixel_by_pixel() -> None:
    def mask(columns: int) -> dict[str, Any]:
        drawn = np.zeros((8, 10), bool)
        drawn[:, :columns] = True
        return rle.encode(drawn).model_dump()

    def masks(who: str, columns: int) -> Review:
        painted = {**box(LEFT), "instance_id": "i_both", "rle": mask(columns)}
        other = {**box(LEFT), "instance_id": f"i_{who}", "rle": mask(1)}
        return answer(who, painted, other, kind="masks")

    found = agreement([masks("1", 4), masks("2", 5)], 0.5).as_dict()["all"]["masks"]
    assert found == {
        "status": {"n": 1, "agreed": 1, "kappa": None},
        "compared": 1,
        "mean_iou": pytest.approx(0.8),
    }


def test_the_report_is_markdown_and_says_what_is_undefined() -> None:
    rows = [answer("1", box(LEFT, "a|b")), answer("2", box(LEFT, "a|b"))]
    lines = agreement(rows, 0.5).lines()
    assert lines[0] == "1 frame answered by several people; boxes match from IoU 0.5 on."
    tables = [line for line in lines if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in tables} == {9}, "one width"
    assert any("undefined (100 % of 1)" in line for line in tables)
    disputed = agreement(story(), 0.5).lines()
    assert disputed[-1].startswith("4 frames in dispute (box 1, category 1, off screen category 1")


def test_nothing_compared_is_said_without_a_crash() -> None:
    assert agreement([], 0.5).lines() == [
        "0 frames answered by several people; boxes match from IoU 0.5 on."
    ]
    assert isinstance(agreement([answer("1")], 0.5), Agreement)
