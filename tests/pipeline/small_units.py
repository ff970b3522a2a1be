"""The command line with units of two rows, so that three videos are work for several tasks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pipeline.cli import main
from pipeline.flow import STAGES


def shrink() -> None:
    """Make the units of all stages small, in this process."""
    for step in STAGES.values():
        stage: Any = step.load()
        stage.spec = replace(stage.spec, rows_per_unit=2)


# Who looks for doctests imports this as well.
if __name__ == "__main__":
    shrink()
    main()
