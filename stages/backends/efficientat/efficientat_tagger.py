"""Hear AudioSet's classes with EfficientAT (Schmid et al., arXiv 2211.04772), small and free.

Trained on 10 s, but its answer is a mean over time: it takes spans of any length. It hears the mean
of all channels, as the authors' own inference does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.config import HearConfig
from pipeline.extras import need_packages
from pipeline.models import require
from pipeline.workspace.recorded import video_file
from pipeline.workspace.storage import Storage
from stages.backends.device import inference, worker_device
from stages.backends.hearing.span_tags import SpanTags, span_waveform, tag_spans
from stages.backends.interfaces import AudioQuery


@dataclass(frozen=True)
class _Prepared:
    """The network's inputs of a clip, a mel spectrogram ``(f, s)`` of each span."""

    mels: Sequence[NDArray[np.float32]]

    @property
    def spans(self) -> int:
        return len(self.mels)

    @property
    def values(self) -> int:
        return sum(mel.size for mel in self.mels)


class EfficientAtTagger:
    """Tag with one of the authors' networks, of any width."""

    has_weights = True
    vocabulary: Literal["audioset", "vggsound"] = "audioset"

    def __init__(self, config: HearConfig) -> None:
        self.name: str = config.tagger
        self._config = config

    def fingerprint(self) -> Mapping[str, str]:
        """Return the digest of the weights."""
        need_packages("torch")
        return {"weights": require(self.name).sha256}

    def open(self, storage: Storage) -> None:
        """Load the registered weights.

        Raises:
            UsageError: they are not here, not what was registered, or not of this network.
        """
        from stages.backends.efficientat.efficientat_model import fast, load_efficientat

        self._storage = storage
        self._device = worker_device(self._config.device)
        self._model = fast(load_efficientat(require(self.name).path, self.name)).to(self._device)

    def tag(self, asked: Iterable[AudioQuery]) -> Iterator[SpanTags]:
        """Yield the loudest classes of each clip's spans; decoding goes on meanwhile."""
        # One clip at a time costs a CPU nothing, and its answer does not depend on its neighbours.
        most = 0 if self._device.type == "cpu" else self._config.batch_mpx * 1e6
        yield from tag_spans(self.name, asked, self._prepare, self._score, most)

    def _prepare(self, asked: AudioQuery) -> _Prepared:
        from pipeline.media import Media, read_timeline
        from stages.backends.efficientat.mel_spectrogram import (
            MIN_SAMPLES,
            RATE_HZ,
            mel_spectrogram,
        )

        with video_file(self._storage, asked.video) as path:
            media = Media(path)
            timeline = read_timeline(media)
            waves = (
                span_waveform(media, timeline, span, RATE_HZ, MIN_SAMPLES, "mean")
                for span in asked.spans
            )
            return _Prepared([mel_spectrogram(wave) for wave in waves])

    def _score(self, batch: Sequence[_Prepared]) -> NDArray[np.float32]:
        """Return the classes' probabilities, ``(spans, k)``; spans of one length run together."""
        mels = [mel for one in batch for mel in one.mels]
        by_length: dict[int, list[int]] = {}
        for place, mel in enumerate(mels):
            by_length.setdefault(mel.shape[1], []).append(place)
        scores = {
            place: row
            for places in by_length.values()
            for place, row in zip(
                places, self.scores(np.stack([mels[place] for place in places])), strict=True
            )
        }
        return np.stack([scores[place] for place in range(len(mels))])

    def scores(self, mels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the classes' probabilities, ``(b, k)``.

        Args:
            mels: as the network's, ``(b, f, s)``.
        """
        import torch

        with inference(self._device, self._config.precision):
            logits = self._model(torch.from_numpy(mels).to(self._device)).float()
            # sigmoid: AudioSet's classes do not exclude each other.
            return np.asarray(logits.sigmoid().cpu().numpy(), np.float32)
