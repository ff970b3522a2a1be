"""Rows that are committed as if a stage had made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.records.schema import Record, digest_of
from pipeline.workspace.commit import Commit, Generation, Input
from pipeline.workspace.workspace import Workspace


def put(
    workspace: Workspace,
    stage: str,
    tables: Mapping[str, tuple[type[Record], Sequence[Record]]],
) -> None:
    """Commit rows of some tables in a stage's name."""
    ledger = workspace.ledger(stage)
    ledger.begin(Generation(stage, 1, {}, {}, {}))
    commit = Commit(
        unit="000000-put",
        ordinal=0,
        stage=stage,
        stage_key="",
        unit_key=digest_of(stage),
        input=Input((), ""),
        files=(),
        counts={"input": 1, "ok": 1, "dropped": 0, "failed": 0},
        code_revision="",
        versions={},
        started="",
        wall_s=0.0,
        cpu_s=0.0,
    )
    ledger.commit(commit, {name: (kind, list(rows)) for name, (kind, rows) in tables.items()}, "t")
