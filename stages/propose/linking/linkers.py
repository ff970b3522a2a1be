"""The ways in which boxes of a clip's frames are linked: their interface, and where one is chosen.

A linker looks at the pictures between a clip's frames and says how far a box of one frame, carried
to a later one, is each box there; ``tracks`` makes tracks of that. One joins with its class, one
line in ``LINKERS`` and its name in ``propose.link``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.config import ProposeConfig
from pipeline.records.schema import Frame, Proposal
from stages.backends.interfaces import Backend, make_backend

if TYPE_CHECKING:
    from stages.propose.linking.clip_pictures import Shown

Floats = NDArray[np.float64]

Place = tuple[int, int]
"""The number of a frame, and of a box in it."""

Likeness = Callable[[int, Sequence[Place]], Floats]
"""Called for each frame after the first, in order, with its number and the box that each track was
seen in last: returns IoU in [0, 1] of each of these, carried here, with each box here, ``(tracks,
boxes)``. 0 where one is lost."""


@dataclass(frozen=True)
class ClipBoxes:
    """The boxes of a clip's frames, and the pictures between the frames."""

    frames: Sequence[Frame]
    """Two or more, in order of time."""
    rows: Sequence[Sequence[Proposal]]
    """The boxes of each; none has none."""
    pictures: Iterable[Shown]
    """Read as they are taken, once."""


class Linker(Backend, Protocol):
    """A backend that carries boxes from frame to frame."""

    def carried(self, clip: ClipBoxes) -> Likeness:
        """Return what tells how far boxes, carried along, are others.

        Raises:
            InputError: the video cannot be decoded, or a frame is not in it; also when called.
        """
        ...


LINKERS = {
    "flow": "stages.propose.linking.flow_linker:FlowLinker",
    "sam2": "stages.propose.linking.sam2_linker:Sam2Linker",
}


def make_linker(config: ProposeConfig) -> Linker | None:
    """Make the linker of the settings; none where boxes are not linked."""
    if config.link == "none":
        return None
    linker: Linker = make_backend(LINKERS, config.link, config)
    return linker


def may_be_one(one: Proposal, other: Proposal) -> bool:
    """Say whether two boxes may show one thing: of a class of one detector, or of a category."""
    same_class = (one.detector, one.detector_class) == (other.detector, other.detector_class)
    return same_class or not set(one.categories).isdisjoint(other.categories)
