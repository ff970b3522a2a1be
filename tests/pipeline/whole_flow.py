"""The whole flow in one process and in small units, and what ``why`` says of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.scale import MADE
from pipeline.errors import UsageError
from pipeline.records.schema import Frame, Review, Source
from pipeline.run import history
from pipeline.run.derive import Derived, bring_up_to_date, hold
from pipeline.run.planning import divided
from pipeline.run.stage import Drop, Ok, Outcome, StageSpec, WorkerContext
from pipeline.run.unit import Job, run_unit
from pipeline.workspace.commit import Generation
from pipeline.workspace.workspace import Lookups, Workspace
from tests.rows import said

VIDEOS = 12
"""The videos of a list, half of them in its second unit."""


def listed(workspace: Workspace, number: int, *, drop: str = "") -> None:
    """Commit a list of videos, with one row that was dropped."""
    spec = StageSpec("list", 1, "", ("sources",))
    rows = [
        Source(video_id=f"{number}_vid{n:06d}", label="dog", split="test", start_s=0)
        for n in range(VIDEOS)
    ]
    answers: list[Outcome] = [Ok(row.id, [row]) for row in rows]
    answers += [Drop(drop, "duplicate_id")] if drop else []
    with hold(workspace, spec) as held:
        held.commit(Derived(f"{number:012d}", f"{number}.csv", "", answers))


def run_here(workspace: Workspace, name: str) -> None:
    """Run a made stage over what is new, in this process and in units of 6 rows."""
    kind, config = MADE[name]
    ledger = workspace.ledger(name)
    key = Generation(name, 1, {}, {}, {})
    ledger.begin(key)
    planned = {content for unit in ledger.plan() for content in unit.contents}
    new = [file for file in workspace.files(kind.spec.reads) if file.content not in planned]
    ledger.append(divided(new, 6), key.key, ledger.plan())
    stage = kind(config)
    scratch = workspace.storage.path("scratch")
    stage.open(WorkerContext(workspace.storage, scratch, Lookups(workspace.storage)))
    job = Job(workspace.storage, name, key.key)
    for unit in ledger.plan():
        if not ledger.is_committed(unit):
            run_unit(job, stage, unit, lambda rows: None)


def answered(workspace: Workspace, key: str, reviews: list[Review]) -> None:
    """Commit what people said, which no file of the workspace was made into."""
    with hold(workspace, StageSpec("pull", 2, "", ("reviews",))) as held:
        answers = [Ok(row.id, [row]) for row in reviews]
        held.commit(Derived(key, "boxes", "", answers))


def retried(workspace: Workspace) -> None:
    """Do a failed row of ``download`` again; it fails once more."""
    ledger = workspace.ledger("download")
    unit, row = ledger.failed()[0]
    first = next(one for one in ledger.plan() if one.name == unit)
    ledger.append([replace(first, ids=(row.input_id,), attempts=(1,))], "again", ledger.plan())
    run_here(workspace, "download")


def reviewed(workspace: Workspace, number: int) -> None:
    """Let people answer about a few of all frames."""
    frames = workspace.rows(Frame)
    reviews = [
        said("8", 1, f"{n}-{number}", frame_id=frame.id, review_id=f"r_{number}{n:011x}")
        for n, frame in enumerate(frames[:: len(frames) // 3])
    ]
    answered(workspace, f"{number:012x}", reviews)


def grow(workspace: Workspace, number: int, *, people: bool = True) -> None:
    """Take a list through the whole flow; people may review some of its frames too."""
    listed(workspace, number, drop="no_such_row" if number else "")
    for name in ("download", "sample", "hear", "propose", "accept"):
        run_here(workspace, name)
    if people:
        reviewed(workspace, number)
    bring_up_to_date(workspace)
    run_here(workspace, "segment")


def filled(root: Path, lists: int) -> Workspace:
    """A workspace after the whole flow, with a retry."""
    workspace = Workspace.create(root)
    for number in range(lists):
        grow(workspace, number)
    retried(workspace)
    return workspace


def told(workspace: Workspace, some_id: str) -> Any:
    """What ``why`` says of an id."""
    try:
        rows, endings = history.history(workspace, some_id)
    except UsageError as error:
        return str(error).split(":")[1]
    return [row.as_dict() for row in rows], endings
