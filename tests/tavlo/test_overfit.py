"""The network can say what its labels say: told the answer, it learns eight clips by heart."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from einops import rearrange, reduce
from numpy.typing import NDArray
from torch import Tensor

from pipeline.synthetic.drawing import Painter
from pipeline.synthetic.voices import RATE_HZ, soundtrack
from tavlo.metrics.localisation import ciou, top_fraction_threshold
from tavlo.network.model import SpatialAttention, Tavlo, TavloSizes, similarity
from tavlo.network.spectrogram import SpectrogramConfig, log_mel
from tavlo.synthetic.drawn_clips import WorldConfig, known_frame, scene_of

WORLD = WorldConfig(seed=4, seconds=2, fps=5, height=96)
PX, GRID = 64, 4
SOUND = SpectrogramConfig(sample_rate_hz=RATE_HZ, num_bins=32, steps_per_frame=8)
SIZES = {
    "num_bins": 32,
    "steps_per_frame": 8,
    "position_size": 16,
    "num_blocks": 1,
    "num_heads": 4,
    "max_frames": 10,
    "grid": GRID,
    "width": 16,
    "stage_blocks": (1, 1, 0),
}


def clip(number: int) -> tuple[Tensor, Tensor, NDArray[np.bool_]]:
    """Frames, spectrogram and the cells that sound, ``(t, h, w)``; silence has none."""
    scene = scene_of(WORLD, number)
    painter = Painter(scene)
    frames, truth = [], []
    for index in range(scene.num_frames):
        picture = cv2.resize(painter.frame(index), (PX, PX), interpolation=cv2.INTER_AREA)
        frames.append(torch.from_numpy(np.asarray(picture)))
        known = known_frame(scene, index)
        mask = np.zeros((scene.height, scene.width), np.float32)
        for instance in known.instances if known else ():
            mask[instance.mask] = 1
        share = cv2.resize(mask, (GRID, GRID), interpolation=cv2.INTER_AREA)
        truth.append(np.asarray(share) >= 0.3)
    mono = torch.from_numpy(soundtrack(scene).mean(0))[None]
    return torch.stack(frames), log_mel(mono, scene.num_frames, SOUND)[0] / 4 + 1, np.stack(truth)


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["joint", "within-modality"])
def test_told_where_it_sounds_eight_clips_are_learnt_to_nine_tenths(
    attention: SpatialAttention,
) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    clips = [clip(number) for number in range(8)]
    frames, sound = torch.stack([c[0] for c in clips]), torch.stack([c[1] for c in clips])
    truth = np.stack([c[2] for c in clips])
    wanted = torch.from_numpy(truth).float()
    batch = {
        "frames": frames,
        "spectrogram": rearrange(sound, "b f s -> b s f"),
        "frame_mask": torch.ones(frames.shape[:2], dtype=torch.bool),
    }
    net = Tavlo(TavloSizes(**SIZES, spatial_attention=attention))  # type: ignore[arg-type]

    def heatmaps() -> Tensor:
        outputs = net(batch)
        return similarity(outputs["audio_tokens"], outputs["visual_tokens"])

    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    for _ in range(150):
        heat = heatmaps()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(10 * heat, wanted)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    maps = rearrange(heatmaps().detach().numpy(), "b t h w -> (b t) h w")
    places = rearrange(truth, "b t h w -> (b t) h w")
    threshold = top_fraction_threshold(lambda: maps, float(places.mean()))
    audible = reduce(places, "n h w -> n", "max")
    scores = [ciou(m >= threshold, p) for m, p in zip(maps[audible], places[audible], strict=True)]
    assert np.mean(scores) > 0.9
