"""The whole sound of a file, be it a clip with pictures or a sound alone, at a model's rate."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MediaError
from pipeline.media.container import SOUND_FORMATS, Media, choose_audio, has_video
from pipeline.media.sound import Channels, one_channel, sound_blocks
from pipeline.media.timeline import read_timeline
from pipeline.media.waveform import resample, to_unit

_LONGEST_S = 3600


@dataclass(frozen=True)
class FileSound:
    """A sound and what it was in the file."""

    wave: NDArray[np.float32]
    """Mono in [-1, 1] at the rate asked for, ``(samples,)``."""
    rate_hz: int
    """The file's own."""
    channels: int
    """The file's own."""


def read_sound(path: Path, rate_hz: int, channels: Channels = "first") -> FileSound:
    """Read a file's sound from its beginning: the first frame's time where it has pictures.

    Args:
        path: MP4, Matroska, WAV, FLAC, MP3 or Ogg.
        rate_hz: wanted samples per second.
        channels: which of several channels is heard.

    Raises:
        MediaError: ``no_audio``, ``undecodable``, ``too_long`` (an hour), and what opening raises.
    """
    media = Media(path, formats=SOUND_FORMATS)
    with media.open() as container:
        pictured = has_video(container)
        found = choose_audio(container)
        count = found.codec_context.channels if found is not None else 0
    zero = read_timeline(media).start if pictured else Fraction(0)
    blocks: list[tuple[int, NDArray[np.float32]]] = []
    rate = 0
    for position, block in sound_blocks(media, zero, 0, _LONGEST_S + 1):
        rate = block.sample_rate
        if position + block.samples > _LONGEST_S * rate:
            raise MediaError("too_long", f"{path.name}: more than {_LONGEST_S} s of sound")
        blocks.append((position, one_channel(block, channels)))
    end = max((position + len(wave) for position, wave in blocks), default=0)
    if end <= 0:
        raise MediaError("no_audio", f"{path.name}: no sound")
    whole = np.zeros(end, np.float32)
    for position, wave in reversed(blocks):  # where blocks overlap the first is heard
        begin = max(0, position)
        whole[begin : position + len(wave)] = wave[begin - position :]
    if not np.isfinite(whole).all():
        raise MediaError("undecodable", f"{path.name}: its sound is not finite")
    return FileSound(to_unit(resample(whole[None], rate, rate_hz, "s16")[0]), rate, count)
