"""CAV-MAE's input made of a waveform: Kaldi's log mel filter bank, normalised.

The authors used torchaudio's; kaldi-native-fbank is the same arithmetic without torch and differs
by 1e-4 in the mean. Odd about it: the padding is 0.0 before the normalisation, so padded rows end
as 1.13 and silence as -2.42; the waveform stays in [-1, 1], not in Kaldi's 16-bit range.
"""

from __future__ import annotations

import numpy as np
from kaldi_native_fbank import FbankOptions, OnlineFbank
from numpy.typing import NDArray

RATE_HZ = 16000
"""Sample rate of what CAV-MAE hears."""

MIN_SAMPLES = 400
"""Samples of a window: fewer make no row at all."""

FRAMES = 1024
"""Rows the network takes, 10 ms each; of longer sound the first 10.24 s count."""

_MEL_BINS = 128
_MEAN, _DEVIATION = -5.081, 4.4849
"""Statistics of AudioSet; the authors use them for VGGSound too."""


def filter_bank(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the log mel energies of a waveform.

    Args:
        wave: at ``RATE_HZ`` in [-1, 1], ``(samples,)``, at least ``MIN_SAMPLES``.

    Returns:
        ``(s, f)`` with s = 1 + (samples - 400) // 160 and f = 128 bins, low ones first.
    """
    bank = OnlineFbank(_options())
    bank.accept_waveform(RATE_HZ, (wave - wave.mean(dtype=np.float64)).astype(np.float32))
    bank.input_finished()
    return np.stack([bank.get_frame(row) for row in range(bank.num_frames_ready)])


def model_input(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what the network is given of a waveform, ``(s, f)`` = ``(1024, 128)``.

    Args:
        wave: as ``filter_bank``'s.
    """
    bank = filter_bank(wave)[:FRAMES]
    padded = np.pad(bank, ((0, FRAMES - len(bank)), (0, 0)))
    return (padded - np.float32(_MEAN)) / np.float32(_DEVIATION)


def _options() -> FbankOptions:
    options = FbankOptions()
    options.frame_opts.samp_freq = RATE_HZ
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = "hanning"
    options.frame_opts.snip_edges = True
    options.mel_opts.num_bins = _MEL_BINS
    options.use_energy = False
    options.htk_compat = True
    return options
