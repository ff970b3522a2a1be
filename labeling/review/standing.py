"""Tell which reviews decide their frames, from the columns that say so.

The boxes and masks of a review, most of its bytes, play no part in it. A frame with one review is
decided by that; of the others a few thousand at a time become rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.records.reviews import Kind, deciding
from pipeline.records.schema import Review
from pipeline.workspace.commit import TableFile
from pipeline.workspace.workspace import Workspace

_RULE = (
    *("review_id", "frame_id", "kind", "annotator", "annotation_id", "updated_at"),
    *("decision", "reject_reasons", "verified", "purpose"),
)
"""The columns that ``pipeline.records.reviews`` looks at."""
_TOGETHER = 4096
"""Rows that are in memory as records."""


class Standing:
    """The reviews of some files: which decide, and which speak of frames that are gone.

    It holds about 60 bytes a row.

    Args:
        workspace: where.
        files: of the table ``reviews``.
        frames: the files of the table ``frames``.
        kind: of which kind a review is to decide.
    """

    def __init__(
        self,
        workspace: Workspace,
        files: Sequence[TableFile],
        frames: Sequence[TableFile],
        kind: Kind = "boxes",
    ) -> None:
        table = workspace.arrow("reviews", files, ["review_id", "frame_id", "kind"])
        self._names = table.column("review_id")
        of_frames = table.column("frame_id")
        there = workspace.arrow("frames", frames, ["frame_id"]).column(0)
        self.gone: NDArray[np.bool_] = pc.invert(pc.is_in(of_frames, value_set=there)).to_numpy()
        """True for rows whose frame does not exist."""
        self.decides: NDArray[np.bool_] = pc.equal(table.column("kind"), kind).to_numpy().copy()
        """True for rows that decide."""
        codes = _codes(of_frames)
        several = np.flatnonzero(np.bincount(codes)[codes] > 1)
        if len(several):
            order = several[np.argsort(codes[several], kind="stable")]
            told = workspace.arrow("reviews", files, _RULE)
            self.decides[order] = list(_decide(told, order, codes[order], kind))

    def names(self, first: int, stop: int) -> list[str]:
        """Return the ids of the rows ``first`` to ``stop - 1`` that decide frames that exist."""
        part = slice(first, stop)
        stands = pa.array(self.decides[part] & ~self.gone[part])
        names: list[str] = self._names.slice(first, stop - first).filter(stands).to_pylist()
        return names


def _codes(column: pa.ChunkedArray) -> NDArray[np.int32]:
    """Return a number for each value of a column, the same for the same."""
    codes = column.combine_chunks().dictionary_encode().indices.to_numpy()
    return np.asarray(codes, np.int32)


def _decide(
    told: pa.Table, order: NDArray[np.intp], codes: NDArray[np.int32], kind: Kind
) -> Iterator[bool]:
    """Say of rows, frame by frame, whether they decide."""
    first = 0
    while first < len(order):
        # Whole frames: to where the frame of the last row ends.
        last = codes[min(first + _TOGETHER, len(order)) - 1]
        stop = int(np.searchsorted(codes, last, side="right"))
        rows = [
            Review.model_construct(**row, instances=[], lead_time_s=None, off_screen_category=None)
            for row in told.take(order[first:stop]).to_pylist()
        ]
        for _, group in groupby(rows, lambda row: row.frame_id):
            own = list(group)
            found = deciding(own, kind)
            yield from (found is not None and row.review_id == found.review_id for row in own)
        first = stop
