"""Derive ``instances`` from ``reviews``, and keep the table in step.

A frame's instances are those of its deciding review (``pipeline.records.reviews``) where that says
``labelled``. Each committed review file has one commit of instances. A newer review of a frame
supersedes the older one wherever that stands, so a file whose deciding reviews changed is answered
anew and its former instances are retired; the other files, and the masks made from them, stay as
they are. A review of a frame that another sampling left out waits: its instances come back with the
frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from pipeline.records.reviews import Kind, by_frame, deciding
from pipeline.records.schema import Instance, Review, content_id, digest_of
from pipeline.run.derive import Derived, HeldStep, Inputs, commit_derived, derive
from pipeline.run.stage import Drop, Ok, Outcome, StageSpec
from pipeline.workspace.commit import TableFile
from pipeline.workspace.table import read_records
from pipeline.workspace.workspace import Workspace

if TYPE_CHECKING:
    from labeling.review.standing import Standing

SPEC = StageSpec(name="settle", version=1, reads="reviews", writes=("instances",))


def bring_instances_up_to_date(workspace: Workspace) -> int:
    """Derive the instances of every review file whose deciding reviews changed.

    Returns:
        The number of files answered anew.
    """
    if not (workspace.files("reviews") or workspace.ledger(SPEC.name).commits()):
        return 0

    def inputs() -> Inputs:
        return {table: workspace.files(table) for table in ("reviews", "frames")}

    return derive(workspace, SPEC, inputs, partial(_make, workspace))


def _make(workspace: Workspace, held: HeldStep, inputs: Inputs) -> int:
    from labeling.review.standing import Standing  # it loads Arrow's functions

    standing = Standing(workspace, inputs["reviews"], inputs["frames"])
    wanted = {}
    first = 0
    for file in inputs["reviews"]:
        stop = first + file.rows
        chosen = sorted(standing.names(first, stop))
        key = digest_of([held.stage_key, file.sha256, chosen])[:12]
        wanted[key] = partial(_derived, workspace, file, key, standing, first)
        first = stop
    return commit_derived(held, wanted)


def _derived(
    workspace: Workspace, file: TableFile, key: str, standing: Standing, first: int
) -> Derived:
    """Answer for each row of a file; its first is the row ``first`` of those that were judged."""
    rows = read_records(Review, workspace.storage, file.file, file.sha256)
    decides, gone = standing.decides[first:], standing.gone[first:]
    outcomes = [
        _outcome(row, bool(decides[place]), bool(gone[place])) for place, row in enumerate(rows)
    ]
    return Derived(key, file.file, file.sha256, outcomes)


def _outcome(review: Review, decides: bool, gone: bool) -> Outcome:
    if gone:
        return Drop(review.id, "frame_gone", review.frame_id)
    if review.kind == "masks":
        return Ok(review.id)  # speaks of instances that exist, and makes none
    if not decides:
        return Drop(review.id, "superseded")
    if review.decision in ("rejected", "back_to_boxes"):
        return Drop(review.id, review.decision, ", ".join(review.reject_reasons))
    return Ok(review.id, derive_instances([review]))


def deciding_reviews(reviews: Iterable[Review], kind: Kind = "boxes") -> dict[str, Review]:
    """Return the review of a kind that decides for each frame, by ``frame_id``, sorted."""
    found = {name: deciding(rows, kind) for name, rows in sorted(by_frame(reviews).items())}
    return {name: review for name, review in found.items() if review is not None}


def derive_instances(reviews: Iterable[Review]) -> list[Instance]:
    """Derive the instances of reviews that decide, in their order.

    An id is made from frame, box, category and scenario, so the same decision made twice gives the
    same instance, and a box listed twice in one review is one instance.
    """
    instances: dict[str, Instance] = {}
    for review in reviews:
        if review.decision != "labelled":
            continue
        for found, track in zip(review.instances, _tracks(review), strict=True):
            name = content_id("i", review.frame_id, found.bbox, found.category, found.scenario)
            instance = Instance(
                instance_id=name,
                frame_id=review.frame_id,
                bbox=found.bbox,
                audio_visual_category=found.category,
                scenario=found.scenario,
                review_ids=[review.review_id],
                proposal_id=found.proposal_id,
                verified=review.verified,
                track_id=track,
            )
            instances.setdefault(name, instance)
    return list(instances.values())


def _tracks(review: Review) -> list[int | None]:
    """Return the track of each instance; of several that came from one box, the nearest has it."""
    nearest: dict[int | None, int] = {}
    by_nearness = sorted(enumerate(review.instances), key=lambda one: -(one[1].proposal_iou or 0))
    for place, found in by_nearness:
        nearest.setdefault(found.track_id, place)
    return [
        found.track_id if nearest[found.track_id] == place else None
        for place, found in enumerate(review.instances)
    ]


def every_instance(reviews: Iterable[Review]) -> dict[str, Instance]:
    """Return what any review of boxes ever said was an instance, by id; few are so now."""
    boxes = [review for review in reviews if review.kind == "boxes"]
    return {row.instance_id: row for review in boxes for row in derive_instances([review])}
