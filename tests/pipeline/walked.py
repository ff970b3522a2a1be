"""The slow definition of a mask's polygons: a walk from pixel corner to pixel corner."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

Point = tuple[int, int]
EAST, SOUTH, WEST, NORTH = (1, 0), (0, 1), (-1, 0), (0, -1)
TO_THE_RIGHT = {EAST: SOUTH, SOUTH: WEST, WEST: NORTH, NORTH: EAST}


def walked(mask: NDArray[np.bool_]) -> list[list[float]]:
    """Return the outline of each thing and its holes, the largest first.

    An outline begins at its leftmost point, the topmost of these; a hole is walked where a seam
    from its own such point meets what lies to the left.
    """
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    found = []
    for number in range(1, count):
        thing = np.pad(labels == number, 1)[1:, 1:]  # a pixel of nothing to the right and below
        points = with_holes(sorted(loops(thing), key=min), thing)
        closed = [points[-1], *points, points[0]]
        ways = [np.sign(np.subtract(b, a)).tolist() for a, b in pairwise(closed)]
        turns = [point for point, (a, b) in zip(points, pairwise(ways), strict=True) if a != b]
        found.append((-int(thing.sum()), turns))
    return [[float(value) for point in points for value in point] for _, points in sorted(found)]


def loops(thing: NDArray[np.bool_]) -> Iterator[list[Point]]:
    """Yield the walks around a thing, the thing to the right of the way."""
    steps: dict[Point, list[Point]] = {}
    for y, x in np.argwhere(thing).tolist():
        sides = {EAST: (y - 1, x), SOUTH: (y, x + 1), WEST: (y + 1, x), NORTH: (y, x - 1)}
        corners = {EAST: (x, y), SOUTH: (x + 1, y), WEST: (x + 1, y + 1), NORTH: (x, y + 1)}
        for way, beside in sides.items():
            if not thing[beside]:
                steps.setdefault(corners[way], []).append(way)
    while steps:
        start = at = min(steps)
        way = steps[start][0]
        loop = []
        while at in steps:
            choices = steps[at]
            # At a corner of two pixels the way keeps to its own, which is a turn to the right.
            turn = TO_THE_RIGHT[way]
            way = turn if turn in choices else choices[0]
            choices.remove(way)
            if not choices:
                del steps[at]
            loop.append(at)
            at = (at[0] + way[0], at[1] + way[1])
            if at == start and (start not in steps or TO_THE_RIGHT[way] not in steps[start]):
                break
        yield loop


def with_holes(walks: list[list[Point]], thing: NDArray[np.bool_]) -> list[Point]:
    """Join each hole, from the left, by a way there and back."""
    outline, *holes = walks
    for hole in holes:
        x, y = min(hole)
        end = x - 1
        while end > 0 and thing[y - 1, end - 1] and thing[y, end - 1]:
            end -= 1
        place, first = outline.index((end, y)), hole.index((x, y))
        outline[place:place] = [(end, y), *hole[first:], *hole[:first], (x, y)]
    return outline
