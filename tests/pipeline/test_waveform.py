"""The waveform of a span, against the samples that were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import MediaError
from pipeline.media import Media, read_timeline, waveform
from tests.video_factory import RATE, bursts, make_video


def heard(path: Path, start_s: float, end_s: float, rate_hz: int = RATE) -> NDArray[np.float32]:
    media = Media(path)
    return waveform(media, read_timeline(media), start_s, end_s, rate_hz)


def tone(hertz: float, duration_s: float) -> NDArray[np.float32]:
    time = np.arange(round(duration_s * RATE)) / RATE
    return (0.4 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def steps(sound: NDArray[np.float32]) -> NDArray[np.float64]:
    """To 16 bits, as the file holds it."""
    return np.asarray(np.rint(sound.astype(np.float64) * 2**15) / 2**15)


def test_a_span_is_the_first_channels_samples_presented_in_it(tmp_path: Path) -> None:
    sound = np.stack([bursts(4, [1, 2, 3]), tone(300, 4)])
    path = make_video(tmp_path / "v.mkv", frames=100, sound=sound, sound_codec="pcm_s16le")
    wave = heard(path, 1.25, 3.0)
    assert wave.dtype == np.float32
    wanted = steps(sound[0, round(1.25 * RATE) : 3 * RATE])
    np.testing.assert_allclose(wave, wanted, rtol=0, atol=2**-15)


def test_what_the_new_rate_cannot_hold_is_filtered_out_and_the_rest_keeps_its_place(
    tmp_path: Path,
) -> None:
    low, high = tone(1000, 3), tone(6000, 3)
    path = make_video(tmp_path / "v.mkv", frames=75, sound=low + high, sound_codec="pcm_s16le")
    wave = heard(path, 0, 3, 8000)
    assert len(wave) == 3 * 8000
    inside = slice(200, -200)  # the filter needs samples on both sides
    np.testing.assert_allclose(wave[inside], low[::2][inside], rtol=0, atol=1e-3)


def test_a_span_decoded_alone_is_that_part_of_the_whole(tmp_path: Path) -> None:
    sound = bursts(6, [1, 2.5, 4, 5])
    path = make_video(tmp_path / "v.mp4", frames=150, sound=sound)
    whole, part = heard(path, 0, 6), heard(path, 3, 5)
    np.testing.assert_allclose(part, whole[3 * RATE : 5 * RATE], rtol=0, atol=1e-3)
    assert np.abs(part).max() > 0.1


def test_time_is_that_of_the_first_frame_not_of_the_file(tmp_path: Path) -> None:
    sound = bursts(4, [2])
    path = make_video(
        tmp_path / "v.mkv", frames=100, start_s=0.4, sound=sound, sound_codec="pcm_s16le"
    )
    peak = int(np.abs(heard(path, 0, 3)).argmax()) / RATE
    assert peak == pytest.approx(1.6, abs=0.01)


def test_a_gap_is_silence_and_an_early_end_is_a_shorter_array(tmp_path: Path) -> None:
    path = make_video(
        tmp_path / "v.mkv",
        frames=150,
        sound=tone(500, 4),
        sound_codec="pcm_s16le",
        sound_gap=(2.0, 1.0),
    )
    wave = heard(path, 0, 6)
    assert len(wave) == 5 * RATE
    assert not wave[2 * RATE + 10 : 3 * RATE - 10].any()
    np.testing.assert_allclose(wave[3 * RATE :], steps(tone(500, 4)[2 * RATE :]), atol=2**-15)


def test_a_file_or_a_span_without_sound_says_so(tmp_path: Path) -> None:
    silent = make_video(tmp_path / "silent.mp4", frames=100)
    short = make_video(tmp_path / "short.mp4", frames=100, sound=tone(500, 1))
    with pytest.raises(MediaError, match="no_audio: silent"):
        heard(silent, 0, 2)
    with pytest.raises(MediaError, match=r"no_audio: short\.mp4: no sound from 2\.5 to 3\.5 s"):
        heard(short, 2.5, 3.5)


def test_sound_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    sound = tone(500, 2)
    sound[20_000] = np.nan
    path = make_video(tmp_path / "v.mkv", frames=50, sound=sound, sound_codec="pcm_f32le")
    with pytest.raises(MediaError, match="undecodable"):
        heard(path, 0, 2)
