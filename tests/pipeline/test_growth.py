"""What a unit or a question reads does not grow with the workspace; counted, not timed."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import DamagedError, StopRun
from pipeline.run.unit import Job, read_unit
from pipeline.workspace.commit import Rows, Unit
from pipeline.workspace.workspace import Lookups, Workspace
from tests.pipeline.counting import counting
from tests.pipeline.faulty import Faulty, add_sources


def test_a_worker_reads_a_list_once_for_all_its_units(workspace: Workspace) -> None:
    add_sources(workspace, ["ok"] * 200)
    (file,) = workspace.files("sources")
    opened, reads = counting(workspace)
    job = Job(opened.storage, "faulty", "")
    found: list[Any] = []
    for first in range(0, 200, 8):
        unit = Unit((Rows(*file.content, first, first + 8),), first, f"{first}")
        found += read_unit(job, Faulty.spec, unit)
    whole = workspace.arrow("sources").to_pylist()
    assert [row.model_dump() for row in found] == whole
    assert reads == {file.file: 1}


@pytest.mark.parametrize("lists", [20, 60])
def test_a_lookup_reads_only_the_file_it_finds_rows_in(workspace: Workspace, lists: int) -> None:
    for number in range(lists):
        add_sources(workspace, ["ok"] * 3, f"{number:06d}-list")
    opened, reads = counting(workspace)
    lookup = Lookups(opened.storage)("sources", "video_id")
    assert sum(reads.values()) == lists, "once each, for the column"
    reads.clear()
    for row in workspace.arrow("sources", workspace.files("sources")[7:8]).to_pylist():
        found = lookup.one(row["video_id"])
        assert found is not None
        assert found.model_dump() == row
    assert sum(reads.values()) == 1


def test_rows_done_anew_while_they_are_looked_up_stop_the_run_and_lost_ones_are_damage(
    workspace: Workspace,
) -> None:
    for number in range(2):
        add_sources(workspace, ["ok"], f"{number:06d}-list")
    ledger = workspace.ledger("list")
    lookup = Lookups(workspace.storage)("sources", "video_id")
    first, second = (file.file for file in workspace.files("sources"))
    ledger.retire(ledger.commits()[:1], "former")
    with pytest.raises(StopRun, match="done anew while they were being used"):
        lookup.one("00" + "d00000000")
    workspace.storage.remove(second)
    with pytest.raises(DamagedError, match="it is gone"):
        lookup.one("01" + "d00000000")
    assert first != second
