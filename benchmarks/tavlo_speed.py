"""What TAVLO's training and inference cost, against the machine's own matrix rate.

    python -m benchmarks.tavlo_speed [--frames 300 --batch 8 --device cuda]

One run multiplies two large matrices, then trains and predicts on random clips of 224 pixels with
the default network and reads clips from the cache. The floor is the time the counted operations
would take at the matrix rate just measured; a share of it is a fair figure on any machine. The
targets are for one H200 at 300 frames; on a CPU the same shares are printed beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import describe
from tavlo.network.model import similarity
from tavlo.synthetic.drawn_clips import WorldConfig
from tavlo.synthetic.write_world import write_world
from tavlo.training.cached_clips import fill_cache
from tavlo.training.data import read_clip
from tavlo.training.recipe import Recipe, make_recipe
from tavlo.training.training_clips import ClipRules, read_clips

RESULTS = Path(__file__).parent / "results"
TARGETS = {
    "training_share_of_floor": 0.35,
    "inference_times_training_rate": 3.0,
    "loading_share_of_16_cores": 1.0,
}
"""Of one H200 in bf16, at 300 frames and a batch of at least 8."""
MATRIX = {"cpu": 2048, "cuda": 8192}
ROUNDS = 3
WORLD_S, WORLD_FPS = 10, 30


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Median wall time of ``ROUNDS`` calls after one that warms up."""
    times = []
    for _ in range(ROUNDS + 1):
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of one large matrix product."""
    size = MATRIX[device.type]
    left = torch.randn(size, size, device=device, dtype=dtype)
    return 2 * size**3 / seconds(lambda: left @ left, device)


def counted(work: Callable[[], object]) -> int:
    """Floating-point operations of a call; attention by its plain definition."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        work()
    return int(counter.get_total_flops())


def random_batch(recipe: Recipe, frames: int, batch: int, device: torch.device) -> dict[str, Any]:
    settings = recipe.config()
    steps, bins = (settings["spectrogram"][k] for k in ("steps_per_frame", "num_bins"))
    pictures = torch.randint(0, 256, (batch, frames, 224, 224, 3), dtype=torch.uint8)
    return {
        "frames": pictures.to(device),
        "spectrogram": torch.randn(batch, frames * steps, bins, device=device),
        "frame_mask": torch.ones(batch, frames, dtype=torch.bool, device=device),
    }


def network(
    recipe: Recipe, frames: int, batch: int, device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """Cost of a training step and of inference on the same clips."""
    torch.manual_seed(0)
    model: nn.Module = recipe.make_network().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    inputs = random_batch(recipe, frames, batch, device)
    half = torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)

    def train() -> None:
        model.train()
        with half:
            outputs = model(inputs)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(recipe.loss(outputs))
        optimizer.step()

    @torch.no_grad()
    def predict() -> None:
        model.eval()
        with half:
            outputs = model(inputs)
        similarity(outputs["audio_tokens"], outputs["visual_tokens"])

    operations = {"training": counted(train), "inference": counted(predict)}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    taken = {"training": seconds(train, device)}
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    taken["inference"] = seconds(predict, device)
    rate = matrix_rate(device, dtype)
    result: dict[str, Any] = {
        "matrix_gflops": rate / 1e9,
        "peak_memory_gib": peak / 2**30,
        "peak_memory_before_timing_gib": before / 2**30,
    }
    for name, wall in taken.items():
        result[f"{name}_tflop_per_clip"] = operations[name] / batch / 1e12
        result[f"{name}_clips_per_s"] = batch / wall
        result[f"{name}_share_of_floor"] = operations[name] / rate / wall
    result["inference_times_training_rate"] = taken["training"] / taken["inference"]
    return result


def loading(recipe: Recipe) -> float:
    """CPU seconds to make a training sample of a clip of 300 frames from the cache."""
    import numpy as np

    with tempfile.TemporaryDirectory() as name:
        world = Path(name) / "world"
        write_world(world, WorldConfig(seconds=WORLD_S, fps=WORLD_FPS), 2)
        rules = ClipRules(WORLD_S, 200, 300)
        clips, failed = fill_cache(read_clips(world), Path(name) / "cache", rules, 1)
        assert not failed
        times = []
        for number in range(2 * ROUNDS):
            started = time.process_time()
            clip = read_clip(clips[number % 2].path, WORLD_S)
            recipe.sample(clip, np.random.default_rng(number))
            times.append(time.process_time() - started)
    return statistics.median(times)


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--float32", action="store_true", help="instead of bf16")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    torch.set_num_threads(len(os.sched_getaffinity(0)) if device.type == "cpu" else 1)
    dtype = torch.float32 if arguments.float32 else torch.bfloat16
    recipe = make_recipe("tavlo", {"imagenet": False})
    found = network(recipe, arguments.frames, arguments.batch, device, dtype)
    torch.set_num_threads(1)
    load_s = loading(recipe)
    # A clip's own share of 300 frames, whatever length was timed.
    clip_s = 1 / found["training_clips_per_s"] * WORLD_S * WORLD_FPS / arguments.frames
    found["loading_cpu_s_per_clip_of_300"] = load_s
    found["loading_share_of_16_cores"] = load_s / 16 / clip_s
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    result = {
        "what": "TAVLO's training step and inference at 224 px, random weights",
        "machine": describe(),
        "device": name,
        "threads": len(os.sched_getaffinity(0)),
        "frames": arguments.frames,
        "batch": arguments.batch,
        "precision": str(dtype).removeprefix("torch."),
        **found,
        "targets_h200": TARGETS,
        "h200": "not measured" if device.type == "cpu" else "this run",
    }
    target = RESULTS / f"tavlo_speed{'' if device.type == 'cpu' else '_gpu'}.json"
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    for key, value in TARGETS.items():
        print(f"{key}: {found[key]:.2f} on {name}; target on an H200: {value}")


if __name__ == "__main__":
    main()
