"""The command line with units of two rows, so that three videos are work for several tasks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pipeline.cli import main
from pipeline.flow import STAGES

for _step in STAGES.values():
    _stage: Any = _step.load()
    _stage.spec = replace(_stage.spec, rows_per_unit=2)

if __name__ == "__main__":
    main()
