"""A clip's own file: the source's packets where they show what the source shows, else an encode.

Whether packets do is not guessed from the file's form (edit lists, containers and codecs differ in
more ways than can be listed): what was written is opened again and held against the source, frame
times, picture size and sound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MediaError
from pipeline.media.container import Media
from pipeline.media.cut import cut
from pipeline.media.encode import Timed, encode_film
from pipeline.media.picture import Picture, decode_pictures
from pipeline.media.sound import (
    SoundEnergy,
    SoundTrack,
    block_channels,
    read_span,
)
from pipeline.media.timeline import Timeline, exact, read_timeline

REMUXABLE = frozenset(
    {"h264", "hevc", "av1", "vp9", "mpeg4"} | {"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"}
)
"""Codecs whose packets go into a released clip: libav writes them to MP4 and players take them.

libav writes PCM and MPEG-2 too, which few players find there, and no VP8, Vorbis or DTS.
"""
BROWSER = frozenset({"h264", "av1", "vp9", "aac", "mp3", "opus", "flac"})
"""The codecs that Firefox and Chrome play from MP4 everywhere."""

TICK_S = Fraction(1, 1000)
"""The most a frame's time may be off: containers count in ticks, Matroska in milliseconds."""
TAIL = 16
"""Frames that may follow a remuxed clip's end: as many as H.264 and HEVC hold back to reorder."""
HOPS_PER_S = 100
"""The grid on which two sounds are compared: 10 ms, the hop in which events are looked for."""
SOUND_OFF = 0.1
"""The most a clip's short-time RMS may differ from the source's, as a fraction of the source's.

Remuxed sound, whose first blocks lack what came before them: 0.02 at most. AAC at our rate: 0.03.
Sound of ours that is shifted by 30 ms: 0.2 and more.
"""
SILENCE = 1e-3
"""RMS below which a difference does not count: a tenth of what is active."""

_LEAD = Fraction(1, 10)
"""Sound encoded ahead of the start and hidden, seconds: AAC's first block comes out too quiet."""
_FAST = {"preset": "veryfast", "crf": "18"}

Made = Literal["remuxed", "encoded"]
Accept = Callable[[Path, Fraction, Made], None]
"""Looks at a clip: its file, how long after the span's start its first frame comes, its making."""


@dataclass(frozen=True)
class MadeClip:
    """A clip's file: how it came to be, and what it shows."""

    made: Made
    why_encoded: str
    """The reason that it was not remuxed; empty when it was."""
    first_s: float
    """The time of its first frame, seconds in the source."""
    frames: int
    """Frames shown before its end."""


def make_clip(
    media: Media,
    start_s: float,
    end_s: float,
    target: Path,
    *,
    codecs: frozenset[str] = REMUXABLE,
    accept: Accept | None = None,
) -> MadeClip:
    """Write what ``media`` shows in ``[start_s, end_s)`` to the MP4 file ``target``.

    The clip's first frame is the first one at or after ``start_s``; its sound begins with it.
    A remux that shows something else is encoded; what shows something else then too is an error.

    Args:
        media: the source.
        start_s: where the span begins, seconds from the source's first frame.
        end_s: where it ends.
        target: replaced; not there after an error.
        codecs: which are remuxed.
        accept: raises a MediaError at a file that is no good for other reasons.

    Raises:
        MediaError: ``empty_span`` when no frame lies in it; what reading raises; ``other_frames``,
            ``other_sound`` or what ``accept`` raises when neither way gives a clip that is right.
        OSError: the target cannot be written.
    """
    timeline = read_timeline(media)
    start, end = exact(start_s), exact(end_s)
    wanted = timeline.between(start, end)
    if not wanted:
        raise MediaError("empty_span", f"{media.path.name}: no frame in {start_s:g} to {end_s:g} s")
    span = _Span(media, timeline, wanted, start, end)

    def made(how: Made, why: str) -> MadeClip:
        _compare(span, target)
        if accept is not None:
            accept(target, span.late, how)
        return MadeClip(how, why, float(start + span.late), len(wanted))

    try:
        try:
            # A cut is quick and loses nothing; pictures are coded anew only where it shows others.
            cut(media, timeline, wanted, end, target, codecs)
            return made("remuxed", "")
        except MediaError as error:
            _encode(span, target)
            return made("encoded", error.detail)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class _Span:
    """The span that is wanted of a source."""

    media: Media
    timeline: Timeline
    wanted: range
    start: Fraction
    end: Fraction

    @property
    def late(self) -> Fraction:
        """Seconds from the start to the first frame."""
        return self.timeline.time(self.wanted.start) - self.start


def clip_sound(media: Media, zero: Fraction, seconds: int) -> SoundEnergy | None:
    """Return the energy of so many seconds of sound; none where the file has no sound.

    Args:
        media: the file.
        zero: where they begin, on the file's own clock.
        seconds: how many.

    Raises:
        MediaError: as ``SoundTrack.span`` does, but for ``no_audio``.
    """
    track = SoundTrack(media, zero, seconds, HOPS_PER_S)
    try:
        return track.span(0, seconds)
    except MediaError as error:
        if error.kind == "no_audio":
            return None
        raise


def shown_before(timeline: Timeline, frames: int, end: Fraction) -> str:
    """Return what is wrong with a clip that should show so many frames before ``end``."""
    found = len(timeline.pts)
    if found < frames or timeline.time(frames - 1) >= end:
        before = timeline.between(Fraction(0), end)
        return f"shows {len(before)} frames in {float(end):.6g} s, not {frames}"
    if found > frames and timeline.time(frames) < end - TICK_S:
        before = timeline.between(Fraction(0), end - TICK_S)
        return f"shows {len(before)} frames in {float(end):.6g} s, not {frames}"
    if found > frames + TAIL:
        return f"shows {found - frames} frames behind its end, more than {TAIL}"
    return ""


def _compare(span: _Span, target: Path) -> None:
    """Raise what is wrong with a written clip."""
    clip = Media(target, span.media.timeout_s)
    timeline = read_timeline(clip)
    wrong = shown_before(timeline, len(span.wanted), span.end - span.start - span.late)
    if wrong:
        raise _other(span, "frames", wrong)
    shown = _shown_s(timeline, range(len(span.wanted)))
    off = np.abs(shown - _shown_s(span.timeline, span.wanted))
    if off.max() > TICK_S:
        number = int(off.argmax())
        raise _other(span, "frames", f"shows frame {number} {off[number]:.3f} s off")
    first = _first_of_one_size(clip, timeline, len(span.wanted))
    source = next(decode_pictures(span.media, span.timeline, [span.wanted[:1]]), None)
    if first is None:
        raise _other(span, "frames", "has a first frame that cannot be decoded")
    # An encode loses the last row or column of an odd side.
    if source is not None and any(
        one - other not in (0, one % 2) for one, other in zip(source.size, first.size, strict=True)
    ):
        sizes = "{}x{}, not {}x{}".format(*first.size, *source.size)
        raise _other(span, "frames", f"is {sizes}")
    _compare_sound(span, clip, timeline.start)


def _shown_s(timeline: Timeline, frames: range) -> NDArray[np.float64]:
    """Return the times of frames, seconds from the first of them."""
    pts = timeline.pts[frames.start : frames.stop]
    return np.asarray((pts - pts[0]) * float(timeline.time_base))


def _first_of_one_size(clip: Media, timeline: Timeline, frames: int) -> Picture | None:
    """Return the first picture; raise ``size_changes`` where a later keyframe has another size."""
    keys = {int(number) for number in np.searchsorted(timeline.pts, timeline.key_pts)}
    ranges = [range(number, number + 1) for number in sorted(keys | {0}) if number < frames]
    pictures = decode_pictures(clip, timeline, ranges)
    first = next(pictures, None)
    for _ in pictures:
        pass  # decoding compares
    return first


def _compare_sound(span: _Span, clip: Media, clip_start: Fraction) -> None:
    seconds = ceil(span.end - span.start)
    source = clip_sound(span.media, span.timeline.start + span.start, seconds)
    if source is None:
        return  # there is nothing to hold it against
    heard = clip_sound(clip, clip_start - span.late, seconds)
    inside = slice(ceil(span.late * HOPS_PER_S), floor((span.end - span.start) * HOPS_PER_S))
    theirs = _loudness(source)[inside]
    ours = np.zeros_like(theirs) if heard is None else _loudness(heard)[inside]
    off = float(np.sqrt(np.mean((theirs - ours) ** 2)))
    if off > SOUND_OFF * float(np.sqrt(np.mean(theirs**2))) + SILENCE:
        raise _other(span, "sound", "sounds otherwise than its source")


def _loudness(sound: SoundEnergy) -> NDArray[np.float64]:
    """Return the RMS in 50 ms around each hop; silence where there is no sound."""
    whole = max(1, int(sound.count.max(initial=0)))
    mean = np.convolve(sound.energy / whole, np.full(5, 0.2), "same")
    return np.asarray(np.sqrt(mean))


def _other(span: _Span, what: str, wrong: str) -> MediaError:
    return MediaError(f"other_{what}", f"{span.media.path.name}: its clip {wrong}")


def _encode(span: _Span, target: Path) -> None:
    rate, wave, lead = _sound(span)
    fps = len(span.wanted) / float(span.end - span.start)
    encode_film(_pictures(span), fps, target, wave, rate, lead=lead, options=_FAST)


def _pictures(span: _Span) -> Iterator[Timed]:
    """Yield each frame at its own time; for an undecodable one the last that was decoded."""
    zero = span.timeline.time(span.wanted.start)
    following = span.wanted.start
    last: NDArray[np.uint8] | None = None
    for picture in decode_pictures(span.media, span.timeline, [span.wanted]):
        colours = picture.rgb()
        for missing in range(following, picture.index):
            yield span.timeline.time(missing) - zero, colours if last is None else last
        yield picture.time - zero, colours
        last, following = colours, picture.index + 1
    if last is None:
        raise MediaError("undecodable", f"{span.media.path.name}: no frame can be decoded there")
    for missing in range(following, span.wanted.stop):
        yield span.timeline.time(missing) - zero, last


def _sound(span: _Span) -> tuple[int, NDArray[np.float32] | None, int]:
    """Return the span's sound, silence in its gaps: rate, ``(channels, samples)``, hidden samples.

    Of more than two channels the mean is heard, as in what was measured.
    """
    first = span.start + span.late

    def samples_at(rate: int) -> range:
        return range(round(first * rate) - round(_LEAD * rate), round(span.end * rate))

    begin = max(first - _LEAD, Fraction(0))
    try:
        wave, rate, _ = read_span(
            span.media, span.timeline.start, begin, span.end, samples_at, block_channels
        )
    except MediaError as error:
        if error.kind != "no_audio":
            raise
        return 0, None, 0
    return rate, wave if rate else None, round(_LEAD * rate)
