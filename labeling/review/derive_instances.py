"""Keep ``instances`` in step with ``reviews``.

Each committed review file has one commit of instances. A newer review of a frame supersedes the
older one wherever that stands, so a file whose deciding reviews changed is answered anew and its
former instances are retired; the other files, and the masks made from them, stay as they are.
A review of a frame that another sampling left out waits: its instances come back with the frame.
"""

from __future__ import annotations

from labeling.review.instances import deciding_reviews, derive_instances
from pipeline.records.schema import Review, digest_of
from pipeline.run.derive import Derived, commit_derived, hold
from pipeline.run.stage import Drop, Ok, Outcome, StageSpec
from pipeline.workspace.table import read_records
from pipeline.workspace.workspace import Workspace

SPEC = StageSpec(name="settle", version=1, reads="reviews", writes=("instances",))


def bring_instances_up_to_date(workspace: Workspace) -> int:
    """Derive the instances of every review file whose deciding reviews changed.

    Returns:
        The number of files answered anew.
    """
    files = {file.file: file for file in workspace.files("reviews")}
    if not files and not workspace.ledger(SPEC.name).commits():
        return 0
    reviews = {
        name: read_records(Review, workspace.storage, name, file.sha256)
        for name, file in files.items()
    }
    every = [row for rows in reviews.values() for row in rows]
    deciding = {row.id for row in deciding_reviews(every).values()}
    frames = set(workspace.arrow("frames").column("frame_id").to_pylist())
    gone = {row.id for row in every if row.frame_id not in frames}
    with hold(workspace, SPEC, wait=True) as books:
        wanted = {}
        for name, rows in reviews.items():
            chosen = sorted(row.id for row in rows if row.id in deciding - gone)
            key = digest_of([books.stage_key, files[name].sha256, chosen])[:12]
            outcomes = [_outcome(row, row.id in deciding, row.id in gone) for row in rows]
            wanted[key] = Derived(key, name, files[name].sha256, outcomes)
        return commit_derived(books, wanted)


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
