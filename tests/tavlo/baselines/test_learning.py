"""Each model, trained in the one loop on a drawn world, points at what sounds rather than beside.

Training shows a disc of one of four colours and plays its tone. Then new pictures with two discs of
different colours are asked about: what is where, and which of them is heard, co-occurrence alone
can tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
from pipeline.media.clip_cache import RATE_HZ, SIZE_PX  # noqa: E402
from tavlo.baselines.interface import open_model  # noqa: E402
from tavlo.baselines.neighbours import find_neighbours  # noqa: E402
from tavlo.training.cached_clips import CachedClip, fill_cache  # noqa: E402
from tavlo.training.data import read_clip  # noqa: E402
from tavlo.training.recipe import make_recipe  # noqa: E402
from tavlo.training.train import BEST, TrainingData, train  # noqa: E402
from tavlo.training.training_clips import ClipRules, ClipSource  # noqa: E402
from tavlo.training.training_config import train_config  # noqa: E402
from tests.video_factory import make_video  # noqa: E402

SIDE = 112
RADIUS = 18
COLOURS = ((210, 40, 40), (40, 190, 40), (50, 60, 220), (215, 205, 40))
TONES_HZ = (300.0, 800.0, 1900.0, 4200.0)
RULES = ClipRules(1.0, 1, 10)
TRAINED, HELD, ASKED = 96, 16, 100


@dataclass(frozen=True)
class Drawn:
    """A clip's truth: centres ``(x, y)`` in shares of the side, and colours; the first sounds."""

    centres: tuple[tuple[float, float], tuple[float, float]]
    kinds: tuple[int, int]


def draw(number: int, shown: int = 2) -> tuple[Drawn, NDArray[np.uint8], NDArray[np.float32]]:
    rng = np.random.default_rng([7, number])
    first, second = (int(kind) for kind in rng.permutation(4)[:2])
    while True:
        places = rng.uniform(RADIUS, SIDE - RADIUS, (2, 2))
        if np.linalg.norm(places[0] - places[1]) > 3 * RADIUS:
            break
    picture = rng.integers(90, 150, (SIDE, SIDE, 3)).astype(np.uint8)
    for place, kind in list(zip(places, (first, second), strict=True))[:shown]:
        centre = (int(place[0]), int(place[1]))
        cv2.circle(picture, centre, RADIUS, COLOURS[kind], thickness=-1)
    time = np.arange(RATE_HZ) / RATE_HZ
    tone = np.sin(2 * np.pi * TONES_HZ[first] * rng.uniform(0.95, 1.05) * time)
    sound = 0.3 * tone + rng.normal(0, 0.02, RATE_HZ)
    (ax, ay), (bx, by) = (places / SIDE).tolist()
    return Drawn(((ax, ay), (bx, by)), (first, second)), picture, sound.astype(np.float32)


@dataclass(frozen=True)
class Still:
    """A video of one picture."""

    picture: NDArray[np.uint8]

    def __call__(self, number: int) -> NDArray[np.uint8]:
        return self.picture


@dataclass(frozen=True)
class World:
    clips: list[CachedClip]
    truth: list[Drawn]


@pytest.fixture(scope="module")
def world(tmp_path_factory: Any) -> World:
    folder = tmp_path_factory.mktemp("world")
    sources, truth = [], []
    for number in range(TRAINED + HELD + ASKED):
        drawn, picture, sound = draw(number, shown=1 if number < TRAINED + HELD else 2)
        path = folder / f"v{number:010d}.mp4"
        make_video(path, frames=2, fps=2, draw=Still(picture), sound=sound)
        sources.append(ClipSource(f"v{number:010d}_00000000", path.stem, path, 0.0))
        truth.append(drawn)
    clips, failed = fill_cache(sources, folder / "cache", RULES, 1)
    assert not failed
    return World(clips, truth)


LOOP: dict[str, Any] = {
    "batch": 16,
    "clip_s": 1.0,
    "min_frames": 1,
    "max_frames": 10,
    "workers": 0,
    "clip_norm": 1.0,
    "checkpoint_every": 1000,
}
# For want of steps: narrow networks, faster rates, a copy that follows faster, less dropout.
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ezvsl": ({"width": 8, "imagenet": False}, {"epochs": 40, "learning_rate": 2e-3}),
    "slavc": (
        {"width": 8, "imagenet": False, "momentum": 0.9, "image_dropout": 0.1},
        {"epochs": 20, "learning_rate": 2e-3},
    ),
    "ssltie": ({"width": 8}, {"epochs": 15, "learning_rate": 1e-3}),
    "sslalignment": ({"width": 8}, {"epochs": 15, "learning_rate": 1e-3}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_trained_model_points_at_what_sounds_more_often_than_chance(
    world: World, name: str, tmp_path: Path
) -> None:
    settings, loop = dict(MODELS[name][0]), MODELS[name][1]
    if name == "sslalignment":
        settings["neighbours"] = str(neighbours(world, tmp_path / "neighbours.npz"))
    recipe = make_recipe(name, settings)
    config = train_config({**recipe.training, **LOOP, **loop})
    held = world.clips[TRAINED : TRAINED + HELD]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train(recipe, config, TrainingData(world.clips[:TRAINED], held, {}), tmp_path / "out")
    model = open_model(name, tmp_path / "out" / BEST)
    hits = []
    for clip, drawn in zip(world.clips, world.truth, strict=True):
        if clip in world.clips[TRAINED + HELD :]:
            tensors = read_clip(clip.path, 1.0)
            (heatmap,) = model.heatmaps([tensors.frames[1]], [tensors.waveform])
            sounding, silent = (level(heatmap, centre) for centre in drawn.centres)
            hits.append(sounding > silent)
    torch.set_num_threads(threads)
    share, low = float(np.mean(hits)), wilson(sum(hits), len(hits))
    print(f"{name}: {100 * share:.0f} % of {len(hits)}, 95 % from {100 * low:.0f} %")  # noqa: T201
    assert low > 0.5


def neighbours(world: World, path: Path) -> Path:
    """By mean colour and by spectrum: encoders no training had to make."""
    clips = world.clips[:TRAINED]
    read = [read_clip(clip.path, 1.0) for clip in clips]
    seen = [clip.frames[1].reshape(-1, 3).std(0) for clip in read]
    heard = [
        np.abs(np.fft.rfft(clip.waveform)).reshape(-1)[:8000].reshape(80, 100).sum(1)
        for clip in read
    ]
    find_neighbours([c.clip_id for c in clips], np.array(seen), np.array(heard), 5).save(path)
    return path


def level(heatmap: NDArray[np.float32], centre: Sequence[float]) -> float:
    x, y = (round(share * SIZE_PX) for share in centre)
    reach = RADIUS
    return float(heatmap[max(0, y - reach) : y + reach, max(0, x - reach) : x + reach].mean())


def wilson(hits: int, count: int) -> float:
    """Lower end of the 95 % interval of a share."""
    z, share = 1.96, hits / count
    middle = share + z * z / (2 * count)
    spread = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return float((middle - spread) / (1 + z * z / count))
