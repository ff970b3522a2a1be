"""Score any model on a release with the AVATAR paper's tables (section 5.1).

One threshold per model, over all labelled frames: the value at the top 10 % of all pixels. Per
scenario a frame's truth is the union of that scenario's instances in it; Total uses all. Intervals
are 95 % by bootstrap over videos, since a video's frames are not independent.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from pipeline.errors import AvatarBuildError
from tavlo.metrics import ciou, localisation, top_share_threshold
from tavlo.predictions import GRID_HW, Predictions
from tavlo.release import EvaluationSet, LabelledFrame, TruthKind

SCENARIOS = ("Single-sound", "Mixed-sound", "Multi-entity")
TOP_SHARE = 0.10
"""Share of all pixels that is predicted."""
TOP_SHARE_DAGGER = 0.05
"""The same on the videos with off-screen frames only (the paper's dagger column)."""
_DRAWS = 1000


@dataclass(frozen=True)
class Cell:
    """One number of a table."""

    value: float
    """Percent."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    n: int
    """Frames."""


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
    left_out: dict[str, str] = field(default_factory=dict)
    """Frames not scored, with why."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def evaluate(
    data: EvaluationSet,
    predictions: Predictions,
    truth: TruthKind = "mask",
    *,
    max_missing: int = 0,
    seed: int = 0,
) -> Scores:
    """Fill the paper's tables.

    Args:
        data: the labelled frames.
        predictions: heatmaps.
        truth: by mask or by box.
        max_missing: frames without a heatmap that may be left out, and listed.
        seed: of the bootstrap.

    Raises:
        AvatarBuildError: more heatmaps are missing, or nothing is left.
    """
    frames, left_out = _scored(data, predictions, max_missing)
    threshold = top_share_threshold(lambda: predictions.heatmaps(frames), TOP_SHARE)
    scores = Scores(data.name, data.verified, truth, threshold, None, left_out=left_out)
    draw = _Bootstrap(frames, seed)
    visible: dict[str, list[tuple[int, float]]] = {}
    categories: dict[str, list[tuple[int, float]]] = {}
    negative: list[tuple[int, float]] = []
    for number, (frame, heatmap) in enumerate(
        zip(frames, predictions.heatmaps(frames), strict=True)
    ):
        predicted = heatmap >= threshold
        if frame.off_screen:
            negative.append((number, 1.0 - float(predicted.mean())))
            continue
        for row in _rows_of(frame, data):
            scenario = row if row in SCENARIOS else None
            value = _score(frame, predicted, truth, scenario)
            visible.setdefault(row, []).append((number, value))
        total = visible["Total"][-1][1]
        for category in {instance.category for instance in frame.instances}:
            categories.setdefault(category, []).append((number, total))
    for row in (*SCENARIOS, "Total", "Cross-event"):
        if row in visible:
            scores.rows[row] = draw.localisation(visible[row])
    if negative:
        scores.rows["Off-screen"] = {"TN": draw.mean(negative)}
        _add_dagger(scores, frames, predictions, draw)
    for category, found in sorted(categories.items()):
        scores.per_category[category] = draw.localisation(found)
    return scores


def _rows_of(frame: LabelledFrame, data: EvaluationSet) -> list[str]:
    present = {instance.scenario for instance in frame.instances}
    rows = [scenario for scenario in SCENARIOS if scenario in present]
    rows.append("Total")
    if frame.video_id in data.cross_event:
        rows.append("Cross-event")
    return rows


def _score(frame: LabelledFrame, predicted: Any, truth: TruthKind, scenario: str | None) -> float:
    value = ciou(predicted, frame.truth(GRID_HW, truth, scenario))
    # Nothing predicted where the truth is too small for the grid: nothing was localised.
    return 0.0 if np.isnan(value) else value


def _scored(
    data: EvaluationSet, predictions: Predictions, max_missing: int
) -> tuple[list[LabelledFrame], dict[str, str]]:
    left_out = {}
    frames = []
    for frame in data.frames:
        if not frame.off_screen and not frame.instances:
            left_out[frame.frame_id] = "no instance in the release"
        elif not predictions.has(frame):
            left_out[frame.frame_id] = "no prediction"
        else:
            frames.append(frame)
    missing = [name for name, why in left_out.items() if why == "no prediction"]
    if len(missing) > max_missing:
        some = ", ".join(missing[:5])
        raise AvatarBuildError(
            f"{len(missing)} of {len(data.frames)} labelled frames have no prediction ({some}...)."
            f" A short set is not scored as if whole; allow it with --max-missing {len(missing)}."
        )
    if not frames:
        raise AvatarBuildError("no labelled frame has a prediction.")
    return frames, left_out


def _add_dagger(
    scores: Scores, frames: Sequence[LabelledFrame], predictions: Predictions, draw: _Bootstrap
) -> None:
    """TN at the top 5 % of the pixels of the videos that have off-screen frames."""
    videos = {frame.video_id for frame in frames if frame.off_screen}
    chosen = [frame for frame in frames if frame.video_id in videos]
    threshold = top_share_threshold(lambda: predictions.heatmaps(chosen), TOP_SHARE_DAGGER)
    numbers = [number for number, frame in enumerate(frames) if frame.off_screen]
    off_screen = [frames[number] for number in numbers]
    found = [
        (number, float((heatmap < threshold).mean()))
        for number, heatmap in zip(numbers, predictions.heatmaps(off_screen), strict=True)
    ]
    scores.threshold_dagger = threshold
    scores.rows["Off-screen"]["TN dagger"] = draw.mean(found)


class _Bootstrap:
    """Draws videos with replacement, the same draws for every number."""

    def __init__(self, frames: Sequence[LabelledFrame], seed: int) -> None:
        names = sorted({frame.video_id for frame in frames})
        place = {name: number for number, name in enumerate(names)}
        self._video = np.array([place[frame.video_id] for frame in frames])
        dice = np.random.default_rng(seed)
        drawn = dice.integers(0, len(names), (_DRAWS, len(names)))
        self._times = np.stack([np.bincount(row, minlength=len(names)) for row in drawn])
        """How often each draw holds each video."""

    def localisation(self, found: Sequence[tuple[int, float]]) -> dict[str, Cell]:
        values = np.array([value for _, value in found])
        summary = localisation(values)
        # A frame's part of the AUC is the trapezoid over its own step function.
        area = np.array([localisation([value]).auc for value in values])
        return {
            "CIoU": self._cell(found, values, summary.ciou),
            "success@0.5": self._cell(found, (values >= 0.5).astype(float), summary.success),
            "AUC": self._cell(found, area, summary.auc),
        }

    def mean(self, found: Sequence[tuple[int, float]]) -> Cell:
        values = np.array([value for _, value in found])
        return self._cell(found, values, float(values.mean()))

    def _cell(self, found: Sequence[tuple[int, float]], values: Any, centre: float) -> Cell:
        weights = self._times[:, self._video[[number for number, _ in found]]]
        counts = weights.sum(1)
        means = (weights @ values)[counts > 0] / counts[counts > 0]
        low, high = np.percentile(means, [2.5, 97.5])
        return Cell(100 * centre, 100 * float(low), 100 * float(high), len(found))


# Output


def to_markdown(scores: Scores) -> str:
    """The tables for a README."""
    lines = [
        f"Release {scores.release}{'' if scores.verified else ' (UNVERIFIED)'}, truth by"
        f" {scores.truth}, threshold {scores.threshold:.6g} (top 10 % of all pixels)."
        " Percent, 95 % intervals by bootstrap over videos.",
        "",
        "| | metric | value | 95 % | n frames |",
        "|---|---|---|---|---|",
    ]
    for name, metric, cell in _cells(scores):
        interval = f"{cell.low:.2f} to {cell.high:.2f}"
        lines.append(f"| {name} | {metric} | {cell.value:.2f} | {interval} | {cell.n} |")
    if scores.left_out:
        lines += ["", f"{len(scores.left_out)} frames left out:"]
        lines += [f"- {frame}: {why}" for frame, why in sorted(scores.left_out.items())]
    return "\n".join(lines) + "\n"


def to_latex(scores: Scores) -> str:
    """The paper's main table, one row: CIoU / AUC per scenario, TN, Total, Cross-event."""
    cells = []
    for name in (*SCENARIOS, "Off-screen", "Total", "Cross-event"):
        row = scores.rows.get(name, {})
        metrics = ("TN", "TN dagger") if name == "Off-screen" else ("CIoU", "AUC")
        cells += [f"{row[m].value:.2f}" if m in row else "--" for m in metrics]
    return " & ".join(cells) + r" \\" + "\n"


def to_csv(scores: Scores) -> str:
    """All numbers, one a row."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["set", "metric", "percent", "low", "high", "n"])
    for name, metric, cell in _cells(scores):
        writer.writerow([name, metric, cell.value, cell.low, cell.high, cell.n])
    return buffer.getvalue()


def to_json(scores: Scores) -> str:
    """All of it."""
    return json.dumps(scores.as_dict(), indent=1, sort_keys=True) + "\n"


FORMATS: dict[str, Callable[[Scores], str]] = {
    "md": to_markdown,
    "tex": to_latex,
    "csv": to_csv,
    "json": to_json,
}
"""Output formats by file ending."""


def _cells(scores: Scores) -> list[tuple[str, str, Cell]]:
    cells = [(name, m, cell) for name, row in scores.rows.items() for m, cell in row.items()]
    if "Total" in scores.rows and "Cross-event" in scores.rows:
        for metric in ("CIoU", "AUC"):
            total, cross = scores.rows["Total"][metric], scores.rows["Cross-event"][metric]
            change = cross.value - total.value
            # The paper prints the difference alone; its interval would need paired draws.
            cells.append(("Cross-event - Total", metric, Cell(change, np.nan, np.nan, cross.n)))
    for category, row in scores.per_category.items():
        cells += [(f"category: {category}", metric, cell) for metric, cell in row.items()]
    return cells
