"""The steps of the flow as functions: what their commands do, without words.

They join the packages, as the command line does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UsageError
from pipeline.flow import STAGES, stages_of
from pipeline.run.derive import bring_up_to_date
from pipeline.run.runner import RunOptions, RunSummary, run_stage
from pipeline.workspace.workspace import Workspace

if TYPE_CHECKING:
    from exports.release.freeze import ReleaseSummary


def run_by_name(workspace: Workspace, name: str, options: RunOptions) -> RunSummary:
    """Bring a stage up to date as the command of its name does.

    Raises:
        UsageError: there is no such stage; settings conflict with earlier results.
    """
    names = [stage for stage, step in STAGES.items() if step.section]
    if name not in names:
        raise UsageError(f"{name!r} is no stage: there is {', '.join(names)}.")
    *before, _ = stages_of(name) or [name]
    earlier = [repr(run_stage(workspace, stage, options)) for stage in before]
    summary = run_stage(workspace, name, options)
    summary.notes[:0] = earlier
    return summary


def freeze(
    workspace: Workspace,
    version: str,
    *,
    unverified: bool,
    ids_only: bool,
    leak_lists: Sequence[Path] = (),
) -> ReleaseSummary:
    """Freeze the tables into a release, with what people said last."""
    from exports.from_workspace import export_workspace
    from stages.taxonomy import load_taxonomy

    bring_up_to_date(workspace)
    categories = load_taxonomy(workspace.config.hear.taxonomy).categories
    return export_workspace(
        workspace,
        version,
        unverified=unverified,
        ids_only=ids_only,
        taxonomy=[category.name for category in categories],
        leak_lists=leak_lists,
    )
