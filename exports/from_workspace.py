"""The way from a workspace to what a release and a report are made of."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from exports.parts import parts_of
from exports.report.films import Span, cut_films, find_films
from exports.report.frame_pictures import pictured_clips
from exports.report.write_report import ReportTables, write_report
from pipeline.records.schema import Clip, Record, Video
from pipeline.run.status import outcomes, stage_status
from pipeline.workspace.asking import ASKED, chosen_orders
from pipeline.workspace.storage import Storage
from pipeline.workspace.workspace import Lookups, Workspace

RecordT = TypeVar("RecordT", bound=Record)


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
    if orders := chosen_orders(workspace.storage):
        found[ASKED] = {"config": {"orders": orders}}
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

    On an object store it takes its place there when it is whole; the path is then relative to the
    workspace.

    Args:
        workspace: of which.
        max_clips: clips shown with pictures.
        scores: measured against a ground truth, by name.
        target: the HTML file; by default ``report.html`` in the workspace.
        cut_clips: cut the clips that are shown with pictures, to be heard.
        say: is told of each clip that could not be cut.
    """
    storage = workspace.storage
    if target is None and storage.local is None:
        with tempfile.TemporaryDirectory(prefix="avatar-build-") as folder:
            page = Path(folder) / "report.html"
            with storage.listed_once():
                workspace_report(
                    workspace,
                    max_clips=max_clips,
                    scores=scores,
                    target=page,
                    cut_clips=cut_clips,
                    say=say,
                )
            _publish(storage, page)
        return Path(page.name)
    failures, drops = outcomes(workspace)
    target = target or storage.path("report.html")
    with parts_of(workspace, ReportTables) as parts:
        pictured = pictured_clips(parts.clip_ids, max_clips)
        if cut_clips:
            shown = _rows_of(workspace, Clip, "clip_id", pictured)
            videos = _rows_of(workspace, Video, "video_id", {clip.video_id for clip in shown})
            for clip, why in cut_films(workspace.storage, shown, videos).items():
                say(f"{clip}: {why}")
        return write_report(
            workspace.storage,
            parts,
            stage_status(workspace),
            failures,
            drops,
            scores=scores,
            pictured=pictured,
            target=target,
            films=find_films(workspace.storage, _spans(workspace), target),
        )


def _rows_of(
    workspace: Workspace, record: type[RecordT], column: str, values: Iterable[str]
) -> list[RecordT]:
    """Return the rows of a table with one of some values in a column, by id."""
    lookup = Lookups(workspace.storage)(record.table, column)
    return sorted((row for value in values for row in lookup.rows(value)), key=lambda row: row.id)


def _spans(workspace: Workspace) -> Iterator[Span]:
    columns = ("clip_id", "start_s", "end_s")
    for batch in workspace.arrow("clips", columns=columns).to_batches():
        yield from (Span(**row) for row in batch.to_pylist())


def _publish(storage: Storage, page: Path) -> None:
    """Put a page and the folders beside it at the top of a workspace, the page last."""
    beside = sorted(path for path in page.parent.rglob("*") if path.is_file() and path != page)
    for file in [*beside, page]:
        storage.publish(file, file.relative_to(page.parent).as_posix())
