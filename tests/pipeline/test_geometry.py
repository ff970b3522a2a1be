from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import boxes as geometry

sizes = st.integers(0, 12)
boxes = st.tuples(st.integers(-4, 20), st.integers(-4, 20), sizes, sizes).map(list)


def test_the_examples_in_the_docstrings_hold() -> None:
    found = doctest.testmod(geometry)
    assert found.attempted > 0
    assert found.failed == 0


def painted(box: list[int]) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    canvas = np.zeros((40, 40), dtype=bool)
    x, y, w, h = box
    canvas[y + 4 : y + 4 + h, x + 4 : x + 4 + w] = True
    return canvas


@given(boxes, boxes)
def test_overlap_of_whole_boxes_is_the_overlap_of_their_pixels(a: list[int], b: list[int]) -> None:
    both, either = painted(a) & painted(b), painted(a) | painted(b)
    expected = both.sum() / either.sum() if either.any() else 0.0
    assert geometry.iou(a, b) == pytest.approx(expected)


def test_overlap_of_empty_lists_is_an_empty_matrix() -> None:
    assert geometry.iou_matrix([], [[0, 0, 1, 1]]).shape == (0, 1)


scored = st.lists(st.tuples(boxes, st.sampled_from([0.1, 0.5, 0.9])), max_size=12)


@given(scored, st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_suppression_keeps_what_no_better_kept_box_covers(
    items: list[tuple[list[int], float]], max_iou: float
) -> None:
    found, scores = [box for box, _ in items], [score for _, score in items]
    kept = geometry.nms(found, scores, max_iou)
    left, expected = list(range(len(items))), []
    while left:  # the definition: take the best, strike what it covers, repeat
        best = max(left, key=lambda place: (scores[place], -place))
        expected.append(best)
        left = [n for n in left if n != best and geometry.iou(found[n], found[best]) <= max_iou]
    assert kept == expected


@given(boxes)
def test_a_clipped_box_is_the_pixels_it_had_inside(box: list[int]) -> None:
    inside = painted(box)[4:14, 4:19]
    clipped = geometry.clip(box, 15, 10)
    pixels = geometry.to_pixels(box, 15, 10)
    if clipped is None:
        assert not inside.any()
        assert pixels is None
        return
    x0, y0, x1, y1 = pixels or (0, 0, 0, 0)
    assert inside[y0:y1, x0:x1].all()
    assert inside.sum() == (x1 - x0) * (y1 - y0) == clipped[2] * clipped[3]
