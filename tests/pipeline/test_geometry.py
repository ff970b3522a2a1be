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
