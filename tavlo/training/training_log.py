"""The traces of a training: ``log.jsonl``, a curve, and TensorBoard's files if asked for.

One JSON object a line: a ``start`` for each time it was started, then steps and validations. A
training that is gone on with drops the lines after its checkpoint; those steps are done again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from pipeline.files import replacing, write_whole
from pipeline.progress import counting
from tavlo.metrics.sound_sensitivity import MEAN_MAP, SENSITIVITY
from tavlo.training.checkpoint import Checkpoint
from tavlo.training.label_free import DEAF, goes_deaf

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOG, CURVE = "log.jsonl", "curve.png"


class TrainingLog:
    """The log of one training.

    Args:
        out: its folder.
        shown: a bar on a terminal, plain lines elsewhere.
        tensorboard: write ``out/tensorboard`` too.
    """

    def __init__(self, out: Path, *, shown: bool = False, tensorboard: bool = False) -> None:
        self._out = out
        self._shown = shown
        self._tensorboard = tensorboard
        self._stack = ExitStack()
        self._file: IO[str] | None = None
        self._board: Any = None
        self._bar: Callable[[int, str], None] = lambda _done, _note: None
        self._validated = ""

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, first: int, total: int, about: Checkpoint) -> None:
        """Open the files; keep of an older log what the checkpoint has seen."""
        path = self._out / LOG
        rows = read_log(path) if path.exists() else []
        kept = [row for row in rows if row["step"] <= first]
        write_whole(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = self._stack.enter_context(path.open("a", encoding="utf-8"))
        if self._tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self._out / "tensorboard"), purge_step=first)
            self._stack.callback(self._board.close)
        start = {
            "event": "start",
            "step": first,
            "steps": total,
            "recipe": {about.recipe: about.recipe_config},
            "train": about.train_config,
            "weights_from": about.weights_from,
            **{name: about.data[name] for name in ("clips", "failed", "silent", "notes")},
            "data_digest": about.data["digest"],
            "revision": about.revision,
            "versions": about.versions,
        }
        self._write(start)
        if self._shown:
            for note in about.data["notes"]:
                sys.stderr.write(f"{note}\n")
            for part, source in about.weights_from.items():
                sys.stderr.write(f"{part}: {source}.\n")
            if first == total:
                sys.stderr.write(f"all {total} steps are done already.\n")
            elif first:
                sys.stderr.write(f"going on after step {first} of {total}.\n")
        bar = counting("train", total, done=first, shown=self._shown)
        self._bar = self._stack.enter_context(bar)

    def step(self, row: dict[str, Any]) -> None:
        """Write the row of a step."""
        self._write(row)
        self._scalars(row)
        self._bar(row["step"], f"loss {row['loss']:.4f}{self._validated}")

    def validated(self, row: dict[str, Any]) -> None:
        """Write the row of a validation, and draw the curve."""
        self._write(row)
        self._scalars(row)
        self._validated = f", validation {row['validation_loss']:.4f}"
        if SENSITIVITY in row:
            self._validated += f", sensitivity {row[SENSITIVITY]:.2f}"
        rows = read_log(self._out / LOG)
        if goes_deaf(rows):
            self._write({"event": "deaf", "step": row["step"], SENSITIVITY: row[SENSITIVITY]})
            if self._shown:
                sys.stderr.write(f"{deafness(row)}\n")
        draw_curve(rows, self._out / CURVE)

    def end(self) -> None:
        """Draw the curve."""
        draw_curve(read_log(self._out / LOG), self._out / CURVE)

    def _write(self, row: dict[str, Any]) -> None:
        assert self._file is not None, "start comes first"
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def _scalars(self, row: dict[str, Any]) -> None:
        if self._board is not None:
            for name in row.keys() - {"step", "best"}:
                self._board.add_scalar(name, row[name], row["step"])


def deafness(row: dict[str, Any]) -> str:
    """Say in a line that a model is deaf.

    Args:
        row: of the validation.
    """
    return (
        f"step {row['step']}: the model is deaf: another clip's sound hardly changes its maps"
        f" (sensitivity {row[SENSITIVITY]:.3f}; below {DEAF} in two validations in a row, from a"
        f" tenth of the steps on; correlation with the mean map {row[MEAN_MAP]:.2f}). Its loss may"
        " fall all the same."
    )


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a log; a last line that a kill cut short is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def draw_curve(rows: Sequence[dict[str, Any]], target: Path) -> None:
    """Draw over steps the loss of steps and validations, and the label-free numbers below.

    Args:
        rows: of a training's log.
        target: a PNG file; replaced.
    """
    with replacing(target) as path:
        curve_figure(rows).savefig(path, format="png", dpi=120)


def curve_figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """Draw the learning curve of a training's log."""
    # Without pyplot: it would choose a display, and keep every figure.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    steps = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    checks = [row for row in rows if "validation_loss" in row]
    heard = [row for row in rows if SENSITIVITY in row and "validation_loss" in row]
    heights = [1.6, 1.0] if heard else [1.0]
    figure = Figure(figsize=(7, 5.5 if heard else 4), layout="constrained")
    parts = figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)
    axes = parts[0, 0]
    if steps:
        at, loss = np.array(steps, float).T
        axes.plot(at, loss, color="#9db8d2", linewidth=0.8, label="training, each step")
        width = max(1, len(loss) // 50)
        if width > 1:
            # Means of whole blocks: nothing is made up at the ends.
            whole = len(loss) // width * width
            blocks = (values[:whole].reshape(-1, width).mean(1) for values in (at, loss))
            axes.plot(*blocks, color="#1f5a92", label=f"training, mean of {width} steps")
    if checks:
        at = np.array([row["step"] for row in checks])
        loss = np.array([row["validation_loss"] for row in checks])
        axes.plot(at, loss, "o-", color="#c2542d", markersize=4, label="validation")
        best = int(np.argmin(loss))
        axes.annotate(
            f"best: {loss[best]:.4f}",
            (at[best], loss[best]),
            xytext=(0, -14),
            textcoords="offset points",
            ha="center",
            color="#c2542d",
        )
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_ylabel("loss")
    axes.margins(y=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    if steps or checks:
        axes.legend(frameon=False)
    if heard:
        axes.set_xlabel("")
        _draw_label_free(heard, parts[1, 0])
    return figure


def _draw_label_free(rows: Sequence[dict[str, Any]], axes: Axes) -> None:
    """Draw sound sensitivity and the correlation with the mean map, and where deafness begins."""
    at = [row["step"] for row in rows]
    sensitivity = [row[SENSITIVITY] for row in rows]
    axes.plot(at, sensitivity, "o-", color="#2d7d5a", markersize=4, label="sound sensitivity")
    alike = [row[MEAN_MAP] for row in rows]
    axes.plot(at, alike, "s-", color="#8a5fa8", markersize=3.5, label="correlation with mean map")
    axes.axhline(DEAF, color="#2d7d5a", linewidth=0.8, linestyle=":", label=f"deaf below {DEAF}")
    axes.set_xlabel("step")
    axes.set_ylabel("without labels")
    axes.margins(y=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
