"""What of TAVLO makes it localise: a factorial of its form and its loss, three trainings each.

    python -m benchmarks.tavlo_factorial --work DIR [--part PART] [--seeds N]

Draws a world to train on and two that no choice was ever made on: one of other seeds alone, one of
things and backgrounds that no clip of training has (``avatar-build synth --looks unseen``). The
*factorial* crosses what a place attends to in its picture with the negatives and the temperature,
in short trainings; the *attribution* takes time or positions away from the best, and gives them to
the frame-wise control, in longer ones of equal length; *longer* asks once more what attention along
time is for, at the length at which look-alikes are told apart. Clips stay decoded in memory. Each
training is kept in DIR with all its scores; the tables are made from what is there, so that several
processes may share the work, one part and some seeds each.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import torch

from benchmarks.frame_wise import NAME as FRAME_WISE
from benchmarks.machine import describe
from benchmarks.tavlo_synthetic import RESULTS, ROWS, SMALL, what_time_tells
from pipeline.media.clip_cache import ClipTensors
from pipeline.progress import counting
from tavlo.evaluation.evaluate import evaluate, write_scores
from tavlo.evaluation.evaluation_set import EvaluationSet, read_release
from tavlo.evaluation.floors import FIXED_MAP
from tavlo.evaluation.label_free_scores import CLIPS
from tavlo.evaluation.open_predictor import open_predictor
from tavlo.evaluation.predictions import predict
from tavlo.metrics.sound_sensitivity import MEAN_MAP, SENSITIVITY
from tavlo.network.model import SpatialAttention
from tavlo.published.result_table import Entry, Table, to_markdown
from tavlo.synthetic.drawn_clips import Looks, WorldConfig
from tavlo.synthetic.write_world import write_world
from tavlo.training import data as feed
from tavlo.training.cached_clips import CachedClip, fill_cache
from tavlo.training.data import read_clip
from tavlo.training.recipe import make_recipe
from tavlo.training.train import LAST, TrainingData, train
from tavlo.training.training_clips import read_clips

HELD = 160
"""Clips of training whose loss is watched; the rest of the world is trained on."""
SIDE = 128
"""Pixels of a picture's side while it waits in memory."""

PRINTED = "as printed"
BEST_FORM = "TAVLO, places alone"
NO_TIME = "the same, no attention along time"
CONTROL = "frame-wise control"
Settings = dict[str, Any]


def _tavlo(changes: Mapping[str, Any], **sizes: Any) -> tuple[str, Settings]:
    own = SMALL.tavlo["sizes"] | {"residual_init": "zero"} | sizes
    return "tavlo", SMALL.tavlo | dict(changes) | {"sizes": own}


def _control(**changes: Any) -> tuple[str, Settings]:
    return FRAME_WISE, {"shared": SMALL.tavlo} | changes


_OURS = {"negatives": "max", "temperature": 0.07}
FACTORIAL: dict[str, tuple[str, Settings]] = {
    f"{attention}, {negatives}, {temperature:g}": _tavlo(
        {"negatives": negatives, "temperature": temperature}, spatial_attention=attention
    )
    for attention, negatives, temperature in product(
        reversed(get_args(SpatialAttention)), ("max", "mean", "min"), (0.07, 1.0)
    )
}
"""Name to recipe and settings; each a cell of the three factors."""
FACTORIAL[PRINTED] = ("tavlo", SMALL.tavlo)
"""The paper's form, its residual branches begun at random too: the cells begin them at zero."""
FACTORIAL["none, max, 0.07, spectrograms normalised"] = _tavlo(
    # Mean and deviation of the first hundred clips' spectrograms.
    _OURS | {"spectrogram": SMALL.tavlo["spectrogram"] | {"mean": -3.9, "deviation": 5.9}},
    spatial_attention="none",
)
ATTRIBUTION: dict[str, tuple[str, Settings]] = {
    BEST_FORM: _tavlo(_OURS, spatial_attention="none"),
    NO_TIME: _tavlo(_OURS, spatial_attention="none", temporal_attention="none"),
    "the same, no Pos_s": _tavlo(_OURS, spatial_attention="none", space_positions=False),
    CONTROL: _control(),
    "control, Pos_s": _control(space_positions=True),
    "control, sound of the frame": _control(sound="frame"),
}


@dataclass(frozen=True)
class Part:
    """A comparison at equal length."""

    models: dict[str, tuple[str, Settings]]
    epochs: int
    clips: dict[str, int]
    """World to how many of its clips are scored, at most."""


PARTS = {
    "factorial": Part(FACTORIAL, 2, {"fresh": 400}),
    "attribution": Part(ATTRIBUTION, 6, {"fresh": 1000, "unseen": 1000}),
    # As long as benchmarks.tavlo_synthetic: look-alikes are told apart late.
    "longer": Part({name: ATTRIBUTION[name] for name in (BEST_FORM, NO_TIME)}, 20, {"fresh": 1000}),
}
SETS: dict[str, tuple[int, Looks]] = {"fresh": (3, "usual"), "unseen": (4, "unseen")}
"""The worlds that are scored on: name to seed and looks. Variants of earlier studies were chosen on
seed 2."""


def drawn(work: Path, name: str, seed: int, clips: int, looks: Looks) -> Path:
    """Draw a world unless it is there."""
    folder, size = work / name, SMALL.world
    if not folder.exists():
        world = WorldConfig(seed, size.seconds, size.fps, size.height, looks)
        with counting(f"clips of {name}", clips) as count:
            write_world(folder, world, clips, processes=2, show=count)
    return folder


@dataclass(frozen=True)
class Worlds:
    """What every training reads."""

    work: Path
    ready: list[CachedClip]
    tests: dict[str, EvaluationSet]

    @classmethod
    def open(cls, work: Path, training: int, test: int) -> Worlds:
        """Draw what is missing and decode the clips of training once."""
        clips = read_clips(drawn(work, "train", 1, training, "usual"))
        tests = {
            name: read_release(drawn(work, name, seed, test, looks))
            for name, (seed, looks) in SETS.items()
        }
        every = [*clips, *(clip for data in tests.values() for clip in read_clips(data.folder))]
        with counting("decoded clips", len(every)) as count:
            ready, failed = fill_cache(every, work / "clips", SMALL.train.rules, 2, show=count)
        assert not failed, failed
        ready = ready[: len(clips)]
        return cls(work, ready, tests)


def small_clip(path: Path, length_s: float, sha256: str = "") -> ClipTensors:
    """Read a clip with pictures of at most ``SIDE`` pixels, so that all fit into memory.

    They are made small anyway, to 96 pixels; at 224 the clips of training are 7.5 GB.
    """
    clip = read_clip(path, length_s, sha256)
    frames = [cv2.resize(one, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for one in clip.frames]
    return ClipTensors(np.stack(frames), clip.waveform)


def first_clips(data: EvaluationSet, count: int) -> EvaluationSet:
    """Take a world's first clips, which have the proportions of all."""
    chosen = set(sorted({frame.clip_id for frame in data.frames})[:count])
    return replace(data, frames=tuple(f for f in data.frames if f.clip_id in chosen))


def train_and_score(worlds: Worlds, model: tuple[str, Settings], part: Part, out: Path) -> None:
    """Train a model once and score its last weights, unless that is done.

    Not the best by validation loss: that loss falls in models that localise ever less.
    """
    facts = out / "facts.json"
    if facts.exists():
        return
    seed = int(out.name.rpartition(" ")[2])
    config = SMALL.train.model_copy(update={"epochs": part.epochs, "seed": seed, "workers": 0})
    recipe = make_recipe(*model)
    began = time.process_time()
    split = TrainingData(worlds.ready[HELD:], worlds.ready[:HELD], {})
    done = train(recipe, config, split, out)
    row: dict[str, Any] = {"steps": done.step, "cpu_s": round(time.process_time() - began)}
    for name, clips in part.clips.items():
        scored, data = out / name, first_clips(worlds.tests[name], clips)
        predictor, _ = open_predictor(str(out / LAST), data, cache=worlds.work / "clips")
        found, _ = predict(predictor, data, {None: scored / "predictions"}, sensitivity_clips=CLIPS)
        write_scores(evaluate(data, found[None]), scored)
    facts.write_text(json.dumps(row) + "\n")
    print(out.name, json.dumps(row), flush=True)


def over_trainings(values: Sequence[float]) -> str:
    """Write mean and range over trainings; the number of them where it is one."""
    mean = f"{float(np.mean(values)):.1f}"
    return (
        f"{mean} (one)" if len(values) == 1 else f"{mean} ({min(values):.1f} to {max(values):.1f})"
    )


def folders(work: Path, part: str) -> dict[str, list[Path]]:
    """Return the finished trainings of each model of a part, by seed."""
    found = {
        name: [
            path.parent
            for path in sorted((work / "runs").glob(f"{part}, {name}, seed */facts.json"))
        ]
        for name in PARTS[part].models
    }
    return {name: paths for name, paths in found.items() if paths}


def scores_of(folder: Path, test: str) -> dict[str, Any]:
    """Read what a training got on a world."""
    read: dict[str, Any] = json.loads((folder / test / "scores.json").read_text())
    return read


def ciou_table(found: Mapping[str, list[Path]], part: str, test: str) -> Table:
    """CIoU by row, mean and range over trainings, with what the sound does to the maps."""
    lines: list[list[Entry]] = []
    floor: dict[str, Any] = {}
    for name, paths in found.items():
        all_scores = [scores_of(path, test) for path in paths]
        floor = all_scores[0]["floors"][FIXED_MAP]
        by_row = [[s["rows"][row]["CIoU"]["value"] for s in all_scores] for row in ROWS]
        drops = [total - cross for total, cross in zip(by_row[-2], by_row[-1], strict=True)]
        free = [
            [s["label_free"][key]["value"] for s in all_scores] for key in (SENSITIVITY, MEAN_MAP)
        ]
        lines.append(
            [
                f"{name} ({len(paths)})",
                *map(over_trainings, by_row),
                over_trainings(drops),
                *(f"{np.mean(values):.2f}" for values in free),
            ]
        )
    fixed = [floor[row]["CIoU"]["value"] for row in ROWS]
    lines.insert(
        0, [FIXED_MAP, *(f"{v:.1f}" for v in fixed), f"{fixed[-2] - fixed[-1]:.1f}", "0", "1"]
    )
    notes = [
        "CIoU in percent, mean (range) over trainings; in brackets after a name how many.",
        "The last weights of each training, after the same number of steps.",
    ]
    columns = ["", *ROWS, "its drop", "sound sensitivity", "mean-map correlation"]
    return Table(f"{part}, the {test} world", columns, lines, notes)


def video_table(found: Mapping[str, list[Path]], part: str, test: str) -> Table:
    """Each training with its intervals over videos."""
    lines: list[list[Entry]] = []
    for paths in found.values():
        for path in paths:
            rows = scores_of(path, test)["rows"]
            cells = [rows[row]["CIoU"] for row in ROWS]
            told = [f"{c['value']:.1f} ({c['low']:.1f} to {c['high']:.1f})" for c in cells]
            lines.append([path.name.removeprefix(f"{part}, "), *told])
    note = "CIoU in percent with 95 % intervals by bootstrap over videos."
    return Table(f"{part}, each training, the {test} world", ["", *ROWS], lines, [note])


def time_table(worlds: Worlds, found: Mapping[str, list[Path]], part: str, test: str) -> Table:
    """Which of several look-alikes is the warmest, mean and range over trainings."""
    seed, looks = SETS[test]
    size = SMALL.world
    world = WorldConfig(seed, size.seconds, size.fps, size.height, looks)
    runs = {path.name: path / test for paths in found.values() for path in paths}
    each = what_time_tells(world, first_clips(worlds.tests[test], PARTS[part].clips[test]), runs)
    by_run = {str(line[0]): line[1:] for line in each.rows}
    lines: list[list[Entry]] = [["Chance", *by_run["Chance"]]]
    for name, paths in found.items():
        columns = zip(*(by_run[path.name] for path in paths), strict=True)
        told = [over_trainings([float(v) for v in column]) for column in columns]
        lines.append([f"{name} ({len(paths)})", *told])
    return replace(each, title=f"{part}: what time tells, the {test} world", rows=lines)


def report(worlds: Worlds) -> None:
    """Print the tables of what is done and write them."""
    tables: list[Table] = []
    result: dict[str, Any] = {
        "what": "what of TAVLO makes it localise, on drawn clips",
        "machine": describe(),
        "world": {k: v for k, v in vars(SMALL.world).items() if k not in ("seed", "looks")},
        "clips": {"training": len(worlds.ready) - HELD, "validation": HELD},
        "train": SMALL.train.model_dump(mode="json", exclude={"epochs", "seed", "workers"}),
    }
    for part, about in PARTS.items():
        found = folders(worlds.work, part)
        if not found:
            continue
        for test in about.clips:
            tables += [ciou_table(found, part, test), time_table(worlds, found, part, test)]
        tables += [video_table(found, part, test) for test in about.clips]
        result[part] = {
            "epochs": about.epochs,
            "clips scored": about.clips,
            "models": {
                name: {
                    "settings": about.models[name][1],
                    "trainings": {
                        path.name.rpartition(" ")[2]: _kept(path, about) for path in paths
                    },
                }
                for name, paths in found.items()
            },
        }
    text = to_markdown(tables)
    (RESULTS / "tavlo_factorial.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / "tavlo_factorial.md").write_text(text)
    print(text)


def _kept(path: Path, part: Part) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((path / "facts.json").read_text())
    for test in part.clips:
        scores = scores_of(path, test)
        rows = {row: scores["rows"][row]["CIoU"] for row in ROWS}
        facts[test] = {"CIoU": rows, "label_free": scores["label_free"]}
    return facts


def main() -> None:
    """Draw, train, score, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="kept between calls")
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each model")
    parser.add_argument("--clips", type=int, default=3200, help="to train on")
    parser.add_argument("--test", type=int, default=1000, help="clips of each world scored on")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--backwards", action="store_true", help="the last model first")
    parser.add_argument("--tables", action="store_true", help="only of what there is")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    worlds = Worlds.open(asked.work, asked.clips, asked.test)
    if not asked.tables:
        feed.read_clip = lru_cache(maxsize=None)(small_clip)  # decoded once, then resident
        for part in asked.part or PARTS:
            about = PARTS[part]
            models = list(about.models.items())
            for seed, (name, model) in product(
                range(asked.seeds), reversed(models) if asked.backwards else models
            ):
                out = asked.work / "runs" / f"{part}, {name}, seed {seed}"
                train_and_score(worlds, model, about, out)
    report(worlds)


if __name__ == "__main__":
    main()
