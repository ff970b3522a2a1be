"""What the compared models cost per picture and sound, beside a plain batched forward pass.

    python -m benchmarks.baselines

Random weights of the published sizes; pictures of 640x360, sounds of 10 s. The reference is written
here with torchvision's own ResNet-18s: two of them, features alone, on inputs that are there
already, at the same batch. On a CPU: CPU time of one thread, medians of interleaved rounds. On a
GPU, where there is one: wall time. Target: the model's own pass costs no more than the reference
(0.95 of its speed at least), and what 16 cores prepare keeps up with it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from benchmarks.machine import describe
from tavlo.baselines.ezvsl import EZVSL
from tavlo.baselines.localiser import Localiser, Published
from tavlo.baselines.lvs import LVS
from tavlo.baselines.slavc import SLAVC
from tavlo.baselines.sslalignment import SSLALIGNMENT
from tavlo.baselines.ssltie import SSLTIE

RESULT = Path(__file__).parent / "results" / "baselines.json"
MODELS: tuple[Published, ...] = (EZVSL, SLAVC, SSLTIE, LVS, SSLALIGNMENT)
ROUNDS = 3
CPU_BATCH, GPU_BATCH = 8, 32
CORES = 16
LEAST = 0.95


def plain(fine: bool) -> tuple[nn.Module, nn.Module]:
    """torchvision's ResNet-18s of pictures and sounds, without pooling and classifier."""
    nets = []
    for channels in (3, 1):
        net = resnet18()
        net.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        if fine:
            block = net.layer4[0]
            block.conv1.stride = block.downsample[0].stride = (1, 1)
        nets.append(nn.Sequential(*list(net.children())[:-2]).eval().requires_grad_(False))
    return nets[0], nets[1]


def measure(model: Published, device: str, batch: int) -> dict[str, float]:
    """Milliseconds per item of each part."""
    torch.manual_seed(0)
    ours = Localiser(model, model.network(), model.posts[""], device=device)
    see, hear = (net.to(device) for net in plain(fine=model not in (EZVSL, SLAVC)))
    rng = np.random.default_rng(0)
    pictures = list(rng.integers(0, 256, (batch, 360, 640, 3), np.uint8))
    sounds = list(rng.normal(0, 0.1, (batch, 160_000)).astype(np.float32))
    image, spectrogram = ours.images(pictures), ours.spectrograms(sounds)
    there = image.to(device), spectrogram.to(device)
    maps = np.asarray(ours.network.maps(*there).cpu().numpy(), np.float32)

    def reference() -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            return see(there[0]), hear(there[1])

    def network() -> Tensor:
        with torch.inference_mode():
            return torch.as_tensor(ours.network.maps(*there))

    parts: dict[str, Callable[[], object]] = {
        "reference": reference,
        "network": network,
        "picture": lambda: ours.images(pictures),
        "sound": lambda: ours.spectrograms(sounds),
        "post": lambda: ours.post.upsample(maps),
        "whole": lambda: ours.heatmaps(pictures, sounds),
    }
    found: dict[str, list[float]] = {name: [] for name in parts}
    for work in parts.values():
        work()
    for _ in range(ROUNDS):
        for name, work in parts.items():
            found[name].append(seconds(work, device) * 1000 / batch)
    return {name: statistics.median(values) for name, values in found.items()}


def seconds(work: Callable[[], object], device: str) -> float:
    """CPU time of one call, or wall time where a GPU works too."""
    gpu = device != "cpu"
    clock = time.perf_counter if gpu else time.process_time
    if gpu:
        torch.cuda.synchronize()
    started = clock()
    work()
    if gpu:
        torch.cuda.synchronize()
    return clock() - started


def row(model: Published, device: str, batch: int) -> dict[str, Any]:
    """One model's numbers on one device."""
    ms = measure(model, device, batch)
    prepare = ms["picture"] + ms["sound"]
    return {
        "model": model.name,
        "device": device,
        "batch": batch,
        "ms_per_item": {name: round(value, 3) for name, value in ms.items()},
        "items_per_s": round(1000 / ms["whole"], 2),
        "network_speed_over_reference": round(ms["reference"] / ms["network"], 3),
        "whole_speed_over_reference": round(ms["reference"] / ms["whole"], 3),
        "prepared_per_s_by_16_cores": round(CORES * 1000 / prepare, 1),
        "preparation_keeps_up": prepare / CORES <= ms["network"],
    }


def main() -> None:
    """Measure and write the result."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    rows = [row(model, "cpu", CPU_BATCH) for model in MODELS]
    for model in MODELS:
        if torch.cuda.is_available():
            rows.append(row(model, "cuda", GPU_BATCH))
        else:
            rows.append({"model": model.name, "device": "gpu", "result": "not measured"})
    result = {
        "what": "cost of the compared models per picture and sound, random weights",
        "machine": describe(),
        "clock": "CPU time of one thread on a CPU, wall time on a GPU; medians of 3 rounds",
        "target": {"network_speed_over_reference": LEAST, "preparation_keeps_up": True},
        "rows": rows,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for one in rows:
        print(json.dumps(one))


if __name__ == "__main__":
    main()
