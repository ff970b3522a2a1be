"""The rules of what one frame's scenarios may not say together (paper, section 3.1.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from pipeline.records.schema import Scenario

SCENARIOS: tuple[str, ...] = get_args(Scenario)
"""The scenarios of instances, in the order of the paper's results."""


def contradiction(instances: Sequence[tuple[str, str, int]], pixels: int) -> str | None:
    """Return which rule the instances of a frame of ``pixels`` break, or none.

    Args:
        instances: category, scenario and mask pixels of each.
        pixels: of the whole frame.

    - Single-sound is one thing giving a clear sound: it is alone in its frame.
    - Multi-entity is one of several look-alikes: another must be visible, so its mask leaves room.
    - Multi-entity wins over Mixed-sound: where one thing of a category has look-alikes, every
      sounding thing of that category in the frame has them too.

    >>> contradiction([("dog", "Single-sound", 9), ("cat", "Mixed-sound", 9)], 100)
    'Single-sound beside another sounding instance'
    """
    for category, scenario, area in instances:
        if scenario == "Single-sound" and len(instances) > 1:
            return "Single-sound beside another sounding instance"
        if scenario == "Multi-entity":
            if area >= pixels:
                return "Multi-entity whose mask leaves no room for a look-alike"
            others = {other for its, other, _ in instances if its == category}
            if others != {"Multi-entity"}:
                return "Multi-entity for some of the frame's look-alikes only"
    return None
