"""Link the boxes of one thing in a clip's frames: tracks.

Boxes are carried from frame to frame through the pictures between them (``linkers``). A box
continues the track whose last box is carried onto it, one to one, so that the sum of their IoU is
largest (Hungarian assignment); pairs under ``propose.link_iou``, and those of different categories,
are none. A track may miss frames where its thing was not found. A box that continues none begins a
track of its own. Links are kept where they are sure: what is in doubt begins anew, as a thing that
has two tracks costs a look, and two things in one a mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path

import numpy as np

from pipeline.records.schema import Frame, Proposal, track_id
from stages.propose.linking.clip_pictures import read_pictures
from stages.propose.linking.linkers import (
    ClipBoxes,
    Floats,
    Likeness,
    Linker,
    Place,
    may_be_one,
)


def linked(
    boxes: Mapping[str, Sequence[Proposal]],
    frames: Sequence[Frame],
    video: AbstractContextManager[Path],
    linker: Linker,
    min_iou: float,
    beat: Callable[[], None] = lambda: None,
) -> dict[str, int]:
    """Return the track of each box of a clip, by ``proposal_id``.

    Args:
        boxes: by ``frame_id``; frames may be missing.
        frames: of the clip, in any order.
        video: gives the path of its file; asked only where two frames have boxes.
        linker: carries the boxes; opened.
        min_iou: least IoU of a box carried along with the one it meets.
        beat: called for each picture that is looked at.

    Raises:
        InputError: the video is lost or cannot be decoded, or a frame is not in it.
    """
    seen = sorted((one for one in frames if boxes.get(one.frame_id)), key=lambda one: one.time_s)
    rows = [boxes[one.frame_id] for one in seen]
    numbers = [list(range(len(found))) for found in rows]
    if len(seen) > 1:
        with video as path, closing(read_pictures(path, seen, beat)) as pictures:
            carried = linker.carried(ClipBoxes(seen, rows, pictures))
            numbers = tracks([len(found) for found in rows], _of_one(rows, carried), min_iou)
    first: dict[int, str] = {}
    found = {}
    for of_frame, own in zip(rows, numbers, strict=True):
        for row, number in zip(of_frame, own, strict=True):
            found[row.proposal_id] = track_id(first.setdefault(number, row.proposal_id))
    return found


def tracks(counts: Sequence[int], likeness: Likeness, min_iou: float) -> list[list[int]]:
    """Tell apart the tracks of a clip's boxes.

    Args:
        counts: boxes of each frame, in order of time.
        likeness: tells how far the last box of each track, carried to a frame, is each box there.
        min_iou: what is less is no link.

    Returns:
        The track of each box of each frame, from 0 in the order they begin.

    >>> tracks([1, 2], lambda frame, seen: np.array([[0.2, 0.9]]), 0.5)
    [[0], [1, 0]]
    """
    found: list[list[int]] = []
    last: list[Place] = []  # that each track was seen in last
    for frame, count in enumerate(counts):
        of_frame = [-1] * count
        if last:
            for number, box in matched(likeness(frame, last), min_iou):
                of_frame[box] = number
        for box in range(count):
            if of_frame[box] < 0:
                of_frame[box] = len(last)
                last.append((frame, box))
            last[of_frame[box]] = frame, box
        found.append(of_frame)
    return found


def matched(likeness: Floats, least: float) -> list[tuple[int, int]]:
    """Pair rows and columns one to one so that the sum over the pairs is largest.

    Args:
        likeness: of each row and column.
        least: pairs that are less alike are none.

    Returns:
        Row and column of each pair, by rows.

    >>> matched(np.array([[0.9, 0.8], [0.7, 0.1]]), 0.5)
    [(0, 1), (1, 0)]
    """
    worth = np.where(likeness >= least, likeness, 0.0)
    if worth.shape[0] > worth.shape[1]:
        return sorted((row, column) for column, row in matched(likeness.T, least))
    columns = _assigned(-worth)
    return [(row, column) for row, column in enumerate(columns) if worth[row, column] > 0]


def _assigned(costs: Floats) -> list[int]:
    """Return a column for each row, one to one, so that the sum of the costs is least.

    Rows join one by one, each by the cheapest way in which those before it make room (shortest
    augmenting paths: Jonker and Volgenant, Computing 38, 1987). SciPy has the same, and to import
    it takes longer than to link the boxes of several clips.

    Args:
        costs: ``(rows, columns)``, of as many columns as rows or more.
    """
    rows, columns = costs.shape
    of_row, of_column = np.full(rows, -1), np.full(columns, -1)
    row_price, column_price = np.zeros(rows), np.zeros(columns)
    for new in range(rows):
        cheapest, via = np.full(columns, np.inf), np.full(columns, -1)
        reached = np.zeros(columns, bool)
        row, spent = new, 0.0
        while row >= 0:  # as Dijkstra has it, over prices that leave no way a negative cost
            onwards = spent + costs[row] - row_price[row] - column_price
            better = ~reached & (onwards < cheapest)
            cheapest[better], via[better] = onwards[better], row
            column = int(np.where(reached, np.inf, cheapest).argmin())
            spent = float(cheapest[column])
            reached[column] = True
            row = int(of_column[column])
        saved = spent - cheapest[reached]
        column_price[reached] -= saved
        moved = of_column[reached]
        row_price[moved[moved >= 0]] += saved[moved >= 0]
        row_price[new] += spent
        while row != new:
            row = int(via[column])
            of_column[column] = row
            of_row[row], column = column, int(of_row[row])
    return [int(column) for column in of_row]


def _of_one(rows: Sequence[Sequence[Proposal]], carried: Likeness) -> Likeness:
    """Return a likeness that is 0 of boxes which cannot show one thing."""

    def likeness(frame: int, seen: Sequence[Place]) -> Floats:
        possible = [[may_be_one(rows[f][box], here) for here in rows[frame]] for f, box in seen]
        return np.where(possible, carried(frame, seen), 0.0)

    return likeness
