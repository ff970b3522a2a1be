"""The steps of ``run``: each prints a JSON object, and prints it anew whenever it knows more."""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.without_opencv import install

install()
_LIBRARIES: list[Any] = []


def import_torchvision() -> None:
    """Import torchvision, also without its kernels, of which nothing here needs any."""
    try:
        import torchvision
    except RuntimeError:  # its operators are unknown
        library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARIES.append(library)
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        import torchvision  # noqa: F401


import_torchvision()

from benchmarks.machine import describe  # noqa: E402
from pipeline.media.encode import encode_film  # noqa: E402
from stages.backends.cav_mae.cav_mae_model import CavMae, Sizes  # noqa: E402
from stages.backends.efficientat.efficientat_model import EfficientAt  # noqa: E402
from stages.backends.sam import fused_attention  # noqa: E402
from tavlo.training.cached_clips import CachedClip, fill_cache  # noqa: E402
from tavlo.training.checkpoint import load_checkpoint  # noqa: E402
from tavlo.training.data import Batch, ClipDataset, train_batches  # noqa: E402
from tavlo.training.distributed import Rank  # noqa: E402
from tavlo.training.memory import MemoryModel, device_memory  # noqa: E402
from tavlo.training.recipe import Recipe, make_recipe  # noqa: E402
from tavlo.training.train import LAST, TrainingData, run_network, train  # noqa: E402
from tavlo.training.training_clips import read_clips  # noqa: E402
from tavlo.training.training_config import TrainConfig, train_config  # noqa: E402
from tavlo.training.training_log import LOG, read_log  # noqa: E402

SMALL: dict[str, Any] = {
    "sizes": {
        **{"num_bins": 16, "steps_per_frame": 2, "position_size": 8, "num_blocks": 1},
        **{"num_heads": 4, "max_frames": 12, "grid": 2, "width": 16},
    },
    "spectrogram": {"num_bins": 16, "steps_per_frame": 2, "fft_size": 1024},
    "picture_px": 64,
    "imagenet": False,
}
"""A TAVLO that takes a tenth of a second a step on a CPU."""


class Step:
    """What a step knows of its run.

    Args:
        device: where to measure.
        tiny: rehearse with small networks.
    """

    def __init__(self, device: torch.device, *, tiny: bool) -> None:
        self.device, self.tiny = device, tiny
        self.found: dict[str, Any] = {}

    def tell(self, **found: Any) -> None:
        """Print all that is known by now."""
        self.found |= found
        print(json.dumps(self.found), flush=True)

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object], rounds: int = 3) -> float:
        """Return the median wall time of calls after one that warms up."""
        times = []
        for _ in range(rounds + 1):
            self.wait()
            started = time.perf_counter()
            work()
            self.wait()
            times.append(time.perf_counter() - started)
        return statistics.median(times[1:])

    def matrix_rate(self, dtype: torch.dtype = torch.bfloat16) -> float:
        """Return the operations per second of a large product."""
        side = 256 if self.tiny else 8192
        left = torch.randn(side, side, device=self.device, dtype=dtype)
        return 2 * side**3 / self.seconds(lambda: left @ left, 5)

    def half(self) -> torch.autocast:
        """Return the context of bf16."""
        return torch.autocast(self.device.type, torch.bfloat16)


def operations(work: Callable[[], object]) -> int:
    """Count the operations of a call, attention by its plain definition."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        work()
    return int(counter.get_total_flops())


def machine(step: Step) -> None:
    """Say what the machine is, and its matrix rates."""
    step.tell(machine=describe(), torch=torch.__version__, cuda=torch.version.cuda)
    if step.device.type == "cuda":
        about = torch.cuda.get_device_properties(step.device)
        step.tell(gpu=about.name, memory_gb=round(about.total_memory / 1e9, 1))
    for dtype in (torch.bfloat16, torch.float32):
        name = str(dtype).removeprefix("torch.")
        step.tell(**{f"matrix_tflops_{name}": round(step.matrix_rate(dtype) / 1e12, 2)})


# Networks of random weights


def sam_encoder(size: str, *, tiny: bool) -> tuple[nn.Module, Tensor]:
    """Make SAM's image encoder as ``load_sam`` does, and a picture for it."""
    from segment_anything.modeling import ImageEncoderViT

    depth, width, heads, whole, side, window = {
        "vit-b": (12, 768, 12, [2, 5, 8, 11], 1024, 14),
        "vit-h": (32, 1280, 16, [7, 15, 23, 31], 1024, 14),
        "tiny": (2, 32, 2, [1], 64, 2),
    }["tiny" if tiny else size]
    encoder = ImageEncoderViT(
        **{"img_size": side, "depth": depth, "embed_dim": width, "num_heads": heads},
        **{"norm_layer": partial(nn.LayerNorm, eps=1e-6), "use_rel_pos": True},
        **{"global_attn_indexes": whole, "window_size": window},
    )
    for name, value in encoder.named_parameters():
        if "pos" in name:  # zeros would hide them
            nn.init.normal_(value, std=0.02)
    for block in encoder.blocks:
        block.attn.forward = fused_attention(block.attn)
    return encoder.eval(), torch.randn(1, 3, side, side)


def cav_mae(*, tiny: bool) -> tuple[nn.Module, Tensor]:
    """Make CAV-MAE, and a sound for it."""
    sizes = replace(Sizes(), width=48, heads=4, mlp_width=96, depth=2) if tiny else Sizes()
    network = CavMae(sizes)
    return network.eval(), torch.randn(1, sizes.spectrogram_frames, sizes.mel_bins)


def tavlo(settings: dict[str, Any]) -> Recipe:
    """Make TAVLO's recipe without ImageNet's weights."""
    return make_recipe("tavlo", {"imagenet": False} | settings)


def random_batch(recipe: Recipe, clips: int, frames: int) -> Batch:
    """Make clips of noise."""
    settings = recipe.config()
    side, sound = settings["picture_px"], settings["spectrogram"]
    return Batch(
        [str(number) for number in range(clips)],
        {
            "frames": torch.randint(0, 256, (clips, frames, side, side, 3), dtype=torch.uint8),
            "spectrogram": torch.randn(clips, frames * sound["steps_per_frame"], sound["num_bins"]),
            "frame_mask": torch.ones(clips, frames, dtype=torch.bool),
        },
    )


def parity(step: Step) -> None:
    """Compare what the CPU computes in float32 with the device in float32 and bf16."""
    torch.manual_seed(0)
    recipe = tavlo(SMALL if step.tiny else {})
    inputs = random_batch(recipe, 2, 4 if step.tiny else 8).inputs
    network = recipe.make_network().eval()
    _compare(step, "tavlo", network, inputs, lambda net, given: net(given)["visual_tokens"])
    network, sound = cav_mae(tiny=step.tiny)
    _compare(step, "cav-mae", network, sound, lambda net, given: net(given, None, "audioonly"))
    network = EfficientAt(0.1 if step.tiny else 1.0).eval()
    mel = torch.randn(2, 128, 100 if step.tiny else 998)
    _compare(step, "efficientat", network, mel, lambda net, given: net(given))
    network, picture = sam_encoder("vit-b", tiny=step.tiny)
    _compare(step, "sam", network, picture, lambda net, given: net(given))


@torch.no_grad()
def _compare(step: Step, name: str, network: nn.Module, given: Any, run: Any) -> None:
    expected = run(network, given).float()
    network = network.to(step.device)
    if isinstance(given, dict):
        given = {key: value.to(step.device) for key, value in given.items()}
    else:
        given = given.to(step.device)
    # A GPU's convolutions would round float32 to 10 bits.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        found = {"float32": run(network, given)}
    with step.half():
        found["bf16"] = run(network, given)
    scale = expected.abs().max()
    step.tell(
        **{
            name: {
                kind: float((value.float().cpu() - expected).abs().max() / scale)
                for kind, value in found.items()
            }
        }
    )


def train_step(step: Step, *, recompute: bool = False, compiled: bool = False) -> None:
    """Time a training step at 300 frames with the largest batch that fits."""
    frames = 12 if step.tiny else 300
    recipe = tavlo((SMALL if step.tiny else {}) | {"recompute": recompute})
    config = train_config(
        {"precision": "bf16", "max_frames": frames, "min_frames": 1, "clip_s": frames / 30}
    )
    flop = _operations_of_a_clip(recipe, config, frames, step.device)
    step.tell(frames=frames, recompute=recompute, compiled=compiled, tflop_a_clip=flop / 1e12)
    model = MemoryModel(
        *(recipe, config, step.device),
        lambda network, batch: run_network(network, batch, config, step.device),
    )
    limit = device_memory(step.device)
    for clips in (4, 2) if step.tiny else (32, 24, 16, 12, 8, 6, 4, 2):
        asked = config.model_copy(update={"batch": clips})
        held = model.held(asked, recompute=recompute).total
        if held > 0.95 * limit:
            continue
        try:
            found = _timed(step, recipe, asked, clips, frames, compiled=compiled)
        except torch.OutOfMemoryError:
            step.tell(**{f"out_of_memory_at_{clips}": round(held / 1e9, 2)})
            torch.cuda.empty_cache()
            continue
        rate = step.matrix_rate()
        step.tell(
            batch=clips,
            expected_gb=round(held / 1e9, 2),
            clips_per_s=clips / found["step_s"],
            matrix_tflops=rate / 1e12,
            share_of_matrix_rate=flop * clips / found["step_s"] / rate,
            **found,
        )
        return


def _operations_of_a_clip(
    recipe: Recipe, config: TrainConfig, frames: int, device: torch.device
) -> int:
    """Count a clip's forward and backward; what is recomputed does not count twice."""
    network: Any = recipe.make_network().to(device).train()
    network.recompute = False
    batch = random_batch(recipe, 1, frames)

    def work() -> None:
        loss: Any = recipe.loss(run_network(network, batch, config, device))
        loss.backward()

    return operations(work)


def _timed(
    step: Step, recipe: Recipe, config: TrainConfig, clips: int, frames: int, *, compiled: bool
) -> dict[str, Any]:
    torch.manual_seed(0)
    network = recipe.make_network().to(step.device).train()
    run: Any = torch.compile(network) if compiled else network
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    batch = random_batch(recipe, clips, frames)
    batch = Batch(
        batch.clip_ids, {name: value.to(step.device) for name, value in batch.inputs.items()}
    )

    def work() -> None:
        loss: Any = recipe.loss(run_network(run, batch, config, step.device))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    started = time.perf_counter()
    work()
    step.wait()
    first_s = time.perf_counter() - started
    if step.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(step.device)
    found = {"first_step_s": first_s, "step_s": step.seconds(work)}
    if step.device.type == "cuda":
        found["peak_gb"] = torch.cuda.max_memory_allocated(step.device) / 1e9
    return found


def models(step: Step) -> None:
    """Measure the shares of the matrix rate that SAM ViT-H and CAV-MAE come to."""
    rate = step.matrix_rate()
    step.tell(matrix_tflops=rate / 1e12)
    sam, picture = sam_encoder("vit-h", tiny=step.tiny)
    network, sound = cav_mae(tiny=step.tiny)
    _share(step, "sam-vit-h", sam, picture, (1, 2, 4), lambda net, given: net(given), rate)
    _share(
        *(step, "cav-mae", network, sound, (8, 32)),
        lambda net, given: net(given, None, "audioonly"),
        rate,
    )


@torch.inference_mode()
def _share(
    step: Step,
    name: str,
    network: nn.Module,
    one: Tensor,
    batches: tuple[int, ...],
    run: Any,
    rate: float,
) -> None:
    network = network.to(step.device)
    for count in batches:
        given = one.repeat(count, *[1] * (one.ndim - 1)).to(step.device)
        with step.half():
            if count == batches[0]:
                flop = operations(lambda given=given: run(network, given)) / count  # type: ignore[misc]
            spent = step.seconds(lambda given=given: run(network, given))  # type: ignore[misc]
        share = flop * count / spent / rate
        step.tell(**{f"{name} x{count}": {"items_per_s": count / spent, "share": share}})


# Clips, a training that is killed, and how fast clips come


def write_clips(folder: Path, count: int, frames: int, fps: int) -> list[CachedClip]:
    """Make clips of moving noise, 224 pixels wide, and their copies in a cache."""
    rng = np.random.default_rng(0)
    names = []
    for number in range(count):
        rough = rng.integers(0, 256, (28, 28, 3), dtype=np.uint8)
        texture = np.kron(rough, np.ones((8, 8, 1), np.uint8))

        def pictures(texture: Any = texture) -> Iterator[tuple[Fraction, Any]]:
            for at in range(frames):
                yield Fraction(at, fps), np.roll(texture, 2 * at, axis=1)

        sound = rng.normal(0, 0.1, (1, 16_000 * frames // fps)).astype(np.float32)
        path = folder / f"drawn{number:06d}.mp4"
        encode_film(pictures(), fps, path, sound, 16_000)
        names.append(path.name)
    listed = folder / "clips.csv"
    listed.write_text("".join(f"{name},0\n" for name in names))
    rules = train_config(_clip_rules(frames, fps)).rules
    ready, failed = fill_cache(read_clips(listed), folder / "cache", rules, os.cpu_count() or 1)
    if failed:
        raise RuntimeError(f"clips could not be made: {failed}")
    return ready


def _clip_rules(frames: int, fps: int) -> dict[str, Any]:
    return {"clip_s": frames / fps, "min_frames": frames, "max_frames": frames}


def small_training(step: Step, folder: Path, out: Path) -> None:
    """Train a small TAVLO on clips that are there, or go on."""
    settings = {**_clip_rules(12, 12), "epochs": 8, "batch": 2, "validation": 0.0}
    config = train_config(settings | {"learning_rate": 1e-3, "checkpoint_every": 3})
    recipe = tavlo(SMALL | {"smallest_crop": 1.0, "picture_px": 224} | _SMALL_AT_224)
    ready, _ = fill_cache(read_clips(folder / "clips.csv"), folder / "cache", config.rules, 1)
    train(recipe, config, TrainingData(ready, [], {}), out, rank=Rank(device=step.device))


_SMALL_AT_224 = {"sizes": SMALL["sizes"] | {"grid": 7}}
"""Nothing is resized without OpenCV."""


def resume(step: Step) -> None:
    """Kill a training, go on with it, and compare with one that nobody disturbed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_clips(folder, 4, 12, 12)
        words = ["--device", str(step.device), "--folder", str(folder)]
        command = [sys.executable, "-m", "benchmarks.gpu.steps", "small-training", *words]
        whole = subprocess.Popen([*command, "--out", str(folder / "whole")])
        killed = subprocess.Popen([*command, "--out", str(folder / "killed")])
        log = folder / "killed" / LOG
        while not log.exists() or sum("loss" in row for row in read_log(log)) < 5:
            if killed.poll() is not None:
                break
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        subprocess.run([*command, "--out", str(folder / "killed")], check=True)
        if whole.wait():
            raise RuntimeError("the undisturbed training failed")
        starts = [row["step"] for row in read_log(log) if row.get("event") == "start"]
        one, other = (load_checkpoint(folder / part / LAST) for part in ("whole", "killed"))
        differ = [
            float((value.double() - other.model[key].double()).abs().max())
            for key, value in one.model.items()
        ]
        step.tell(
            steps=other.step,
            went_on_after=starts[-1],
            tensors=len(differ),
            tensors_that_differ=sum(value > 0 for value in differ),
            largest_difference=max(differ),
        )


def feed(step: Step) -> None:
    """Measure how many clips a second the workers bring."""
    frames, batch, batches = (12, 2, 6) if step.tiny else (300, 16, 12)
    workers = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        clips = write_clips(Path(name), 4, frames, 12 if step.tiny else 30)
        recipe = tavlo({"smallest_crop": 1.0})
        many = [
            replace(clip, clip_id=f"{clip.clip_id}{number}")
            for number in range(batch)
            for clip in clips
        ]
        length_s = frames / (12 if step.tiny else 30)
        data = ClipDataset(many, recipe, length_s, 0)
        coming = train_batches(data, batch, 0, range(batches), Rank(), workers)
        next(coming)
        started = time.perf_counter()
        done = sum(len(found.clip_ids) for found in coming)
        spent = time.perf_counter() - started
        step.tell(
            workers=workers,
            frames=frames,
            clips=done,
            clips_per_s=done / spent,
            not_measured="cropping, which takes OpenCV",
        )


STEPS: dict[str, Callable[[Step], None]] = {
    "machine": machine,
    "parity": parity,
    "train": train_step,
    "train-recomputed": partial(train_step, recompute=True),
    "train-compiled": partial(train_step, compiled=True),
    "models": models,
    "resume": resume,
    "feed": feed,
}


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=[*STEPS, "small-training"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    step = Step(torch.device(asked.device), tiny=asked.tiny)
    if step.device.type == "cuda":
        torch.cuda.set_device(step.device)
    if asked.step == "small-training":
        small_training(step, asked.folder, asked.out)
    else:
        STEPS[asked.step](step)


if __name__ == "__main__":
    main()
