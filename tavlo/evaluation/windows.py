"""The scores of an image model by seconds of sound: supplement D.1 and its Figure A."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.files import replacing
from tavlo.evaluation.evaluate import DROP, Scores
from tavlo.published.published_tables import Numbers, read_model, read_runs
from tavlo.published.result_table import Entry, Table

Windows = Mapping[str, Mapping[float, Numbers]]
"""Model to seconds of sound to its numbers."""

_PANELS = (
    ("Total CIoU", ("Total", "CIoU")),
    ("Cross-event minus total, CIoU", (DROP, "CIoU")),
    ("Total AUC", ("Total", "AUC")),
    ("Cross-event minus total, AUC", (DROP, "AUC")),
)
"""The figure's four, (a) to (d)."""
_MODEL = ("name", "checkpoint", "checkpoint_sha256", "variant", "prior_sha256")
"""The keys of ``model.json`` by which windows are of one model."""
_LEAST_SPAN = 2.0
"""Percent points an axis shows at least."""


def read_windows(named: list[str]) -> Windows:
    """Read ``NAME=scores.json`` arguments, a file per window of a model.

    Raises:
        UsageError: a file does not tell its window, or two of a model tell the same.
    """
    found: dict[str, dict[float, Numbers]] = {}
    for argument in named:
        ((name, run),) = read_runs([argument]).items()
        seconds = read_model(Path(argument.rpartition("=")[2])).get("window_s")
        if not isinstance(seconds, int | float):
            raise UsageError(f"{argument}: its scores do not tell a window of sound.")
        if seconds in found.setdefault(name, {}):
            raise UsageError(f"{argument}: {seconds:g} s of {name} were given before.")
        found[name][float(seconds)] = run.numbers
    return found


def remove_windows(target: Path, about: Mapping[str, Any], again: Collection[Path]) -> None:
    """Remove an earlier table and plot of windows from a folder.

    Args:
        target: the folder of all windows.
        about: the model's, for ``model.json``.
        again: the folders of windows that are scored again.

    Raises:
        UsageError: another window's scores are of another model; they may not stay beside new ones.
    """
    for path in sorted(target.glob("window-*/scores.json")):
        model = read_model(path)
        if path.parent not in again and any(model.get(key) != about.get(key) for key in _MODEL):
            raise UsageError(
                f"{path.parent} holds the scores of another model"
                f" ({model.get('name')}, {model.get('checkpoint')}). Name another --out."
            )
    for name in ("windows.md", "windows.png"):
        (target / name).unlink(missing_ok=True)


def of_scores(name: str, scores: Mapping[float, Scores]) -> Windows:
    """Return one model's windows that were just scored."""
    return {
        name: {
            seconds: {
                (row, metric): (cell.value, cell.n)
                for row, cells in found.rows.items()
                for metric, cell in cells.items()
            }
            for seconds, found in scores.items()
        }
    }


def window_table(windows: Windows) -> Table:
    """Make a table with a row per model and window, the longest first."""
    rows: list[list[Entry]] = []
    for name, runs in windows.items():
        for seconds in sorted(runs, reverse=True):
            values = [runs[seconds].get(key) for _, key in _PANELS]
            rows.append([name, f"{seconds:g} s", *(v[0] if v else None for v in values)])
    columns = ["Model", "sound", *(title for title, _ in _PANELS)]
    return Table("Seconds of sound around the frame", columns, rows, ["Percent."])


def draw_windows(windows: Windows, target: Path) -> None:
    """Draw Figure A's four panels to a PNG file; it is replaced."""
    # Without pyplot: it would choose a display, and keep every figure.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.4), layout="constrained")
    seconds = sorted({at for runs in windows.values() for at in runs}, reverse=True)
    for place, (title, key) in enumerate(_PANELS, start=1):
        axes = figure.add_subplot(2, 2, place)
        for name, runs in windows.items():
            told = [at for at in seconds if key in runs.get(at, {})]
            values = [runs[at][key][0] for at in told]
            axes.plot([seconds.index(at) for at in told], values, "o-", markersize=5, label=name)
        axes.set_title(f"({'abcd'[place - 1]}) {title}", fontsize=10.5, loc="left")
        axes.set_xticks(range(len(seconds)), [f"{at:g} s" for at in seconds])
        axes.set_ylabel("percent")
        axes.margins(x=0.08, y=0.15)
        low, high = axes.get_ylim()
        # A hundredth of a point must not look like a cliff.
        spare = max(0.0, _LEAST_SPAN - (high - low)) / 2
        axes.set_ylim(low - spare, high + spare)
        axes.grid(axis="y", color="#e2e7ec")
        axes.spines[["top", "right"]].set_visible(False)
        if key[0] == DROP:
            axes.axhline(0, color="#9aa5b1", linewidth=0.8)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    with replacing(target) as path:
        figure.savefig(path, format="png", dpi=120)
