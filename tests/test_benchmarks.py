"""What the Makefile says of the benchmarks."""

from __future__ import annotations

import re

from tests.conftest import ROOT


def test_every_benchmark_has_a_line_in_the_makefile() -> None:
    folder = ROOT / "benchmarks"
    there = {file.stem for file in folder.glob("*.py") if "\ndef main(" in file.read_text()}
    named = re.findall(r"-m benchmarks\.(\w+)", (ROOT / "Makefile").read_text())
    assert "runner" in there
    assert set(named) == there
