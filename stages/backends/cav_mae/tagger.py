"""Hear AudioSet's classes with CAV-MAE, the paper's sound tagger (Gong et al., arXiv 2210.07839).

A clip of 10 s in, one list of classes out: that is what it was trained on. Shorter spans are padded
like short clips in its training, which works and is off the lengths it knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.config import HearConfig
from pipeline.errors import MediaError, UsageError
from pipeline.extras import need_packages
from pipeline.models import require
from pipeline.workspace.recorded import video_file
from pipeline.workspace.storage import Storage
from stages.backends.device import inference, worker_device
from stages.backends.hearing.span_tags import SpanTags, span_waveform, tag_spans
from stages.backends.interfaces import AudioQuery
from stages.taxonomy import audioset_classes

if TYPE_CHECKING:
    from pipeline.media import Media, Timeline
    from stages.backends.cav_mae.cav_mae_model import Mode

_TUNED_ON = {
    "cav-mae-as-46.6": "sound",
    "cav-mae-as-37.7": "sound",
    "cav-mae-as-full-51.2": "both",
    "cav-mae-as-20k-42.0": "both",
    "cav-mae-as-20.0": "pictures",
}

_MODES: dict[str, tuple[Mode, ...]] = {
    "sound": ("audioonly",),
    "pictures": ("videoonly",),
    "both": ("multimodal", "missingaudioonly", "missingvideoonly"),
}
"""The modes a checkpoint may be run in; the first is the one it was tuned for."""

_INPUT_PX = 1024 * 128
"""Values of a spectrogram; a picture has a third of them and counts as much."""


@dataclass(frozen=True)
class _Prepared:
    """The network's inputs of a clip."""

    spans: int
    audio: NDArray[np.float32] | None
    """``(spans, s, f)``; none where the mode needs none."""
    images: NDArray[np.float32] | None
    """``(spans * pictures, c, height, width)``; none likewise."""

    @property
    def values(self) -> int:
        """Values of its inputs; a picture counts as much as a spectrogram."""
        inputs = max(0 if part is None else len(part) for part in (self.audio, self.images))
        return inputs * _INPUT_PX


class CavMaeTagger:
    """Tag with one of the authors' AudioSet checkpoints."""

    has_weights = True
    vocabulary: Literal["audioset", "vggsound"] = "audioset"

    def __init__(self, config: HearConfig) -> None:
        self.name: str = config.weights
        self._config = config
        self._mode = mode_of(config)

    def fingerprint(self) -> Mapping[str, str]:
        """Return the digest of the weights."""
        need_packages("torch", "kaldi_native_fbank")
        return {"weights": require(self.name).sha256}

    def open(self, storage: Storage) -> None:
        """Load the registered weights.

        Raises:
            UsageError: they are not here, not what was registered, or not of this network.
        """
        from stages.backends.cav_mae.cav_mae_model import load_cav_mae

        self._storage = storage
        self._device = worker_device(self._config.device)
        path = require(self.name).path
        model = load_cav_mae(path)
        if model.sizes.num_classes != len(audioset_classes()):
            raise UsageError(
                f"{path}: knows {model.sizes.num_classes} classes, AudioSet has"
                f" {len(audioset_classes())}. Take one of the checkpoints tuned on AudioSet:"
                f" {', '.join(_TUNED_ON)}."
            )
        self._model = model.to(self._device)

    def tag(self, asked: Iterable[AudioQuery]) -> Iterator[SpanTags]:
        """Yield the loudest classes of each clip's spans; decoding goes on meanwhile."""
        # One clip at a time costs a CPU nothing, and its answer does not depend on its neighbours.
        most = 0 if self._device.type == "cpu" else self._config.batch_mpx * 1e6
        yield from tag_spans(self.name, asked, self._prepare, self._score, most)

    def _prepare(self, asked: AudioQuery) -> _Prepared:
        from pipeline.media import Media, read_timeline

        audio = images = None
        with video_file(self._storage, asked.video) as path:
            media = Media(path)
            timeline = read_timeline(media)
            if "video" not in self._mode:
                audio = np.stack([_sound(media, timeline, span) for span in asked.spans])
            if "audio" not in self._mode:
                fps = asked.video.fps
                pictures = [_pictures(media, timeline, span, fps) for span in asked.spans]
                images = np.concatenate(pictures)
        return _Prepared(len(asked.spans), audio, images)

    def scores(
        self, audio: NDArray[np.float32] | None, images: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """Return the classes' probabilities, ``(b, k)``; ``(b * r, k)`` with r pictures to a sound.

        Args:
            audio: as the network's, ``(b, s, f)``.
            images: as the network's, ``(b * r, c, height, width)``.
        """
        import torch

        with inference(self._device, self._config.precision):
            given = (
                None if part is None else torch.from_numpy(part).to(self._device)
                for part in (audio, images)
            )
            logits = self._model(*given, self._mode).float()
            # sigmoid: AudioSet's classes do not exclude each other.
            return np.asarray(logits.sigmoid().cpu().numpy(), np.float32)

    def _score(self, batch: Sequence[_Prepared]) -> NDArray[np.float32]:
        """Return the probabilities of spans, ``(spans, k)``; the mean over a span's pictures."""
        audio = [one.audio for one in batch if one.audio is not None]
        images = [one.images for one in batch if one.images is not None]
        scores = self.scores(
            np.concatenate(audio) if audio else None, np.concatenate(images) if images else None
        )
        spans = sum(one.spans for one in batch)
        means: NDArray[np.float32] = scores.reshape(spans, -1, scores.shape[-1]).mean(axis=1)
        return means


def mode_of(config: HearConfig) -> Mode:
    """Return the mode the settings ask for; ``auto`` is the one the checkpoint was tuned for.

    Raises:
        UsageError: the checkpoint was not tuned for it, or it needs pictures of single events.
    """
    fitting = _MODES[_TUNED_ON[config.weights]]
    if config.scope == "frame":
        # A clip's ten pictures say nothing about a window of two seconds.
        fitting = tuple(mode for mode in fitting if mode.endswith("audioonly"))
    for mode in fitting:
        if config.mode in ("auto", mode):
            return mode
    raise UsageError(
        f"hear.mode {config.mode!r}: {config.weights} with scope {config.scope!r} can be run as"
        f" {' or '.join(fitting) or 'nothing: it hears no sound'}."
    )


def _sound(media: Media, timeline: Timeline, span: tuple[float, float]) -> NDArray[np.float32]:
    """Return the network's input of a span's sound, ``(s, f)``.

    Raises:
        MediaError: ``no_audio``, or what decoding raises.
    """
    from stages.backends.cav_mae.filter_bank import MIN_SAMPLES, RATE_HZ, model_input

    return model_input(span_waveform(media, timeline, span, RATE_HZ, MIN_SAMPLES, "first"))


def _pictures(
    media: Media, timeline: Timeline, span: tuple[float, float], fps: float
) -> NDArray[np.float32]:
    """Return the network's inputs of a span's pictures, ``(10, c, height, width)``.

    Raises:
        MediaError: ``undecodable``, or what decoding raises.
    """
    from pipeline.media import decode_pictures, exact
    from stages.backends.cav_mae.picture_input import chosen_frames, prepare

    shown = timeline.between(exact(span[0]), exact(span[1]))
    chosen = [shown[index] for index in chosen_frames(len(shown), fps)] if shown else []
    ranges = [range(index, index + 1) for index in sorted(set(chosen))]
    found = {p.index: prepare(p.rgb()) for p in decode_pictures(media, timeline, ranges)}
    if not chosen or any(index not in found for index in chosen):
        raise MediaError("undecodable", f"{media.path.name}: {len(found)} of its frames decode")
    return np.stack([found[index] for index in chosen])
