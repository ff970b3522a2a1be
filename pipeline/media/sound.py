"""The energy of a file's sound on a grid of hops.

The waveform is the mean of all channels at the file's own rate, in [-1, 1], computed here:
libraries' down-mixes differ by a factor of 1.41, and resampling moves the RMS by up to 8 %; both
flip seconds at the threshold. A sample belongs to the hop its presentation time lies in, so gaps
in the sound shift nothing, and a gap is silence; where frames overlap in time the first is heard.
RMS per second and short-time RMS are means over the same hops.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from math import ceil
from typing import Any, Literal

import numpy as np
from av import FFmpegError
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from numpy.typing import NDArray

from pipeline.errors import MediaError
from pipeline.media.container import Media, audio_stream
from pipeline.media.even_sound import EvenSound, Uneven
from pipeline.media.timeline import Timeline

_PREROLL_S = Fraction(1, 4)
"""Decoded and thrown away after a seek: codecs overlap blocks (AAC 23 ms, Opus 80 ms)."""

_LONG_S = 30
"""Sound shorter than this costs less frame by frame than to open its file once more."""

_BEYOND = 4
"""Frames in a row behind a span that end it: one alone may have a wrong timestamp."""

_FULL_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31, "s64": 2.0**63, "flt": 1, "dbl": 1}


@dataclass(frozen=True)
class SoundEnergy:
    """Energy per hop over a span that begins and ends on whole seconds."""

    start_s: int
    hops_per_s: int
    energy: NDArray[np.float64]
    """Sum of the squared samples of each hop."""
    count: NDArray[np.int64]
    """Samples of each hop, those of silence where the file has no sound too."""

    def rms_per_second(self) -> NDArray[np.float64]:
        """Return the RMS of each second."""
        shape = (-1, self.hops_per_s)
        energy, count = self.energy.reshape(shape), self.count.reshape(shape)
        return _rms(energy.sum(axis=1), count.sum(axis=1))

    def short_time_rms(self, window_hops: int) -> NDArray[np.float64]:
        """Return the RMS of every window of ``window_hops`` hops inside the span.

        Value ``i`` is centred ``(i + window_hops / 2) / hops_per_s`` after the span's start.
        """
        windows = np.lib.stride_tricks.sliding_window_view
        energy, count = windows(self.energy, window_hops), windows(self.count, window_hops)
        return _rms(energy.sum(axis=1), count.sum(axis=1))


def _rms(energy: NDArray[np.float64], count: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(energy / np.maximum(count, 1)))


class SoundTrack:
    """The sound of one file, decoded where it is asked for and once.

    Args:
        media: the file.
        zero: time 0 on the file's own clock, seconds.
        seconds: how many whole seconds follow it.
        hops_per_s: the grid; every codec's sample rate must be at least this.
    """

    def __init__(self, media: Media, zero: Fraction, seconds: int, hops_per_s: int) -> None:
        self.seconds = seconds
        self._media = media
        self._zero = zero
        self._hops_per_s = hops_per_s
        self._energy = np.zeros(self.seconds * hops_per_s)
        self._rate = 0
        self._known = np.zeros(self.seconds, bool)

    @classmethod
    def of_video(cls, media: Media, timeline: Timeline, hops_per_s: int) -> SoundTrack:
        """Make the track of a whole video, whose first frame is time 0."""
        return cls(media, timeline.start, int(timeline.end), hops_per_s)

    def span(self, start_s: int, stop_s: int) -> SoundEnergy:
        """Return the energy of ``[start_s, stop_s)``, decoding what is not known yet.

        A scan from the file's start is exact. After a seek a lossy codec's first blocks may
        differ: RMS by up to 1e-4 in what we saw, with AAC.

        Raises:
            MediaError: ``no_audio``, and what ``sound_blocks`` raises.
        """
        while not self._known[start_s:stop_s].all():
            first = start_s + int(np.argmin(self._known[start_s:stop_s]))
            rest = self._known[first:stop_s]
            last = first + int(np.argmax(rest)) if rest.any() else stop_s
            self._scan(first, last)
        per_s = self._hops_per_s
        hops = slice(start_s * per_s, stop_s * per_s)
        # Hop b begins at sample ceil(b * rate / hops).
        edges = -(-np.arange(hops.start, hops.stop + 1) * self._rate // per_s)
        return SoundEnergy(start_s, per_s, self._energy[hops], np.diff(edges))

    def _scan(self, start_s: int, stop_s: int) -> None:
        hops = slice(start_s * self._hops_per_s, stop_s * self._hops_per_s)
        if start_s or stop_s < _LONG_S or not self._sum_even(stop_s):
            blocks = sound_blocks(self._media, self._zero, start_s, stop_s)
            self._sum(blocks, start_s, stop_s)
        if not np.isfinite(self._energy[hops]).all():
            raise MediaError("undecodable", f"{self._media.path.name}: its sound is not finite")
        self._known[start_s:stop_s] = True

    def _sum_even(self, stop_s: int) -> bool:
        """Sum the sound up to ``stop_s`` if it is even; say whether it is."""
        try:
            self._sum(even_blocks(self._media, self._zero, stop_s), 0, stop_s)
        except Uneven:
            self._energy[: stop_s * self._hops_per_s] = 0
            return False
        return True

    def _sum(self, blocks: Iterator[tuple[int, AudioFrame]], start_s: int, stop_s: int) -> None:
        unread = UnreadSamples()
        for first, block in blocks:
            rate = self._rate = block.sample_rate
            if rate < self._hops_per_s:
                raise MediaError("undecodable", f"{self._media.path.name}: sound at {rate} Hz")
            begin, end = max(first, start_s * rate), min(first + block.samples, stop_s * rate)
            for part in unread.take(begin, end):
                self._add(mean_of_channels(block)[part.start - first : part.stop - first], part)

    def _add(self, wave: NDArray[np.float32], part: range) -> None:
        """Add unbroken sound, the samples ``part`` of the track."""
        rate, hops = self._rate, self._hops_per_s
        hop = part.start * hops // rate
        starts = -(-np.arange(hop + 1, (part.stop - 1) * hops // rate + 1) * rate // hops)
        starts = np.concatenate(([0], starts - part.start))
        where = slice(hop, hop + len(starts))
        self._energy[where] += np.add.reduceat(np.square(wave, out=wave), starts, dtype=np.float64)


class UnreadSamples:
    """The samples of a track that were not read yet; where frames overlap the first one counts."""

    def __init__(self) -> None:
        # Bounds of the parts that were read, ascending and apart.
        self._starts: list[int] = []
        self._stops: list[int] = []

    def take(self, begin: int, end: int) -> list[range]:
        """Return the samples of ``[begin, end)`` that were not read yet, and take them for read.

        >>> track = UnreadSamples()
        >>> track.take(0, 10), track.take(30, 40), track.take(5, 35), track.take(0, 40)
        ([range(0, 10)], [range(30, 40)], [range(10, 30)], [])
        """
        if begin >= end:
            return []
        first = bisect_left(self._stops, begin)
        last = bisect_right(self._starts, end)
        starts, stops = self._starts[first:last], self._stops[first:last]
        edges = zip([begin, *stops], [*starts, end], strict=True)
        self._starts[first:last] = [min([begin, *starts[:1]])]
        self._stops[first:last] = [max([end, *stops[-1:]])]
        return [range(stop, start) for stop, start in edges if stop < start]


def sound_blocks(
    media: Media, zero: Fraction, start_s: Fraction | int, stop_s: Fraction | int
) -> Iterator[tuple[int, AudioFrame]]:
    """Decode a span, and a little around it, into unbroken blocks of about a second.

    Frames are a few milliseconds long; per-frame array work would cost more than decoding.

    Args:
        media: the file.
        zero: time 0 on the file's own clock, seconds.
        start_s: where the span begins.
        stop_s: where it ends.

    Yields:
        The number of a block's first sample, counted from time 0 at its rate, and the block.

    Raises:
        MediaError: ``no_audio``, ``undecodable`` (also when its rate changes on the way),
            ``missing_pts``, ``too_slow``.
    """
    with media.open() as container:
        if start_s:
            stream = audio_stream(container)
            assert stream.time_base is not None
            target = (zero + start_s - _PREROLL_S) / stream.time_base
            container.seek(int(target), stream=stream)
        yield from _joined(_frames(media, zero, container), stop_s)


def even_blocks(media: Media, zero: Fraction, stop_s: int) -> Iterator[tuple[int, AudioFrame]]:
    """Decode sound from its start on into the blocks ``sound_blocks`` gives, in less time.

    Raises:
        Uneven: it must be read frame by frame; what was yielded is then worth nothing.
        MediaError: as ``sound_blocks`` does.
    """
    with media.open() as container:
        stream = audio_stream(container).index
        found = list(islice(_frames(media, zero, container), 2))
    if len(found) < 2:
        raise Uneven
    (position, frame), (_, second) = found
    pts, base, size = frame.pts, frame.time_base, second.samples
    if pts is None or base is None or not size:
        raise Uneven
    sound = EvenSound(
        stream=stream,
        rate_hz=frame.sample_rate,
        position=position,
        pts=pts,
        time_base=base,
        first=frame.samples,
        size=size,
        jitter=_jitter(frame),
    )
    # Samples are counted from the first; its timestamps may stray from that by less than a second.
    end = ceil((zero + stop_s + 1) * frame.sample_rate)
    for first, block in sound.blocks(media, end):
        media.counts.audio_s += block.samples / block.sample_rate
        yield first, block


def read_span(
    media: Media,
    zero: Fraction,
    start_s: Fraction,
    stop_s: Fraction,
    samples_at: Callable[[int], range],
    channels_of: Callable[[AudioFrame], NDArray[np.float32]],
) -> tuple[NDArray[np.float32], int, int]:
    """Read the sound of a span, with silence in its gaps.

    Args:
        media: the file.
        zero: time 0 on the file's own clock, seconds.
        start_s: where decoding begins.
        stop_s: where it ends.
        samples_at: gives the samples wanted, counted from time 0, by the sample rate.
        channels_of: gives a block's channels, ``(channels, samples)``.

    Returns:
        ``(channels, samples)``, their rate, and the samples up to the last one found. Where no
        sound is near the span there are no samples, and rate 0.

    Raises:
        MediaError: ``undecodable`` when it is not finite, and what ``sound_blocks`` raises.
    """
    wave = np.zeros((1, 0), np.float32)
    wanted = range(0)
    rate = found = 0
    unread = UnreadSamples()
    for position, block in sound_blocks(media, zero, start_s, stop_s):
        sound = channels_of(block)
        if not rate:
            rate = block.sample_rate
            wanted = samples_at(rate)
            wave = np.zeros((len(sound), len(wanted)), np.float32)
        elif len(sound) > len(wave):  # a mono file's channels may become more on the way
            sound = mean_of_channels(block)[None]
        stop = min(position + block.samples, wanted.stop)
        for part in unread.take(max(position, wanted.start), stop):
            to = slice(part.start - wanted.start, part.stop - wanted.start)
            wave[:, to] = sound[:, part.start - position : part.stop - position]
            found = max(found, to.stop)
    if not np.isfinite(wave).all():
        raise MediaError("undecodable", f"{media.path.name}: its sound is not finite")
    return wave, rate, found


def _joined(
    frames: Iterable[tuple[int, AudioFrame]], stop_s: Fraction | int
) -> Iterator[tuple[int, AudioFrame]]:
    fifo, first, jitter, like = AudioFifo(), 0, 0, None
    beyond = 0
    for position, frame in frames:
        kind = (frame.format.name, frame.sample_rate, frame.layout.nb_channels)
        following = first + fifo.samples
        broken = like != kind or abs(position - following) > jitter
        if broken or fifo.samples >= frame.sample_rate:
            if block := fifo.read():
                yield first, block
            # Timestamps rounded to the container's tick are no gap: keep counting samples.
            first = position if broken else following
            if like != kind:
                fifo, like, jitter = AudioFifo(), kind, _jitter(frame)
        beyond = beyond + 1 if position >= stop_s * frame.sample_rate else 0
        if beyond == _BEYOND:
            break
        frame.pts = None  # or the fifo insists on its own idea of continuity
        fifo.write(frame)
    if block := fifo.read():
        yield first, block


def _frames(
    media: Media, zero: Fraction, container: InputContainer
) -> Iterator[tuple[int, AudioFrame]]:
    """Decode; each frame with the number of its first sample from time 0."""
    stream = audio_stream(container)
    following: int | None = None
    rate = scale = offset = divisor = 0
    for packet in container.demux(stream):
        media.check_time()
        for frame in _decode(packet):
            if frame.sample_rate != rate:
                if rate:
                    text = f"its sound changes from {rate} to {frame.sample_rate} Hz"
                    raise MediaError("undecodable", f"{media.path.name}: {text}")
                # (pts * time_base - zero) * rate, in integers: Fraction costs more than AAC.
                rate, base = frame.sample_rate, frame.time_base
                assert base is not None
                scale = base.numerator * zero.denominator * rate
                offset = base.denominator * zero.numerator * rate
                divisor = base.denominator * zero.denominator
            if frame.pts is not None:
                position = (frame.pts * scale - offset) // divisor
            elif following is not None:
                position = following
            else:
                raise MediaError("missing_pts", f"{media.path.name}: sound without a timestamp")
            following = position + frame.samples
            media.counts.audio_s += frame.samples / rate
            yield position, frame


def _jitter(frame: AudioFrame) -> int:
    """Return by how many samples a timestamp may be off: a tick, if the clock's are no samples."""
    tick = (frame.time_base or 0) * frame.sample_rate
    return 0 if tick == 1 else ceil(tick)


def _decode(packet: Packet[AudioStream]) -> list[AudioFrame]:
    try:
        return packet.decode()
    except FFmpegError:  # a damaged packet is a gap; the timestamps go on behind it
        return []


Channels = Literal["first", "mean"]
"""The channel that is heard of several: the first, or the mean of all."""


def one_channel(frame: AudioFrame, channels: Channels) -> NDArray[np.float32]:
    """Return the first channel, or the mean of all, ``(samples,)`` in [-1, 1]."""
    if channels == "mean":
        return mean_of_channels(frame)
    return _to_unit(_channels(frame)[0].astype(np.float32), frame, 1)


def mean_of_channels(frame: AudioFrame) -> NDArray[np.float32]:
    """Return the mean of all channels, ``(samples,)`` in [-1, 1]."""
    samples = _channels(frame)
    wave: NDArray[np.float32] = samples[0].astype(np.float32)
    for channel in samples[1:]:
        wave += channel
    return _to_unit(wave, frame, len(samples))


def block_channels(frame: AudioFrame) -> NDArray[np.float32]:
    """Return one or two channels, ``(channels, samples)`` in [-1, 1]; of more their mean alone."""
    samples = _channels(frame)
    if len(samples) > 2:
        return mean_of_channels(frame)[None]
    return np.stack([_to_unit(one.astype(np.float32), frame, 1) for one in samples])


def _channels(frame: AudioFrame) -> list[NDArray[Any]]:
    """Return the samples as decoded, those of each channel; not copied where they lie apart."""
    if frame.format.name == "fltp":
        return [np.frombuffer(memoryview(p), np.float32, frame.samples) for p in frame.planes]
    samples = frame.to_ndarray()
    apart = frame.format.is_planar
    return [*(samples if apart else samples.reshape(-1, frame.layout.nb_channels).T)]


def _to_unit(wave: NDArray[np.float32], frame: AudioFrame, added: int) -> NDArray[np.float32]:
    """Scale the sum of ``added`` channels to [-1, 1], in place."""
    name = frame.format.name.removesuffix("p")
    if name == "u8":
        wave -= added * np.float32(128)
    wave *= np.float32(1 / (added * _FULL_SCALE[name]))
    return wave
