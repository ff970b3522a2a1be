"""Keep ``instances`` in step with ``reviews``.

Each committed review file has one commit of instances. A newer review of a frame supersedes the
older one wherever that stands, so a file whose deciding reviews changed is answered anew and its
former instances are retired; the other files, and the masks made from them, stay as they are.
A review of a frame that another sampling left out waits: its instances come back with the frame.
"""

from __future__ import annotations

from labeling.review.instances import deciding_reviews, derive_instances
from pipeline.errors import AvatarBuildError
from pipeline.records.schema import Review, digest_of
from pipeline.run.stage import Drop, Ok, Outcome, StageSpec
from pipeline.run.unit import Clock, commit_unit, new_job
from pipeline.workspace.ledger import Generation, Unit
from pipeline.workspace.locks import run_lock
from pipeline.workspace.table import read_records
from pipeline.workspace.workspace import Workspace

SPEC = StageSpec(name="settle", version=1, reads="reviews", writes=("instances",))


def settle(workspace: Workspace) -> int:
    """Derive the instances of every review file whose deciding reviews changed.

    Returns:
        The number of files answered anew.
    """
    ledger = workspace.ledger(SPEC.name)
    generation = Generation(SPEC.name, SPEC.version, {}, {}, {})
    files = {file.file: file for file in workspace.files("reviews")}
    reviews = {
        name: read_records(Review, workspace.storage, name, file.sha256)
        for name, file in files.items()
    }
    every = [row for rows in reviews.values() for row in rows]
    deciding = {row.id for row in deciding_reviews(every).values()}
    frames = set(workspace.arrow("frames").column("frame_id").to_pylist())
    gone = {row.id for row in every if row.frame_id not in frames}
    job = new_job(workspace.storage, SPEC.name, generation.key)
    answered = 0
    with run_lock(workspace.storage, ledger.folder) as lock:
        if not lock.alone:
            raise AvatarBuildError("settle: another run is deriving instances; try again after it.")
        ledger.recover()
        ledger.begin(generation)
        names = {}
        for name, rows in reviews.items():
            chosen = sorted(row.id for row in rows if row.id in deciding - gone)
            names[name] = digest_of([generation.key, files[name].sha256, chosen])[:12]
        current = set(names.values())
        stale = [c for c in ledger.commits() if c.unit.rpartition("-")[2] not in current]
        ledger.retire(stale, generation.key)
        kept = {commit.unit.rpartition("-")[2] for commit in ledger.commits()}
        ordinal = max((commit.ordinal for commit in ledger.commits()), default=-1)
        for name, key in sorted(names.items()):
            if key in kept:
                continue
            ordinal += 1
            rows = reviews[name]
            unit = Unit(ordinal, f"{ordinal:06d}-{key}", name, files[name].sha256, 0, len(rows))
            outcomes = [_outcome(row, row.id in deciding, row.id in gone) for row in rows]
            commit_unit(job, SPEC, unit, [row.id for row in rows], outcomes, Clock())
            answered += 1
        ledger.recover()
    return answered


def _outcome(review: Review, deciding: bool, gone: bool) -> Outcome:
    if gone:
        return Drop(review.id, "frame_gone", review.frame_id)
    if review.kind == "masks":
        return Ok(review.id)  # speaks of instances that exist, and makes none
    if not deciding:
        return Drop(review.id, "superseded")
    if review.decision in ("rejected", "back_to_boxes"):
        return Drop(review.id, review.decision, ", ".join(review.reject_reasons))
    return Ok(review.id, derive_instances([review]))
