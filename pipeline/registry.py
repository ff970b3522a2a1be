"""Every stage by name. A stage joins with one line here; nothing is imported until it runs."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from pipeline.stage import Stage


class Entry(NamedTuple):
    """Where a stage is and which section of the settings it gets."""

    stage_class: str
    """``module:Class``."""
    section: str

    def load(self) -> type[Stage[Any]]:
        """Import the stage's class."""
        module, _, name = self.stage_class.partition(":")
        found: type[Stage[Any]] = getattr(importlib.import_module(module), name)
        return found


STAGES: dict[str, Entry] = {
    "download": Entry("stages.download:FetchVideos", "download"),
    "sample": Entry("stages.sample:SampleFrames", "sample"),
    "hear": Entry("stages.hear:HearClips", "hear"),
    "propose": Entry("stages.propose:ProposeBoxes", "propose"),
    "accept": Entry("labeling.accept:AcceptProposals", "label"),
    "simulate": Entry("labeling.simulated:SimulatedAnnotator", "label"),
    "segment": Entry("stages.segment:SegmentInstances", "segment"),
}
