"""The way from a workspace to what a release and a report are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from exports.release.selection import ReleaseTables
from exports.report.films import cut_films, find_films
from exports.report.frame_pictures import pictured_clips
from exports.report.write_report import ReportTables, write_report
from pipeline.records.schema import Clip, Frame, Instance, Mask, Proposal, Review, Sounds, Video
from pipeline.run.status import outcomes, stage_status
from pipeline.workspace.workspace import Workspace


def release_tables(workspace: Workspace) -> ReleaseTables:
    """Return all rows a release can be made of.

    A review of a frame that another sampling left out waits for it; 'settle' lists it as dropped.
    """
    frames = workspace.rows(Frame)
    known = {frame.frame_id for frame in frames}
    return ReleaseTables(
        videos=workspace.rows(Video),
        clips=workspace.rows(Clip),
        frames=frames,
        reviews=[review for review in workspace.rows(Review) if review.frame_id in known],
        instances=workspace.rows(Instance),
        masks=workspace.rows(Mask),
    )


def provenance(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """Return each stage's key and settings, and the code and libraries of its commits.

    Nothing in it depends on when or how often the stage ran.
    """
    found = {}
    for ledger in workspace.ledgers():
        generation, commits = ledger.generation(), ledger.commits()
        if generation is None or not commits:
            continue
        versions = {f"{name} {v}" for commit in commits for name, v in commit.versions.items()}
        found[ledger.stage] = {
            "stage_key": generation.key,
            "version": generation.version,
            "config": generation.config,
            "fingerprint": generation.fingerprint,
            "code_revisions": sorted({commit.code_revision for commit in commits}),
            "libraries": sorted(versions),
        }
    return found


def workspace_report(
    workspace: Workspace,
    *,
    max_clips: int = 200,
    scores: Mapping[str, float] | None = None,
    target: Path | None = None,
    cut_clips: bool = False,
    say: Callable[[str], None] = lambda _line: None,
) -> Path:
    """Write a workspace's report; see ``write_report``.

    Args:
        workspace: of which.
        max_clips: clips shown with pictures.
        scores: measured against a ground truth, by name.
        target: the HTML file; by default ``report.html`` in the workspace.
        cut_clips: cut the clips that are shown with pictures, to be heard.
        say: is told of each clip that could not be cut.
    """
    failures, drops = outcomes(workspace)
    tables = release_tables(workspace)
    target = target or workspace.storage.path("report.html")
    pictured = pictured_clips((clip.clip_id for clip in tables.clips), max_clips)
    if cut_clips:
        shown = [clip for clip in tables.clips if clip.clip_id in pictured]
        for clip, why in cut_films(workspace.storage, shown, tables.videos).items():
            say(f"{clip}: {why}")
    return write_report(
        workspace.storage,
        ReportTables(
            **vars(tables),
            sounds=workspace.rows(Sounds),
            proposals=workspace.rows(Proposal),
        ),
        stage_status(workspace),
        failures,
        drops,
        scores=scores,
        pictured=pictured,
        target=target,
        films=find_films(workspace.storage, tables.clips, target),
    )
