"""Sound whose frames are even, decoded by libav alone: Python sees blocks of about a second.

A frame of sound lasts a few milliseconds. In ten minutes there are 26,000 of AAC's, and to hand
them to Python one by one costs more than to decode them. libavfilter reads, decodes and joins
them by itself, but joins whatever comes. So it is let do so where all frames have one size and
follow one another, and holds each frame against that; other sound is :class:`Uneven` and has to be
read frame by frame (``pipeline.media.sound``). The blocks are the same either way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from av import EOFError as EndOfFile
from av import FFmpegError
from av.audio.frame import AudioFrame
from av.filter import Graph
from av.filter.context import FilterContext

from pipeline.media.container import Media

_HARDLY = 1e-6
"""Samples by which a sum of floats may err."""


class Uneven(Exception):
    """Frames that differ in size, or do not follow one another, or cannot all be decoded."""


@dataclass(frozen=True)
class EvenSound:
    """A stream of sound as its first frames promise it to go on.

    Args:
        stream: its number in the file.
        rate_hz: samples per second.
        position: number of its first sample.
        pts: the first frame's timestamp.
        time_base: seconds per unit of timestamps.
        first: samples of the first frame, which decoders may shorten.
        size: samples of every other frame but the last.
        jitter: samples by which timestamps may err.
    """

    stream: int
    rate_hz: int
    position: int
    pts: int
    time_base: Fraction
    first: int
    size: int
    jitter: int

    def blocks(self, media: Media, end: int) -> Iterator[tuple[int, AudioFrame]]:
        """Decode it in blocks of the fewest frames that last a second.

        Args:
            media: the file.
            end: samples from 0 on the file's own clock to where it ends, if it does not before.

        Yields:
            The number of a block's first sample, and the block.

        Raises:
            Uneven: at the end at the latest; what was yielded is then worth nothing.
            MediaError: ``too_slow``.
        """
        graph, sound, uneven = self._graph(media, end)
        lacking = max(0, self.rate_hz - self.first)
        graph.set_audio_frame_size(self.first + -(-lacking // self.size) * self.size)
        count = 0
        while (block := _pulled(sound)) is not None:
            media.check_time()
            yield self.position + count, block
            if not count:
                graph.set_audio_frame_size(-(-self.rate_hz // self.size) * self.size)
            count += block.samples
        if _pulled(uneven) is not None:
            raise Uneven

    def _graph(self, media: Media, end: int) -> tuple[Graph, FilterContext, FilterContext]:
        """Return what decodes the sound, where its blocks come out, and where uneven frames do."""
        graph = Graph()
        graph.threads = 1
        formats = media.formats
        try:
            movie = graph.add(
                "amovie",
                filename=f"file:{media.path.absolute()}",
                streams=str(self.stream),
                dec_threads="1",
                format_opts=f"protocol_whitelist=file:format_whitelist={formats}",
            )
            trim = graph.add("atrim", end_pts=str(end))  # counted in samples, unlike ``pts`` below
            select = graph.add("aselect", expr=self._number_of_output(), outputs="2")
            sound, uneven = graph.add("abuffersink"), graph.add("abuffersink")
            movie.link_to(trim)
            trim.link_to(select)
            select.link_to(sound, 0)
            select.link_to(uneven, 1)
            graph.configure()
        except FFmpegError as error:
            raise Uneven from error
        return graph, sound, uneven

    def _number_of_output(self) -> str:
        """Return libav's expression that is 2 for the first uneven frame and 1 for all others.

        Its variables: 0 the samples before this frame, 1 whether it is uneven, 2 whether one was.
        One alone is sent aside, for nobody takes them from there before the end.
        """
        before = f"if(n,{self.first}+(n-1)*{self.size},0)"
        samples = self.time_base * self.rate_hz
        off = f"abs((pts-({self.pts}))*{samples.numerator}/{samples.denominator}-ld(0))"
        even = f"eq(ld(0),{before})*lte({off},{max(0, self.jitter - _HARDLY)})"
        steps = f"st(1,not({even})*not(ld(2)))", "st(2,max(ld(1),ld(2)))", "st(0,ld(0)+samples_n)"
        return ";".join([*steps, "1+ld(1)"])


def _pulled(sink: FilterContext) -> AudioFrame | None:
    try:
        frame = sink.pull()
    except EndOfFile:
        return None
    except FFmpegError as error:
        raise Uneven from error
    assert isinstance(frame, AudioFrame)
    return frame
