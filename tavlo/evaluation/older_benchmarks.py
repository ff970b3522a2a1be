"""The benchmarks before AVATAR, each scored as its papers do: one picture, one sound, one map.

A set is a release that ``import-release`` made of it. A model's own post-processing turns its maps
into predictions, as its authors' evaluator does, and stands in the results.

    VGG-SS           boxes, their union; cIoU (success at 0.5) and AUC
    Flickr-SoundNet  boxes of three annotators; a pixel counts half per vote, two or more fully
    IS3              a box per sound; also iIoU and iAUC over images, which need all their sounds
    AVSBench         masks; mIoU and F-score of the normalised heatmap

Adaptive rows predict as many pixels as the truth has, so they look at the answer. Extended rows,
for sets with off-screen pairs, ask how sure a model is: AP, max-F1 and LocAcc.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import AvatarBuildError, UsageError
from pipeline.files import write_whole
from tavlo.baselines.interface import ImageModel, PostProcessing, Prior
from tavlo.evaluation.evaluation_set import EvaluationSet, LabelledFrame
from tavlo.evaluation.floors import FIXED_MAP, FixedMaps
from tavlo.evaluation.image_models import SoundCounts, read_pairs
from tavlo.evaluation.label_free_scores import (
    CLIPS,
    LabelFreeNumber,
    label_free_numbers,
    label_free_sentence,
)
from tavlo.evaluation.predictions import GRID_HW, HEARING, Heatmap, Notes, Predictions
from tavlo.evaluation.training_overlap import TrainingOverlap, training_overlap
from tavlo.metrics.localisation import ciou, localisation
from tavlo.metrics.older_metrics import Segmentation, detection, interactive, recall_at
from tavlo.published.result_table import Entry, Table, write_tables

Truth = Literal["union", "votes", "mask"]
SETS: dict[str, Truth] = {
    "VGG-SS": "union",
    "Flickr-SoundNet": "votes",
    "IS3": "union",
    "AVSBench": "mask",
}
"""The names imported releases have, and their kind of truth."""
USUAL_POST = PostProcessing("bilinear", True, "min-max", "rank", ">=")
"""EZ-VSL's, by which half of each heatmap is predicted; for heatmaps that state none."""
_DEPTHS = (1, 5, 10)
_FIXED = (
    f"{FIXED_MAP}: the mean truth of the other videos' samples, compared as the model's heatmaps"
    " are; it looks at nothing and hears nothing."
)


@dataclass(frozen=True)
class Number:
    """A number of a table with its n."""

    value: float
    """Percent."""
    n: int
    """Samples, or images of iIoU and iAUC."""


@dataclass
class BenchmarkScores:
    """All a model gets on a set."""

    release: str
    rows: dict[str, dict[str, Number]] = field(default_factory=dict)
    """Set, extended set or direction of retrieval to metric to number."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Samples not scored, with why: of the set's own list and of the media."""
    model: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    label_free: dict[str, LabelFreeNumber] = field(default_factory=dict)
    """Sound sensitivity, where the model was asked for it, and correlation with the mean map."""
    leaks: list[TrainingOverlap] = field(default_factory=list)
    """Training lists the set was held against."""
    floors: dict[str, dict[str, dict[str, Number]]] = field(default_factory=dict)
    """Floor to its ``rows``, to be read beside the model's."""


def select_test_split(data: EvaluationSet) -> EvaluationSet:
    """Return the samples of the test split; all of them where the set states no split.

    Raises:
        AvatarBuildError: every sample is of another split.
    """
    frames = tuple(frame for frame in data.frames if frame.video.split in ("", "test"))
    if not frames:
        splits = ", ".join(sorted({frame.video.split for frame in data.frames}))
        raise AvatarBuildError(f"{data.folder}: no sample of the test split (there is {splits}).")
    return replace(data, frames=frames)


def evaluate_benchmark(
    data: EvaluationSet,
    predictions: Predictions,
    *,
    max_missing: int = 0,
    train_lists: Sequence[Path] = (),
    sensitivity_clips: int = CLIPS,
    seed: int = 0,
    floors: Mapping[str, Predictions] = MappingProxyType({}),
) -> BenchmarkScores:
    """Score heatmaps on a set.

    Args:
        data: an imported release.
        predictions: heatmaps; ``model.json`` says how they are compared.
        max_missing: samples without a heatmap that may be left out, and listed.
        train_lists: what the model was trained on, held against the samples scored.
        sensitivity_clips: how many clips the label-free numbers are of; 0 for none.
        seed: of which they are.
        floors: heatmaps by name to stand beside the model's, of the same samples, after a
            post-processing of their own.

    Raises:
        UsageError: the release is none of ``SETS``.
        AvatarBuildError: more are missing, or nothing is left.
    """
    if data.imported_from not in SETS:
        raise UsageError(
            f"{data.folder}: made of {data.imported_from or 'a workspace'}; the sets scored this"
            f" way are {', '.join(SETS)}, brought in with 'avatar-build import-release'."
        )
    about = predictions.about()
    frames, missing = predictions.split(data.frames, max_missing)
    scores = BenchmarkScores(data.name, left_out=_never_there(data) | missing, model=about)
    scores.label_free = label_free_numbers(frames, predictions, sensitivity_clips, seed)
    post = _post(about, scores)
    videos = {frame.video_id for frame in frames if not frame.off_screen}
    scores.leaks = [training_overlap(videos, path) for path in train_lists]
    scores.rows = _rows(data.imported_from, frames, partial(_heatmap, predictions), post)
    by_mask = SETS[data.imported_from] == "mask"
    # Where boxes are votes, a pixel with any is one of the mean's.
    maps = FixedMaps(frames, _drawn if by_mask else union)
    if maps:
        scores.floors[FIXED_MAP] = _rows(data.imported_from, frames, partial(_fixed, maps), post)
    for name, others in floors.items():
        others.split(frames, 0)
        own = _post(others.about(), scores)
        of_others = partial(_heatmap, others)
        scores.floors[name] = _rows(data.imported_from, frames, of_others, own)
    return scores


HeatmapOf = Callable[[LabelledFrame], Heatmap]


def _heatmap(predictions: Predictions, frame: LabelledFrame) -> Heatmap:
    return predictions.heatmap(frame.clip_id, frame.frame_index)


def _drawn(frame: LabelledFrame) -> NDArray[Any]:
    return frame.truth(GRID_HW)


def _fixed(maps: FixedMaps, frame: LabelledFrame) -> Heatmap:
    return np.asarray(maps.of(frame), np.float32)


def _rows(
    name: str, frames: Sequence[LabelledFrame], heatmap_of: HeatmapOf, post: PostProcessing
) -> dict[str, dict[str, Number]]:
    """Score heatmaps as the papers of a set do."""
    truth = SETS[name]
    if truth == "mask":
        return {name: _masks(frames, heatmap_of, post)}
    rows: dict[str, dict[str, Number]] = {}
    found = [_sample(frame, truth, heatmap_of, post) for frame in frames]
    seen = [one for one in found if one.visible]
    if seen:
        rows[name] = _localisation(name, seen)
    if len(seen) < len(found):
        rows[f"Extended {name}"] = _extended(found)
    # Its truth is finer than its boxes.
    if any(instance.drawn for frame in frames for instance in frame.instances):
        rows[f"{name} masks"] = _masks(frames, heatmap_of, post)
    return rows


def retrieve(
    data: EvaluationSet, model: ImageModel, *, max_missing: int = 0
) -> tuple[dict[str, dict[str, Number]], dict[str, str]]:
    """Score cross-modal retrieval both ways: one picture and its whole sound per clip.

    Off-screen pairs take no part; of clips with several labelled frames the first does.

    Returns:
        The numbers, and the samples left out with why.

    Raises:
        AvatarBuildError: more than ``max_missing`` samples lack picture or sound.
        UsageError: the model hears nothing.
    """
    first: dict[str, LabelledFrame] = {}
    for frame in data.frames:
        if not frame.off_screen:
            first.setdefault(frame.clip_id, frame)
    notes = Notes(len(first), max_missing)
    pairs = read_pairs(data, list(first.values()), model, notes, SoundCounts())
    vectors = [
        model.embeddings([pair.picture for pair in part], [pair.sound for pair in part])
        for part in iter(lambda: list(itertools.islice(pairs, 64)), [])
    ]
    if not vectors:
        raise AvatarBuildError("no sample has picture and sound: nothing to retrieve.")
    pictures, sounds = (np.concatenate(side) for side in zip(*vectors, strict=True))
    rows = {}
    both = {"audio to image": (sounds, pictures), "image to audio": (pictures, sounds)}
    for name, (ask, answer) in both.items():
        found = {f"R@{depth}": part for depth, part in recall_at(ask, answer, _DEPTHS).items()}
        rows[name] = _numbers(len(pictures), found)
    return rows, notes.failed


@dataclass(frozen=True)
class _Sample:
    """One picture with one sound."""

    image: str
    """The name its sounds have in common."""
    visible: bool
    ciou: float
    adaptive: float
    confidence: float


def _sample(
    frame: LabelledFrame, truth: Truth, heatmap_of: HeatmapOf, post: PostProcessing
) -> _Sample:
    heatmap = heatmap_of(frame)
    image = frame.video.label or frame.video_id
    sure = post.confidence(heatmap)
    if frame.off_screen:
        return _Sample(image, False, 0.0, 0.0, sure)
    wanted = consensus(frame) if truth == "votes" else union(frame)
    values = [
        ciou(predicted, wanted)
        for predicted in (post.predict(heatmap), post.predict(heatmap, wanted))
    ]
    # NaN: a box too small for the grid, and nothing predicted; nothing was localised.
    plain, adaptive = (0.0 if np.isnan(value) else value for value in values)
    return _Sample(image, True, plain, adaptive, sure)


def union(frame: LabelledFrame) -> NDArray[np.float64]:
    """Draw the boxes of a frame on the grid of heatmaps, 1 where any is."""
    truth: NDArray[np.float64] = np.any(frame.boxes(GRID_HW), axis=0).astype(np.float64)
    return truth


def consensus(frame: LabelledFrame) -> NDArray[np.float64]:
    """Return the votes of a frame's boxes over 2, capped at 1; a box is a vote."""
    truth: NDArray[np.float64] = np.minimum(np.sum(frame.boxes(GRID_HW), axis=0) / 2, 1.0)
    return truth


def _numbers(n: int, fractions: Mapping[str, float]) -> dict[str, Number]:
    return {metric: Number(100 * value, n) for metric, value in fractions.items()}


def _localisation(name: str, samples: Sequence[_Sample]) -> dict[str, Number]:
    cious = {"": [one.ciou for one in samples], "adaptive ": [one.adaptive for one in samples]}
    plain, adaptive = map(localisation, cious.values())
    numbers = {
        "cIoU": plain.success,
        "AUC": plain.auc,
        "mean cIoU": plain.ciou,
        "adaptive cIoU": adaptive.success,
        "adaptive AUC": adaptive.auc,
    }
    row = _numbers(plain.n, numbers)
    if name == "IS3":
        for prefix, values in cious.items():
            iiou, iauc, count = interactive([one.image for one in samples], values)
            row |= _numbers(count, {f"{prefix}iIoU": iiou, f"{prefix}iAUC": iauc})
    return row


def _extended(samples: Sequence[_Sample]) -> dict[str, Number]:
    found = detection(
        [one.ciou for one in samples],
        [one.confidence for one in samples],
        [one.visible for one in samples],
    )
    max_f1 = float(found.f1_curve.max())
    row = _numbers(found.n, {"AP": found.average_precision, "max-F1": max_f1})
    if visible := found.n - found.negatives:
        row |= _numbers(visible, {"LocAcc": found.location_accuracy})
    return row


def _masks(
    frames: Sequence[LabelledFrame], heatmap_of: HeatmapOf, post: PostProcessing
) -> dict[str, Number]:
    found = Segmentation()
    for frame in frames:
        heatmap = post.normalise(heatmap_of(frame))
        found.add(np.asarray(heatmap, np.float32), frame.truth(GRID_HW))
    miou, fscore = found.scores()
    row = _numbers(len(frames), {"mIoU": miou})
    if sourced := sum(bool(frame.instances) for frame in frames):
        row |= _numbers(sourced, {"F-score": fscore})
    return row


def _post(about: dict[str, Any], scores: BenchmarkScores) -> PostProcessing:
    stated = about.get("post")
    if stated is None:
        scores.notes.append(
            "model.json states no post-processing: half of each min-max heatmap is predicted."
        )
        return USUAL_POST
    try:
        prior = Prior(**stated["prior"]) if stated.get("prior") else None
        return PostProcessing(**{**stated, "prior": prior})
    except (TypeError, AttributeError) as error:
        raise AvatarBuildError(f"model.json: post is no post-processing: {error}.") from error


def _never_there(data: EvaluationSet) -> dict[str, str]:
    """Return the samples of the set's own list that have no usable annotation, with why."""
    path = data.folder / "statistics.json"
    if not path.exists():
        return {}
    rows = json.loads(path.read_text(encoding="utf-8")).get("left_out", [])
    return {row["id"]: row["reason"] for row in rows if row["kind"] == "frame"}


# Output


def benchmark_table(scores: BenchmarkScores) -> Table:
    """Make a table of every number with its n, and of what was left out."""
    rows: list[list[Entry]] = [
        [
            *(f"{name} {metric}", number.value, str(number.n)),
            *(_floor_of(floor, name, metric) for floor in scores.floors.values()),
        ]
        for name, row in scores.rows.items()
        for metric, number in row.items()
    ]
    notes = ["Percent.", *scores.notes, *scores.model.get("said", [])]
    notes += [label_free_sentence(scores.label_free)] if scores.label_free else []
    notes += [_FIXED] if FIXED_MAP in scores.floors else []
    notes += [found.sentence() for found in scores.leaks]
    if scores.model:
        told = {k: v for k, v in scores.model.items() if k not in ("failed", "said", HEARING)}
        notes.append(f"Made by {json.dumps(told, sort_keys=True)}.")
    notes.append(f"{len(scores.left_out)} samples left out{':' if scores.left_out else '.'}")
    notes += [f"- {name}: {why}" for name, why in sorted(scores.left_out.items())]
    columns = ["", "value", "n", *scores.floors]
    return Table(f"Release {scores.release}", columns, rows, notes)


def _floor_of(floor: dict[str, dict[str, Number]], name: str, metric: str) -> Entry:
    number = floor.get(name, {}).get(metric)  # of retrieval there is none
    return None if number is None else number.value


def write_benchmark_scores(scores: BenchmarkScores, folder: Path) -> None:
    """Write the table in every format; ``scores.json`` holds all of the scores, for ``tables``."""
    write_tables([benchmark_table(scores)], folder, "scores")
    text = json.dumps(asdict(scores), indent=1, sort_keys=True)
    write_whole(folder / "scores.json", f"{text}\n")
