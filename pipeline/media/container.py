"""Opening one media file, which is hostile input until it is proven boring.

Only local files of two container families are opened: playlists, concatenations and everything
else that can point elsewhere is refused by libav's own whitelists. Only MP4/MOV and Matroska/WebM
carry a timestamp with every frame and an index; every format yt-dlp gives us is one of the two.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Discard, Disposition, Stream
from av.video.stream import VideoStream

from pipeline.errors import MediaError
from pipeline.signatures import HEAD_BYTES, looks_like

MAX_PIXELS = 8192 * 4608
"""Largest picture decoded; a small file can claim any size."""

MAX_DURATION_S = 12 * 3600
"""Longest span of timestamps believed; memory grows with it (about 1.6 kB per second of sound)."""

_VIDEO_FORMATS = "mov,matroska"
SOUND_FORMATS = "wav,flac,mp3,ogg,mov,matroska"
"""Containers a sound alone may come in; no such file can point at another."""

_STILL = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_SECONDARY = (
    Disposition.dub
    | Disposition.comment
    | Disposition.lyrics
    | Disposition.karaoke
    | Disposition.hearing_impaired
    | Disposition.visual_impaired
    | Disposition.clean_effects
    | Disposition.non_diegetic
    | Disposition.descriptions
    | Disposition.dependent
)
"""Flags of a track that accompanies the main one; they matter where there are several."""


@dataclass
class DecodeCounts:
    """Counts of what was decoded: what speed is made of, without the noise of a clock."""

    frames: int = 0
    audio_s: float = 0.0


@dataclass
class Media:
    """A media file and the limits of working on it.

    Args:
        path: a local file.
        timeout_s: wall time from now on after which work on it raises ``too_slow``.
        formats: libav's names of those that are opened.
        size: width and height that every decoded picture must have as displayed; none: the first's.
    """

    path: Path
    timeout_s: float = float("inf")
    counts: DecodeCounts = field(default_factory=DecodeCounts)
    formats: str = _VIDEO_FORMATS
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        self._deadline = time.monotonic() + self.timeout_s

    def check_time(self) -> None:
        """Raise ``too_slow`` when the time is over."""
        if time.monotonic() > self._deadline:
            raise MediaError(
                "too_slow", f"{self.path.name}: not done after {self.timeout_s:g} s of decoding"
            )

    @contextlib.contextmanager
    def open(self) -> Iterator[InputContainer]:
        """Open the file; libav's complaints inside the ``with`` become a MediaError too.

        Raises:
            MediaError: ``missing_file``, ``empty_file``, ``not_media``, ``undecodable``.
        """
        if not self.path.is_file():
            raise MediaError("missing_file", f"{self.path.name}: no such file", retryable=True)
        if self.path.stat().st_size == 0:
            raise MediaError("empty_file", f"{self.path.name}: 0 bytes")
        try:
            # "file:" keeps names such as "concat:..." from being read as another protocol.
            container = av.open(
                f"file:{self.path.absolute()}",
                "r",
                container_options={"protocol_whitelist": "file", "format_whitelist": self.formats},
            )
        except av.FFmpegError as error:
            known = "an MP4/MOV or Matroska/WebM"
            wanted = known if self.formats == _VIDEO_FORMATS else f"a {self.formats}"
            with self.path.open("rb") as file:
                found = looks_like(file.read(HEAD_BYTES))
            why = f"but {found}" if found else f"({error.strerror})"
            raise MediaError("not_media", f"{self.path.name}: not {wanted} file {why}") from error
        try:
            with container:
                yield container
        except av.FFmpegError as error:
            raise MediaError("undecodable", f"{self.path.name}: {error.strerror}") from error


def choose_video(container: InputContainer) -> VideoStream:
    """Return the moving picture a player shows: the default one, else the first.

    Cover art, chapter thumbnails and stills are none. In MP4 a disabled track is one that is not
    default.

    Raises:
        MediaError: ``no_video``, ``undecodable`` (no decoder), ``too_large``.
    """
    moving = _moving(container)
    if not moving:
        raise MediaError("no_video", f"{_name(container)}: no video stream")
    stream = min(moving, key=_rank)
    _need_decoder(container, stream)
    if stream.width * stream.height > MAX_PIXELS:
        size = f"{stream.width}x{stream.height}"
        raise MediaError("too_large", f"{_name(container)}: {size} is over {MAX_PIXELS} pixels")
    return stream


def choose_audio(container: InputContainer) -> AudioStream | None:
    """Return the sound a player plays: the default one, else the first; none when there is none.

    Raises:
        MediaError: ``undecodable`` (no decoder).
    """
    stream = min(container.streams.audio, key=_rank, default=None)
    if stream is not None:
        _need_decoder(container, stream)
    return stream


def has_video(container: InputContainer) -> bool:
    """Say whether there is a moving picture."""
    return bool(_moving(container))


def _moving(container: InputContainer) -> list[VideoStream]:
    return [one for one in container.streams.video if not one.disposition & _STILL]


def _rank(stream: Stream) -> tuple[bool, bool, bool]:
    """Rank what is played: smallest first; of equals the first in the file is taken."""
    one_frame = stream.frames == 1  # a poster or a blank, though not marked as such
    default = bool(stream.disposition & Disposition.default)
    return one_frame, not default, bool(stream.disposition & _SECONDARY)


def video_stream(container: InputContainer) -> VideoStream:
    """Return the chosen picture, alone: packets of the other streams are not even read.

    One decoder thread: more cost CPU, and the machine is filled by processes.

    Raises:
        MediaError: as ``choose_video`` does.
    """
    stream = choose_video(container)
    stream.thread_type = "NONE"
    stream.thread_count = 1
    select(container, stream)
    return stream


def audio_stream(container: InputContainer) -> AudioStream:
    """Return the chosen sound, alone.

    Raises:
        MediaError: ``no_audio``, ``undecodable`` (no decoder).
    """
    stream = choose_audio(container)
    if stream is None:
        raise MediaError("no_audio", f"{_name(container)}: no audio stream")
    select(container, stream)
    return stream


def codec_name(stream: Stream) -> str:
    """Return the name of a stream's codec: ``av1``, whichever decoder (``libdav1d``) reads it.

    The stream must have a decoder: ``video_stream`` and ``audio_stream`` see to that.
    """
    return stream.codec_context.codec.canonical_name


def select(container: InputContainer, *wanted: Stream) -> None:
    """Have the packets of these streams alone read."""
    indices = {stream.index for stream in wanted}
    for stream in container.streams:
        stream.discard = Discard.default if stream.index in indices else Discard.all


def _need_decoder(container: InputContainer, stream: Stream) -> None:
    if stream.codec_context is None:
        raise MediaError("undecodable", f"{_name(container)}: no decoder for its {stream.type}")


def _name(container: InputContainer) -> str:
    return Path(container.name).name
