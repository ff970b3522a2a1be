"""The way from clips to their loudest classes that all taggers of AudioSet's classes share.

A tagger prepares a clip's spans for its network and scores batches of them; decoding ahead, batches
that fit, and the choice among the classes are here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError, MediaError
from pipeline.records.schema import SoundClass
from stages.backends.device import ahead, halving
from stages.backends.interfaces import AudioQuery
from stages.taxonomy import audioset_classes

if TYPE_CHECKING:
    from pipeline.media import Channels, Media, Timeline

_KEPT = 20
"""Classes kept of each span, loudest first."""

_DECODED_AHEAD = 32
"""Clips decoded while the network works."""


class Prepared(Protocol):
    """The network's inputs of a clip's spans."""

    @property
    def spans(self) -> int:
        """Number of spans."""
        ...

    @property
    def values(self) -> int:
        """Number of values the network is given, which bounds a batch."""
        ...


Given = TypeVar("Given", bound=Prepared)

SpanTags = list[list[SoundClass]] | InputError
"""The loudest classes of each span of a clip, or why it cannot be heard."""


def tag_spans(
    name: str,
    asked: Iterable[AudioQuery],
    prepare: Callable[[AudioQuery], Given],
    score: Callable[[Sequence[Given]], NDArray[np.float32]],
    most_values: float,
) -> Iterator[SpanTags]:
    """Yield the loudest classes of each clip's spans, in order; decoding goes on meanwhile.

    Args:
        name: the model's, for errors.
        asked: clips, taken as they come.
        prepare: makes the network's inputs, in another thread. An ``InputError`` it raises is the
            clip's answer.
        score: gives the probabilities of a batch's spans, one after the other, ``(spans, k)``. A
            batch that is too large for the device's memory is halved.
        most_values: values of a batch of several clips.
    """

    def run(batch: Sequence[Given]) -> list[SpanTags]:
        if not batch:
            return []
        ends = np.cumsum([one.spans for one in batch])
        return [_loudest_of(name, rows) for rows in np.split(score(batch), ends[:-1])]

    def attempt(query: AudioQuery) -> Given | InputError:
        try:
            return prepare(query)
        except InputError as error:
            return error

    for batch in _batches(ahead(asked, attempt, _DECODED_AHEAD), most_values):
        tagged = iter(halving([one for one in batch if not isinstance(one, InputError)], run))
        for one in batch:
            yield one if isinstance(one, InputError) else next(tagged)


def _batches(
    prepared: Iterable[Given | InputError], most_values: float
) -> Iterator[list[Given | InputError]]:
    batch: list[Given | InputError] = []
    values = 0
    for one in prepared:
        grows = 0 if isinstance(one, InputError) else one.values
        if batch and values + grows > most_values:
            yield batch
            batch, values = [], 0
        batch.append(one)
        values += grows
    if batch:
        yield batch


def _loudest_of(name: str, scores: NDArray[np.float32]) -> SpanTags:
    if np.isfinite(scores).all():
        return [loudest(row) for row in scores]
    return InputError("not_a_number", f"{name} computed no number")


def loudest(scores: NDArray[np.float32]) -> list[SoundClass]:
    """Return the classes of highest score, best first, equals in AudioSet's order.

    Args:
        scores: probabilities, ``(k,)``.
    """
    rounded = np.round(scores.astype(np.float64), 6)
    order = np.argsort(-rounded, kind="stable")[:_KEPT]
    return [SoundClass(name=audioset_classes()[k], score=float(rounded[k])) for k in order]


def span_waveform(
    media: Media,
    timeline: Timeline,
    span: tuple[float, float],
    rate_hz: int,
    min_samples: int,
    channels: Channels,
) -> NDArray[np.float32]:
    """Return the sound of a span, ``(samples,)`` in [-1, 1].

    Args:
        media: the file.
        timeline: the video's.
        span: start and end, seconds from the video's first frame.
        rate_hz: the network's sample rate.
        min_samples: fewer make no input of the network.
        channels: which of several the network was trained on.

    Raises:
        MediaError: ``no_audio`` where there is less sound, or what decoding raises.
    """
    from pipeline.media import waveform

    wave = waveform(media, timeline, *span, rate_hz, channels)
    if len(wave) < min_samples:
        name = media.path.name
        raise MediaError("no_audio", f"{name}: {len(wave)} samples from {span[0]:g} s on")
    return wave
