"""Hear what the video list says: VGGSound's label of the video, through the taxonomy.

The label was given to 10 s of the video by people who checked that it is seen and heard there. It
is believed for every clip of the video, and says nothing about other sounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.config import HearConfig
from pipeline.schema import Clip, SoundCategory, SoundClass, Sounds, Video
from pipeline.storage import Storage
from stages.taxonomy import load_taxonomy


class LabelTagger:
    """Take the list's label as the only class, certain."""

    name = "vggsound-label"

    def __init__(self, config: HearConfig) -> None:
        self._config = config

    def fingerprint(self) -> Mapping[str, str]:
        """The taxonomy's digest; reading it checks it before the run begins."""
        return {"taxonomy": load_taxonomy(self._config.taxonomy).digest}

    def open(self, storage: Storage) -> None:
        """Read the taxonomy."""
        self._taxonomy = load_taxonomy(self._config.taxonomy)

    def tag(self, clips: Sequence[tuple[Clip, Video]]) -> list[Sounds]:
        """The label, and the categories it maps to: all active, and none other is listed."""
        return [
            Sounds(
                clip_id=clip.clip_id,
                tagger=self.name,
                classes=[SoundClass(name=video.label, score=1.0)],
                categories=[
                    SoundCategory(category=category, score=1.0, active=True)
                    for category in self._taxonomy.of_vggsound(video.label)
                ],
            )
            for clip, video in clips
        ]
