from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from exports.release.figures import bar_chart
from exports.release.image_bytes import image_size
from pipeline.config import ExportConfig
from pipeline.workspace.asking import ASKED
from pipeline.workspace.storage import Storage
from tests.exports import drawn
from tests.exports.drawn import DOG, release, tables


def card_of(folder: Path, **changes: Any) -> str:
    """The card of a release whose videos have these values."""
    rows = tables()
    rows = replace(rows, videos=[video.model_copy(update=changes) for video in rows.videos])
    release(Storage(folder), rows)
    return (folder / "releases/1.0/README.md").read_text()


def test_every_video_is_attributed(tmp_path: Path) -> None:
    line = next(line for line in card_of(tmp_path).splitlines() if f"`{DOG}`" in line)
    assert line == (
        f"| `{DOG}` | Title of {DOG} | Somebody | Creative Commons Attribution license "
        f"(reuse allowed) | [source](https://example.org/watch?v={DOG}) |"
    )


def test_the_backends_and_the_left_out_rows_are_named(tmp_path: Path) -> None:
    card = card_of(tmp_path)
    assert r"| segment | segmenter grabcut, grabcut\_iterations 5 | abc123 |" in card
    assert "| instance not verified | 1 |" in card


def test_hostile_titles_cannot_leave_their_cell(tmp_path: Path) -> None:
    title = "x | y\n\n# Heading <script>alert(1)</script> [link](javascript:alert(1)) `code`"
    card = card_of(tmp_path, title=title, uploader="**bold**", source_url="javascript:alert(1)")
    line = next(line for line in card.splitlines() if f"`{DOG}`" in line)
    assert r"x \| y \# Heading \<script\>alert(1)\</script\>" in line
    assert r"\*\*bold\*\*" in line
    assert line.endswith("| not on the web |")
    assert line.replace(r"\|", "").count("|") == 6


def test_a_chosen_order_of_labelling_is_told_with_what_it_biases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "A chosen order" not in card_of(tmp_path / "given")
    orders = [{"order": "uncertain", "seed": 7}]
    monkeypatch.setitem(drawn.PROVENANCE, ASKED, {"config": {"orders": orders}})
    card = card_of(tmp_path / "chosen")
    assert "in an order that was chosen: uncertain (seed 7)." in card
    assert "no fair sample" in card


def test_a_licence_that_is_not_stated_is_called_so(tmp_path: Path) -> None:
    card = card_of(tmp_path, license="")
    assert "| not stated | 2 |" in card
    assert "assume that all rights are reserved" in card


def test_the_title_comes_from_the_settings(tmp_path: Path) -> None:
    release(Storage(tmp_path), config=ExportConfig(title="Dogs & cats"))
    text = (tmp_path / "releases/1.0/README.md").read_text()
    assert text.startswith("# Dogs \\& cats, version 1.0\n")


def test_bars_are_as_long_as_their_values() -> None:
    root = ElementTree.fromstring(bar_chart("A & B", [("<dogs>", 10), ("cats", 5), ("none", 0)]))
    bars = [float(node.get("width", "")) for node in root.iter() if node.get("rx")]
    assert bars == [380.0, 190.0, 0.0]
    texts = [node.text for node in root.iter() if node.tag.endswith("text")]
    assert texts == ["A & B", "<dogs>", "10", "cats", "5", "none", "0"]


def test_a_chart_with_too_many_bars_says_so() -> None:
    chart = bar_chart("Many", [(str(number), 1) for number in range(7)], limit=5)
    assert "Many (the first 5 of 7)" in chart
    assert chart.count('rx="2"') == 5


def test_a_chart_of_nothing_says_so() -> None:
    assert ">none<" in bar_chart("Empty", [])


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("size", [(1, 1), (640, 360), (37, 1025)])
def test_an_image_s_size_is_read_from_its_header(suffix: str, size: tuple[int, int]) -> None:
    width, height = size
    data = cv2.imencode(suffix, np.zeros((height, width, 3), dtype=np.uint8))[1].tobytes()
    assert image_size(data) == size
    for cut in range(0, 24):
        assert image_size(data[:cut]) is None


@pytest.mark.parametrize("option", [cv2.IMWRITE_JPEG_PROGRESSIVE, cv2.IMWRITE_JPEG_OPTIMIZE])
def test_other_kinds_of_jpeg_are_read_too(option: int) -> None:
    picture = np.zeros((33, 44), dtype=np.uint8)
    assert image_size(cv2.imencode(".jpg", picture, [option, 1])[1].tobytes()) == (44, 33)
