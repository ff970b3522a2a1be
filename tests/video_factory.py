"""Draw small videos with PyAV, whole or broken in a chosen way."""

from __future__ import annotations

import contextlib
import struct
import wave
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

RATE = 16_000
"""Sample rate of drawn sound, Hz."""

Drawing = Callable[[int], NDArray[np.uint8]]
"""Frame number to RGB image."""


def scene(width: int = 96, height: int = 72, seed: int = 0) -> Drawing:
    """A texture that drifts, with a blur that comes and goes: every frame differs in sharpness."""
    texture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    texture = cv2.GaussianBlur(texture, (0, 0), 1.0)

    def draw(number: int) -> NDArray[np.uint8]:
        moved = np.roll(texture, (number, 2 * number), (0, 1))
        blur = 0.4 + 1.2 * abs(np.sin(number * 0.37))
        return np.ascontiguousarray(cv2.GaussianBlur(moved, (0, 0), blur), np.uint8)

    return draw


def bursts(duration_s: float, at: Sequence[float], level: float = 0.2) -> NDArray[np.float32]:
    """A quiet hum with a short swelling tone around each time, ``(samples,)``."""
    time = np.arange(round(duration_s * RATE)) / RATE
    swell = sum((np.exp(-(((time - centre) / 0.06) ** 2)) for centre in at), np.zeros_like(time))
    return ((0.02 + level * swell) * np.sin(2 * np.pi * 440 * time)).astype(np.float32)


def make_video(
    path: Path,
    *,
    frames: int = 60,
    fps: int | Fraction = 25,
    draw: Drawing | None = None,
    pts_ms: Sequence[int] | None = None,
    sound: NDArray[np.float32] | None = None,
    codec: str = "libx264",
    gop: int = 20,
    b_frames: int = 0,
    options: dict[str, str] | None = None,
    pix_fmt: str = "yuv420p",
    start_s: float = 0.0,
    rotation: int | None = None,
    pixel_aspect: Fraction | None = None,
    sound_codec: str = "aac",
    sound_start_s: float = 0.0,
    sound_gap: tuple[float, float] | None = None,
    sound_block: int = 1000,
    movflags: str = "",
) -> Path:
    """Encode a drawn video to ``path``; its name chooses the container.

    Args:
        path: ends in ``.mp4``, ``.webm`` or ``.mkv``.
        frames: how many, unless ``pts_ms`` lists them.
        fps: constant rate.
        draw: the pictures; by default ``scene()``.
        pts_ms: presentation times for a variable rate.
        sound: ``(samples,)`` or ``(channels, samples)`` at ``RATE``; none for a silent file.
        codec: video encoder.
        gop: frames between keyframes.
        b_frames: frames between two references.
        options: more encoder options.
        pix_fmt: of the encoded frames.
        start_s: first video timestamp.
        rotation: degrees counter-clockwise, written as a display matrix.
        pixel_aspect: width over height of a pixel.
        sound_codec: sound encoder.
        sound_start_s: first sound timestamp.
        sound_gap: start and length of a hole in the sound's timestamps, seconds.
        sound_block: samples given to the sound's encoder at once.
        movflags: of the MP4 muxer.
    """
    draw = draw or scene()
    height, width = draw(0).shape[:2]
    clock = Fraction(1, 1000) if pts_ms else 1 / Fraction(fps)
    stamps = list(pts_ms) if pts_ms else list(range(frames))
    container_options = {"movflags": movflags} if movflags else {}
    with av.open(str(path), "w", container_options=container_options) as output:
        picture: Any = output.add_stream(codec, rate=Fraction(fps), options=_x264(codec, options))
        picture.width, picture.height, picture.pix_fmt = width, height, pix_fmt
        picture.gop_size, picture.max_b_frames = gop, b_frames
        picture.codec_context.time_base = clock
        if pixel_aspect is not None:
            picture.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation is not None:
            picture.set_display_rotation(rotation)
        voice: Any = None
        if sound is not None:
            sound = np.atleast_2d(sound)
            layout = {1: "mono", 2: "stereo"}[len(sound)]
            voice = output.add_stream(sound_codec, rate=RATE, layout=layout)
        offset = round(Fraction(start_s).limit_denominator(1000) / clock)
        for number, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(draw(number), format="rgb24").reformat(
                format=pix_fmt
            )
            frame.pts, frame.time_base = stamp + offset, clock
            output.mux(picture.encode(frame))
        output.mux(picture.encode())
        if voice is not None and sound is not None:
            _encode_sound(output, voice, sound, sound_start_s, sound_gap, sound_block)
    return path


def _x264(codec: str, options: dict[str, str] | None) -> dict[str, str]:
    fast = {"libx264": {"preset": "ultrafast"}, "libx265": {"preset": "ultrafast"}}
    quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    return {**fast.get(codec, {}), **quiet, **(options or {})}


def _encode_sound(
    output: Any,
    stream: Any,
    sound: NDArray[np.float32],
    start_s: float,
    gap: tuple[float, float] | None,
    block: int,
) -> None:
    first = round(start_s * RATE)
    for at in range(0, sound.shape[1], block):
        samples = np.ascontiguousarray(sound[:, at : at + block])
        skipped = round(gap[1] * RATE) if gap and at >= gap[0] * RATE else 0
        frame = av.AudioFrame.from_ndarray(
            samples, format="fltp", layout=stream.codec_context.layout.name
        )
        frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
        frame.pts = first + at + skipped
        output.mux(stream.encode(frame))
    output.mux(stream.encode())


def remuxed(
    path: Path,
    tracks: Sequence[tuple[Path, str, Disposition]],
    keep: Callable[[Any], bool] = lambda _packet: True,
) -> Path:
    """Put tracks of several files into one, bit by bit.

    Args:
        path: its name chooses the container.
        tracks: each a file, ``video`` or ``audio``, and what the track says of itself.
        keep: which packets come along.
    """
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(av.open(str(path), "w"))
        packets = []
        for source, kind, disposition in tracks:
            given = stack.enter_context(av.open(str(source)))
            template = getattr(given.streams, kind)[0]
            stream = output.add_stream_from_template(template)
            stream.disposition = disposition
            for packet in given.demux(template):
                if packet.size and keep(packet):
                    packet.stream = stream
                    packets.append(packet)
        for packet in sorted(packets, key=lambda p: (p.dts or 0) * p.time_base):
            output.mux(packet)
    return path


def chained(path: Path, pictures: Sequence[Path], sound: Path) -> Path:
    """The pictures of several files one after another as one track, and a sound."""
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(av.open(str(path), "w"))
        given: list[Any] = [
            stack.enter_context(av.open(str(source))) for source in [*pictures, sound]
        ]
        target = output.add_stream_from_template(given[0].streams.video[0])
        voice = output.add_stream_from_template(given[-1].streams.audio[0])
        packets: list[Any] = []
        start = Fraction(0)
        for container in given[:-1]:
            own = [packet for packet in container.demux(video=0) if packet.size]
            base = own[0].time_base
            for packet in own:
                packet.pts += round(start / base)
                packet.dts = packet.pts if packet.dts is None else packet.dts + round(start / base)
                packet.stream = target
            start = max(packet.pts + packet.duration for packet in own) * base
            packets += own
        own = [packet for packet in given[-1].demux(audio=0) if packet.size]
        for packet in own:
            packet.stream = voice
        for packet in sorted(packets + own, key=lambda packet: packet.dts * packet.time_base):
            output.mux(packet)
    return path


def retimed(source: Path, target: Path, shift_ms: Callable[[int], int]) -> Path:
    """A Matroska file whose sound packets are said to come earlier or later.

    Args:
        source: the file, its sound PCM.
        target: the other one.
        shift_ms: packet number to milliseconds, under 30,000.
    """
    data, at = bytearray(source.read_bytes()), 0
    with av.open(str(source)) as container:
        packets = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    for number, packet in enumerate(packets):
        at = data.index(packet, at)
        # A block is: track, time since its cluster's (16 bits, signed), flags, the packet.
        time = slice(at - 3, at - 1)
        moved = int.from_bytes(data[time], signed=True) + shift_ms(number)
        data[time] = moved.to_bytes(2, signed=True)
        at += len(packet)
    target.write_bytes(data)
    return target


def truncated(source: Path, target: Path, share: float) -> Path:
    """The first ``share`` of a file."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def flipped(source: Path, target: Path, start: float, stop: float, seed: int = 0) -> Path:
    """A file with 40 bytes overwritten between two shares of its length."""
    data = bytearray(source.read_bytes())
    rng = np.random.default_rng(seed)
    for at in rng.integers(int(len(data) * start), int(len(data) * stop), 40):
        data[at] = int(rng.integers(256))
    target.write_bytes(data)
    return target


def garbled(source: Path, target: Path, kind: str) -> Path:
    """An MP4 whose ``video`` or ``audio`` packets hold nothing of their codec."""
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        for entry in getattr(container.streams, kind)[0].index_entries:
            data[entry.pos : entry.pos + entry.size] = b"\xff" * entry.size
    target.write_bytes(data)
    return target


def edited(source: Path, target: Path, parts: Sequence[tuple[float, float]]) -> Path:
    """An MP4 whose index comes last, told to play some parts of itself, one after the other.

    Boxes: ISO/IEC 14496-12; ``elst`` is 8.6.6. Times are seconds of what the source shows; a part
    before 0 shows nothing.
    """
    boxes = dict(_boxes(source.read_bytes()))
    assert list(boxes)[-1] == b"moov"
    scale = int.from_bytes(dict(_boxes(boxes[b"moov"]))[b"mvhd"][12:16])
    movie = b"".join(
        boxed(name, _replayed(body, parts, scale) if name == b"trak" else body)
        for name, body in _boxes(boxes[b"moov"])
    )
    target.write_bytes(b"".join(boxed(n, movie if n == b"moov" else b) for n, b in boxes.items()))
    return target


def _replayed(track: bytes, parts: Sequence[tuple[float, float]], movie_scale: int) -> bytes:
    boxes = dict(_boxes(track))
    clock = int.from_bytes(dict(_boxes(boxes[b"mdia"]))[b"mdhd"][12:16])
    began = 0  # in the track's clock, where what is shown begins: B-frames, AAC's priming
    if b"edts" in boxes:
        began = int.from_bytes(dict(_boxes(boxes[b"edts"]))[b"elst"][12:16])
    listed = b"".join(
        struct.pack(
            ">IiI",
            round((b - a) * movie_scale),
            -1 if a < 0 else began + round(a * clock),
            1 << 16,
        )
        for a, b in parts
    )
    edits = boxed(b"edts", boxed(b"elst", struct.pack(">II", 0, len(parts)) + listed))
    return b"".join(
        boxed(name, body) + (edits if name == b"tkhd" else b"")
        for name, body in boxes.items()
        if name != b"edts"
    )


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4])
        yield data[at + 4 : at + 8], data[at + 8 : at + size]
        at += size


def boxed(name: bytes, body: bytes) -> bytes:
    """A box of an MP4."""
    return struct.pack(">I4s", 8 + len(body), name) + body


def write_wav(path: Path, samples: np.ndarray, rate_hz: int) -> Path:
    """16-bit PCM of ``(samples, channels)`` in [-1, 1)."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes((samples * 2**15).astype("<i2").tobytes())
    return path
