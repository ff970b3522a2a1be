"""Run a stage over a workspace: plan what is new, do what is pending, leave everything resumable.

plan      input files no unit in force names become units (``planning``), appended once
claim     units another process works on are left to it
execute   ``run_unit`` on an executor; a commit is completion
retire    results whose input or upstream is gone leave the tables, into ``retired``
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from pipeline.config import RunConfig
from pipeline.errors import AvatarBuildError, DamagedError, StopRun, UsageError
from pipeline.flow import STAGES, Step
from pipeline.run.derive import bring_up_to_date, decides_derived, is_derived
from pipeline.run.local import LocalTeam, OwnTeam
from pipeline.run.lost import LOOKED_AT_REMOTE, media_states, units_again
from pipeline.run.planning import UNITS, UNITS_EACH, divided, retries, rows_each
from pipeline.run.pool import Pool, Team, UnitSource
from pipeline.run.stage import Stage, StageSpec
from pipeline.run.stage_progress import Progress
from pipeline.run.unit import Job, UnitResult
from pipeline.words import counted
from pipeline.workspace.commit import Commit, Generation, TableFile, Unit, in_force
from pipeline.workspace.ledger import Ledger
from pipeline.workspace.locks import RunLock, run_lock, unit_claims
from pipeline.workspace.table import way_out
from pipeline.workspace.workspace import Workspace

_FEW_ROWS = 256
"""So many rows of a rule, or fewer, are done in the run's own process."""


@dataclass(frozen=True)
class RunOptions:
    """The manner of a run; nothing here changes its result."""

    workers: int = 0
    """Processes; 0: one per core."""
    part: tuple[int, int] = (1, 1)
    """``(i, n)``: take every n-th unit only, from the i-th on; i from 1."""
    redo: bool = False
    """Retire results made with other settings."""
    dry_run: bool = False
    """Say what would be done."""
    again: tuple[str, ...] = ()
    """Do the rows again whose media is lost in one of these ways (``recorded.LOST``)."""


@dataclass(repr=False)
class RunSummary:
    """The outcome of a run."""

    stage: str
    counts: Counter[str] = field(default_factory=Counter)
    """``input``, ``ok``, ``dropped``, ``failed``, ``children:<table>``, of this run alone."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Rows this run dropped, by reason."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Rows that failed in this run, by kind."""
    bugs: list[str] = field(default_factory=list)
    workers: int = 0
    """Workers it had, or would have; 0: none were needed, or it takes a cluster to know."""
    pending: int = 0
    """Rows still to do."""
    anew: bool = False
    """True where a dry run found that earlier results would be retired."""
    after: list[str] = field(default_factory=list)
    """Tables whose rows are still to come and add to its work, in a dry run."""
    kept: list[str] = field(default_factory=list)
    """Settings that were written into ``avatar.toml``, or were not."""
    notes: list[str] = field(default_factory=list)
    """Other lines for the user."""
    seconds: float = 0.0

    def __repr__(self) -> str:
        made = ", ".join(
            f"{count} {name.removeprefix('children:')}"
            for name, count in sorted(self.counts.items())
            if name.startswith("children:")
        )
        ended = ", ".join(f"{self.counts[name]} {name}" for name in ("ok", "dropped", "failed"))
        waiting = f", {self.pending} pending" if self.pending else ""
        return f"{self.stage}: {ended}{waiting}{f'; made {made}' if made else ''}"

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` says of the run."""
        return {
            "stage": self.stage,
            **self.counts,
            "reasons": dict(self.reasons),
            "kinds": dict(self.kinds),
            "pending": self.pending,
            "workers": self.workers,
            "waits_for": self.after,
            "notes": [*self.kept, *self.notes],
            "seconds": round(self.seconds, 2),
        }

    def add(self, result: UnitResult) -> None:
        """Count a committed unit."""
        self.counts.update(result.counts)
        self.reasons.update(result.reasons)
        self.kinds.update(result.kinds)
        self.bugs += result.bugs
        self.notes += result.notes


def run_stage(
    workspace: Workspace,
    name: str,
    options: RunOptions,
    progress: Progress | None = None,
    step: Step | None = None,
    config: Any = None,
    *,
    coming: int = 0,
    to_come: Mapping[str, bool] = MappingProxyType({}),
) -> RunSummary:
    """Bring one stage up to date.

    Args:
        workspace: where.
        name: the stage.
        options: how.
        progress: shown to the user; none for silence.
        step: of a stage that is not in the flow.
        config: in place of the workspace's section.
        coming: rows of its input that a dry run of what goes before would add.
        to_come: tables that what goes before would write, in a dry run, and whether anew.

    Raises:
        UsageError: results of other settings are in the way and ``redo`` is off.
        StopRun: the machine or a site says stop.
    """
    step = step or STAGES[name]
    run = _Run(workspace, step, config, options, progress)
    spec, started = run.spec, time.perf_counter()
    if options.dry_run:
        with workspace.storage.listed_once():
            run.foresee(coming)
        run.summary.after = [
            table
            for table in (spec.reads, *spec.joins)
            if table in to_come and (table == spec.reads or to_come[table])
        ]
        return run.summary
    if is_derived(spec.reads, *spec.joins):
        bring_up_to_date(workspace)
    try:
        run.run()
    finally:  # masks that people verified stay theirs, also where rows fail
        if decides_derived(*spec.writes):
            bring_up_to_date(workspace)
    run.summary.seconds = time.perf_counter() - started
    return run.summary


class _Run:
    """One run of a stage over a workspace, or what it would be.

    Args:
        workspace: where.
        step: which stage.
        config: its settings; none for the workspace's section.
        options: how.
        progress: shown to the user; none for silence.
    """

    def __init__(
        self,
        workspace: Workspace,
        step: Step,
        config: Any,
        options: RunOptions,
        progress: Progress | None,
    ) -> None:
        self.workspace, self.step, self.options, self.progress = workspace, step, options, progress
        self.own_settings = config is None
        self.config = getattr(workspace.config, step.section) if config is None else config
        stage_class = step.load()
        self.spec: StageSpec = stage_class.spec
        self.stage: Stage[Any] = stage_class(self.config)
        self.ledger = workspace.ledger(self.spec.name)
        self.summary = RunSummary(self.spec.name)
        self._interrupted = False
        self._seen: list[TableFile] | None = None
        self._seen_live: set[tuple[str, str]] | None = None
        self._wanted: Generation | None = None

    @property
    def wanted(self) -> Generation:
        """The generation that decides this run's answers; seen once."""
        if self._wanted is None:
            self._wanted = self._generation()
        return self._wanted

    def _generation(self) -> Generation:
        upstream: dict[str, str] = {}
        for table in self.spec.joins:
            upstream |= self.workspace.producers(table)
        config = self.config
        deciding = (
            config.deciding() if hasattr(config, "deciding") else config.model_dump(mode="json")
        )
        fingerprint = dict(self.stage.fingerprint())
        return Generation(self.spec.name, self.spec.version, deciding, fingerprint, upstream)

    def foresee(self, coming: int) -> None:
        """Count what a run would do, with so many rows more of its input.

        It neither locks nor mends anything: it may stand beside a run, or on a read-only disk.
        """
        self._refuse_changes()
        units = self._foreseen(coming) + self._units_again()
        current = self.ledger.generation()
        self.summary.anew = current is not None and current.key != self.wanted.key
        rows = self.summary.pending = sum(unit.num_rows for unit in units)
        if units and self.workspace.config.run.executor == "local":
            team = OwnTeam() if self._is_done_here(rows) else LocalTeam(self.stage.device())
            self.summary.workers, note = self._size(team, len(units))
            self.summary.notes += [note] if note else []

    def run(self) -> None:
        """Plan what is new and do what is pending."""
        workspace, ledger, storage = self.workspace, self.ledger, self.workspace.storage
        say = (self.progress or Progress(shown=False)).say
        with contextlib.ExitStack() as held:
            with storage.listed_once():
                self._interrupted = bool(storage.folders(f"{ledger.folder}/work"))
                if self._is_done():
                    self._end_idle()
                    return
                recover(workspace, but=self.spec.name)
                lock = held.enter_context(self._held(say))
                self._look_again()
                units = self._planned(lock)
                if not units:
                    self._end_idle()
                    return
            with storage.asked_each_time():
                lock.share()  # from here on other runs of the stage may help
                if ledger.commits():
                    self._keep_settings()
                self._execute(units, lock)
            if lock.try_alone():
                ledger.recover()

    def _end_idle(self) -> None:
        """End a run that had nothing to do."""
        if not self.options.again:
            most = None if self.workspace.storage.local else LOOKED_AT_REMOTE
            states = media_states(self.workspace, self.spec.name, most)
            lines = [state.line() for state in states]
            self.summary.notes += [line for line in lines if line]
        if self.ledger.commits():
            self._keep_settings()

    def _is_done(self) -> bool:
        """Say whether there is nothing to do, where it costs less to look than to take a lease.

        What another run adds at this moment comes after it.
        """
        workspace, ledger = self.workspace, self.ledger
        if workspace.storage.has_locks or any(one.is_interrupted() for one in workspace.ledgers()):
            return False
        current = ledger.generation()
        if current is None or current.key != self.wanted.key or ledger.gone() or self._stale():
            return False
        if any(file.rows for file in self._unplanned(ledger.checked_plan())):
            return False
        return not (self._part_of(self._pending()) or self._units_again())

    def _look_again(self) -> None:
        """Forget what was seen before the lock was taken."""
        self.workspace.storage.look_again()
        self._seen = self._seen_live = self._wanted = None

    def _planned(self, lock: RunLock) -> list[Unit]:
        """Plan what is new, and return what is pending."""
        ledger, summary = self.ledger, self.summary
        if lock.alone:
            ledger.recover()
            self._do_again_what_is_gone()
        # What another generation made leaves the tables before anything is planned anew.
        if retired := self._take_up_generation(lock):
            summary.notes.append(f"{retired} units of earlier results retired and done anew.")
        while True:
            plan = ledger.checked_plan()
            new = self._divided(self._unplanned(plan))
            if not new or ledger.append(new, self.wanted.key, plan):
                break
        return self._part_of(self._pending()) + self._units_again()

    # Not cached properties: those keep the runs of other threads waiting.

    @property
    def _input(self) -> list[TableFile]:
        """The files of its input; seen once, so that all of a run is of one moment."""
        if self._seen is None:
            self._seen = self.workspace.files(self.spec.reads)
        return self._seen

    @property
    def _live(self) -> set[tuple[str, str]]:
        """The same by name and digest."""
        if self._seen_live is None:
            self._seen_live = {file.content for file in self._input}
        return self._seen_live

    @contextlib.contextmanager
    def _held(self, say: Callable[[str], None]) -> Iterator[RunLock]:
        """Hold the run lock; nothing is taken out of force without it."""
        ledger = self.ledger
        with (
            run_lock(self.workspace.storage, ledger.folder, say) as lock,
            ledger.fenced(lock.check),
        ):
            yield lock

    def _do_again_what_is_gone(self) -> None:
        """Make units pending again whose files are gone from a store that no lock guarded.

        On a disk with locks only something else can have taken them: that is an error where they
        are read, and ``redo`` is the way out.
        """
        ledger = self.ledger
        if self.workspace.storage.has_locks or not (gone := ledger.gone()):
            return
        ledger.retire(gone, "damaged")
        rows = sum(commit.counts["input"] for commit in gone)
        self.summary.notes.append(
            f"files of {counted(len(gone), 'unit')} were gone: their {counted(rows, 'row')} are to"
            " do again."
        )

    def _keep_settings(self) -> None:
        """Write typed settings down before the first result, and not where no model opens."""
        if not self.own_settings or self.summary.kept:
            return
        self.summary.kept = self.workspace.keep_settings(self.step.section)
        for line in self.summary.kept:
            (self.progress or Progress(shown=False)).say(line)

    def _take_up_generation(self, lock: RunLock) -> int:
        """Make ``wanted`` the generation in force, retiring what another one made.

        Returns:
            The number of units retired.
        """
        ledger, wanted = self.ledger, self.wanted
        current = ledger.generation()
        if current and current.key == wanted.key:
            return self._retire_stale(lock)
        self._refuse_changes()
        retired = 0
        if current:
            _must_be_alone(lock, ledger)
            retired = len(ledger.commits())
            ledger.retire_all(current.key)
        elif _key_in_force(ledger) not in ("", wanted.key):
            _must_be_alone(lock, ledger)
            ledger.retire_all("damaged")
        ledger.begin(wanted)
        return retired + self._retire_stale(lock)

    def _retire_stale(self, lock: RunLock) -> int:
        """Retire units whose input is gone, and what no generation or plan in force stands for.

        Returns:
            The number of units.
        """
        if stale := self._stale():
            _must_be_alone(lock, self.ledger)
            self.ledger.retire(stale, self.wanted.key)
        return len(stale)

    def _stale(self) -> list[Commit]:
        ledger = self.ledger
        commits = ledger.commits()
        plan = ledger.plan_of(commits) if commits else []
        planned = {unit.name for unit in plan}
        standing = {unit.name for unit in in_force(plan, self._live)}
        stale = [
            one
            for one in commits
            if not one.input.contents <= self._live or one.unit in planned - standing
        ]
        if not self.workspace.storage.has_locks:
            # A run that was taken for dead may commit once more what was retired, under the
            # settings of its own day or by a plan that is retired as well.
            stale += [
                one
                for one in commits
                if (one.stage_key != self.wanted.key or one.unit not in planned)
                and one not in stale
            ]
        return stale

    def _refuse_changes(self) -> None:
        ledger, wanted = self.ledger, self.wanted
        if self.options.redo:
            return
        current = ledger.generation()
        if current is None and _key_in_force(ledger) not in ("", wanted.key):
            raise DamagedError(
                f"{ledger.folder}/stage.json: it is missing, and the commits beside it were made"
                f" with other settings. Put the file back, or {way_out(ledger.stage)}."
            )
        changes = _changes(current, wanted) if current else []
        if changes and ledger.commits():
            raise UsageError(
                f"{ledger.stage}: this workspace holds results made with other settings"
                f" ({'; '.join(changes)}). Put the settings back, or add --redo to retire those"
                " results and do the rows again."
            )

    def _unplanned(self, plan: Sequence[Unit]) -> list[TableFile]:
        """Return the input files that no unit names yet."""
        planned = {content for unit in in_force(plan, self._live) for content in unit.contents}
        return [file for file in self._input if file.content not in planned]

    def _divided(self, new: Sequence[TableFile], coming: int = 0) -> list[Unit]:
        """Divide new files into units.

        Args:
            new: the files.
            coming: rows that will be in the table besides those that are.
        """
        options, spec = self.options, self.spec
        workers = options.workers or _workers_of(self.workspace.config.run)
        workers = min(workers, spec.max_workers or workers) * options.part[1]
        rows = sum(file.rows for file in self._input) + coming
        return divided(new, rows_each(spec, rows, sum(file.rows for file in new), workers))

    def _pending(self) -> list[Unit]:
        committed = {commit.unit for commit in self.ledger.commits()}
        plan = self.ledger.checked_plan()
        return [unit for unit in in_force(plan, self._live) if unit.name not in committed]

    def _part_of(self, plan: Iterable[Unit]) -> list[Unit]:
        part, parts = self.options.part
        return [unit for unit in plan if unit.ordinal % parts == part - 1]

    def _units_again(self) -> list[Unit]:
        return units_again(self.workspace, self.spec.name, self.options.again)

    def _foreseen(self, coming: int) -> list[Unit]:
        """Return the units a run would do: pending ones, those in no plan yet, those to come."""
        anew = _key_in_force(self.ledger) != self.wanted.key
        plan = [] if anew else self.ledger.plan()
        files = self._unplanned(plan)
        if coming:
            files.append(TableFile("", "", self.spec.reads, coming))
        first = max((unit.ordinal for unit in plan), default=-1) + 1
        units = enumerate(self._divided(files, coming), first)
        new = [replace(unit, ordinal=ordinal) for ordinal, unit in units]
        return self._part_of([*([] if anew else self._pending()), *new])

    def _execute(self, units: Sequence[Unit], lock: RunLock) -> None:
        workspace, ledger, spec, summary = self.workspace, self.ledger, self.spec, self.summary
        settings, device = workspace.config.run, self.stage.device()
        total = sum(unit.num_rows for unit in units)
        progress = self.progress or Progress(shown=False)
        if self._is_done_here(total):
            team: Team = OwnTeam()
        else:
            team = make_team(settings, self.stage, progress.say)
        summary.workers, note = self._size(team, len(units))
        if settings.executor == "ray" and device == "auto" and not team.num_gpus:
            note = "the Ray cluster has no GPU; the model runs on CPUs."
        if note and self.progress:
            self.progress.say(f"{spec.name}: {note}")
        job = Job(workspace.storage, spec.name, self.wanted.key, self.step.stage, self.config)

        # Called in this process for each commit, whoever made it: here a run can still be stopped.
        def committed(result: UnitResult) -> None:
            if result.unit.again:
                ledger.forget(result.unit)
            summary.add(result)
            progress.committed(result)
            lock.check()
            if len(summary.bugs) >= settings.max_bugs:
                raise StopRun(
                    f"{spec.name}: {len(summary.bugs)} rows raised exceptions nobody foresaw, the"
                    f" last:\n{summary.bugs[-1]}"
                )

        with (
            unit_claims(workspace.storage, ledger.folder, lock) as claims,
            progress.stage(spec.name, total),
        ):
            source = UnitSource(ledger, units, claims)
            pool = Pool(team, job, spec, source, committed, progress.rows, self._keep_settings)
            try:
                pool.run(lambda: self._size(team, len(units))[0])
            finally:
                done = {commit.unit for commit in ledger.commits()}
                summary.pending = sum(unit.num_rows for unit in units if unit.name not in done)

    def _is_done_here(self, rows: int) -> bool:
        """Say whether no process is started: few rows of a rule, and no run broke off at them."""
        return (
            self.stage.is_rule()
            and rows <= _FEW_ROWS
            and self.workspace.config.run.executor == "local"
            and not self.options.workers
            and not self._interrupted
            and self.workspace.storage.has_locks
        )

    def _size(self, team: Team, units: int) -> tuple[int, str]:
        """Return the number of workers, and what to say where GPUs make it fewer."""
        wanted = min(self.options.workers or team.cores, self.spec.max_workers or units, units)
        per_gpu = self.workspace.config.run.workers_per_gpu
        most = team.num_gpus * per_gpu
        if not most or wanted <= most:
            return wanted, ""
        gpus = f"GPUs: {team.num_gpus}, run.workers_per_gpu: {per_gpu}"
        return most, f"workers: {most}, not {wanted} ({gpus})."


def recover(workspace: Workspace, but: str = "") -> None:
    """Finish what crashes interrupted, in every stage no run holds.

    A damaged stage is left to the commands that need it: they say so.
    """
    has_locks = workspace.storage.has_locks
    for ledger in workspace.ledgers():
        if ledger.stage == but or not (has_locks or ledger.is_interrupted()):
            continue
        with (
            contextlib.suppress(DamagedError),
            run_lock(workspace.storage, ledger.folder) as lock,
            ledger.fenced(lock.check),
        ):
            if lock.alone:
                ledger.recover()


def set_aside_damaged(workspace: Workspace) -> dict[str, int]:
    """Take what is damaged out of force, in every stage that can do its rows again; for ``redo``.

    All of them at once: a table is read through the commits of every stage.

    Returns:
        The number of units by stage.
    """
    found = {}
    for ledger in workspace.ledgers():
        if ledger.stage in STAGES:
            with (
                run_lock(workspace.storage, ledger.folder) as lock,
                ledger.fenced(lock.check),
            ):
                workspace.storage.look_again()
                if lock.alone and (units := ledger.set_aside(_live(workspace, ledger))):
                    found[ledger.stage] = units
    return found


def _live(workspace: Workspace, ledger: Ledger) -> list[TableFile]:
    """Return the files of a stage that readers read; none while no reader can tell."""
    try:
        tables = {file.table for commit in ledger.commits() for file in commit.files}
        return [file for t in tables - {"drops", "failures"} for file in workspace.files(t)]
    except DamagedError:
        return []


def plan_retry(workspace: Workspace, name: str, kind: str | None, *, dry_run: bool = False) -> int:
    """Append units for the failed rows of a kind; ``run_stage`` then does them.

    Args:
        workspace: where.
        name: the stage.
        kind: the failures' kind; none takes every retryable one.
        dry_run: only count.

    Returns:
        The number of rows.
    """
    ledger = workspace.ledger(name)
    generation = ledger.generation()
    if generation is None:
        raise UsageError(f"{name}: has not run in this workspace.")
    while True:
        commits, planned = ledger.commits(), ledger.checked_plan()
        live = workspace.live(*{commit.input.table for commit in commits})
        plan = {unit.name: unit for unit in in_force(planned, live)}
        undone = plan.keys() - {commit.unit for commit in commits}
        pending = {row_id for name in undone for row_id in plan[name].ids}
        failed = ledger.failed([commit for commit in commits if commit.unit in plan])
        chosen = [
            (plan[unit], row)
            for unit, row in sorted(failed, key=lambda one: (one[0], one[1].input_id))
            if (row.kind == kind if kind else row.retryable) and row.input_id not in pending
        ]
        units = retries(chosen)
        if dry_run or not units or ledger.append(units, generation.key, planned):
            return len(chosen)


def _key_in_force(ledger: Ledger) -> str:
    """Return the key of what stands; its commits tell if ``stage.json`` is gone. Empty: nothing."""
    if current := ledger.generation():
        return current.key
    keys = {commit.stage_key for commit in ledger.commits()}
    return keys.pop() if len(keys) == 1 else ", ".join(sorted(keys))


def _changes(old: Generation, new: Generation) -> list[str]:
    """List what the user changed, as ``key: old -> new``; an upstream change is none of it."""
    found = []
    if old.version != new.version:
        found.append(f"version: {old.version} -> {new.version}")
    for before, after in ((old.config, new.config), (old.fingerprint, new.fingerprint)):
        for key in sorted(before.keys() | after.keys()):
            if before.get(key) != after.get(key):
                found.append(f"{key}: {before.get(key)!r} -> {after.get(key)!r}")
    return found


def _must_be_alone(lock: RunLock, ledger: Ledger) -> None:
    if not lock.alone:
        raise AvatarBuildError(
            f"{ledger.stage}: results must be retired, but another run of it is alive. Wait for it"
            " to end, or stop it."
        )


def _workers_of(settings: RunConfig) -> int:
    """Return how many workers a run has where nobody says; of a cluster what many units allow."""
    return UNITS // UNITS_EACH if settings.executor == "ray" else len(os.sched_getaffinity(0))


def make_team(settings: RunConfig, stage: Stage[Any], say: Callable[[str], None]) -> Team:
    """Make the executor of the settings, with what it has for a stage.

    Args:
        settings: which executor, and what of it.
        stage: which one.
        say: told what becomes of a cluster's nodes.
    """
    if settings.executor == "ray":
        from pipeline.run.ray import RayTeam

        return RayTeam(settings, stage, say)
    return LocalTeam(stage.device())
