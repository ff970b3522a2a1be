"""The flow: every step from the video list to verified masks, in order, as one list.

A new stage is a file and a line here, and so is a kind of labeling project. The command line,
``status``, the report, ``run``, what heals a damaged file, and the bringing up to date of derived
tables all follow from it. Nothing is imported until it runs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Step:
    """A line of the flow: a stage that runs in units, or what one command commits at once."""

    name: str
    """The step's folder below ``commits/``, and its row in ``status``."""
    does: str = ""
    """The step's purpose, for strangers."""
    command: str = ""
    """The command that runs it, with the options it cannot do without."""
    reads: str = ""
    """The table it answers for; empty where it reads a file or a server."""
    writes: str = ""
    """The table it writes."""
    stage: str = ""
    """``module:Class`` of a stage that runs in units."""
    section: str = ""
    """The section of the settings that stage gets; empty where its command hands it its own."""
    uses_device: bool = False
    """True where its models run on ``--device``."""
    derive: str = ""
    """``module:function`` that brings a derived table up to date from the workspace alone."""
    of_people: bool = False
    """True where it stands in for people, so that only who asks for it runs it."""
    project: str = ""
    """``module:object`` of the kind of labeling project whose answers it brings in."""

    # Typed loosely: what they import lies above this list.

    def load(self) -> Any:
        """Import the stage's class (``pipeline.run.stage.Stage``)."""
        return imported(self.stage)

    def load_derive(self) -> Callable[[Any], int]:
        """Import the function that takes a workspace and returns how many files are new."""
        found: Callable[[Any], int] = imported(self.derive)
        return found

    def load_project(self) -> Any:
        """Import the kind of project (``labeling.projects.project_kind.ProjectKind``)."""
        return imported(self.project)


FLOW = (
    Step("list", "read the list of videos", "download --list FILE", "", "sources"),
    Step(
        "download",
        "fetch whole videos, keep the suitable ones",
        "download",
        "sources",
        "videos",
        stage="stages.download.fetch_videos:FetchVideos",
        section="download",
    ),
    Step(
        "sample",
        "find a clip with sound and its sharpest frames",
        "sample",
        "videos",
        "frames",
        stage="stages.sample.sample_frames:SampleFrames",
        section="sample",
    ),
    Step(
        "hear",
        "say what can be heard",
        "propose",
        "clips",
        "sounds",
        stage="stages.propose.tag_sounds:TagSounds",
        section="hear",
        uses_device=True,
    ),
    Step(
        "propose",
        "draw boxes around what may sound",
        "propose",
        "frames",
        "proposals",
        stage="stages.propose.propose_boxes:ProposeBoxes",
        section="propose",
        uses_device=True,
    ),
    Step(
        "accept",
        "take good boxes as they are, by rule",
        "label accept",
        "frames",
        "reviews",
        stage="labeling.automatic.accept:AcceptProposals",
        section="label",
        of_people=True,
    ),
    Step(
        "simulate",
        "answer in place of people, from a ground truth",
        "demo",
        "frames",
        "reviews",
        stage="labeling.automatic.simulated:SimulatedAnnotator",
        of_people=True,
    ),
    Step(
        "pull",
        "bring in what people said of the boxes",
        "label pull boxes",
        "",
        "reviews",
        project="labeling.projects.box_project:BOXES",
    ),
    Step(
        "pull-adjudication",
        "bring in who settled what people differ on",
        "label pull adjudication",
        "",
        "reviews",
        project="labeling.projects.adjudication:ADJUDICATION",
    ),
    Step(
        "gold",
        "take known answers, to score people on",
        "label push boxes --gold FILE",
        "",
        "reviews",
    ),
    Step(
        "settle",
        "turn reviews into sounding instances",
        "segment",
        "reviews",
        "instances",
        derive="labeling.review.instances:bring_instances_up_to_date",
    ),
    Step(
        "segment",
        "turn boxes into pixel masks",
        "segment",
        "instances",
        "masks",
        stage="stages.segment.segment_instances:SegmentInstances",
        section="segment",
        uses_device=True,
    ),
    Step(
        "pull-masks",
        "bring in what people said of the masks",
        "label pull masks",
        "",
        "reviews",
        project="labeling.projects.mask_project:MASKS",
    ),
    Step(
        "settle-masks",
        "put verified masks in the segmenter's place",
        "segment",
        "reviews",
        "masks",
        derive="labeling.review.verified_masks:bring_masks_up_to_date",
    ),
)
"""The steps, as the data flows."""

STAGES = {step.name: step for step in FLOW if step.stage}
"""The steps that run in units, by name."""

PROJECTS = {step.command.split()[-1]: step for step in FLOW if step.project}
"""The steps that bring people's answers in, by the name of their kind of project."""


def stages_of(command: str) -> list[str]:
    """Return the stages that a command runs, in order."""
    return [name for name, step in STAGES.items() if step.command == command]


def automatic_stages() -> list[str]:
    """Return the stages that need nobody's answers, in order."""
    return [name for name, step in STAGES.items() if not step.of_people]


def imported(place: str) -> Any:
    """Import what ``module:name`` says."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
