"""Runs without workers, for tests of what is made and not of who makes it.

Starting one takes half a second, and seconds where its stage loads a network.
"""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.run import runner
from pipeline.run.local import OwnTeam


def in_one_process(patch: pytest.MonkeyPatch) -> None:
    """Let every run do its rows in the process that runs it, in turn."""

    def here(*_: Any) -> OwnTeam:
        return OwnTeam()

    patch.setattr(runner, "make_team", here)
