"""The workspace as a notebook has it: every stage a call, every table a pandas frame.

It joins the packages, as the command line does; ``from pipeline import Workspace`` is this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas

from exports import Release, load_release
from exports.from_workspace import workspace_report
from pipeline.cli.common.running import freeze
from pipeline.errors import UsageError
from pipeline.flow import STAGES, stages_of
from pipeline.records.schema import DropRow, FailureRow, Record
from pipeline.run.runner import RunOptions, RunSummary, run_stage
from pipeline.run.status import dropped_rows, failed_rows, stage_status
from pipeline.workspace import workspace
from stages.download.import_list import import_list


class Workspace(workspace.Workspace):
    """A workspace whose stages can be run, exported and looked at from Python."""

    def run(
        self, stage: str, *, workers: int = 0, redo: bool = False, dry_run: bool = False
    ) -> RunSummary:
        """Bring a stage up to date, as the command of its name does.

        Args:
            stage: ``download``, ``sample``, ``hear``, ``propose``, ``accept`` or ``segment``;
                ``propose`` hears first.
            workers: processes; 0: what ``run.workers`` says.
            redo: retire results made with other settings, and start anew.
            dry_run: only count what there is to do.

        Raises:
            UsageError: there is no such stage, or results of other settings are in the way.
            AvatarBuildError: the run had to stop; what is committed stays.
        """
        names = [name for name, step in STAGES.items() if step.section]
        if stage not in names:
            raise UsageError(f"{stage!r} is no stage: there is {', '.join(names)}.")
        options = RunOptions(workers or self.config.run.workers, redo=redo, dry_run=dry_run)
        done = [run_stage(self, one, options) for one in stages_of(stage) or [stage]]
        done[-1].notes[:0] = map(repr, done[:-1])
        return done[-1]

    def download(
        self,
        list_file: str | Path,
        *,
        labels: Sequence[str] = (),
        limit: int | None = None,
        workers: int = 0,
        redo: bool = False,
        dry_run: bool = False,
    ) -> RunSummary:
        """Take the rows of a list in and fetch their videos; see ``run`` for the rest.

        Args:
            list_file: ``vggsound.csv`` or ``test.csv``.
            labels: only rows so labelled.
            limit: only the first so many (matching) rows.
            workers: processes.
            redo: retire results made with other settings, and start anew.
            dry_run: only count what there is to do.
        """
        said = import_list(self, Path(list_file), labels, limit, dry_run=dry_run).sentence()
        summary = self.run("download", workers=workers, redo=redo, dry_run=dry_run)
        summary.notes.insert(0, said)
        return summary

    def status(self) -> pandas.DataFrame:
        """Return the counts of each stage that has run or has input waiting, a row each."""
        return pandas.DataFrame([stage.as_dict() for stage in stage_status(self)])

    def failures(self) -> pandas.DataFrame:
        """Return every failed row, with its kind and detail."""
        return _as_table(FailureRow, failed_rows(self))

    def drops(self) -> pandas.DataFrame:
        """Return every row that was set aside, with its reason."""
        return _as_table(DropRow, dropped_rows(self))

    def export(self, version: str, *, unverified: bool = False, ids_only: bool = False) -> Release:
        """Freeze the tables into ``releases/<version>`` and open it.

        Args:
            version: the release's name.
            unverified: take what no person has verified, and say so.
            ids_only: leave clips and frames out.

        Raises:
            UsageError: the version is no name for a folder, or there already.
            AvatarBuildError: there is nothing to release, or it may not be.
        """
        summary = freeze(self, version, unverified=unverified, ids_only=ids_only)
        return load_release(self.storage.path(summary.path))

    def report(self, *, clips: bool = False) -> Path:
        """Write ``report.html``; ``clips`` cuts what it shows, to be heard."""
        return workspace_report(self, cut_clips=clips)


def _as_table(record: type[Record], rows: Iterable[Record]) -> pandas.DataFrame:
    return pandas.DataFrame([row.model_dump() for row in rows], columns=list(record.model_fields))
