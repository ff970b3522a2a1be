"""GrabCut as a segmenter; ``cutting`` says how it cuts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pipeline.config import SegmentConfig
from pipeline.workspace.storage import Storage
from stages.backends.interfaces import Hint, Image, Prompt, Segmented

_METHOD = "6"
"""The number of the way of ``cutting``; masks of another are not mixed with its own."""


class GrabCutSegmenter:
    """Cut each box's thing from its surroundings by colour."""

    name = "grabcut"
    has_weights = False
    digest = ""

    def __init__(self, config: SegmentConfig) -> None:
        self._config = config

    def fingerprint(self) -> Mapping[str, str]:
        """Return which of its ways of cutting this is; the settings decide the rest."""
        return {"grabcut": _METHOD}

    def open(self, storage: Storage) -> None:
        """Load OpenCV."""
        from stages.backends.grabcut.cutting import GrabCut

        self._grabcut = GrabCut(self._config)

    def segment(self, prompts: Iterable[Prompt]) -> Iterator[list[Segmented]]:
        """Yield one mask per box; an empty one with the reason."""
        return self._grabcut.segment(prompts)

    def embed(self, image: Image) -> Image:
        """Return the picture as OpenCV wants it; nothing is computed of a whole frame."""
        return self._grabcut.embed(image)

    def refine(self, embedding: Image, hint: Hint) -> Segmented:
        """Return the thing a person means, its box grown to hold every point that is on it."""
        return self._grabcut.refine(embedding, hint)
