"""Score any model on a release with the AVATAR paper's tables (section 5.1).

One threshold per model, over all labelled frames: the value at the top 10 % of all pixels. Per
scenario a frame's truth is the union of that scenario's instances in it; Total uses all. Intervals
are 95 % by bootstrap over videos, since a video's frames are not independent.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import markdown_table
from pipeline.files import write_whole
from pipeline.release.scenario_rules import SCENARIOS
from tavlo.evaluation.evaluation_set import EvaluationSet, LabelledFrame, TruthKind
from tavlo.evaluation.floors import EXPLAINED, FIXED_MAP, fixed_maps
from tavlo.evaluation.label_free_scores import (
    CLIPS,
    LabelFreeNumber,
    label_free_numbers,
    label_free_sentence,
)
from tavlo.evaluation.predictions import GRID_HW, HEARING, Heatmap, Predictions
from tavlo.evaluation.training_overlap import TrainingOverlap, training_overlap
from tavlo.metrics.bootstrap import Bootstrap, Cell
from tavlo.metrics.localisation import auc_of_each, ciou, top_fraction_threshold
from tavlo.published.published_tables import DROP
from tavlo.published.result_table import csv_text

TOP_FRACTION = 0.10
"""The fraction of all pixels that is predicted."""
TOP_FRACTION_DAGGER = 0.05
"""The same on the videos with off-screen frames only (the paper's dagger column)."""
PASSES = 3
"""The times every frame's heatmap is read: twice for the threshold, once for the scores."""


@dataclass(frozen=True)
class FrameScore:
    """The scores of one frame."""

    frame_id: str
    video_id: str
    values: dict[str, float]
    """Row of the table to the frame's cIoU, or ``Off-screen`` to its TN; in [0, 1]."""


@dataclass
class Scores:
    """All a model gets on a release."""

    release: str
    verified: bool
    truth: TruthKind
    threshold: float
    threshold_dagger: float | None
    rows: dict[str, dict[str, Cell]] = field(default_factory=dict)
    """Scenario, ``Total``, ``Cross-event`` or ``Off-screen`` to metric to number."""
    per_category: dict[str, dict[str, Cell]] = field(default_factory=dict)
    """Category to metric to number, over the frames it sounds in, each with its whole truth."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Frames not scored, with why."""
    model: dict[str, Any] = field(default_factory=dict)
    """The contents of ``model.json``, by the model that made the heatmaps."""
    leaks: list[TrainingOverlap] = field(default_factory=list)
    """Training lists the scored videos were held against."""
    constant: int = 0
    """Frames whose heatmap has one value everywhere: all of it is predicted or nothing."""
    label_free: dict[str, LabelFreeNumber] = field(default_factory=dict)
    """Sound sensitivity, where the model was asked for it, and correlation with the mean map."""
    floors: dict[str, dict[str, dict[str, Cell]]] = field(default_factory=dict)
    """Floor to its ``rows``, to be read beside the model's."""
    per_frame: list[FrameScore] = field(default_factory=list)
    """Every scored frame, in the order of their ids."""

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON, without the frames, which have a file of their own."""
        return {name: value for name, value in asdict(self).items() if name != "per_frame"}


def evaluate(
    data: EvaluationSet,
    predictions: Predictions,
    truth: TruthKind = "mask",
    *,
    max_missing: int = 0,
    seed: int = 0,
    train_lists: Sequence[Path] = (),
    sensitivity_clips: int = CLIPS,
    floors: Mapping[str, Predictions] = MappingProxyType({}),
    show: Callable[[int, str], None] = lambda _done, _note: None,
) -> Scores:
    """Fill the paper's tables.

    Args:
        data: the labelled frames.
        predictions: heatmaps.
        truth: by mask or by box.
        max_missing: frames without a heatmap that may be left out, and listed.
        seed: of the bootstrap, and of the clips the label-free numbers are of.
        train_lists: what the model was trained on, held against the videos scored.
        sensitivity_clips: how many these are; 0 for none.
        floors: heatmaps by name to stand beside the model's, of the same frames, with a threshold
            of their own by the same rule.
        show: told of heatmaps read, ``PASSES`` times those of the frames, and a note.

    Raises:
        AvatarBuildError: more heatmaps are missing, or nothing is left.
    """
    frames, left_out = predictions.split(data.frames, max_missing)
    done = itertools.count(1)

    def heatmaps() -> Iterator[Heatmap]:
        for heatmap in predictions.heatmaps(frames):
            show(next(done), "")
            yield heatmap

    threshold = top_fraction_threshold(heatmaps, TOP_FRACTION)
    scores = Scores(data.name, data.verified, truth, threshold, None, left_out=left_out)
    scores.model = predictions.about()
    videos = {frame.video_id for frame in frames}
    scores.leaks = [training_overlap(videos, path) for path in train_lists]
    for frame, heatmap in zip(frames, heatmaps(), strict=True):
        scores.constant += int(heatmap.min() == heatmap.max())
        scores.per_frame.append(_score_frame(frame, heatmap >= threshold, truth, data))
    _fill_rows(scores, frames, predictions, seed)
    scores.label_free = label_free_numbers(frames, predictions, sensitivity_clips, seed)
    # Without two videos there is none.
    pairs = zip(frames, fixed_maps(frames, truth, TOP_FRACTION), strict=False)
    floor = [_score_frame(frame, guess, truth, data) for frame, guess in pairs]
    if floor:
        scores.floors[FIXED_MAP] = _main_rows(_Summary(floor, seed))
    for name, others in floors.items():
        others.split(frames, 0)
        least = top_fraction_threshold(partial(others.heatmaps, frames), TOP_FRACTION)
        floor = [
            _score_frame(frame, heatmap >= least, truth, data)
            for frame, heatmap in zip(frames, others.heatmaps(frames), strict=True)
        ]
        scores.floors[name] = _main_rows(_Summary(floor, seed))
    return scores


def _main_rows(summary: _Summary) -> dict[str, dict[str, Cell]]:
    """Fill the scenarios' rows, the total's, the cross-event subset's and TN."""
    rows = {
        row: summary.localisation(numbers, row)
        for row in (*SCENARIOS, "Total", "Cross-event")
        if (numbers := summary.frames_of(row))
    }
    if "Cross-event" in rows:
        rows[DROP] = summary.drop("Cross-event", "Total")
    if negative := summary.frames_of("Off-screen"):
        values = summary.values(negative, "Off-screen")
        rows["Off-screen"] = {"TN": summary.cell(negative, values)}
    return rows


def _score_frame(
    frame: LabelledFrame, predicted: Any, truth: TruthKind, data: EvaluationSet
) -> FrameScore:
    found = FrameScore(frame.frame_id, frame.video_id, {})
    if frame.off_screen:
        found.values["Off-screen"] = 1.0 - float(predicted.mean())
        return found
    total = _score(frame, predicted, truth, None)
    scenarios = {instance.scenario for instance in frame.instances}
    for row in SCENARIOS:
        if row in scenarios:
            # Where all instances are of one scenario, its truth is the total's.
            alone = len(scenarios) == 1
            found.values[row] = total if alone else _score(frame, predicted, truth, row)
    found.values["Total"] = total
    if frame.video_id in data.cross_event:
        found.values["Cross-event"] = total
    return found


def _fill_rows(
    scores: Scores, frames: Sequence[LabelledFrame], predictions: Predictions, seed: int
) -> None:
    """Summarise the frames' scores by row of the table and by category."""
    summary = _Summary(scores.per_frame, seed)
    scores.rows = _main_rows(summary)
    if negative := summary.frames_of("Off-screen"):
        scores.threshold_dagger, values = _dagger(frames, negative, predictions)
        scores.rows["Off-screen"]["TN dagger"] = summary.cell(negative, values)
    sounding: dict[str, list[int]] = {}
    for number, frame in enumerate(frames):
        for category in {instance.category for instance in frame.instances}:
            sounding.setdefault(category, []).append(number)
    for category, numbers in sorted(sounding.items()):
        scores.per_category[category] = summary.localisation(numbers, "Total")


def _score(frame: LabelledFrame, predicted: Any, truth: TruthKind, scenario: str | None) -> float:
    value = ciou(predicted, frame.truth(GRID_HW, truth, scenario))
    # Nothing predicted where the truth is too small for the grid: nothing was localised.
    return 0.0 if np.isnan(value) else value


def _dagger(
    frames: Sequence[LabelledFrame], negative: Sequence[int], predictions: Predictions
) -> tuple[float, NDArray[np.float64]]:
    """Return TN at the top 5 % of the pixels of the videos that have off-screen frames.

    Returns:
        The threshold, and the TN of each frame of ``negative``.
    """
    off_screen = [frames[number] for number in negative]
    videos = {frame.video_id for frame in off_screen}
    chosen = [frame for frame in frames if frame.video_id in videos]
    threshold = top_fraction_threshold(lambda: predictions.heatmaps(chosen), TOP_FRACTION_DAGGER)
    found = [(heatmap < threshold).mean() for heatmap in predictions.heatmaps(off_screen)]
    return threshold, np.array(found)


class _Summary:
    """Means of frames' scores with their intervals, all by the same draws of videos."""

    def __init__(self, per_frame: Sequence[FrameScore], seed: int) -> None:
        self._frames = per_frame
        self._draws = Bootstrap([frame.video_id for frame in per_frame], seed)

    def frames_of(self, row: str) -> list[int]:
        """Return the numbers of the frames that count in a row of the table."""
        return [number for number, frame in enumerate(self._frames) if row in frame.values]

    def values(self, numbers: Sequence[int], row: str) -> NDArray[np.float64]:
        return np.array([self._frames[number].values[row] for number in numbers])

    def localisation(self, numbers: Sequence[int], row: str) -> dict[str, Cell]:
        cious = self.values(numbers, row)
        return {
            "CIoU": self.cell(numbers, cious),
            "success@0.5": self.cell(numbers, (cious >= 0.5).astype(float)),
            "AUC": self.cell(numbers, auc_of_each(cious)),
        }

    def drop(self, subset: str, total: str) -> dict[str, Cell]:
        """Subtract a row from its subset, draw by draw."""
        some, whole = self.frames_of(subset), self.frames_of(total)
        cells = {}
        for metric, of_each in (("CIoU", np.asarray), ("AUC", auc_of_each)):
            a, b = of_each(self.values(some, subset)), of_each(self.values(whole, total))
            draws = self._draws.means(some, a) - self._draws.means(whole, b)
            cells[metric] = Cell.of(float(a.mean() - b.mean()), draws, len(some))
        return cells

    def cell(self, numbers: Sequence[int], values: NDArray[np.float64]) -> Cell:
        return Cell.of(float(values.mean()), self._draws.means(numbers, values), len(numbers))


# Output


def to_markdown(scores: Scores) -> str:
    """Write the tables for a README."""
    lines = [
        f"Release {scores.release}{'' if scores.verified else ' (UNVERIFIED)'}, truth by"
        f" {scores.truth}, threshold {scores.threshold:.6g} (top 10 % of all pixels)."
        " Percent, 95 % intervals by bootstrap over videos.",
        *([f"Made by {json.dumps(_told(scores.model), sort_keys=True)}."] if scores.model else []),
        *([label_free_sentence(scores.label_free)] if scores.label_free else []),
        *([EXPLAINED] if FIXED_MAP in scores.floors else []),
        *(found.sentence() for found in scores.leaks),
    ]
    if scores.constant:
        lines.append(
            f"{scores.constant} of {len(scores.per_frame)} heatmaps are constant: they point"
            " nowhere, and all of each is predicted or nothing."
        )
    rows = [
        [
            *(name, metric, f"{cell.value:.2f}", f"{cell.low:.2f} to {cell.high:.2f}"),
            *(str(cell.n), *(_floor_of(floor, name, metric) for floor in scores.floors.values())),
        ]
        for name, metric, cell in _cells(scores)
    ]
    columns = ["", "metric", "value", "95 %", "n frames", *scores.floors]
    lines += ["", *markdown_table(columns, rows)]
    if scores.left_out:
        lines += ["", f"{len(scores.left_out)} frames left out:"]
        lines += [f"- {frame}: {why}" for frame, why in sorted(scores.left_out.items())]
    return "\n".join(lines) + "\n"


def _told(model: dict[str, Any]) -> dict[str, Any]:
    """Leave out of ``model.json`` what is a value for each clip."""
    return {name: value for name, value in model.items() if name != HEARING}


def _floor_of(floor: dict[str, dict[str, Cell]], name: str, metric: str) -> str:
    cell = floor.get(name, {}).get(metric)
    return "" if cell is None else f"{cell.value:.2f}"


def to_latex(scores: Scores) -> str:
    """Write a row of the paper's main table: CIoU / AUC per scenario, TN, Total, Cross-event."""
    cells = []
    for name in (*SCENARIOS, "Off-screen", "Total", "Cross-event"):
        row = scores.rows.get(name, {})
        metrics = ("TN", "TN dagger") if name == "Off-screen" else ("CIoU", "AUC")
        cells += [f"{row[m].value:.2f}" if m in row else "--" for m in metrics]
    return " & ".join(cells) + r" \\" + "\n"


def to_csv(scores: Scores) -> str:
    """Write all numbers, one a row."""
    rows = [[name, metric, *astuple(cell)] for name, metric, cell in _cells(scores)]
    for floor, found in scores.floors.items():
        rows += [
            [f"{floor}: {name}", metric, *astuple(cell)]
            for name, row in found.items()
            for metric, cell in row.items()
        ]
    return csv_text([["set", "metric", "percent", "low", "high", "n"], *rows])


def frames_csv(scores: Scores) -> str:
    """Write every frame's own scores, a row each, for paired comparisons of models."""
    names = (*SCENARIOS, "Total", "Cross-event", "Off-screen")
    rows = [
        [frame.frame_id, frame.video_id, *(frame.values.get(name) for name in names)]
        for frame in scores.per_frame
    ]
    return csv_text([["frame_id", "video_id", *names], *rows])


def to_json(scores: Scores) -> str:
    """Write all of the scores but the frames'."""
    return json.dumps(scores.as_dict(), indent=1, sort_keys=True) + "\n"


FORMATS: dict[str, Callable[[Scores], str]] = {
    "md": to_markdown,
    "tex": to_latex,
    "csv": to_csv,
    "json": to_json,
}
"""Output formats by file ending."""


def write_scores(scores: Scores, folder: Path) -> None:
    """Write ``scores`` in every format, and ``frames.csv``."""
    for ending, write in FORMATS.items():
        write_whole(folder / f"scores.{ending}", write(scores))
    write_whole(folder / "frames.csv", frames_csv(scores))


_RESULTS = (*(f"scores.{ending}" for ending in FORMATS if ending != "json"), "frames.csv")
_PICTURES = {".jpg", ".mp4", ".png"}


def remove_results(folder: Path) -> bool:
    """Remove an earlier evaluation's files, so that none of them stays beside new ones.

    Returns:
        Whether there were any.
    """
    last = folder / "scores.json"
    if not last.is_file():  # then nobody was scored here, and what is named alike is not ours
        return False
    drawn = [path for path in (folder / "overlays").glob("*") if path.suffix in _PICTURES]
    for path in (*(folder / name for name in (*_RESULTS, "gallery.html")), *drawn, last):
        path.unlink(missing_ok=True)
    return True


def _cells(scores: Scores) -> list[tuple[str, str, Cell]]:
    cells = [(name, m, cell) for name, row in scores.rows.items() for m, cell in row.items()]
    for category, row in scores.per_category.items():
        cells += [(f"category: {category}", metric, cell) for metric, cell in row.items()]
    return cells
