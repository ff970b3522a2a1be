"""The papers' tables: published figures beside ours, or several runs of ours side by side.

A run is a file that an evaluation wrote (``scores.json``). Published figures are data
(``published/``), with their source.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import AvatarBuildError, UsageError
from tavlo.tables import Entry, Table

_PUBLISHED = Path(__file__).parent / "published"
NOT_RUN = "no checkpoint at hand"
_EMPTY = "the evaluated set has no such frames"

Numbers = Mapping[tuple[str, str], tuple[float, int]]
"""Row and metric of the evaluation to value in percent and n."""
Runs = Mapping[str, Numbers]
"""Numbers of each model."""


def read_runs(named: Sequence[str]) -> dict[str, Numbers]:
    """Read ``NAME=scores.json`` arguments; several files of one name add up to one run.

    Raises:
        UsageError: an argument without a name or file.
        AvatarBuildError: a file that is no evaluation's, or two that give the same number.
    """
    runs: dict[str, dict[tuple[str, str], tuple[float, int]]] = {}
    for argument in named:
        name, _, file = argument.rpartition("=")
        if not name:
            raise UsageError(f"{argument!r}: write it as NAME=scores.json.")
        run = runs.setdefault(name, {})
        for key, value in _numbers(Path(file)).items():
            if key in run:
                raise AvatarBuildError(f"{file}: {' '.join(key)} of {name!r} was given before.")
            run[key] = value
    return dict(runs)


def _numbers(path: Path) -> Numbers:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}.") from error
    except ValueError as error:
        raise AvatarBuildError(f"{path}: not JSON: {error}") from error
    try:
        return {
            (row, metric): (float(cell["value"]), int(cell["n"]))
            for row, cells in document["rows"].items()
            for metric, cell in cells.items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise AvatarBuildError(f"{path}: no scores of 'evaluate': {error!r}.") from error


def published_tables(paper: str) -> tuple[str, dict[str, Any]]:
    """A paper's source line and its tables by number."""
    document = json.loads((_PUBLISHED / f"{paper}.json").read_text(encoding="utf-8"))
    return document["source"], document["tables"]


def beside_published(paper: str, runs: Runs) -> list[Table]:
    """Each of a paper's tables, three lines a model: published, ours, the difference.

    Args:
        paper: ``avatar`` or ``alignment``.
        runs: by the paper's name of the model; others get lines of their own at the end.
    """
    source, tables = published_tables(paper)
    result = []
    used: set[str] = set()
    for table in tables.values():
        keys = [(row, metric) for row, metric in table["columns"]]
        rows: list[list[Entry]] = []
        for method, values in table["rows"].items():
            rows.append([method, "published", *values, ""])
            name = _matching(method, runs)
            if name is None:
                reason = table.get("not_here", {}).get(method, NOT_RUN)
                rows.append([method, "ours", *[None] * len(keys), f"not run: {reason}"])
                continue
            used.add(name)
            rows += _compared(method, values, runs[name], keys)
        result.append((table["title"], keys, rows))
    finished = []
    for title, keys, rows in result:
        for name in runs:
            if name not in used and any(key in runs[name] for key in keys):
                rows.append([name, "ours", *_values(runs[name], keys), _remark(runs[name], keys)])
        columns = ["Method", "", *(" ".join(key) for key in keys), "remark"]
        notes = [f"Percent. Published: {source}"]
        finished.append(Table(title, columns, rows, notes))
    return finished


def side_by_side(runs: Runs) -> list[Table]:
    """Tables 2 to 4 of the AVATAR paper, a row per run."""
    _, tables = published_tables("avatar")
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
    """Table B's columns and the cross-event drop, a row per run; how far each is from the first.

    Raises:
        UsageError: fewer than two runs.
    """
    if len(runs) < 2:
        raise UsageError("an ablation compares at least two runs: NAME=scores.json NAME=...")
    keys = [("Total", "CIoU"), ("Total", "AUC"), ("Cross-event - Total", "CIoU")]
    first = _values(next(iter(runs.values())), keys)
    rows: list[list[Entry]] = []
    for name, run in runs.items():
        values = _values(run, keys)
        rows.append([name, *values, *(_minus(a, b) for a, b in zip(values, first, strict=True))])
    columns = [" ".join(key) for key in keys]
    differences = [f"{column}, against the first" for column in columns]
    return [
        Table("Ablation", ["Run", *columns, *differences], rows, ["Percent.", *_counts(runs, keys)])
    ]


def _compared(
    method: str, values: Sequence[float | None], run: Numbers, keys: Sequence[tuple[str, str]]
) -> list[list[Entry]]:
    ours = _values(run, keys)
    change = [_minus(mine, theirs) for mine, theirs in zip(ours, values, strict=True)]
    remark = _remark(run, keys)
    return [[method, "ours", *ours, remark], [method, "difference", *change, ""]]


def _remark(run: Numbers, keys: Sequence[tuple[str, str]]) -> str:
    """How many frames stand behind the numbers, or why some are missing."""
    counts = sorted(
        {f"{row}: {run[row, metric][1]}" for row, metric in keys if (row, metric) in run}
    )
    missing = sorted({row for row, metric in keys if (row, metric) not in run})
    lacking = [f"{', '.join(missing)}: {_EMPTY}"] if missing else []
    return "; ".join([f"n = {', '.join(counts)}", *lacking] if counts else lacking)


def _counts(runs: Runs, keys: Sequence[tuple[str, str]]) -> list[str]:
    return [f"{name}: {_remark(run, keys)}." for name, run in runs.items()]


def _values(run: Numbers, keys: Sequence[tuple[str, str]]) -> list[float | None]:
    return [run[key][0] if key in run else None for key in keys]


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _matching(method: str, runs: Runs) -> str | None:
    """The run of a published name, spaces and case aside."""
    plain = {"".join(name.split()).lower(): name for name in runs}
    return plain.get("".join(method.split()).lower())
