"""Keep ``masks`` in step with what people said of them.

A mask that a person verified stands in the table in place of the segmenter's. The segmenter's file
itself stays as it is: a copy with the verified rows takes its place in the table, and goes when the
reviews say otherwise or the segmenter has made another. What people painted where no segmenter
found anything has a file of its own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.records import rle
from pipeline.records.reviews import by_frame, standing
from pipeline.records.schema import Mask, Review, ReviewedInstance, digest_of
from pipeline.run.stage import Ok, StageSpec
from pipeline.run.unit import Clock, commit_unit, new_job
from pipeline.workspace.ledger import Commit, Generation, Ledger, TableFile, Unit
from pipeline.workspace.locks import run_lock
from pipeline.workspace.storage import Storage
from pipeline.workspace.table import read_records
from pipeline.workspace.workspace import Workspace

SPEC = StageSpec(name="settle-masks", version=1, reads="masks", writes=("masks",))
_ASIDE = f"commits/{SPEC.name}/aside"
"""Where the files lie that others stand in for."""


def settle_masks(workspace: Workspace) -> int:
    """Put verified masks in the place of the segmenter's, where reviews changed.

    Returns:
        The number of files made anew.
    """
    ledger = workspace.ledger(SPEC.name)
    with run_lock(workspace.storage, ledger.folder) as lock:
        while not (lock.alone or lock.try_alone()):
            time.sleep(0.1)  # tasks of a job array end together, and this takes seconds
        ledger.recover()
        verified = verified_masks(workspace.rows(Review), _current_instances(workspace))
        if not verified and not ledger.commits():
            return 0
        return _settle(workspace, ledger, verified)


def _settle(workspace: Workspace, ledger: Ledger, verified: dict[str, Mask]) -> int:
    generation = Generation(SPEC.name, SPEC.version, {}, {}, {})
    ledger.begin(generation)
    sources = _sources(workspace)
    wanted = _wanted(workspace.storage, sources, verified)
    stale = [commit for commit in ledger.commits() if _key(commit) not in wanted]
    _bring_back(workspace.storage, stale, sources)
    ledger.retire(stale, generation.key)
    kept = {_key(commit) for commit in ledger.commits()}
    ordinal = max((commit.ordinal for commit in ledger.commits()), default=-1)
    job = new_job(workspace.storage, SPEC.name, generation.key)
    new = [key for key in sorted(wanted) if key not in kept]
    for number, key in enumerate(new, start=ordinal + 1):
        copy = wanted[key]
        unit = Unit(number, f"{number:06d}-{key}", copy.file, copy.sha256, 0, len(copy.rows))
        answers = [Ok(row.id, [row]) for row in copy.rows]
        spec = replace(SPEC, reads=copy.table)
        commit_unit(job, spec, unit, [row.id for row in copy.rows], answers, Clock())
    _put_aside(workspace.storage, ledger)
    return len(new)


def verified_masks(reviews: Sequence[Review], instances: dict[str, str]) -> dict[str, Mask]:
    """The masks people vouch for, by instance.

    Of each frame the newest review of masks that counts decides.

    Args:
        reviews: all of them.
        instances: those that exist, with their frames.
    """
    found: dict[str, Mask] = {}
    for frame_id, rows in by_frame(reviews).items():
        counting = standing(rows, "masks")
        if not counting:
            continue
        review = max(counting, key=lambda row: (row.updated_at, row.review_id))
        for spoken in review.instances:
            if instances.get(spoken.instance_id or "") == frame_id:
                mask = _mask(spoken, review)
                found[mask.instance_id] = mask
    return found


def _mask(spoken: ReviewedInstance, review: Review) -> Mask:
    assert spoken.rle is not None
    assert spoken.instance_id is not None
    drawn = spoken.drawn_by
    return Mask(
        instance_id=spoken.instance_id,
        frame_id=review.frame_id,
        rle=spoken.rle,
        area=rle.area(spoken.rle),
        bbox=rle.bbox(spoken.rle),
        source="annotator" if drawn is None else drawn.source,
        model_digest="" if drawn is None else drawn.model_digest,
        predicted_iou=None if drawn is None else drawn.predicted_iou,
        stability=None if drawn is None else drawn.stability,
        verified=review.verified,
    )


@dataclass(frozen=True)
class _Copy:
    """A file to be made."""

    table: str
    """Of the file it is made from."""
    file: str
    sha256: str
    rows: list[Mask]


def _wanted(
    storage: Storage, sources: Sequence[TableFile], verified: dict[str, Mask]
) -> dict[str, _Copy]:
    """The files that should stand in the table beside the segmenter's, by a key of content."""
    left = dict(verified)
    copies = []
    for source in sources:
        place = source.file if storage.exists(source.file) else _aside(source.file)
        rows = read_records(Mask, storage, place, source.sha256)
        if any(row.id in verified for row in rows):
            merged = [left.pop(row.id, row) for row in rows]
            copies.append(_Copy("masks", source.file, source.sha256, merged))
    if left:
        copies.append(_Copy("reviews", "", "", [left[name] for name in sorted(left)]))
    return {
        digest_of([copy.file, copy.sha256, [row.model_dump() for row in copy.rows]])[:12]: copy
        for copy in copies
    }


def _sources(workspace: Workspace) -> list[TableFile]:
    """What the segmenters have committed."""
    return [
        file
        for ledger in workspace.ledgers()
        if ledger.stage != SPEC.name
        for file in ledger.files("masks")
    ]


def _bring_back(storage: Storage, stale: Sequence[Commit], sources: Sequence[TableFile]) -> None:
    """Give the table back what nothing will stand in for."""
    for source in sources:
        stood_in = any(commit.input["file"] == source.file for commit in stale)
        if stood_in and not storage.exists(source.file):
            storage.move(_aside(source.file), source.file)


def _put_aside(storage: Storage, ledger: Ledger) -> None:
    """Take the files out of the table that others stand in for; sweep what nobody needs."""
    needed = [str(commit.input["file"]) for commit in ledger.commits() if commit.input["file"]]
    for file in needed:
        if storage.exists(file):
            storage.move(file, _aside(file))
    for name in storage.names(_ASIDE):
        if f"{_ASIDE}/{name}" not in map(_aside, needed):
            storage.remove(f"{_ASIDE}/{name}")


def _current_instances(workspace: Workspace) -> dict[str, str]:
    table = workspace.arrow("instances")
    names, frames = table.column("instance_id"), table.column("frame_id")
    return dict(zip(names.to_pylist(), frames.to_pylist(), strict=True))


def _aside(file: str) -> str:
    return f"{_ASIDE}/{file.rpartition('/')[2]}"


def _key(commit: Commit) -> str:
    return commit.unit.rpartition("-")[2]
