"""The one way from any model to the heatmap files of a release's labelled frames.

A model that takes one picture and one sound is asked about the release's own images and sounds
(``image_models``), one that takes a whole clip about its clips (``open_predictor``). What is asked,
what may be missing, what is written and what ``model.json`` says is the same here for both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import AvatarBuildError
from tavlo.evaluation.evaluation_set import EvaluationSet
from tavlo.evaluation.predictions import Predictions

Window = TypeVar("Window", bound=float | None)
"""Seconds of sound around a frame; None is all of its clip's."""
Show = Callable[[int, str], None]
"""Called with how many clips are done, and a note."""


@dataclass
class Notes:
    """Notes made while a model is asked: frames without a heatmap, and sentences for people."""

    num_frames: int
    """The number of frames to ask about."""
    max_missing: int = 0
    """The number of frames that may lack a heatmap."""
    show: Show = lambda _done, _note: None
    failed: dict[str, str] = field(default_factory=dict)
    """Frames without a heatmap, with why."""
    said: list[str] = field(default_factory=list)

    def miss(self, failed: Mapping[str, str]) -> None:
        """Note frames that cannot be asked about, with why.

        Raises:
            AvatarBuildError: there are more than may be missing; names some.
        """
        self.failed |= failed
        if len(self.failed) > self.max_missing:
            some = "; ".join(f"{name}: {why}" for name, why in list(self.failed.items())[:3])
            raise AvatarBuildError(
                f"{len(self.failed)} of {self.num_frames} labelled frames cannot be predicted"
                f" ({some}). Add what is missing, or score the others with --max-missing"
                f" {len(self.failed)}."
            )


class Answer(NamedTuple):
    """A model's heatmaps of one clip."""

    clip_id: str
    frame_index: Sequence[int]
    """Counted from the clip's first frame."""
    heatmaps: Mapping[Any, NDArray[np.float32]]
    """Window of sound to ``(n, y, x)``, of any scale."""


class Predictor(Protocol):
    """A model that is ready to be asked about the clips of a release."""

    of_images: ClassVar[bool]
    """True where it takes one picture and the sound of a window, rather than a whole clip."""

    @property
    def about(self) -> Mapping[str, Any]:
        """Return what it is and all that decides its heatmaps: digests, post-processing, ..."""
        ...

    def answers(
        self,
        data: EvaluationSet,
        windows: Sequence[Any],
        every_frame_of: Collection[str],
        notes: Notes,
    ) -> Iterator[Answer]:
        """Yield the heatmaps of each clip once, computed anew from the release's files.

        Args:
            data: the labelled frames.
            windows: each frame is asked about with each of these.
            every_frame_of: clips whose other frames get a heatmap too, for a film.
            notes: told of frames that cannot be asked about.
        """
        ...


def predict(
    model: Predictor,
    data: EvaluationSet,
    targets: Mapping[Window, Path],
    *,
    max_missing: int = 0,
    every_frame_of: Collection[str] = (),
    show: Show = lambda _done, _note: None,
) -> tuple[dict[Window, Predictions], Notes]:
    """Write the heatmaps of every labelled frame, for each window of sound.

    Args:
        model: asked once per frame and window.
        data: the labelled frames, whose folder holds their media.
        targets: the folder of each window; heatmaps of an earlier run are removed from it.
        max_missing: frames that may lack a heatmap; ``model.json`` names them.
        every_frame_of: clips whose other frames get a heatmap too, for a film.
        show: told of clips done, and a note.

    Returns:
        The heatmaps by window, and what there is to say of the media.

    Raises:
        UsageError: a folder holds heatmaps that no run of a model wrote.
        AvatarBuildError: more frames cannot be asked about.
    """
    about = {window: {**model.about, "window_s": window} for window in targets}
    found = {window: Predictions.begin(targets[window], about[window]) for window in targets}
    notes = Notes(len(data.frames), max_missing, show)
    answers = model.answers(data, list(targets), every_frame_of, notes)
    for done, answer in enumerate(answers, start=1):
        for window, heatmaps in answer.heatmaps.items():
            found[window].save(answer.clip_id, answer.frame_index, heatmaps)
        show(done, f"{len(notes.failed)} failed" if notes.failed else "")
    for window, predictions in found.items():
        predictions.describe(about[window] | {"failed": notes.failed, "said": notes.said})
    return found, notes
