"""The papers' tables: published figures beside ours, or several runs of ours side by side.

A run is a file that an evaluation wrote (``scores.json``). Published figures are data
(``published/``), with their source.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import AvatarBuildError, UsageError
from pipeline.files import replacing
from tavlo.metrics.bootstrap import paired_difference
from tavlo.published.result_table import Entry, Table

_PUBLISHED = Path(__file__).parent
DROP = "Cross-event - Total"
"""The paper's delta: how much lower the cross-event subset is."""
NOT_RUN = "no checkpoint at hand"
_EMPTY = "not in its scores"

Numbers = Mapping[tuple[str, str], tuple[float, int]]
"""Row and metric of the evaluation to value in percent and n."""


@dataclass
class Run:
    """The numbers of one model's files."""

    numbers: dict[tuple[str, str], tuple[float, int]] = field(default_factory=dict)
    leaks: list[str] = field(default_factory=list)
    """Sentences on how much of its training lists was in what it was scored on."""
    files: list[Path] = field(default_factory=list)
    model: dict[str, Any] = field(default_factory=dict)
    """The facts of the model that the last file states."""


Runs = Mapping[str, Run]
"""Runs by the model's name."""

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


def read_runs(named: Sequence[str]) -> dict[str, Run]:
    """Read ``NAME=scores.json`` arguments; several files of one name add up to one run.

    Raises:
        UsageError: an argument without a name or file.
        AvatarBuildError: a file that is no evaluation's, or two that give the same number.
    """
    runs: dict[str, Run] = {}
    for argument in named:
        name, _, file = argument.rpartition("=")
        if not name:
            raise UsageError(f"{argument!r}: write it as NAME=scores.json.")
        run = runs.setdefault(name, Run())
        run.files.append(Path(file))
        document = _document(Path(file))
        for key, value in _numbers(Path(file), document).items():
            if key in run.numbers:
                raise AvatarBuildError(f"{file}: {' '.join(key)} of {name!r} was given before.")
            run.numbers[key] = value
        run.leaks += _leaks(document)
        run.model = _model(document)
    return runs


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}.") from error
    except ValueError as error:
        raise AvatarBuildError(f"{path}: not JSON: {error}") from error
    if not isinstance(document, dict):
        raise AvatarBuildError(f"{path}: no scores of 'evaluate': not an object.")
    return document


def _model(document: dict[str, Any]) -> dict[str, Any]:
    found = document.get("model")
    return found if isinstance(found, dict) else {}


def _leaks(document: dict[str, Any]) -> list[str]:
    return [
        f"{found['of_list']:.2f} % of {found['list_name']} is {found['of_set']:.1f} % of"
        f" {document.get('release', 'the set')}"
        for found in document.get("leaks", [])
    ]


def _numbers(path: Path, document: dict[str, Any]) -> Numbers:
    try:
        return {
            (row, metric): (float(cell["value"]), int(cell["n"]))
            for row, cells in document["rows"].items()
            for metric, cell in cells.items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise AvatarBuildError(f"{path}: no scores of 'evaluate': {error!r}.") from error


def read_published(paper: str) -> tuple[str, dict[str, Any]]:
    """Read a paper's source line and its tables by number."""
    document = json.loads((_PUBLISHED / f"{paper}.json").read_text(encoding="utf-8"))
    return document["source"], document["tables"]


def compare_with_published(paper: str, runs: Runs) -> list[Table]:
    """Fill each of a paper's tables, three lines a model: published, ours, the difference.

    Args:
        paper: ``avatar`` or ``alignment``.
        runs: by the paper's name of the model; others get lines of their own at the end.
    """
    source, tables = read_published(paper)
    used = {_run_of(method, table, runs) for table in tables.values() for method in table["rows"]}
    finished = []
    for table in tables.values():
        keys = [(row, metric) for row, metric in table["columns"]]
        rows: list[list[Entry]] = []
        for method, values in table["rows"].items():
            rows.append([method, "published", *values, "", ""])
            name = _run_of(method, table, runs)
            if name is None:
                reason = table.get("not_here", {}).get(method, NOT_RUN)
                rows.append([method, "ours", *[None] * len(keys), "", f"not run: {reason}"])
                continue
            change = [
                None if ours is None or published is None else ours - published
                for ours, published in zip(_values(runs[name], keys), values, strict=True)
            ]
            rows.append([method, "ours", *_told(runs[name], keys)])
            rows.append([method, "difference", *change, "", ""])
        for name in (one for one in runs if one not in used):
            if any(key in runs[name].numbers for key in keys):
                rows.append([name, "ours", *_told(runs[name], keys)])
        columns = ["Method", "", *(" ".join(key) for key in keys), "trained on", "remark"]
        notes = [f"Percent. Published: {source}"]
        finished.append(Table(table["title"], columns, rows, notes))
    return finished


def side_by_side(runs: Runs) -> list[Table]:
    """Fill tables 2 to 4 of the AVATAR paper, a row per run."""
    _, tables = read_published("avatar")
    found = []
    for number in ("2", "3", "4"):
        keys = [(row, metric) for row, metric in tables[number]["columns"]]
        rows: list[list[Entry]] = [[name, *_values(run, keys)] for name, run in runs.items()]
        columns = ["Method", *(" ".join(key) for key in keys)]
        found.append(
            Table(tables[number]["title"], columns, rows, ["Percent.", *_counts(runs, keys)])
        )
    return found


def ablation(runs: Runs) -> list[Table]:
    """Fill table B's columns and the cross-event drop, and how far each run is from the first.

    The differences are of the same frames and have an interval by bootstrap over videos; they are
    computed from ``frames.csv`` beside the scores.

    Raises:
        UsageError: fewer than two runs, or a run without its frames.
        AvatarBuildError: runs of different frames.
    """
    if len(runs) < 2:
        raise UsageError("an ablation compares at least two runs: NAME=scores.json NAME=...")
    keys = [("Total", "CIoU"), ("Total", "AUC"), (DROP, "CIoU")]
    first = next(iter(runs.values())).files[0].with_name("frames.csv")
    rows: list[list[Entry]] = []
    for name, run in runs.items():
        row: list[Entry] = [name, *_values(run, keys)]
        for metric in ("CIoU", "AUC"):
            found = paired_difference(first, run.files[0].with_name("frames.csv"), metric)
            row += [found.value, found.low, found.high]
        rows.append(row)
    columns = ["Run", *(" ".join(key) for key in keys)]
    for metric in ("CIoU", "AUC"):
        columns += [f"{metric} against the first", "2.5 %", "97.5 %"]
    notes = [
        "Percent; differences are paired, 95 % intervals by bootstrap over videos.",
        *_counts(runs, keys),
    ]
    return [Table("Ablation", columns, rows, notes)]


# Seconds of sound (supplement D.1 and its Figure A)


def read_windows(named: list[str]) -> Windows:
    """Read ``NAME=scores.json`` arguments, a file per window of a model.

    Raises:
        UsageError: a file does not tell its window, or two of a model tell the same.
    """
    found: dict[str, dict[float, Numbers]] = {}
    for argument in named:
        ((name, run),) = read_runs([argument]).items()
        seconds = run.model.get("window_s")
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
        model = _model(_document(path))
        if path.parent not in again and any(model.get(key) != about.get(key) for key in _MODEL):
            raise UsageError(
                f"{path.parent} holds the scores of another model"
                f" ({model.get('name')}, {model.get('checkpoint')}). Name another --out."
            )
    for name in ("windows.md", "windows.png"):
        (target / name).unlink(missing_ok=True)


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


def _told(run: Run, keys: Sequence[tuple[str, str]]) -> list[Entry]:
    return [*_values(run, keys), "; ".join(run.leaks), _remark(run, keys)]


def _remark(run: Run, keys: Sequence[tuple[str, str]]) -> str:
    """Say how many frames stand behind the numbers, or why some are missing."""
    counts = sorted({f"{key[0]}: {run.numbers[key][1]}" for key in keys if key in run.numbers})
    missing = sorted({" ".join(key) for key in keys if key not in run.numbers})
    lacking = [f"{', '.join(missing)}: {_EMPTY}"] if missing else []
    return "; ".join([f"n = {', '.join(counts)}", *lacking] if counts else lacking)


def _counts(runs: Runs, keys: Sequence[tuple[str, str]]) -> list[str]:
    remarks = {name: _remark(run, keys) for name, run in runs.items()}
    if len(set(remarks.values())) == 1:
        return [f"{next(iter(remarks.values()))}."]
    return [f"{name}: {remark}." for name, remark in remarks.items()]


def _values(run: Run, keys: Sequence[tuple[str, str]]) -> list[float | None]:
    return [run.numbers[key][0] if key in run.numbers else None for key in keys]


def _run_of(method: str, table: Mapping[str, Any], runs: Runs) -> str | None:
    """Return the run of a published row, or of its row in another table, spaces and case aside."""
    plain = {"".join(name.split()).lower(): name for name in runs}
    names = (method, table.get("same_as", {}).get(method, method))
    found = (plain.get("".join(name.split()).lower()) for name in names)
    return next((name for name in found if name is not None), None)
