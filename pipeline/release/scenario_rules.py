"""What the scenarios of one frame's instances must not say together (paper, section 3.1.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Sounding(NamedTuple):
    """What the rules need to know of an instance."""

    category: str
    scenario: str
    area: int
    """Pixels of its mask."""


def contradiction(instances: Sequence[Sounding], pixels: int) -> str | None:
    """Which rule the instances of a frame of ``pixels`` break, or none.

    - Single-sound is one thing giving a clear sound: it is alone in its frame.
    - Multi-entity is one of several look-alikes: another must be visible, so its mask leaves room.
    - Multi-entity wins over Mixed-sound: where one thing of a category has look-alikes, every
      sounding thing of that category in the frame has them too.

    >>> contradiction([Sounding("dog", "Single-sound", 9), Sounding("cat", "Mixed-sound", 9)], 100)
    'Single-sound beside another sounding instance'
    """
    for one in instances:
        if one.scenario == "Single-sound" and len(instances) > 1:
            return "Single-sound beside another sounding instance"
        if one.scenario == "Multi-entity":
            if one.area >= pixels:
                return "Multi-entity whose mask leaves no room for a look-alike"
            others = {other.scenario for other in instances if other.category == one.category}
            if others != {"Multi-entity"}:
                return "Multi-entity for some of the frame's look-alikes only"
    return None
