"""A detector that needs no model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pipeline.workspace.storage import Storage
from stages.backends.interfaces import Detection, FrameInput, Vocabulary


class Recorded:
    """A detector that answers from a table, and remembers what it was shown."""

    has_weights = False
    nothing = "nothing_here"

    def __init__(
        self,
        answers: Mapping[str, list[Detection]],
        name: str = "recorded",
        vocabulary: Vocabulary = "none",
    ) -> None:
        self.name, self.vocabulary = name, vocabulary
        self.answers = answers
        self.shown: list[FrameInput] = []
        self.times_asked = 0

    def fingerprint(self) -> Mapping[str, str]:
        return {}

    def open(self, storage: Storage) -> None:
        self.storage = storage

    def detect(self, inputs: Iterable[FrameInput]) -> Iterator[list[Detection]]:
        self.times_asked += 1
        for item in inputs:
            self.shown.append(item)
            yield self.answers.get(item.frame.frame_id, [])
