"""Two runs of a stage on a model of an object store: whatever ends or comes late, no row is lost.

See ``model_store``. At every instant each file that a commit names is there, and in the end the
tables are those of one run that nothing interrupted.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from pipeline.errors import AvatarBuildError, StopRun
from pipeline.run.runner import RunOptions, recover, run_stage
from pipeline.workspace.commit import Commit
from pipeline.workspace.leases import EXPIRES_S
from pipeline.workspace.workspace import Workspace
from tests.pipeline.faulty import ENTRY, FaultyConfig, add_sources
from tests.pipeline.model_store import ROOT, Actor, Chances, Killed, Model, modelled

LABELS = ["ok", "drop", "ok", "fail"] * 8


def run(*, offset: int = 0, redo: bool = False, dry_run: bool = False) -> Workspace:
    workspace = Workspace(ROOT)
    options = RunOptions(workers=1, redo=redo, dry_run=dry_run)
    config = FaultyConfig(offset=offset)
    run_stage(workspace, "faulty", options, step=ENTRY, config=config)
    return workspace


def outcome(workspace: Workspace) -> tuple[object, ...]:
    """All that a run decides, without the clock; that no row is done twice is in the counts."""
    ledger = workspace.ledger("faulty")
    commits = ledger.commits()
    return (
        workspace.digest("clips"),
        sum(commit.counts["input"] for commit in commits),
        sorted(row.input_id for row in ledger.failures()),
        sorted(row.input_id for row in ledger.drops()),
    )


def begun(model: Model) -> None:
    """Make the workspace, from now on watched at every change."""
    add_sources(Workspace.create(ROOT), LABELS)

    def watch() -> None:
        assert model.damage() == ""

    model.after_each = watch


def alone(model: Model, **options: Any) -> tuple[object, ...]:
    """What a run makes of the store with nobody beside it."""
    actor = Actor(model, lambda: run(**options), Chances())
    model.run([actor])
    assert actor.error is None, actor.error
    return outcome(Workspace(ROOT))


@cache
def expected(offset: int = 0) -> tuple[object, ...]:
    """What one run makes of it; the same for every test."""
    with pytest.MonkeyPatch.context() as patch, modelled(patch, 0) as model:
        begun(model)
        return alone(model, offset=offset)


def settled(model: Model) -> tuple[object, ...]:
    """What one run more makes of it, once all leases are over and all requests have arrived."""
    model.tick(EXPIRES_S * 10)
    return alone(model)


def beside() -> None:
    """Commands that read, or start and find nothing to do."""
    for _ in range(4):
        run(dry_run=True)
        recover(Workspace(ROOT))
        Workspace(ROOT).files("clips")


@pytest.mark.parametrize("how", ["before", "after", "late"])
@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 9])
def test_a_run_that_ends_at_any_request_beside_another_loses_nothing(
    how: str, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = expected()
    step, ended = 1, True
    while ended:
        with modelled(monkeypatch, step) as model:
            begun(model)
            first, second = (Actor(model, run, Chances()) for _ in range(2))
            first.kill_at = (step, how)
            model.run([first, second])
            ended = isinstance(first.error, Killed)
            assert ended or first.error is None, (step, first.error)
            assert second.error is None, (step, second.error)
            assert settled(model) == right, step
        step += every
    assert step > 40


@pytest.mark.parametrize("seed", range(60))
def test_whatever_is_late_repeated_still_or_dead_the_rows_are_one_runs(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = expected()
    with modelled(monkeypatch, seed) as model:
        begun(model)
        for _ in range(3):
            chances = Chances(kill=0.006, again=0.1, late=0.1, still=0.02)
            actors = [Actor(model, work, chances) for work in (run, run, beside)]
            model.run(actors)
            for actor in actors:
                assert isinstance(actor.error, Killed | StopRun | None), actor.error
        assert settled(model) == right


@pytest.mark.parametrize("seed", range(100))
def test_runs_of_other_settings_retire_what_was_and_lose_no_row(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = expected()
    with modelled(monkeypatch, seed) as model:
        add_sources(Workspace.create(ROOT), LABELS)
        for _ in range(3):
            chances = Chances(kill=0.006, again=0.1, late=0.25, still=0.05)
            works = [
                lambda: run(redo=True),
                lambda: run(offset=1, redo=True),
                lambda: run(redo=True),
            ]
            actors = [Actor(model, work, chances) for work in works]
            model.run(actors)
            for actor in actors:
                assert isinstance(actor.error, Killed | AvatarBuildError | None), actor.error
        model.tick(EXPIRES_S * 10)
        assert alone(model, redo=True) == right


@pytest.mark.parametrize("what", ["plan", "commits", "both"])
def test_what_arrives_after_its_settings_were_retired_counts_for_nothing(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = expected()
    with modelled(monkeypatch, 0) as model:
        add_sources(Workspace.create(ROOT), LABELS)
        alone(model, offset=1)
        folder = "ws/commits/faulty"
        plan = {f"{folder}/plan/00001.json": model.objects[f"{folder}/plan/00000.json"]}
        units = {name: found for name, found in model.objects.items() if f"{folder}/units" in name}
        files = {name: found for name, found in model.objects.items() if "parquet" in name}
        alone(model, redo=True)
        late = {**(plan if what != "commits" else {}), **(units if what != "plan" else {})}
        for name, found in late.items():
            if "/units/" in name:
                # As if the settings had been those of today: the plan alone tells it apart.
                commit = Commit.from_json(found[0], name.removeprefix("ws/"))
                now = Workspace(ROOT).ledger("faulty").generation()
                assert now is not None
                found = replace(commit, stage_key=now.key).to_json(), found[1]
            model.objects[name] = found
        model.objects |= files
        assert alone(model) == right
        assert alone(model) == right
