"""EfficientAT's input made of a waveform: a normalised log mel spectrogram.

The authors' own front end is torch's STFT and Kaldi's mel filters; this is the same arithmetic in
NumPy. Odd about it: the window is symmetric and 800 of the transform's 1024 samples long, the
pre-emphasis loses a sample, and the highest filter ends at 15 kHz of 16.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.sparse import csr_array

RATE_HZ = 32000
"""Sample rate of what EfficientAT hears."""

_FFT, _WINDOW, _HOP = 1024, 800, 320
"""Samples; a spectrogram frame is 10 ms."""

MIN_SAMPLES = _FFT // 2 + 2
"""Samples a waveform needs: its ends are mirrored by half a transform."""

MEL_BINS = 128
_HIGHEST_HZ = 15000.0
_EMPHASIS = 0.97


def mel_spectrogram(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what the network is given of a waveform.

    Args:
        wave: at ``RATE_HZ`` in [-1, 1], ``(samples,)``, at least ``MIN_SAMPLES``.

    Returns:
        ``(f, s)`` with f = 128 bins, low ones first, and s = 1 + (samples - 1) // 320; silence is
        -1.4026, loud sound about 2.5.
    """
    emphasised = wave[1:] - np.float32(_EMPHASIS) * wave[:-1]
    padded = np.pad(emphasised, _FFT // 2, mode="reflect")
    # The window's zeros at both ends are left out: a shift in time changes no power.
    margin = (_FFT - _WINDOW) // 2
    windows = np.lib.stride_tricks.sliding_window_view(padded[margin:-margin], _WINDOW)[::_HOP]
    spectrum = scipy.fft.rfft(windows * _window(), _FFT)
    power = np.square(spectrum.real) + np.square(spectrum.imag)  # (s, 513)
    energy = _mel_filters() @ power[:, :-1].T  # (f, s)
    logarithm = np.log(energy + np.float32(1e-5))
    return np.asarray((logarithm + np.float32(4.5)) / np.float32(5), np.float32)


@cache
def _window() -> NDArray[np.float32]:
    return np.hanning(_WINDOW).astype(np.float32)


@cache
def _mel_filters() -> csr_array[np.float32]:
    """Return Kaldi's triangles on the mel scale, ``(f, 512)``; no weight above 15 kHz.

    Sparse: two filters overlap any line of the spectrum, and no threads of a BLAS wake up.
    """
    edges = np.linspace(0.0, _mel(_HIGHEST_HZ), MEL_BINS + 2)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    at = _mel(np.arange(_FFT // 2) * RATE_HZ / _FFT)
    rising, falling = (at - low) / (centre - low), (high - at) / (high - centre)
    return csr_array(np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32))


def _mel(hz: NDArray[np.float64] | float) -> NDArray[np.float64]:
    return np.asarray(1127.0 * np.log1p(np.asarray(hz) / 700.0))
