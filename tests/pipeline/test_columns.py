"""Tables on a terminal, and piped."""

from __future__ import annotations

import sys

import pytest

from pipeline.columns import columns
from pipeline.run.status import StageStatus, status_lines

ROWS = [
    ["download", "-1pRmoJIGQc", "http_404, final, 3 tried", "gone " * 30],
    ["s", "[red]", "", "y"],
]

WIDE = ["propose", "犬が吠える", "é", "x"]


def test_piped_a_row_is_a_line_and_nothing_is_cut() -> None:
    lines = columns(["stage", "row", "ended", "detail"], ROWS)
    assert len(lines) == 3
    assert lines[1].endswith(("gone " * 30).rstrip())
    starts = [line.index(word) for line, word in zip(lines, ["row", "-1p", "[red]"], strict=True)]
    assert len(set(starts)) == 1


def test_piped_the_columns_stand_as_on_an_endless_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [[*row, number] for row, number in zip([*ROWS, WIDE], ["1", "1,000", ""], strict=True)]
    names = ["stage", "row", "ended", "detail", "rows"]
    piped = columns(names, rows, right={"rows"})
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "1000")
    assert columns(names, rows, right={"rows"}) == piped


def test_on_a_terminal_of_80_columns_every_line_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    books = StageStatus(
        "pull-adjudication", 70_000, 60_000, 9_000, 1_000, 0, {"videos": 60_000}, {"fps_low": 9_000}
    )
    for lines in (columns(["stage", "row", "ended", "detail"], ROWS), status_lines([books])):
        assert max(map(len, lines)) <= 80
    told = " ".join(columns(["stage", "row", "ended", "detail"], ROWS))
    assert told.count("gone") == 30
    assert [line.split()[1] for line in status_lines([books])[1:2]] == ["70,000"]
