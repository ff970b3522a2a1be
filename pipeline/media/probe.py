"""The facts of a media file, and whether it is whole: about as cheap as opening it."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from operator import attrgetter
from pathlib import Path

from av import FFmpegError
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.index import IndexEntries, IndexEntry
from av.stream import Stream
from av.video.frame import VideoFrame

from pipeline.errors import MediaError
from pipeline.media.container import (
    Media,
    choose_audio,
    choose_video,
    codec_name,
    select,
    video_stream,
)
from pipeline.media.picture import Picture, Pixels
from pipeline.media.timeline import PUNCTUAL_S, Timeline, file_end, read_timeline

PROBE_VERSION = 3
"""Raise when a probe answers otherwise for the same file; files are then probed again."""

_SLACK_S = 1.0
"""A header's duration is rounded; the packets of a whole file end within this of it."""

_FIRST_PACKETS = 300
"""A file without a decodable frame among so many packets is given up."""

_HOLDING = (b"moov", b"moof", b"mdat")
"""The boxes of an MP4 that hold what is shown and heard, and where it lies."""

_MOST_BOXES = 1_000_000
"""Top-level boxes looked at; a file that has more is made of them."""

_REORDERED = 64
"""Frames among which decoding and showing differ in order; no codec keeps over 16 back."""

_MOST_HEADER_BYTES = 1 << 26
"""Boxes beside the data that are looked through; 12 hours take about 30 MB."""


@dataclass(frozen=True)
class MediaFacts:
    """The facts that a file states, checked against its bytes."""

    width: int
    """Pixels as displayed: after rotation, pixels square."""
    height: int
    fps: float
    """Average frame rate."""
    frame_count: int
    """Presented frames."""
    start_s: float
    """First presented frame on the file's own clock."""
    duration_s: float
    """Length of the file: from where picture and sound begin to where the last of them ends."""
    bitrate_bps: int
    """Bits per second of the whole file."""
    video_codec: str
    audio_codec: str | None
    """The sound's codec; none without sound, and then the next two are 0."""
    sample_rate_hz: int
    channels: int
    video_stream: int = 0
    """Number of the picture's stream in the file, from 0."""
    audio_stream: int | None = None
    """Number of the sound's stream; none without sound."""


def probe(path: Path) -> MediaFacts:
    """Read a local file's facts.

    MP4 is judged by its boxes, its index, its first frame and its first sound; the packets of
    Matroska/WebM and of fragmented MP4, which have no whole index, are passed over once, and those
    of a file whose header does not tell how long it is.

    Raises:
        MediaError: ``missing_file``, ``empty_file``, ``not_media``, ``truncated``, ``no_video``,
            ``undecodable``, ``too_large``, ``missing_pts``, ``bad_timestamps``.
    """
    media = Media(path)
    _check_boxes(path)
    with media.open() as container:
        audio, video = choose_audio(container), choose_video(container)
        _check_index(container, path)
        width, height = _first_frame_and_sound(container, audio, path).size
        streams = [video, *([audio] if audio is not None else [])]
        duration_s = _duration_by_header(container, streams)
        facts = MediaFacts(
            width=width,
            height=height,
            fps=float(video.average_rate or 0),
            frame_count=_indexed_frames(container, path),
            start_s=float((video.start_time or 0) * (video.time_base or 0)),
            duration_s=duration_s or 0.0,
            bitrate_bps=0,
            video_codec=codec_name(video),
            audio_codec=codec_name(audio) if audio else None,
            sample_rate_hz=audio.rate if audio else 0,
            channels=audio.channels if audio else 0,
            video_stream=video.index,
            audio_stream=audio.index if audio else None,
        )
        # A whole index was checked; without one the header's end is held against the packets.
        claimed = None if _is_indexed(container) else file_end(container)
    if not (facts.frame_count and facts.fps):
        timeline = read_timeline(media)
        facts = _counted(timeline, facts)
        if claimed is None or abs(timeline.start + timeline.end - claimed) > _SLACK_S:
            duration_s = None
    if duration_s is None:
        start_s, end_s = _measured(media)
        if claimed is not None:
            _check_end(media, end_s, float(claimed))
        facts = dataclasses.replace(facts, duration_s=end_s - start_s)
    bits, lasts_s = path.stat().st_size * 8, facts.duration_s
    return dataclasses.replace(facts, bitrate_bps=round(bits / lasts_s) if lasts_s else 0)


def _duration_by_header(container: InputContainer, streams: Sequence[Stream]) -> float | None:
    """Return what the header says, in seconds; None where the packets must tell.

    Headers of files in which something starts late hold their end or their length, and nothing
    tells which. Where there is an index, it is the better witness.
    """
    duration_s = (container.duration or 0) / 1e6
    late, ends, indexed = False, [], []
    for stream in streams:
        base = stream.time_base
        if stream.start_time is not None and base is not None:
            late = late or abs(stream.start_time * base) > PUNCTUAL_S
            if stream.duration:
                ends.append((stream.start_time + stream.duration) * base)
            if len(stream.index_entries):
                indexed.append(stream.index_entries[-1].timestamp * base)
    longer = bool(ends) and duration_s > max(ends) + _SLACK_S
    shorter = bool(indexed) and duration_s < max(indexed) - _SLACK_S
    return None if duration_s <= 0 or late or longer or shorter else duration_s


def _counted(timeline: Timeline, facts: MediaFacts) -> MediaFacts:
    """Return the facts of the frames, for a file without a whole index."""
    steps = len(timeline.pts) - 1
    return dataclasses.replace(
        facts,
        fps=float(steps / timeline.time(steps)) if steps else facts.fps,
        frame_count=steps + 1,
        start_s=float(timeline.start),
    )


def _check_end(media: Media, end_s: float, claimed_s: float) -> None:
    """Raise when a file without a whole index was cut: no track of it reaches its end.

    The sound may well be longer than the picture, and subtitles longer than both.
    """
    early = claimed_s - _SLACK_S
    if end_s < early and _measured(media, every_track=True)[1] < early:
        raise _truncated(media.path, f"ends at {end_s:.1f} of {claimed_s:.1f} s")


def _measured(media: Media, *, every_track: bool = False) -> tuple[float, float]:
    """Return when picture and sound begin and the last of them ends, seconds on the file's clock.

    Args:
        media: the file.
        every_track: of all tracks, those that are neither seen nor heard too.
    """
    begins, ends = [], []
    with media.open() as container:
        video, audio = choose_video(container), choose_audio(container)
        streams: list[Stream] = [video, *([audio] if audio is not None else [])]
        if every_track:
            streams = list(container.streams)
        select(container, *streams)
        times: dict[int, list[tuple[int, int]]] = {stream.index: [] for stream in streams}
        for packet in container.demux(streams):
            media.check_time()
            if packet.size and packet.pts is not None and not packet.is_discard:
                times[packet.stream_index].append((packet.pts, packet.duration or 0))
        for stream in streams:
            if found := times[stream.index]:
                first, (last, lasts) = min(found)[0], max(found)
                lasts = lasts or (last - first) // max(1, len(found) - 1)
                end = max(last + lasts, *(time + duration for time, duration in found))
                begins.append(first * (stream.time_base or 0))
                ends.append(end * (stream.time_base or 0))
    return float(min(begins, default=0)), float(max(ends, default=0))


def _indexed_frames(container: InputContainer, path: Path) -> int:
    """Count the presented frames in the index; 0 when it does not hold them all."""
    video = choose_video(container)
    if not _is_indexed(container):
        return 0
    entries = video.index_entries
    if len(entries) < video.frames:
        return 0
    return len(entries) - hidden_frames(entries, one_edit=_edited_once(path))


def hidden_frames(entries: IndexEntries | Sequence[IndexEntry], *, one_edit: bool) -> int:
    """Count the frames of an index that an edit list hides.

    To look at each costs as much as to open the file.

    Args:
        entries: in the order of decoding.
        one_edit: one span at most is shown. What is hidden comes before it or after it then, and
            where no end of the index holds anything hidden, nothing does.
    """
    if one_edit and len(entries) > 2 * _REORDERED:
        ends = entries[:_REORDERED], entries[-_REORDERED:]
        if not any(entry.is_discard for end in ends for entry in end):
            return 0
    return sum(map(attrgetter("is_discard"), entries))


def _edited_once(path: Path) -> bool:
    """Say whether no track of an MP4 has over one edit; false where that is not easily seen.

    ``elst`` is looked for in all but the data: where its letters are there by chance, no harm is
    done. ISO/IEC 14496-12, 8.6.6: after its type come four bytes, then the number of edits.
    """
    size, start, held = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        for kind, end in itertools.islice(_boxes(path, size), _MOST_BOXES):
            if kind != b"mdat":
                held += end - start
                if held > _MOST_HEADER_BYTES:
                    return False
                file.seek(start)
                box = file.read(end - start)
                edits = (
                    int.from_bytes(found[1])
                    for found in re.finditer(rb"elst(?=....(....))", box, re.DOTALL)
                )
                # A compressed header, QuickTime's cmov, could hold any.
                if b"cmov" in box or max(edits, default=0) > 1:
                    return False
            start = end
    return start == size


def _is_indexed(container: InputContainer) -> bool:
    """Say whether one index lists what is in the file, as an MP4's does that is not fragmented."""
    return bool(choose_video(container).frames) and "matroska" not in container.format.name


def _check_index(container: InputContainer, path: Path) -> None:
    """Hold each stream's last index entry against the file's size."""
    size = path.stat().st_size
    for stream in container.streams:
        if len(stream.index_entries):
            last = stream.index_entries[-1]
            if last.pos + last.size > size:
                raise _truncated(path, f"its index reaches byte {last.pos + last.size} of {size}")


def _check_boxes(path: Path) -> None:
    """Hold the top-level boxes of an MP4 against the file's size.

    This finds what never opens (an index that was to come last) and the cut fragmented file.
    What else is appended, such as a music player's tag, is none of them. Box layout: ISO/IEC
    14496-12, 4.2.
    """
    if not path.is_file():
        return
    size = path.stat().st_size
    for kind, end in itertools.islice(_boxes(path, size), _MOST_BOXES):
        if end > size and kind in _HOLDING:
            raise _truncated(path, f"a box ends at byte {end} of {size}")


def _boxes(path: Path, size: int) -> Iterator[tuple[bytes, int]]:
    """Yield the type and the end of each."""
    at = 0
    with path.open("rb") as file:
        while at + 8 <= size:
            file.seek(at)
            head = file.read(16)
            if at == 0 and head[4:8] not in (b"ftyp", b"styp"):
                return
            length = int.from_bytes(head[:4])
            if length == 1:
                length = int.from_bytes(head[8:16])
            if length < 8:  # 0: to the end of the file; less is no box
                return
            at += length
            yield head[4:8], at


def _first_frame_and_sound(
    container: InputContainer, audio: AudioStream | None, path: Path
) -> Picture:
    """Decode the first frame and the first sound that can be, in one pass over the file's start.

    Returns the frame, whose size is that of the video.

    Of a codec that is there in name alone, or of packets that are all broken, comes none.
    """
    video = video_stream(container)
    pixels = Pixels(video, path.name)
    wanted: dict[int, Stream] = {one.index: one for one in (video, audio) if one is not None}
    left = dict.fromkeys(wanted, _FIRST_PACKETS)
    picture, heard = None, False
    select(container, *wanted.values())
    for packet in container.demux(*wanted.values()):
        index = packet.stream_index
        if index not in wanted:
            continue
        left[index] -= 1
        frames: Sequence[object] = ()
        with contextlib.suppress(FFmpegError):
            frames = packet.decode()
        for frame in frames[:1]:
            if isinstance(frame, VideoFrame):
                picture = Picture(0, Fraction(0), frame.is_corrupt, frame, pixels.aspect())
            else:
                heard = True
        if frames or not left[index]:
            del wanted[index]
            if not wanted or (index == video.index and picture is None):
                break
            # What is known is read no further: the other may begin an hour later.
            select(container, *wanted.values())
    if picture is None:
        raise _undecodable(path, "frame")
    if audio is not None and not heard:
        raise _undecodable(path, f"{codec_name(audio)} sound")
    return picture


def _undecodable(path: Path, what: str) -> MediaError:
    return MediaError(
        "undecodable", f"{path.name}: no {what} in its first {_FIRST_PACKETS} packets"
    )


def _truncated(path: Path, why: str) -> MediaError:
    return MediaError("truncated", f"{path.name}: {why}; the end is missing", retryable=True)
