"""Carry boxes by SAM 2.1's memory of what they show.

Each box is shown to the network in its frame, and found again, as a mask, in pictures about a sixth
of a second apart, as those are that SAM 2's training videos were annotated in. At the next frame
the box around its mask is held against the boxes there. The one it is linked to takes its place: of
a track the last box alone is carried on.

Boxes are carried on and not back, too, as flow carries them: what is dear is to find a box in a
picture (``benchmarks.models``), and the way back would double it. Flow needs the way back, for it
sums up small errors; a mask is found anew in each picture.

No box is carried over a cut, as the flow between pictures tells it. The memory would find there
what looks most alike, and what looks alike in another scene need not be the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import chain, tee
from typing import TYPE_CHECKING

from pipeline.config import ProposeConfig
from pipeline.records.boxes import iou_matrix
from pipeline.records.schema import Frame
from pipeline.workspace.storage import Storage
from stages.backends.sam2_video import Sam2Memory, Sam2Video
from stages.propose.linking.linkers import ClipBoxes, Floats, Likeness, Place

if TYPE_CHECKING:
    from pipeline.media import Picture
    from stages.propose.linking.clip_pictures import Shown

_METHOD = "1"
"""Raised when the same pictures and weights give other tracks than before."""

_EVERY_S = Fraction(3, 20)
"""Pictures nearer than this to the last one are not shown: every fourth one of 25/s is, every sixth
of 30/s."""


class Sam2Linker:
    """Carry boxes by the memory of SAM 2.1."""

    has_weights = True

    def __init__(self, config: ProposeConfig) -> None:
        self.name: str = config.link_model
        self._model = Sam2Video(self.name, config.device, config.precision)

    def fingerprint(self) -> Mapping[str, str]:
        """Return the digest of the weights, and which of its ways of linking this is."""
        return {**self._model.fingerprint(), "sam2": _METHOD}

    def open(self, storage: Storage) -> None:
        """Load the registered weights.

        Raises:
            UsageError: they are not here, not what was registered, or not of this model.
        """
        self._model.open(storage)

    def carried(self, clip: ClipBoxes) -> Likeness:
        """Carry boxes to a frame when it is asked for."""
        return _Carrying(self._model.memory(), clip).likeness


class _Carrying:
    """The boxes of a clip that are on their way."""

    def __init__(self, memory: Sam2Memory, clip: ClipBoxes) -> None:
        self._memory, self._clip = memory, clip
        self._scenes = _scenes(clip.pictures)
        self._shown_s = Fraction(0)
        self._go_on_to_a_frame()

    def likeness(self, frame: int, seen: Sequence[Place]) -> Floats:
        """Carry the boxes that tracks were seen in last to the next frame."""
        frames, rows = self._clip.frames, self._clip.rows
        self._memory.keep(seen)
        for earlier, box in seen:
            if earlier == frame - 1:
                size = _size(frames[earlier])
                self._memory.take_up((earlier, box), rows[earlier][box].bbox, size)
        self._go_on_to_a_frame()
        found = [self._memory.box(place, _size(frames[frame])) for place in seen]
        return iou_matrix([box or [0.0] * 4 for box in found], [row.bbox for row in rows[frame]])

    def _go_on_to_a_frame(self) -> None:
        """Show pictures up to that of the next frame; after a cut nothing is remembered."""
        for picture, number, is_cut in self._scenes:
            if is_cut:
                self._memory.keep(())
            if number is not None or picture.time - self._shown_s >= _EVERY_S:
                self._memory.show(picture.rgb())
                self._shown_s = picture.time
            if number is not None:
                return


def _size(frame: Frame) -> tuple[int, int]:
    return frame.height, frame.width


def _scenes(pictures: Iterable[Shown]) -> Iterator[tuple[Picture, int | None, bool]]:
    """Yield pictures, the numbers of their frames, and whether there is a cut before each."""
    from stages.propose.linking.carrying import flows
    from stages.propose.linking.clip_pictures import small

    shown, again = tee(pictures)
    cuts = (flow.is_cut for flow in flows(small(picture) for picture, _ in again))
    for (picture, number), is_cut in zip(shown, chain([False], cuts), strict=True):
        yield picture, number, is_cut
