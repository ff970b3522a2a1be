"""A stage that says it runs on GPUs, and notes which of them its workers may see."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from pipeline.flow import Step
from pipeline.records.schema import Source
from pipeline.run.gpus import VISIBLE
from pipeline.run.stage import Outcome, StageSpec, WorkerContext
from pipeline.workspace.workspace import Workspace
from tests.pipeline.faulty import Faulty, FaultyConfig, add_sources

UNSET = "unset"
WAITS_FOR = {"two": 2, "three": 3, "four": 4}
"""A row that waits until so many workers have opened the stage: none may do all alone."""


class GpuConfig(FaultyConfig):
    """As of a stage with a model."""

    device: str = "auto"


class ModelledConfig(GpuConfig):
    """As of a stage that loads SAM."""

    def backends(self) -> list[str]:
        """Return the weights."""
        return ["sam-vit-b"]


class OnGpu(Faulty):
    """The faulty stage with a note of each worker, beside the tables."""

    config: GpuConfig
    spec: ClassVar[StageSpec] = replace(
        Faulty.spec, name="ongpu", rows_per_unit=2, batch_size=2, row_timeout_s=300.0
    )

    def device(self) -> str:
        return self.config.device

    def open(self, ctx: WorkerContext) -> None:
        super().open(ctx)
        assert "torch" not in sys.modules, "imported before the worker knew its GPU"
        assert ctx.storage.local is not None
        self.notes = Path(ctx.storage.local) / "notes"
        self._note("opened")

    def _answer(self, row: Source) -> Outcome:
        if row.label == "kill":
            self._note("killed")
        while len(list(self.notes.glob("opened-*"))) < WAITS_FOR.get(row.label, 0):
            time.sleep(0.1)
        return super()._answer(row)

    def _note(self, what: str) -> None:
        self.notes.mkdir(exist_ok=True)
        note = self.notes / f"{what}-{time.time_ns()}-{os.getpid()}"
        note.write_text(os.environ.get(VISIBLE, UNSET))


ENTRY = Step("ongpu", stage="tests.pipeline.gpu_stage:OnGpu", section="segment")


def noted(workspace: Workspace, what: str = "opened") -> Counter[str]:
    """How many workers saw each value of ``CUDA_VISIBLE_DEVICES`` when they did this."""
    folder = Path(str(workspace.storage.local)) / "notes"
    return Counter(path.read_text() for path in folder.glob(f"{what}-*"))


def filled(root: Path, labels: list[str], *settings: str) -> Workspace:
    """A new workspace with rows for the stage."""
    Workspace.create(root)
    workspace = Workspace(root, settings)
    add_sources(workspace, labels)
    return workspace
