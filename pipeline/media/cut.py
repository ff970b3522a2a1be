"""Cut a span out of a file without encoding: the bytes of the packets stay as they are.

A picture can only start at a keyframe, so packets from the keyframe before the span come along
with negative times; the MP4 muxer writes an edit list that hides them, and readers built on libav
(and browsers) show the requested frame first. decord 0.6 ignores edit lists and shows others.

Whether the result shows what the source does is not known here: ``clip_file`` looks.
"""

from __future__ import annotations

from collections.abc import Collection
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream

from pipeline.errors import MediaError
from pipeline.media.container import Media, choose_audio, choose_video, codec_name
from pipeline.media.timeline import Timeline

_PREROLL = Fraction(1, 10)
"""Sound that comes along hidden before the start, seconds: what a decoder needs to warm up."""


def cut(
    media: Media,
    timeline: Timeline,
    wanted: range,
    end: Fraction,
    target: Path,
    codecs: Collection[str],
) -> None:
    """Write the packets of some frames, and the sound beside them, to the MP4 file ``target``.

    The first of the frames is the first one shown. With B-frames a few frames past ``end`` may
    follow (the reordering depth); sound is cut at the codec's blocks.

    Args:
        media: the source.
        timeline: the source's.
        wanted: its frames, at least one.
        end: where the sound ends, seconds from the source's first frame.
        target: replaced; not there after an error.
        codecs: which may be written.

    Raises:
        MediaError: ``uncuttable`` with the reason, and what reading raises.
        OSError: the target cannot be written.
    """
    with media.open() as container:
        sound = choose_audio(container)
        streams = [choose_video(container), *([sound] if sound is not None else [])]
        for stream in streams:
            if codec_name(stream) not in codecs:
                raise _uncuttable(media, f"an MP4 that players take holds no {codec_name(stream)}")
        start = timeline.start + timeline.time(wanted.start)
        stop = timeline.start + end
        packets = _read(media, container, streams, _keyframe(timeline, wanted.start), start, stop)
        for stream in streams:
            if not any(packet.stream_index == stream.index for packet in packets):
                raise _uncuttable(media, f"no {stream.type} packet lies in the span")
        try:
            _write(streams, packets, start, target)
        except ValueError as error:  # PyAV's own, and libav's EINVAL and invalid data
            target.unlink(missing_ok=True)
            why = error.strerror if isinstance(error, av.FFmpegError) else error
            names = ", ".join(codec_name(stream) for stream in streams)
            raise _uncuttable(media, f"its {names} packets do not go into MP4 ({why})") from error
        except av.FFmpegError as error:
            target.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(target)) from error


def _uncuttable(media: Media, why: str) -> MediaError:
    return MediaError("uncuttable", f"{media.path.name}: {why}")


def _keyframe(timeline: Timeline, index: int) -> int:
    """Return the timestamp of the keyframe that frame ``index`` needs."""
    at = int(np.searchsorted(timeline.key_pts, timeline.pts[index], side="right"))
    return int(timeline.key_pts[max(0, at - 1)])


def _read(
    media: Media,
    container: InputContainer,
    streams: list[Stream],
    key_pts: int,
    start: Fraction,
    stop: Fraction,
) -> list[Packet[Stream]]:
    """Return the packets of the span in file order, with what must come before it."""
    video = streams[0]
    assert video.time_base is not None
    reach = min(Fraction(key_pts) * video.time_base, start - _PREROLL)
    container.seek(int(reach // video.time_base), stream=video)
    kept: list[Packet[Stream]] = []
    started = False
    last_picture = 0
    open_streams = {stream.index for stream in streams}
    for packet in container.demux(streams):
        media.check_time()
        if packet.size == 0:
            continue
        if packet.pts is None:
            raise _uncuttable(media, "a packet in the span has no timestamp")
        time = packet.pts * packet.time_base
        if packet.is_discard and start <= time < stop:
            raise _uncuttable(media, "its edit list hides packets inside the span")
        if packet.dts is not None and packet.dts * packet.time_base >= stop:
            open_streams.discard(packet.stream_index)
            if not open_streams:
                break
        elif packet.stream_index == video.index:
            started = started or packet.pts == key_pts
            if started:
                kept.append(packet)
                if time < stop:
                    last_picture = len(kept)
        elif start - _PREROLL <= time < stop:
            kept.append(packet)
    # Pictures after the last one needed are only there because packets are in decoding order.
    return [
        packet
        for number, packet in enumerate(kept, 1)
        if number <= last_picture or packet.stream_index != video.index
    ]


def _write(
    streams: list[Stream], packets: list[Packet[Stream]], start: Fraction, target: Path
) -> None:
    with av.open(str(target.absolute()), "w", format="mp4") as output:
        targets = {}
        for stream in streams:
            targets[stream.index] = output.add_stream_from_template(stream, opaque=True)
            targets[stream.index].time_base = stream.time_base
        for packet, dts in zip(packets, _decoding_times(packets), strict=True):
            assert packet.pts is not None
            shift = round(start / packet.time_base)
            packet.pts -= shift
            packet.dts = dts - shift
            packet.stream = targets[packet.stream_index]
            output.mux(packet)


def _decoding_times(packets: list[Packet[Stream]]) -> list[int]:
    """Make decoding times that ascend and never pass the presentation; Matroska has none."""
    times = [0] * len(packets)
    for stream in {packet.stream_index for packet in packets}:
        mine = [i for i, packet in enumerate(packets) if packet.stream_index == stream]
        shown = [packets[i].pts or 0 for i in mine]
        delay = max(late - pts for late, pts in zip(sorted(shown), shown, strict=True))
        for i, pts in zip(mine, sorted(shown), strict=True):
            times[i] = pts - delay
    return times
