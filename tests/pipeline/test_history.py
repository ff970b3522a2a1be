"""``why`` looks where the commits lead, and finds what a search through every table finds."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pytest

from pipeline.records.schema import (
    TABLES,
    Clip,
    DropRow,
    FailureRow,
    Frame,
    Instance,
)
from pipeline.run import history
from pipeline.workspace.workspace import Workspace
from tests.pipeline.counting import counting
from tests.pipeline.whole_flow import filled, told
from tests.rows import proposal

LISTS = 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace of some lists; to read."""
    return filled(tmp_path_factory.mktemp("history") / "ws", LISTS)


class Everywhere(history._Finder):
    """The slow second definition: it looks for every row in every file."""

    def _look_in(self, videos: Collection[str] | None) -> None:
        super()._look_in(None)


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
    def lines(number: int | None) -> list[str]:
        return [*history.HistoryRow(proposal(track_id=number), None, {}).lines()]

    assert [line.split() for line in lines(7) if line not in lines(None)] == [["track_id", "7"]]
