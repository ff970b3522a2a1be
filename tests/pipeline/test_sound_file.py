"""The sound of a whole file, as its samples were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import MediaError
from pipeline.media import Media, read_sound, read_timeline, waveform
from tests.video_factory import bursts, make_video, write_wav


def test_a_wav_file_at_the_models_rate_is_read_to_the_sample(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, (4000, 1)) / 2**15
    found = read_sound(write_wav(tmp_path / "a.wav", samples, 16_000), 16_000)
    np.testing.assert_array_equal(found.wave, samples[:, 0].astype(np.float32))
    assert (found.rate_hz, found.channels) == (16_000, 1)


def test_of_two_channels_the_first_is_heard_or_their_mean(tmp_path: Path) -> None:
    pair = np.stack([np.full(1600, 0.5), np.full(1600, -0.25)], axis=1)
    path = write_wav(tmp_path / "a.wav", pair, 16_000)
    assert read_sound(path, 16_000).wave == pytest.approx(0.5)
    mixed = read_sound(path, 16_000, "mean")
    assert mixed.wave == pytest.approx(0.125)
    assert mixed.channels == 2


def test_another_rate_is_resampled_and_told(tmp_path: Path) -> None:
    time = np.arange(44_100) / 44_100
    tone = 0.5 * np.sin(2 * np.pi * 1000 * time)[:, None]
    found = read_sound(write_wav(tmp_path / "a.wav", tone, 44_100), 16_000)
    assert found.rate_hz == 44_100
    assert len(found.wave) == 16_000
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(found.wave[200:-200], expected[200:-200], atol=2e-3)


def test_of_a_clip_it_is_the_waveform_of_its_whole_span(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", frames=50, sound=bursts(2.0, [0.7]))
    media = Media(path)
    expected = waveform(media, read_timeline(media), 0, 2, 16_000)
    found = read_sound(path, 16_000).wave
    np.testing.assert_array_equal(found[:31_000], expected[:31_000])


def test_what_has_no_sound_says_so(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no audio"):
        read_sound(make_video(tmp_path / "a.mp4", frames=10), 16_000)
    (tmp_path / "b.wav").write_bytes(b"RIFF....")
    with pytest.raises(MediaError, match=r"b\.wav: not a wav"):
        read_sound(tmp_path / "b.wav", 16_000)
    with pytest.raises(MediaError, match="no such file"):
        read_sound(tmp_path / "c.wav", 16_000)


def test_a_playlist_that_points_elsewhere_is_not_opened(tmp_path: Path) -> None:
    write_wav(tmp_path / "secret.wav", np.zeros((1600, 1)), 16_000)
    playlist = tmp_path / "list.wav"
    playlist.write_text("#EXTM3U\n#EXTINF:1,\nsecret.wav\n#EXT-X-ENDLIST\n")
    with pytest.raises(MediaError, match="not a wav"):
        read_sound(playlist, 16_000)
