"""The steps of the flow as functions: what their commands do, without words.

It joins the packages, as the command line does: what people said is settled around the stages that
read or make it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UsageError
from pipeline.run.registry import STAGES
from pipeline.run.runner import RunOptions, RunSummary, run_stage
from pipeline.workspace.workspace import Workspace

if TYPE_CHECKING:
    from exports.release.freeze import ReleaseSummary

_BEFORE = {"propose": ["hear"]}
"""What runs first when a stage is asked for by name."""
_STAGES = [name for name in STAGES if name != "simulate"]
"""Those that run without a ground truth."""


def run_by_name(workspace: Workspace, name: str, options: RunOptions) -> RunSummary:
    """Bring a stage up to date as the command of its name does.

    Raises:
        UsageError: there is no such stage; settings conflict with earlier results.
    """
    if name not in _STAGES:
        raise UsageError(f"{name!r} is no stage: there is {', '.join(_STAGES)}.")
    before = [run_stage(workspace, stage, options) for stage in _BEFORE.get(name, [])]
    if name == "segment" and not options.dry_run:
        settle_reviews(workspace)
    try:
        summary = run_stage(workspace, name, options)
    finally:  # masks that people verified stay theirs, also where rows fail
        if name in ("accept", "segment") and not options.dry_run:
            settle_reviews(workspace)
    summary.notes[:0] = [repr(one) for one in before]
    return summary


def settle_reviews(workspace: Workspace) -> None:
    """Bring instances and masks in step with the reviews."""
    from labeling.review.derive_instances import settle
    from labeling.review.verified_masks import settle_masks

    settle(workspace)
    settle_masks(workspace)


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

    settle_reviews(workspace)
    categories = load_taxonomy(workspace.config.hear.taxonomy).categories
    return export_workspace(
        workspace,
        version,
        unverified=unverified,
        ids_only=ids_only,
        taxonomy=[category.name for category in categories],
        leak_lists=leak_lists,
    )
