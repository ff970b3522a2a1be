"""What each backend with weights costs per item, and how near it comes to the arithmetic's floor.

    python -m benchmarks.models --out benchmarks/results/models.json

Weights are random numbers in the official files, so times are right and answers mean nothing. Each
backend runs in a process of its own, through the code the stages call: decoding or pre-processing,
network, post-processing. On a CPU one thread is used. The floor is the network's arithmetic at the
best rate of a large product measured in the same process: float32 on a CPU, where torch's
convolutions may beat its matrix products, bfloat16 on a GPU.
Without a GPU its rows say "not measured".
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe
from pipeline.config import HearConfig, ProposeConfig, SegmentConfig
from pipeline.models.register import add, find_model
from pipeline.workspace.storage import Storage
from stages.backends.interfaces import (
    DETECTORS,
    SEGMENTERS,
    TAGGERS,
    AudioQuery,
    FrameInput,
    Image,
    Prompt,
    make_backend,
)
from stages.backends.sam2_video import Sam2Video
from tests.rows import clip, frame, video
from tests.video_factory import bursts, make_video

WIDTH, HEIGHT = 640, 360
BOXES = [[100.0, 60.0, 200.0, 200.0], [300.0, 100.0, 120.0, 90.0], [20.0, 20.0, 80.0, 300.0]]

SAM2_LARGE: dict[str, Any] = {
    "hidden_size": 144,
    "blocks_per_stage": [2, 6, 36, 4],
    "embed_dim_per_stage": [144, 288, 576, 1152],
    "num_attention_heads_per_stage": [2, 4, 8, 16],
    "window_size_per_stage": [8, 4, 16, 8],
    "global_attention_blocks": [23, 33, 43],
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One backend, and what an item of it is."""

    item: str
    gflop: float | None
    """Per item, 2 x multiply-adds, by torch's counter on the authors' network; none: count it."""
    items: int
    """Timed on a CPU; a GPU gets a hundred times as many."""
    warm: bool = True
    """Whether an item goes before the timed ones."""
    target: float | None = None
    """Share of the floor wanted on one H200."""


SAM_DECODER = 3.62 * len(BOXES)

LINK = "-link"
"""Ends the names of models that link boxes (``propose.link``), beside their segmenters."""

REMEMBERED = 7
"""Pictures that are shown first: from then on a memory is as full as it gets, but for its notes."""

CASES = {
    "yolov8n-oiv7": Case("frame, 384x640", 10.45 * 384 / 640, 10),
    "yolov8x-oiv7": Case("frame, 384x640", 260.6 * 384 / 640, 2, target=0.10),
    "cav-mae-as-46.6": Case("clip of 10 s, audioonly", 96.8, 5, target=0.30),
    "efficientat-mn04-as": Case("clip of 10 s", 0.22, 20),
    "efficientat-mn10-as": Case("clip of 10 s", 1.08, 20),
    "dfine-small-obj365": Case("frame, 640x640", None, 5),
    "mm-grounding-dino-tiny": Case("frame, 750x1333, shipped prompts", None, 1),
    "sam-vit-b": Case("frame, 3 boxes", 972 + SAM_DECODER, 2),
    "sam-vit-l": Case("frame, 3 boxes", 2986 + SAM_DECODER, 1, warm=False),
    "sam-vit-h": Case("frame, 3 boxes", 5961 + SAM_DECODER, 1, warm=False, target=0.40),
    "edgetam": Case("frame, 3 boxes", None, 5),
    "sam2.1-hiera-tiny": Case("frame, 3 boxes", None, 3),
    "sam2.1-hiera-large": Case("frame, 3 boxes", None, 1),
    "sam2.1-hiera-tiny-link": Case("picture, 3 boxes carried on", None, 2),
}


# Random weights in official files


def write_weights(name: str, folder: Path) -> Path:
    """A file or folder as published, with random numbers; its path."""
    import torch

    torch.manual_seed(0)
    if name.startswith("yolo"):
        return _write_yolo(name.removesuffix("-oiv7"), folder / f"{name}.pt")
    if name.startswith("cav-mae"):
        from tests.stages.backends.cav_mae_weights import write_checkpoint

        write_checkpoint(folder / "as_46.6.pth")
        return folder / "as_46.6.pth"
    if name.startswith("efficientat"):
        from tests.stages.backends.efficientat_weights import write_random

        return write_random(folder / f"{name}.pt", name)
    if name.startswith("sam-"):
        from segment_anything import sam_model_registry

        network = sam_model_registry[name.removeprefix("sam-").replace("-", "_")]()
        torch.save(network.state_dict(), folder / "sam.pth")
        return folder / "sam.pth"
    if name.startswith("dfine-"):
        from stages.taxonomy import seen_classes
        from tests.stages.backends.weights import write_dfine

        names = dict(enumerate(["None", *seen_classes("objects365")]))
        return write_dfine(folder / "dfine", names, side_px=640)
    if name.startswith("mm-"):
        return _write_grounding_dino(folder / "dino")
    if name == "edgetam":
        from tests.stages.backends.tiny_sam import write_edgetam

        return write_edgetam(folder / "edgetam", side=1024)
    return _write_sam2(name.removesuffix(LINK), folder)


def _write_grounding_dino(folder: Path) -> Path:
    """Of full size; its tokenizer knows the prompts' words whole, as BERT's knows most of them."""
    import transformers

    from stages.taxonomy import load_taxonomy

    hub: Any = transformers
    folder.mkdir()
    hub.MMGroundingDinoForObjectDetection(hub.MMGroundingDinoConfig()).save_pretrained(folder)
    hub.GroundingDinoImageProcessor().save_pretrained(folder)
    special = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: "."}
    found = sorted({word for name in load_taxonomy("").prompts for word in name.lower().split()})
    placed = special | dict(enumerate([*found, "(", ")", "-", ",", "'"], 2000))
    words = [placed.get(place, f"[unused{place}]") for place in range(2000 + len(found) + 5)]
    vocabulary = {word: place for place, word in enumerate(words)}
    hub.BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    return folder


def _write_yolo(architecture: str, path: Path) -> Path:
    import torch

    from stages.backends.yolo import quiet_import
    from stages.taxonomy import seen_classes

    with quiet_import():
        from ultralytics.nn.tasks import DetectionModel

    build: Any = DetectionModel
    network = build(f"{architecture}.yaml", nc=len(seen_classes("openimages")), verbose=False)
    network.names = dict(enumerate(seen_classes("openimages")))
    checkpoint = {"epoch": -1, "model": network.half(), "ema": None, "train_args": {}}
    torch.save(checkpoint, path)
    return path


def _write_sam2(name: str, folder: Path) -> Path:
    """The whole video model, which its segmenter and its memory are read from."""
    from safetensors.torch import save_file
    from transformers import Sam2VideoConfig, Sam2VideoModel

    config: Any = Sam2VideoConfig()
    if name.endswith("large"):
        vision = config.vision_config.to_dict()
        vision["backbone_config"] |= SAM2_LARGE
        vision["backbone_channel_list"] = [1152, 576, 288, 144]
        config = Sam2VideoConfig(vision_config=vision)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    network = Sam2VideoModel(config).state_dict()
    tensors = {key: tensor.contiguous() for key, tensor in network.items()}
    save_file(tensors, folder / "model.safetensors")
    return folder


# Running the backends


def open_backend(name: str, device: str, root: Path) -> Callable[[int], Iterable[Any]]:
    """Load a backend; the function runs it over so many items and yields what it says of each."""
    image = _picture()
    if name.endswith(LINK):
        return _open_memory(name.removesuffix(LINK), device, root, image)
    role = find_model(name).role
    settings: dict[str, Any] = {"device": device}
    if role == "detector":
        config = ProposeConfig(detectors=[name], **settings)
        backend = make_backend(DETECTORS, name, config)
        item = FrameInput(frame(width=WIDTH, height=HEIGHT), lambda: image, video())
        run = lambda count: backend.detect([item] * count)  # noqa: E731
    elif role == "tagger":
        chosen = {"tagger": name} if name in TAGGERS else {"tagger": "cav-mae", "weights": name}
        hear = HearConfig.model_validate(chosen | settings)
        backend = make_backend(TAGGERS, hear.tagger, hear)
        query = _audio_query(root)
        run = lambda count: backend.tag([query] * count)  # noqa: E731
    else:
        segment = SegmentConfig(segmenter=name, **settings)
        backend = make_backend(SEGMENTERS, name, segment)
        run = lambda count: backend.segment([Prompt(image, BOXES)] * count)  # noqa: E731
    backend.open(Storage(root))
    return run


def _open_memory(
    name: str, device: str, root: Path, image: Image
) -> Callable[[int], Iterable[Any]]:
    """Load SAM 2.1's memory and let it see pictures with boxes; the function shows it more."""
    model = Sam2Video(name, device, "auto")
    model.open(Storage(root))
    memory = model.memory()
    memory.show(image)
    for number, box in enumerate(BOXES):
        memory.take_up(number, box, (HEIGHT, WIDTH))
    for _ in range(REMEMBERED):
        memory.show(image)

    def run(count: int) -> Iterator[Any]:
        for _ in range(count):
            memory.show(image)
            yield [memory.box(number, (HEIGHT, WIDTH)) for number in range(len(BOXES))]

    return run


def _picture() -> Image:
    small = np.random.default_rng(0).integers(0, 256, (9, 16, 3), dtype=np.uint8)
    return np.kron(small, np.ones((40, 40, 1), dtype=np.uint8))


def _audio_query(root: Path) -> AudioQuery:
    shown = video(width=96, height=72, fps=25.0, duration_s=12.0)
    path = root / shown.path
    path.parent.mkdir(parents=True)
    make_video(path, frames=12 * 25, sound=bursts(12, [1.0, 4.0, 8.0]))
    return AudioQuery(clip(), shown, [(0.0, 10.0)])


def measure(name: str, device: str, root: Path) -> dict[str, Any]:
    """Time one backend in this process."""
    import torch

    from pipeline.devices import choose_device

    place = choose_device(device)
    gpu = place.type == "cuda"
    case = CASES[name]
    torch.set_num_threads(1)
    rate = gpu_gflops(place) if gpu else cpu_gflops()
    run = open_backend(name, device, root)
    gflop = case.gflop
    if case.warm or gpu:
        counted = count_gflop(run)
        gflop = gflop or counted
    items = case.items * (100 if gpu else 1)
    wall, cpu = time.perf_counter(), time.process_time()
    done = sum(1 for _ in run(items))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert done == items
    # CPU seconds are what other work on the machine disturbs least.
    spent = wall if gpu else cpu
    found = {
        "item": case.item,
        "items": items,
        "items_per_s": round(items / spent, 4),
        "ms": round(1000 * spent / items, 2),
        "wall_ms": round(1000 * wall / items, 2),
        "gflop": round(gflop, 2) if gflop else None,
        "gflops_of_a_large_product": round(rate, 1),
        "share_of_floor": round(gflop * items / spent / rate, 3) if gflop else None,
        "peak_memory_mb": round(peak_mb()),
        "target_share": case.target if gpu else None,
    }
    if gpu:
        found["peak_device_memory_mb"] = round(torch.cuda.max_memory_allocated(place) / 1e6)
    return found


def count_gflop(run: Callable[[int], Iterable[Any]]) -> float:
    """One item's arithmetic by torch's counter; warms the backend."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        for _ in run(1):
            pass
    return float(counter.get_total_flops()) / 1e9


def gpu_gflops(place: Any) -> float:
    """Best rate of a large square product in bfloat16, GFLOP/s."""
    import torch

    side = 8192
    left, right = (torch.rand(side, side, device=place).bfloat16() for _ in range(2))
    best = 0.0
    for _ in range(12):
        torch.cuda.synchronize(place)
        start = time.perf_counter()
        left @ right
        torch.cuda.synchronize(place)
        best = max(best, 2 * side**3 / (time.perf_counter() - start) / 1e9)
    return best


def cpu_gflops() -> float:
    """Best rate of a large product or convolution of one thread in float32, GFLOP/s of CPU time."""
    import torch

    side, channels = 2048, 256
    left, right = torch.rand(side, side), torch.rand(side, side)
    image, kernel = torch.rand(1, channels, 128, 128), torch.rand(channels, channels, 3, 3)
    tried: list[tuple[float, Callable[[], object]]] = [
        (2 * side**3, lambda: left @ right),
        (
            2 * channels * channels * 9 * 128 * 128,
            lambda: torch.nn.functional.conv2d(image, kernel, padding=1),
        ),
    ]
    best = 0.0
    with torch.inference_mode():
        for flop, run in tried * 4:
            start = time.process_time()
            run()
            best = max(best, flop / (time.process_time() - start) / 1e9)
    return best


def peak_mb() -> float:
    """Most memory this process has held, megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


# The parent


def one_case(name: str, device: str) -> dict[str, Any]:
    """Write weights and measure, each in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="avatar-bench-") as folder:
        environment = {**os.environ, "AVATAR_BUILD_MODELS": f"{folder}/models"}
        for step in ("write", "measure"):
            words = ["--step", step, "--only", name, "--device", device, "--folder", folder]
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.models", *words],
                env=environment,
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


def gpu_name() -> str:
    """The first GPU, empty without one."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""


def main() -> None:
    """Measure all backends, or do one step of one for the parent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="*", choices=[*CASES], default=[*CASES])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--step", choices=["write", "measure"])
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    if asked.step == "write":
        weights = asked.folder / "weights"
        weights.mkdir()
        name = asked.only[0]
        add(name.removesuffix(LINK), write_weights(name, weights), own=True)
        return
    if asked.step == "measure":
        print(json.dumps(measure(asked.only[0], asked.device, asked.folder / "ws")))
        return
    here = {"machine": describe(), "gpu": gpu_name() or "none"}
    results: dict[str, Any] = dict(here)
    if asked.out and asked.out.exists():
        with contextlib.suppress(ValueError):
            results = json.loads(asked.out.read_text())
    if {*asked.only} == {*CASES}:
        results |= here
    # Where only some are measured again, they say themselves when and on what.
    own = {} if results["machine"] == here["machine"] else here
    devices = ["cpu", "cuda:0"] if gpu_name() else ["cpu"]
    results.setdefault("cpu_one_thread", {})
    results["gpu_rows"] = dict.fromkeys(CASES, "not measured") | results.get("gpu_rows", {})
    for name in asked.only:
        for device in devices:
            rows = results["cpu_one_thread" if device == "cpu" else "gpu_rows"]
            rows[name] = one_case(name, device) | own
            print(device, name, json.dumps(rows[name]), flush=True)
        if asked.out:
            asked.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
