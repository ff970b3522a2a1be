"""Bring a video list into the workspace, as one commit whose input is the list.

Rows already known from an earlier list are counted and left alone, so that the same list, a longer
selection of it or another list can be brought in at any time.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.files import sha256_of
from pipeline.records.schema import Source, digest_of
from pipeline.run.derive import Derived, hold
from pipeline.run.stage import Ok, Outcome, StageSpec
from pipeline.words import counted
from pipeline.workspace.workspace import Workspace
from stages.download.sources import read_list, select_sources

SPEC = StageSpec(name="list", version=1, reads="", writes=("sources",))


@dataclass(frozen=True)
class Imported:
    """The outcome of a list's rows: ``rows = new + known + dropped + failed + not_selected``."""

    list_file: str
    rows: int
    new: int
    known: int
    dropped: int
    """Duplicates."""
    failed: int
    """Rows whose id is none."""
    not_selected: int

    def as_dict(self) -> dict[str, object]:
        """Return the counts for ``--json``."""
        return {"stage": "list", **asdict(self)}

    def sentence(self) -> str:
        """Return the counts as a sentence for people."""
        parts = [f"{self.new} new"]
        for count, what in (
            (self.known, "known already"),
            (self.dropped, "dropped (duplicate_id)"),
            (self.failed, "failed (invalid_id)"),
            (self.not_selected, "not selected"),
        ):
            if count:
                parts.append(f"{count} {what}")
        return f"list: {counted(self.rows, 'row')} of {self.list_file}: {', '.join(parts)}."


@contextmanager
def _no_search_for_cycles() -> Iterator[None]:
    """Leave out the collector: rows refer to nothing that refers back.

    To look through all of a long list's rows again and again took 1.7 of 3.9 s of CPU at 280,000
    rows, and more a row the more there are.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@_no_search_for_cycles()
def import_list(
    workspace: Workspace,
    path: Path,
    labels: Sequence[str] = (),
    limit: int | None = None,
    *,
    dry_run: bool = False,
) -> Imported:
    """Add the selected rows of a list to ``sources``.

    Args:
        workspace: where.
        path: ``vggsound.csv`` or ``test.csv``.
        labels: only rows with one of these labels; none takes all.
        limit: only the first so many of them.
        dry_run: only count.

    Raises:
        UsageError: no such file, an empty one, or a row of the wrong form, named.
    """
    result = select_sources(read_list(path), path.name, labels, limit)
    with nullcontext() if dry_run else hold(workspace, SPEC) as books:
        known = {row.video_id for row in workspace.rows(Source)}
        new = [row for row in result.sources if row.video_id not in known]
        answers: list[Outcome] = [Ok(row.id, [row]) for row in new]
        answers += [*result.drops, *result.failures]
        sha256 = sha256_of(path)
        # The same selection of the same list has the same key, so that again it commits nothing.
        rows = Derived(
            digest_of([sha256, sorted(answer.id for answer in answers)])[:12],
            path.name,
            sha256,
            answers,
        )
        if books is not None and answers and rows.key not in books.commits():
            books.commit(rows)
    return Imported(
        path.name,
        result.total_rows,
        len(new),
        len(result.sources) - len(new),
        len(result.drops),
        len(result.failures),
        result.not_selected,
    )
