"""Carry boxes along the optical flow, there and back; see ``carrying``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.config import ProposeConfig
from pipeline.records.schema import Proposal
from pipeline.workspace.storage import Storage
from stages.propose.linking.linkers import ClipBoxes, Floats, Likeness, Place, may_be_one

if TYPE_CHECKING:
    from stages.backends.motion.evidence import Grey
    from stages.propose.linking.carrying import Box


class FlowLinker:
    """Carry boxes along the optical flow, there and back; see ``carrying``."""

    name = "flow"
    has_weights = False

    def __init__(self, config: ProposeConfig) -> None:
        """Keep nothing: no setting changes what flow is."""

    def fingerprint(self) -> Mapping[str, str]:
        """Return nothing: the stage's version is this linker's, too."""
        return {}

    def open(self, storage: Storage) -> None:
        """Load nothing."""

    def carried(self, clip: ClipBoxes) -> Likeness:
        """Carry all boxes to all frames before the first is asked for."""
        from stages.propose.linking.carrying import carried_overlaps, flows
        from stages.propose.linking.clip_pictures import scale_of, small

        places: list[int] = []  # of each frame among the pictures

        def greys() -> Iterator[Grey]:
            for place, (picture, number) in enumerate(clip.pictures):
                if number is not None:
                    places.append(place)
                yield small(picture)

        between = list(flows(greys()))
        boxes: dict[int, list[Box]] = {}
        of_place: dict[int, Sequence[Proposal]] = {}
        for place, frame, rows in zip(places, clip.frames, clip.rows, strict=True):
            scale = scale_of(frame.width, frame.height)
            boxes[place] = [[side * scale for side in row.bbox] for row in rows]
            of_place[place] = rows

        def alike(place: int, one: int, other: int) -> bool:
            return may_be_one(of_place[place][one], of_place[place][other])

        overlaps = carried_overlaps(between, boxes, alike)

        def likeness(frame: int, seen: Sequence[Place]) -> Floats:
            here = places[frame]
            return np.array([overlaps[places[earlier], here][box] for earlier, box in seen])

        return likeness
