"""Published figures against the papers' own text, and ours beside them."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import AvatarBuildError, UsageError
from tavlo.metrics.bootstrap import paired_difference
from tavlo.published.published_tables import (
    ablation,
    compare_with_published,
    read_published,
    read_runs,
    side_by_side,
)
from tavlo.published.result_table import FORMATS, write_tables


def scores_file(path: Path, total: float, cross: float | None = None) -> Path:
    rows = {"Total": {"CIoU": {"value": total, "n": 20}, "AUC": {"value": total + 1, "n": 20}}}
    if cross is not None:
        rows["Cross-event"] = {"CIoU": {"value": cross, "n": 4}}
        rows["Cross-event - Total"] = {"CIoU": {"value": cross - total, "n": 4}}
    path.write_text(json.dumps({"rows": rows}))
    return path


def numbers_after(text: str, label: str) -> list[list[str]]:
    """The decimal numbers of each line that begins with a label, as printed."""
    plain = re.sub(r"\[\[\d+\]\(.*?\)\]", "", text)  # references are links
    lines = [line for line in plain.splitlines() if line.startswith(label)]
    return [re.findall(r"-?\d+\.\d+", line) for line in lines]


def test_the_avatar_papers_figures_are_those_it_prints(shared: Path) -> None:
    paper = (shared / "seeds/avatar-tavlo-paper.md").read_text(encoding="utf-8")
    supplement = (shared / "seeds/avatar-supplement.md").read_text(encoding="utf-8")
    _, tables = read_published("avatar")
    for number, table in tables.items():
        text = supplement if number == "B" else paper
        if number != "B":
            text = text[text.index(f"Table {number}:") :]
        for method, values in table["rows"].items():
            printed = [float(n) for n in numbers_after(text, method)[0]]
            assert printed == values, (number, method)
            assert len(values) == len(table["columns"])


def test_the_alignment_papers_figures_are_those_it_prints(shared: Path) -> None:
    text = (shared / "seeds/cross-modal-alignment-paper.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.count("\t") in (5, 7)]
    printed = [re.split(r"\t", re.sub(r"<.*?>|\[\d+\]", "", line)) for line in lines]
    _, tables = read_published("alignment")
    found: dict[int, list[list[float | None]]] = {4: [], 6: []}
    for cells in printed:
        values = [float(c) if re.fullmatch(r"\d+\.\d+", c) else None for c in cells[2:]]
        if any(value is not None for value in values) and len(values) in found:
            found[len(values)].append(values)
    assert found[4] == list(tables["1"]["rows"].values())
    assert found[6] == list(tables["2"]["rows"].values())


@pytest.mark.parametrize("paper", ["avatar", "alignment"])
def test_without_runs_every_row_says_why_it_is_empty(paper: str) -> None:
    for table in compare_with_published(paper, {}):
        ours = [row for row in table.rows if row[1] == "ours"]
        assert len(ours) == len(table.rows) / 2
        assert all(str(row[-1]).startswith("not run: ") for row in ours)
    assert any("no checkpoint" in str(row[-1]) for row in ours)


def test_ours_stands_below_the_published_row_with_the_difference(tmp_path: Path) -> None:
    file = scores_file(tmp_path / "scores.json", 15.0, 14.0)
    runs = read_runs([f"tavlo (10K)={file}"])
    (table,) = [t for t in compare_with_published("avatar", runs) if t.title.startswith("Table 3")]
    rows = [row for row in table.rows if row[0] == "TAVLO(10k)"]
    assert rows[0][1:5] == ["published", 13.37, 13.04, -0.33]
    assert rows[1][1:5] == ["ours", 15.0, 14.0, -1.0]
    assert rows[2][1] == "difference"
    assert rows[2][2:5] == pytest.approx([1.63, 0.96, -0.67])
    assert "Cross-event: 4" in str(rows[1][-1])
    assert "Total: 20" in str(rows[1][-1])
    # The ablation's last row is the same model by another name.
    (table,) = [t for t in compare_with_published("avatar", runs) if t.title.startswith("Table B")]
    assert table.rows[-2][:4] == ["Spatio-Temporal + Mean", "ours", 15.0, 16.0]


def test_a_model_the_paper_has_not_gets_a_line_of_its_own(tmp_path: Path) -> None:
    runs = read_runs([f"mine={scores_file(tmp_path / 's.json', 20.0)}"])
    tables = {table.title[:7]: table for table in compare_with_published("avatar", runs)}
    assert tables["Table 3"].rows[-1][:4] == ["mine", "ours", 20.0, None]
    assert "not in its scores" in str(tables["Table 3"].rows[-1][-1])
    assert all(row[0] != "mine" for row in tables["Table 2"].rows)


def test_the_ablation_is_held_against_its_first_run(tmp_path: Path) -> None:
    files = []
    rng = np.random.default_rng(0)
    base = rng.random(60)
    for number, change in enumerate((0.0, 0.07)):
        (tmp_path / str(number)).mkdir()
        files.append(scores_file(tmp_path / f"{number}/scores.json", 10.0 + number, 9.0))
        lines = ["frame_id,video_id,Total,Off-screen"]
        for n, value in enumerate(np.clip(base * 0.8 + change, 0, 1)):
            lines.append(f"f{n:02d},v{n // 4},{value},")
        lines.append("f99,v0,,0.9")
        (tmp_path / f"{number}/frames.csv").write_text("\n".join(lines))
    (table,) = ablation(read_runs([f"mean={files[0]}", f"max={files[1]}"]))
    assert table.rows[0][4:7] == [0, 0, 0]
    assert table.rows[1][:4] == ["max", 11.0, 12.0, -2.0]
    # Every frame moves by the same: paired, there is nothing to doubt.
    assert table.rows[1][4:7] == pytest.approx([7, 7, 7])
    low, high = (float(str(value)) for value in table.rows[1][8:10])
    assert low < 7 < high
    assert 0 < high - low < 3
    with pytest.raises(UsageError, match="at least two"):
        ablation(read_runs([f"mean={files[0]}"]))
    (tmp_path / "1/frames.csv").write_text("frame_id,video_id,Total\nf00,v0,0.5\n")
    with pytest.raises(AvatarBuildError, match="59 are in one only"):
        ablation(read_runs([f"mean={files[0]}", f"max={files[1]}"]))
    (tmp_path / "1/frames.csv").unlink()
    with pytest.raises(UsageError, match="'evaluate --out' writes it"):
        ablation(read_runs([f"mean={files[0]}", f"max={files[1]}"]))


def test_every_format_holds_every_number(tmp_path: Path) -> None:
    tables = side_by_side(read_runs([f"a_b={scores_file(tmp_path / 's.json', 12.3456, 7.0)}"]))
    write_tables(tables, tmp_path / "out", "scores")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"scores.{ending}" for ending in FORMATS
    }
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](tables))))
    assert {"12.3456"} == {row["value"] for row in rows if row["column"] == "Total CIoU"}
    assert "| a_b | 12.35 | 7.00 | -5.35 |" in " ".join(FORMATS["md"](tables).split())
    assert r"a\_b & 12.35 & 7.00 & -5.35 \\" in FORMATS["tex"](tables)
    assert json.loads(FORMATS["json"](tables))[1]["rows"] == [["a_b", 12.3456, 7.0, 7.0 - 12.3456]]


def test_bad_runs_are_one_line(tmp_path: Path) -> None:
    file = scores_file(tmp_path / "s.json", 1.0)
    with pytest.raises(UsageError, match=r"NAME=scores\.json"):
        read_runs([str(file)])
    with pytest.raises(UsageError, match="No such file"):
        read_runs(["a=nothing.json"])
    with pytest.raises(AvatarBuildError, match="given before"):
        read_runs([f"a={file}", f"a={file}"])
    file.write_text('{"rows": [1]}')
    with pytest.raises(AvatarBuildError, match="no scores of 'evaluate'"):
        read_runs([f"a={file}"])


def test_two_models_are_compared_on_the_frames_of_one_scenario(tmp_path: Path) -> None:
    for name, values in (("a", (0.1, 0.2, 0.9)), ("b", (0.3, 0.4, 0.1))):
        lines = ["frame_id,video_id,Mixed-sound,Total"]
        lines += [f"f{n},v{n},{value if n < 2 else ''},{value}" for n, value in enumerate(values)]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
    files = tmp_path / "a.csv", tmp_path / "b.csv"
    found = paired_difference(*files, "CIoU", "Mixed-sound")
    assert (found.n, found.low, found.value, found.high) == pytest.approx((2, 20, 20, 20))
    assert paired_difference(*files, "CIoU").n == 3
    with pytest.raises(AvatarBuildError, match="no frame of Off-screen"):
        paired_difference(*files, "CIoU", "Off-screen")
