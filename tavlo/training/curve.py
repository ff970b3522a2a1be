"""The learning curve of a training, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_curve(rows: Sequence[dict[str, Any]], target: Path) -> None:
    """Draw the loss of steps and validations over steps.

    Args:
        rows: of a training's log.
        target: a PNG file; replaced.
    """
    with replacing(target) as path:
        curve(rows).savefig(path, format="png", dpi=120)


def curve(rows: Sequence[dict[str, Any]]) -> Figure:
    """Draw the learning curve of a training's log."""
    # Without pyplot: it would choose a display, and keep every figure.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    steps = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    checks = [row for row in rows if "validation_loss" in row]
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
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
    return figure
