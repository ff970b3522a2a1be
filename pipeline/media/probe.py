"""The facts of a media file, and whether it is whole: about as cheap as opening it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from av.container import InputContainer

from pipeline.errors import MediaError
from pipeline.media.container import (
    Media,
    audio_stream,
    choose_audio,
    choose_video,
    codec_name,
    video_stream,
)
from pipeline.media.picture import decode_packet, is_turned
from pipeline.media.timeline import Timeline, read_timeline

_SLACK_S = 1.0
"""A header's duration is rounded; the packets of a whole file end within this of it."""

_FIRST_PACKETS = 300
"""A file without a decodable frame among so many packets is given up."""


@dataclass(frozen=True)
class MediaFacts:
    """What a file says of itself, checked against its bytes."""

    width: int
    """As displayed: after rotation, pixels."""
    height: int
    fps: float
    """Average frame rate."""
    frame_count: int
    """Presented frames."""
    start_s: float
    """First presented frame on the file's own clock."""
    duration_s: float
    """Of the file: its longest stream."""
    bitrate_bps: int
    """Of the whole file."""
    video_codec: str
    audio_codec: str | None
    """None without sound; the next two are 0 then."""
    sample_rate_hz: int
    channels: int


def probe(path: Path) -> MediaFacts:
    """Read a local file's facts.

    MP4 is judged by its boxes, its index and its first frame; the packets of Matroska/WebM and of
    fragmented MP4, which have no whole index, are passed over once.

    Raises:
        MediaError: ``missing_file``, ``empty_file``, ``not_media``, ``truncated``, ``no_video``,
            ``undecodable``, ``too_large``, ``missing_pts``, ``bad_timestamps``.
    """
    media = Media(path)
    _check_boxes(path)
    with media.open() as container:
        audio, video = choose_audio(container), choose_video(container)
        _check_index(container, path)
        turned = _first_frame_is_turned(container, path)
        size = video.height, video.width
        width, height = size if turned else size[::-1]
        duration_s = (container.duration or 0) / 1e6
        facts = MediaFacts(
            width=width,
            height=height,
            fps=float(video.average_rate or 0),
            frame_count=_indexed_frames(container),
            start_s=float((video.start_time or 0) * (video.time_base or 0)),
            duration_s=duration_s,
            bitrate_bps=_bitrate(path, duration_s),
            video_codec=codec_name(video),
            audio_codec=codec_name(audio) if audio else None,
            sample_rate_hz=audio.rate if audio else 0,
            channels=audio.channels if audio else 0,
        )
    return facts if facts.frame_count else _counted(media, facts)


def _counted(media: Media, facts: MediaFacts) -> MediaFacts:
    """The facts that only the packets tell, for a file without a whole index."""
    timeline = read_timeline(media)
    end_s = float(timeline.end)
    # The sound may well be longer than the picture; only if both stop is the file cut.
    early = facts.duration_s - _SLACK_S
    if float(timeline.start) + end_s < early and _sound_end_s(media) < early:
        raise _truncated(media.path, f"ends at {end_s:.1f} of {facts.duration_s:.1f} s")
    duration_s = facts.duration_s or end_s
    return dataclasses.replace(
        facts,
        fps=_average_rate(timeline) or facts.fps,
        frame_count=len(timeline.pts),
        start_s=float(timeline.start),
        duration_s=duration_s,
        bitrate_bps=_bitrate(media.path, duration_s),
    )


def _average_rate(timeline: Timeline) -> float:
    steps = len(timeline.pts) - 1
    return float(steps / timeline.time(steps)) if steps else 0.0


def _sound_end_s(media: Media) -> float:
    with media.open() as container:
        if not container.streams.audio:
            return 0.0
        stream = audio_stream(container)
        ends = ((p.pts or 0) + (p.duration or 0) for p in container.demux(stream) if p.size)
        return float(max(ends, default=0) * (stream.time_base or 0))


def _bitrate(path: Path, duration_s: float) -> int:
    return round(path.stat().st_size * 8 / duration_s) if duration_s else 0


def _indexed_frames(container: InputContainer) -> int:
    """Presented frames by the index; 0 when it does not hold them all."""
    video = choose_video(container)
    if not video.frames or "matroska" in container.format.name:
        return 0
    entries = video.index_entries
    if len(entries) < video.frames:
        return 0
    hidden: int = sum(map(attrgetter("is_discard"), entries))
    return len(entries) - hidden


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
    Box layout: ISO/IEC 14496-12, 4.2.
    """
    if not path.is_file():
        return
    size = path.stat().st_size
    for end in itertools.islice(_box_ends(path, size), 1_000_000):
        if end > size:
            raise _truncated(path, f"a box ends at byte {end} of {size}")


def _box_ends(path: Path, size: int) -> Iterator[int]:
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
            yield at


def _first_frame_is_turned(container: InputContainer, path: Path) -> bool:
    video = video_stream(container)
    for packet in itertools.islice(container.demux(video), _FIRST_PACKETS):
        for frame in decode_packet(packet) or ():
            return is_turned(frame)
    raise MediaError("undecodable", f"{path.name}: no frame in its first {_FIRST_PACKETS} packets")


def _truncated(path: Path, why: str) -> MediaError:
    return MediaError("truncated", f"{path.name}: {why}; the end is missing", retryable=True)
