"""Hear what the video list says: VGGSound's label of the video.

The label was given to 10 s of the video by people who checked that it is seen and heard there. It
is believed for every clip of the video, and says nothing about other sounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from pipeline.config import HearConfig
from pipeline.records.schema import SoundClass
from pipeline.workspace.storage import Storage
from stages.backends.interfaces import AudioQuery


class LabelTagger:
    """Take the list's label as the only class, certain."""

    has_weights = False
    vocabulary: Literal["audioset", "vggsound"] = "vggsound"

    def __init__(self, config: HearConfig) -> None:
        self.name = config.tagger

    def fingerprint(self) -> Mapping[str, str]:
        """Return nothing: only the rows decide."""
        return {}

    def open(self, storage: Storage) -> None:
        """Load nothing."""

    def tag(self, asked: Iterable[AudioQuery]) -> Iterator[list[list[SoundClass]]]:
        """Yield the label as the one class of every span."""
        for one in asked:
            yield [[SoundClass(name=one.video.label, score=1.0)] for _ in one.spans]
