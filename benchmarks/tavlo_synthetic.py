"""The AVATAR paper's tables in the small: TAVLO against a frame-wise control, on known answers.

    python -m benchmarks.tavlo_synthetic --work DIR [--full] [--only NAME] [--seed N]

Draws a world to train on and another to score on (``tavlo.synthetic.drawn_clips``), trains each
model in the one loop, scores it as ``avatar-build evaluate`` does and prints Tables 2 to 4 and the
ablation. What is done stays in DIR, and is reported together; the same command goes on from there.
By default a model costs a core half an hour; ``--full`` is the paper's size, for a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.frame_wise import NAME as FRAME_WISE
from benchmarks.machine import describe
from pipeline.synthetic.drawing import silhouettes
from tavlo.evaluation.evaluate import evaluate, to_markdown, write_scores
from tavlo.evaluation.evaluation_set import EvaluationSet, read_release
from tavlo.evaluation.open_predictor import open_predictor
from tavlo.evaluation.predictions import GRID_HW, Predictions, predict
from tavlo.metrics.bootstrap import paired_difference
from tavlo.published.published_tables import ablation, read_runs, side_by_side
from tavlo.published.result_table import Entry, Table
from tavlo.published.result_table import to_markdown as tables_to_markdown
from tavlo.synthetic.drawn_clips import MIN_FRACTION, WorldConfig, scene_of
from tavlo.synthetic.write_world import write_world
from tavlo.training.cached_clips import fill_cache
from tavlo.training.data import read_clip
from tavlo.training.recipe import RECIPES, make_recipe
from tavlo.training.setup import Request, run
from tavlo.training.train import BEST
from tavlo.training.training_clips import read_clips
from tavlo.training.training_config import TrainConfig, train_config

RESULTS = Path(__file__).parent / "results"
RECIPES[FRAME_WISE] = "benchmarks.frame_wise:FrameWiseRecipe"

PRIOR = "Fixed map"
"""No model: where sources are on average in the clips to train on, the same for every frame."""
CONTROL, PAPER, APART, ALONE = (
    "Frame-wise control",
    "TAVLO (paper)",
    "TAVLO (apart)",
    "TAVLO (alone)",
)


def _ours(spatial_attention: str, negatives: str) -> dict[str, Any]:
    sizes = {"spatial_attention": spatial_attention, "residual_init": "zero"}
    return {"sizes": sizes, "negatives": negatives, "temperature": 0.07}


MODELS: dict[str, dict[str, Any]] = {
    CONTROL: {},
    PAPER: {},
    "TAVLO (paper), max": {"negatives": "max"},
    "TAVLO (paper), min": {"negatives": "min"},
    "TAVLO (paper), temporal-spatial": {"sizes": {"order": "temporal-spatial"}},
    ALONE: _ours("none", "max"),
    "TAVLO (alone), mean": _ours("none", "mean"),
    "TAVLO (alone), min": _ours("none", "min"),
    APART: _ours("within-modality", "max"),
}
"""Name to what differs from the size's own settings. Of the paper: mean negatives, temperature 1,
sound and places in one attention. The others are ours: see ``TavloSizes.spatial_attention``."""
TRAIN_SEED, TEST_SEED = 1, 2
"""Of the worlds."""
SEEDS = 5
"""How many trainings of a model are told apart."""
ROWS = ("Single-sound", "Mixed-sound", "Multi-entity", "Total", "Cross-event")
KEPT = "map_kept_under_another_sound"


@dataclass(frozen=True)
class Size:
    """How large a reproduction is."""

    world: WorldConfig
    training: int
    """Clips to train on."""
    test: int
    """Clips to score on."""
    tavlo: dict[str, Any]
    """Settings of every model."""
    train: TrainConfig


SMALL = Size(
    world=WorldConfig(seconds=3, fps=4, height=144),
    training=3200,
    test=3000,
    # A picture of 96 pixels must be seen by a network that does not see all of it from each place.
    tavlo={
        "sizes": {
            "width": 16,
            "stage_blocks": [1, 1, 0],
            "grid": 6,
            "num_bins": 64,
            "steps_per_frame": 12,
            "position_size": 16,
            "num_blocks": 1,
            "num_heads": 4,
            "hidden_ratio": 2.0,
            "max_frames": 12,
        },
        "spectrogram": {"num_bins": 64, "steps_per_frame": 12},
        "picture_px": 96,
        "imagenet": False,
        "smallest_crop": 0.8,
    },
    train=train_config(
        {
            "epochs": 20,
            "batch": 16,
            "learning_rate": 2e-3,
            "clip_s": 3.0,
            "min_frames": 12,
            "max_frames": 12,
            "validation": 0.05,
            "precision": "bf16",
        }
    ),
)
FULL = Size(
    world=WorldConfig(seconds=10, fps=30),
    training=10_000,
    test=5_000,
    tavlo={},
    train=train_config({}),
)


def settings_of(size: Size, name: str) -> tuple[str, dict[str, Any]]:
    """A model's recipe and its settings."""
    if name == CONTROL:
        return FRAME_WISE, {"shared": size.tavlo}
    changes = MODELS[name]
    sizes = size.tavlo.get("sizes", {}) | changes.get("sizes", {})
    return "tavlo", size.tavlo | changes | {"sizes": sizes}


def titled(name: str, seed: int) -> str:
    """A run's name: the model's, and the training's seed unless it is 0."""
    return f"{name}, seed {seed}" if seed else name


def draw(size: Size, work: Path) -> tuple[Path, Path]:
    """The two worlds, drawn once."""
    folders = []
    for name, seed, clips in (
        ("train", TRAIN_SEED, size.training),
        ("test", TEST_SEED, size.test),
    ):
        folder = work / name
        if not folder.exists():
            print(f"drawing {clips} clips: {folder}", flush=True)
            world = WorldConfig(seed, size.world.seconds, size.world.fps, size.world.height)
            write_world(folder, world, clips, processes=len(os.sched_getaffinity(0)))
        folders.append(folder)
    return folders[0], folders[1]


def train_and_score(size: Size, name: str, work: Path, device: str) -> dict[str, Any]:
    """Train a model, or go on, and score it; the facts of its training."""
    training, test = draw(size, work)
    recipe_name, settings = settings_of(size, name)
    out = work / "runs" / titled(name, size.train.seed)
    recipe = make_recipe(recipe_name, settings)
    request = Request(
        recipe, size.train, training, out, held_out=[test], cache=work / "clips", device=device
    )
    started = time.perf_counter(), time.process_time()
    done = run(request)
    facts = {
        "recipe": recipe_name,
        "steps": done.step,
        "best": done.best,
        "wall_s": time.perf_counter() - started[0],
        "cpu_s": time.process_time() - started[1],
        "parameters": sum(p.numel() for p in recipe.make_network().parameters()),
    }
    data = read_release(test)
    model, _ = open_predictor(str(out / BEST), data, device=device, cache=work / "clips")
    predict(model, data, {None: out / "predictions"})
    score(data, out)
    return facts


def run_model(size: Size, name: str, work: Path, device: str) -> None:
    """Train and score a model unless that is done."""
    if name == PRIOR:
        if not (work / "runs" / name / "facts.json").exists():
            score_prior(size, work)
        return
    title = titled(name, size.train.seed)
    out = work / "runs" / title
    if not (out / "facts.json").exists():
        print(f"== {title}", flush=True)
        facts = train_and_score(size, name, work, device)
        facts[KEPT] = deaf_share(size, work, name)
        (out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


def score_prior(size: Size, work: Path) -> None:
    """The fixed map: no sound and no picture is looked at."""
    training, test = draw(size, work)
    frames = [frame for frame in read_release(training).frames if frame.instances]
    mean = np.mean([frame.truth(GRID_HW) for frame in frames], 0, dtype=np.float32)
    out = work / "runs" / PRIOR
    folder = out / "predictions"
    folder.mkdir(parents=True, exist_ok=True)
    predictions, data = Predictions(folder), read_release(test)
    indices: dict[str, list[int]] = {}
    for frame in data.frames:
        indices.setdefault(frame.clip_id, []).append(frame.frame_index)
    for clip_id, index in indices.items():
        predictions.save(clip_id, index, np.stack([mean] * len(index)))
    score(data, out)
    (out / "facts.json").write_text('{"recipe": "none"}\n')


def score(data: EvaluationSet, out: Path) -> None:
    scores = evaluate(data, Predictions(out / "predictions"))
    write_scores(scores, out)
    print(to_markdown(scores), flush=True)


def deaf_share(size: Size, work: Path, name: str, clips: int = 40) -> float:
    """How much of a model's maps is left when each clip gets another's sound.

    Correlation over places, mean over frames: 1 is a map that does not listen at all.
    """
    _, test = draw(size, work)
    recipe_name, settings = settings_of(size, name)
    recipe = make_recipe(recipe_name, settings)
    model = recipe.make_network()
    path = work / "runs" / titled(name, size.train.seed) / BEST
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    model.eval()
    chosen = read_clips(test)[:clips]
    ready, _ = fill_cache(chosen, work / "clips", size.train.rules, 1)
    tensors = [read_clip(clip.path, size.train.clip_s) for clip in ready]
    index = range(len(tensors[0].frames))
    found = []
    for clip, other in zip(tensors, [*tensors[1:], tensors[0]], strict=True):
        swapped = type(clip)(clip.frames, other.waveform)
        own, foreign = (recipe.heatmaps(model, c, index) for c in (clip, swapped))
        own, foreign = (m.reshape(len(m), -1) for m in (own, foreign))
        own, foreign = (m - m.mean(1, keepdims=True) for m in (own, foreign))
        norm = np.linalg.norm(own, axis=1) * np.linalg.norm(foreign, axis=1)
        found.append((own * foreign).sum(1) / np.maximum(norm, 1e-12))
    return float(np.mean(found))


def verdicts(runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What time should bring, each with its numbers, for every kind of TAVLO and seed."""

    def cell(name: str, row: str) -> dict[str, float]:
        found: dict[str, float] = runs[name]["rows"][row]["CIoU"]
        return found

    result: dict[str, Any] = {}
    for name, seed in product((PAPER, APART, ALONE), range(SEEDS)):
        name, control = titled(name, seed), titled(CONTROL, seed)
        if name not in runs or control not in runs:
            continue
        claims: dict[str, Any] = {}
        for row in ("Single-sound", "Mixed-sound", "Multi-entity", "Cross-event"):
            ours, theirs = cell(name, row), cell(control, row)
            claims[f"beats the control in {row}, intervals apart"] = ours["low"] > theirs["high"]
        drops = [
            cell(n, "Total")["value"] - cell(n, "Cross-event")["value"] for n in (name, control)
        ]
        claims["cross-event drop"] = drops[0]
        claims["control's cross-event drop"] = drops[1]
        claims["drop under a third of the control's"] = drops[0] < drops[1] / 3
        result[name] = claims
    pairs = (
        (PAPER, "TAVLO (paper), max"),
        ("TAVLO (alone), mean", ALONE),
    )
    for mean, largest in pairs:
        if mean in runs and largest in runs:
            a, b = (cell(name, "Total")["value"] for name in (mean, largest))
            result[f"mean beats max: {mean} {a:.2f}, {largest} {b:.2f}"] = a > b
    return result


def against_control(work: Path, names: list[str]) -> Table:
    """How far each model is from the control of the same seed, on the same frames."""
    lines: list[list[Entry]] = []
    for name in names:
        control = titled(CONTROL, int(name.rpartition(", seed ")[2]) if ", seed " in name else 0)
        if control not in names or name == control:
            continue
        line: list[Entry] = [name]
        for row in ROWS:
            theirs, ours = (work / "runs" / one / "frames.csv" for one in (control, name))
            found = paired_difference(theirs, ours, "CIoU", row)
            line.append(f"{found.value:+.1f} ({found.low:+.1f} to {found.high:+.1f})")
        lines.append(line)
    note = "CIoU, percent points; paired, 95 % intervals by bootstrap over videos."
    return Table("Against the control", ["Method", *ROWS], lines, [note])


def what_time_tells(world: WorldConfig, data: EvaluationSet, runs: Mapping[str, Path]) -> Table:
    """Sources told from look-alikes, and which of two sources is shown.

    The thing with the warmest mean is the one that is told. Of two sources that sound together, the
    one that struck last is the louder; both are the truth.

    Args:
        world: that was scored on.
        data: its labelled frames.
        runs: name to a folder of ``predictions`` and ``scores.json``.
    """
    found = {name: Predictions(folder / "predictions") for name, folder in runs.items()}
    scores = {
        name: json.loads((folder / "scores.json").read_text()) for name, folder in runs.items()
    }
    told: dict[tuple[str, str], list[float]] = defaultdict(list)
    for frame in data.frames:
        scene = scene_of(world, int(frame.video_id.rpartition("-")[2]))
        strokes = {
            sound.actor: since
            for sound in scene.sounds
            if not sound.muted and (since := sound.stroke(frame.time_in_clip_s)) is not None
        }
        sources = sorted(filter(None, strokes), key=lambda name: strokes[name])
        masks = silhouettes(scene, frame.frame_index)
        # A thing that has left the picture cannot be pointed at.
        shown = [a for a in scene.actors if masks[a.name].mean() >= MIN_FRACTION]
        kinds = {a.category for a in shown if a.name in sources}
        alike = [a.name for a in shown if a.category in kinds]
        if not (len(strokes) == 1 and len(alike) in (2, 3)) and len(sources) != 2:
            continue
        for name, predictions in found.items():
            heat = cv2.resize(
                predictions.heatmap(frame.clip_id, frame.frame_index), (world.width, world.height)
            )
            if len(strokes) == 1:
                warmest = max(alike, key=lambda one: float(heat[masks[one]].mean()))
                told[name, f"of {len(alike)}"].append(warmest in sources)
            elif all(one in {a.name for a in shown} for one in sources):
                lit = heat >= scores[name]["threshold"]
                for what, one in zip(("struck last", "the other"), sources, strict=True):
                    told[name, what].append(float(lit[masks[one]].mean()))
    columns = ("of 2", "of 3", "struck last", "the other")
    lines: list[list[Entry]] = [["Chance", 50.0, 100 / 3, None, None]]
    lines += [[name, *(100 * float(np.mean(told[name, c])) for c in columns)] for name in runs]
    counts = ", ".join(f"{c}: {len(told[next(iter(runs)), c])}" for c in columns)
    notes = [
        "Percent. Frames with one source among look-alikes in which it is the warmest of 2 or 3;"
        " in frames with two sources, the share of their pixels that is predicted, of that which"
        f" struck last and of the other. n = {counts}."
    ]
    return Table("What time tells", ["Method", *columns], lines, notes)


def with_intervals(runs: dict[str, dict[str, Any]], facts: dict[str, dict[str, Any]]) -> Table:
    """CIoU of every row with its interval, and how deaf each model is."""
    lines: list[list[Entry]] = []
    for name, run_ in runs.items():
        cells = [run_["rows"][row]["CIoU"] for row in ROWS]
        kept = facts[name].get(KEPT)
        lines.append(
            [
                name,
                *(f"{c['value']:.1f} ({c['low']:.1f} to {c['high']:.1f})" for c in cells),
                "1 by construction" if name == PRIOR else f"{kept:.2f}" if kept else None,
            ]
        )
    notes = [
        "Percent, 95 % intervals by bootstrap over videos. Last column: correlation of a frame's"
        " map with that under another clip's sound; 1 is a map that hears nothing.",
    ]
    return Table("CIoU with intervals", ["Method", *ROWS, "map kept"], lines, notes)


def main() -> None:
    """Train, score, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="kept between calls")
    parser.add_argument("--full", action="store_true", help="the paper's size, on a GPU")
    parser.add_argument("--only", action="append", choices=[PRIOR, *MODELS])
    parser.add_argument("--epochs", type=int, help="instead of the size's own; a work of its own")
    parser.add_argument("--seed", type=int, choices=range(SEEDS), default=0, help="of the training")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tables", action="store_true", help="only print what there is")
    arguments = parser.parse_args()
    size, suffix, work = SMALL, "", arguments.work
    if arguments.full:
        size, suffix = FULL, "_full"
    if arguments.epochs:
        size = replace(size, train=size.train.model_copy(update={"epochs": arguments.epochs}))
        suffix += f"_{arguments.epochs}_epochs"
    size = replace(size, train=size.train.model_copy(update={"seed": arguments.seed}))
    work.mkdir(parents=True, exist_ok=True)
    for name in arguments.only or ([] if arguments.tables else [PRIOR, *MODELS]):
        run_model(size, name, work, arguments.device)
    report(size, work, suffix)


def report(size: Size, work: Path, suffix: str) -> None:
    """Print the tables of what is done and write them."""
    names = {titled(name, seed): name for name in (PRIOR, *MODELS) for seed in range(SEEDS)}
    done = [name for name in names if (work / "runs" / name / "facts.json").exists()]
    files = {name: work / "runs" / name / "scores.json" for name in done}
    runs = {name: json.loads(file.read_text()) for name, file in files.items()}
    named = read_runs([f"{name}={file}" for name, file in files.items()])
    tables = side_by_side(named)
    variants = [n for n in done if n.startswith("TAVLO")]
    if len(variants) > 1:
        tables += ablation({name: named[name] for name in variants})
    facts = {n: json.loads((work / "runs" / n / "facts.json").read_text()) for n in done}
    tables += [
        with_intervals(runs, facts),
        against_control(work, done),
        what_time_tells(
            replace(size.world, seed=TEST_SEED),
            read_release(work / "test"),
            {name: work / "runs" / name for name in done},
        ),
    ]
    text = tables_to_markdown(tables)
    claims = verdicts(runs)
    result = {
        "what": "TAVLO against a frame-wise control on synthetic clips",
        "machine": describe(),
        "world": {k: v for k, v in vars(size.world).items() if k != "seed"},
        "clips": {"training": size.training, "test": size.test},
        "settings": {name: settings_of(size, names[name])[1] for name in done if name != PRIOR},
        "train": size.train.model_dump(mode="json"),
        "claims": claims,
        "models": {
            name: {
                "rows": runs[name]["rows"],
                **facts[name],
            }
            for name in done
        },
    }
    (RESULTS / f"tavlo_synthetic{suffix}.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / f"tavlo_synthetic{suffix}.md").write_text(text)
    curves = RESULTS / f"tavlo_synthetic{suffix}_curves"
    curves.mkdir(exist_ok=True)
    for name in done:
        curve = work / "runs" / name / "curve.png"
        if curve.exists():
            plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
            shutil.copy(curve, curves / f"{plain}.png")
    print(text)
    print(json.dumps(claims, indent=1))


if __name__ == "__main__":
    main()
