from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from pycocotools import mask as coco

from pipeline.errors import InputError
from pipeline.records import rle
from pipeline.records.schema import Rle
from tests.pipeline.walked import walked

Bits = NDArray[np.bool_]

masks = arrays.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def drawn(*rows: str) -> Bits:
    return np.array([[cell == "#" for cell in row] for row in rows])


RING = drawn("####", "#..#", "####")
DIAGONAL = drawn("#.", ".#")
RING_CLOSED_AT_A_CORNER = drawn("###.", "#.#.", "##.#", "..##")
ISLAND = drawn("#####", "#...#", "#.#.#", "#...#", "#####")
TWO_HOLES = drawn("######", "#.##.#", "##..##", "#.#.##", "######")


@given(masks)
def test_run_lengths_give_the_mask_back(mask: Bits) -> None:
    packed = rle.encode(mask)
    assert packed.size == list(mask.shape)
    np.testing.assert_array_equal(rle.decode(packed), mask)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # theirs
@given(masks)
def test_run_lengths_are_those_of_pycocotools(mask: Bits) -> None:
    packed = rle.encode(mask)
    theirs = {"size": packed.size, "counts": packed.counts.encode()}
    np.testing.assert_array_equal(coco.decode(theirs), mask)
    assert rle.area(packed) == mask.sum()


@given(masks)
def test_the_box_of_a_mask_touches_its_outermost_pixels(mask: Bits) -> None:
    x, y, w, h = (int(value) for value in rle.bbox(rle.encode(mask)))
    if not mask.any():
        assert (w, h) == (0, 0)
        return
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    assert (x, y, x + w, y + h) == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)


@pytest.mark.parametrize(
    "bad",
    [
        Rle(size=[2, 2], counts="9"),
        Rle(size=[2, 2], counts="05"),
        Rle(size=[-2, -2], counts="04"),
        Rle(size=[2, 2], counts="0o"),
        Rle(size=[2, 2], counts="04é"),
        Rle(size=[2, 2], counts=""),
    ],
)
def test_runs_that_do_not_fit_their_size_are_refused(bad: Rle) -> None:
    with pytest.raises(InputError, match="bad_rle"):
        rle.decode(bad)
    with pytest.raises(InputError, match="bad_rle"):
        rle.measure(bad)
    with pytest.raises(InputError, match="bad_rle"):
        rle.to_polygons(bad)


@given(masks)
def test_a_mask_is_measured_as_its_pixels_are_counted(mask: Bits) -> None:
    box = [float(side) for side in cv2.boundingRect(mask.astype(np.uint8))]
    assert rle.measure(rle.encode(mask)) == (mask.sum(), box)


def test_runs_of_no_length_change_no_outline() -> None:
    mask = drawn("##.", "##.", "...")
    split = Rle(size=[3, 3], counts="0100113")
    np.testing.assert_array_equal(rle.decode(split), mask)
    assert rle.measure(split) == (4, [0.0, 0.0, 2.0, 2.0])
    assert rle.to_polygons(split) == rle.to_polygons(rle.encode(mask))


@given(masks)
@example(RING)
@example(DIAGONAL)
@example(DIAGONAL[::-1])
@example(RING_CLOSED_AT_A_CORNER)
@example(ISLAND)
@example(TWO_HOLES)
def test_polygons_filled_by_pycocotools_are_the_mask_again(mask: Bits) -> None:
    back = rle.from_polygons(rle.to_polygons(rle.encode(mask)), *mask.shape)
    np.testing.assert_array_equal(rle.decode(back), mask)


@given(masks)
@example(RING_CLOSED_AT_A_CORNER)
@example(ISLAND)
@example(TWO_HOLES)
def test_polygons_are_those_of_a_walk_from_pixel_to_pixel(mask: Bits) -> None:
    assert rle.to_polygons(rle.encode(mask)) == walked(mask)


def test_polygons_of_ragged_masks_are_those_of_a_walk_from_pixel_to_pixel() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        noise = cv2.GaussianBlur(rng.normal(size=(90, 120)), (0, 0), rng.uniform(0.5, 2))
        mask = noise > rng.uniform(-0.2, 0.1)
        assert rle.to_polygons(rle.encode(mask)) == walked(mask)


def even_odd(polygon: list[float], height: int, width: int) -> Bits:
    """The slow definition: a pixel is inside when a ray from its middle crosses an odd number."""
    corners = list(zip(polygon[::2], polygon[1::2], strict=True))
    inside = np.zeros((height, width), dtype=bool)
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        for row in range(height):
            if x0 == x1 and min(y0, y1) < row + 0.5 < max(y0, y1):
                inside[row, int(x0) :] ^= True
    return inside


@given(masks)
@example(RING)
@example(ISLAND)
@example(RING_CLOSED_AT_A_CORNER)
def test_each_polygon_is_one_thing_with_its_holes_left_out(mask: Bits) -> None:
    polygons = rle.to_polygons(rle.encode(mask))
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    assert len(polygons) == count - 1
    things = [even_odd(polygon, *mask.shape) for polygon in polygons]
    expected = {(labels == n).tobytes() for n in range(1, count)}
    assert {thing.tobytes() for thing in things} == expected
    assert [t.sum() for t in things] == sorted((t.sum() for t in things), reverse=True)


@given(masks)
def test_polygons_run_along_pixel_edges_and_turn_at_every_corner(mask: Bits) -> None:
    for polygon in rle.to_polygons(rle.encode(mask)):
        corners = np.array(polygon).reshape(-1, 2)
        steps = corners - np.roll(corners, 1, axis=0)
        assert (np.count_nonzero(steps, axis=1) == 1).all()
        assert corners.min() >= 0
        assert (corners.max(axis=0) <= mask.shape[::-1]).all()


def disc(radius: float, hole: float) -> Bits:
    y, x = np.mgrid[:120, :160]
    distance = np.hypot(x - 80, y - 60)
    inside: Bits = (distance < radius) & (distance >= hole)
    return inside


def test_a_tolerance_saves_corners_and_moves_no_outline_further_than_it_says() -> None:
    mask = disc(50, 20)
    packed = rle.encode(mask)
    exact, simple = rle.to_polygons(packed), rle.to_polygons(packed, tolerance_px=2.0)
    assert len(simple[0]) < len(exact[0]) / 4
    changed = rle.decode(rle.from_polygons(simple, *mask.shape)) ^ mask
    inner, outer = (
        cv2.distanceTransform(side.astype(np.uint8), cv2.DIST_L2, 5) for side in (mask, ~mask)
    )
    assert changed.any()
    assert np.maximum(inner, outer)[changed].max() <= 2.0 + 1.0  # and a pixel, for the grid


@pytest.mark.parametrize("polygon", [[], [0.0, 0.0, 1.0, 1.0], [0.0] * 7])
def test_a_polygon_without_three_corners_is_refused(polygon: list[float]) -> None:
    with pytest.raises(InputError, match="bad_polygon"):
        rle.from_polygons([polygon], 4, 4)


def test_no_polygons_are_an_empty_mask() -> None:
    assert rle.area(rle.from_polygons([], 4, 5)) == 0
