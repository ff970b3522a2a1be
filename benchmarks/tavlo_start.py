"""Where TAVLO's training starts: spectrograms as they come, or normalised; in short trainings.

    python -m benchmarks.tavlo_start --work DIR [--steps N] [--seeds N]

Draws small worlds to train and to score on, as ``benchmarks.tavlo_synthetic`` does, trains the
preset late-fusion with each of the starts and seeds in the one loop, clips kept decoded in memory,
and writes CIoU, sound sensitivity and loss of every run. What is done stays in DIR.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import describe
from benchmarks.tavlo_synthetic import ALONE, RESULTS, SMALL, draw, settings_of
from tavlo.evaluation.evaluate import evaluate
from tavlo.evaluation.evaluation_set import read_release
from tavlo.evaluation.open_predictor import open_predictor
from tavlo.evaluation.predictions import predict
from tavlo.metrics.sound_sensitivity import MEAN_MAP, SENSITIVITY
from tavlo.network.spectrogram import SpectrogramConfig, log_mel
from tavlo.training import data as feed
from tavlo.training.cached_clips import CachedClip, fill_cache
from tavlo.training.recipe import make_recipe
from tavlo.training.train import BEST, TrainingData, train
from tavlo.training.training_clips import read_clips

HELD = 64
"""Clips that choose the best checkpoint; the rest of the world is trained on."""


def statistics(clips: list[CachedClip], config: SpectrogramConfig) -> tuple[float, float]:
    """Mean and deviation of the clips' spectrograms."""
    found = []
    for clip in clips[:100]:
        tensors = feed.read_clip(clip.path, SMALL.train.clip_s)
        sound = torch.from_numpy(tensors.waveform)[None]
        found.append(log_mel(sound, len(tensors.frames), config).numpy())
    values = np.concatenate([one.ravel() for one in found])
    return float(values.mean()), float(values.std())


def main() -> None:
    """Train, score, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=480)
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    size = replace(SMALL, training=asked.clips, test=asked.test)
    training, test = draw(size, asked.work)
    cache = asked.work / "clips"
    ready, _ = fill_cache(read_clips(training), cache, size.train.rules, 1)
    feed.read_clip = lru_cache(maxsize=None)(feed.read_clip)  # decoded once, then resident
    _, settings = settings_of(size, ALONE)
    plain = SpectrogramConfig(**settings["spectrogram"])
    mean, deviation = statistics(ready, plain)
    starts: dict[str, dict[str, float]] = {
        "as they come": {},
        "normalised": {"mean": round(mean, 1), "deviation": round(deviation, 1)},
    }
    per_epoch = (len(ready) - HELD) // size.train.batch
    runs: list[dict[str, Any]] = []
    for seed in range(asked.seeds):
        for name, change in starts.items():
            out = asked.work / "runs" / f"{name}-{seed}"
            facts = out / "facts.json"
            if not facts.exists():
                changed = settings | {"spectrogram": settings["spectrogram"] | change}
                recipe = make_recipe("tavlo", changed)
                epochs = max(1, asked.steps // per_epoch)
                config = size.train.model_copy(
                    update={"epochs": epochs, "seed": seed, "workers": 0}
                )
                began = time.process_time()
                done = train(recipe, config, TrainingData(ready[HELD:], ready[:HELD], {}), out)
                spent = time.process_time() - began
                model, _ = open_predictor(str(out / BEST), read_release(test), cache=cache)
                found, _ = predict(model, read_release(test), {None: out / "predictions"})
                scores = evaluate(read_release(test), found[None])
                assert done.best is not None
                row = {
                    "start": name,
                    "seed": seed,
                    "steps": done.step,
                    "cpu_s": round(spent),
                    "ciou": {k: v["CIoU"].value for k, v in scores.rows.items() if "CIoU" in v},
                    **{key: done.best[key] for key in ("loss", SENSITIVITY, MEAN_MAP)},
                }
                facts.write_text(json.dumps(row))
            runs.append(json.loads(facts.read_text()))
            print(json.dumps(runs[-1]), flush=True)
    result = {
        "what": "late-fusion on drawn clips, spectrograms as they come or normalised",
        "machine": describe(),
        "clips": {"training": len(ready) - HELD, "validation": HELD, "test": asked.test},
        "spectrogram": {"mean": mean, "deviation": deviation},
        "runs": runs,
        "summary": {
            name: {
                "Total CIoU": _range(
                    [run["ciou"]["Total"] for run in runs if run["start"] == name]
                ),
                SENSITIVITY: _range([run[SENSITIVITY] for run in runs if run["start"] == name]),
                "validation loss": _range([run["loss"] for run in runs if run["start"] == name]),
            }
            for name in starts
        },
    }
    (RESULTS / "tavlo_start.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["summary"], indent=1))


def _range(values: list[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "low": min(values), "high": max(values)}


if __name__ == "__main__":
    main()
