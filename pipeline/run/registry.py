"""Every stage by name. A stage joins with one line here; nothing is imported until it runs."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from pipeline.run.stage import Stage


class Entry(NamedTuple):
    """Where a stage is and which section of the settings it gets."""

    stage_class: str
    """``module:Class``."""
    section: str
    reads: str = ""
    """The table it answers for, as its spec says: known here without importing it."""

    def load(self) -> type[Stage[Any]]:
        """Import the stage's class."""
        module, _, name = self.stage_class.partition(":")
        found: type[Stage[Any]] = getattr(importlib.import_module(module), name)
        return found


STAGES: dict[str, Entry] = {
    "download": Entry("stages.download.fetch_videos:FetchVideos", "download", "sources"),
    "sample": Entry("stages.sample:SampleFrames", "sample", "videos"),
    "hear": Entry("stages.propose.tag_sounds:HearClips", "hear", "clips"),
    "propose": Entry("stages.propose.propose_boxes:ProposeBoxes", "propose", "frames"),
    "accept": Entry("labeling.automatic.accept:AcceptProposals", "label", "frames"),
    "simulate": Entry("labeling.automatic.simulated:SimulatedAnnotator", "label", "frames"),
    "segment": Entry("stages.segment.segment_instances:SegmentInstances", "segment", "instances"),
}
