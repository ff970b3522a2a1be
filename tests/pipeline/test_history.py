"""``why`` looks where the commits lead, and finds what a search through every table finds."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.scale import MADE
from pipeline.errors import UsageError
from pipeline.records.schema import (
    TABLES,
    Clip,
    DropRow,
    FailureRow,
    Frame,
    Instance,
    Review,
    Source,
)
from pipeline.run import history
from pipeline.run.derive import Derived, bring_up_to_date, hold
from pipeline.run.planning import divided
from pipeline.run.stage import Drop, Ok, Outcome, StageSpec, WorkerContext
from pipeline.run.unit import Job, run_unit
from pipeline.workspace.commit import Generation
from pipeline.workspace.workspace import Lookups, Workspace
from tests.pipeline.counting import counting
from tests.rows import proposal, said

LISTS = 2
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


def filled(root: Path, lists: int) -> Workspace:
    """A workspace after the whole flow, where people have reviewed too."""
    workspace = Workspace.create(root)
    for number in range(lists):
        listed(workspace, number, drop="no_such_row" if number else "")
        for name in ("download", "sample", "hear", "propose", "accept"):
            run_here(workspace, name)
        frames = workspace.rows(Frame)
        reviews = [
            said("8", 1, f"{n}-{number}", frame_id=frame.id, review_id=f"r_{number}{n:011x}")
            for n, frame in enumerate(frames[:: len(frames) // 3])
        ]
        answered(workspace, f"{number:012x}", reviews)
        bring_up_to_date(workspace)
        run_here(workspace, "segment")
    retried(workspace)
    return workspace


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace of some lists; to read."""
    return filled(tmp_path_factory.mktemp("history") / "ws", LISTS)


class Everywhere(history._Finder):
    """The slow second definition: it looks for every row in every file."""

    def _look_in(self, videos: Collection[str] | None) -> None:
        super()._look_in(None)


def told(workspace: Workspace, some_id: str) -> Any:
    """What ``why`` says of an id."""
    try:
        rows, endings = history.history(workspace, some_id)
    except UsageError as error:
        return str(error).split(":")[1]
    return [row.as_dict() for row in rows], endings


def some_ids(workspace: Workspace) -> Iterator[str]:
    """A few ids of each table and ending, from all over, starts of them, and some there are not."""
    for record in TABLES.values():
        ids = [row.id for row in workspace.rows(record)]
        yield from ids[:: max(1, len(ids) // 4)]
        yield from (ids[0][:-1], ids[-1][:7])
    for ledger in workspace.ledgers():
        ended: list[FailureRow | DropRow] = [*ledger.failures()[:3], *ledger.drops()[-3:]]
        yield from {row.input_id for row in ended}
    yield from ("i", "i_", "p_", "0_vid", "1_vid000003_", "0_vid000001_0", "nothing", "no_such")


def test_the_commits_lead_to_all_that_a_search_through_every_table_finds(
    whole: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = list(some_ids(whole))
    found = {one: told(whole, one) for one in ids}
    monkeypatch.setattr(history, "_Finder", Everywhere)
    for one in ids:
        assert found[one] == told(whole, one), one
    endings = [row for said_of in found.values() for row in said_of[1] if len(said_of) == 2]
    assert {row.stage for row in endings} >= {"list", "download", "propose", "settle"}


def test_what_a_search_finds_of_a_row_is_all_that_has_its_id(whole: Workspace) -> None:
    """The searching itself, held against the tables for the rows of a frame."""
    for frame in whole.rows(Frame)[::20]:
        rows, _ = history.history(whole, frame.id)
        below = {row.record.id for row in rows if getattr(row.record, "frame_id", "") == frame.id}
        expected = {
            row.id
            for record in TABLES.values()
            for row in whole.rows(record)
            if getattr(row, "frame_id", "") == frame.id
        }
        assert below == expected
        assert {row.record.id for row in rows} > {frame.clip_id, frame.video_id}


def test_a_clip_whose_sounds_are_known_shows_its_frames_as_well(whole: Workspace) -> None:
    for clip in whole.rows(Clip)[::20]:
        rows, _ = history.history(whole, clip.id)
        found = {row.record.id for row in rows if isinstance(row.record, Frame)}
        assert found == {row.id for row in whole.rows(Frame) if row.clip_id == clip.id}


def test_of_the_tables_made_of_a_video_only_the_files_with_its_rows_are_read(
    whole: Workspace,
) -> None:
    tables = ("videos", "clips", "frames", "sounds", "proposals")
    for some_id in (row.id for row in whole.rows(Frame)[::30]):
        opened, reads = counting(whole)
        rows, _ = history.history(opened, some_id)
        videos = {row.record.video_id for row in rows if isinstance(row.record, Frame)}
        beside = [
            file
            for table in tables
            for file in whole.files(table)
            if file.file in reads
            and not any(
                str(row[name]).startswith(tuple(videos))
                for row in whole.arrow(table, [file]).to_pylist()
                for name in {"video_id", "clip_id", "frame_id"} & row.keys()
            )
        ]
        # One unit of 6 rows makes the files of a video; a file of proposals may hold others' alone.
        assert {file.table for file in beside} <= {"proposals"}, (some_id, videos, beside)
        assert sum(len(whole.files(table)) for table in tables) > 2 * sum(
            file.file in reads for table in tables for file in whole.files(table)
        )


def test_an_instance_is_found_by_the_start_of_its_id(whole: Workspace) -> None:
    instance = whole.rows(Instance)[3]
    rows, _ = history.history(whole, instance.id[:10])
    assert {row.record.table for row in rows} >= {"sources", "videos", "frames", "instances"}


def test_a_linked_box_names_its_thing_and_one_without_a_link_says_nothing_of_it() -> None:
    def told(number: int | None) -> list[str]:
        return [*history.HistoryRow(proposal(track_id=number), None, {}).lines()]

    assert [line.split() for line in told(7) if line not in told(None)] == [["track_id", "7"]]
