"""Keep ``masks`` in step with what people said of them.

A mask that a person verified stands in the table in place of the segmenter's. The segmenter's file
itself stays as it is: a copy with the verified rows takes its place in the table, and goes when the
reviews say otherwise or the segmenter has made another. What people painted where no segmenter
found anything has a file of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pyarrow.compute as pc

from labeling.review.instances import deciding_reviews
from pipeline.records import rle
from pipeline.records.schema import Mask, MaskSource, Review, ReviewedInstance, digest_of
from pipeline.run.derive import Derived, commit_derived, hold
from pipeline.run.stage import Ok, StageSpec
from pipeline.workspace.ledger import Commit, Ledger, TableFile
from pipeline.workspace.storage import Storage
from pipeline.workspace.table import read_arrow, read_records, to_records
from pipeline.workspace.workspace import Workspace

SPEC = StageSpec(name="settle-masks", version=1, reads="masks", writes=("masks",))
_ASIDE = f"commits/{SPEC.name}/aside"
"""The folder of files that others stand in for."""
_BY_HAND = MaskSource(source="annotator", model_digest="", predicted_iou=None, stability=None)


def bring_masks_up_to_date(workspace: Workspace) -> int:
    """Put verified masks in the place of the segmenter's, where reviews changed.

    Returns:
        The number of files made anew.
    """
    if not (workspace.files("reviews") or workspace.ledger(SPEC.name).commits()):
        return 0
    with hold(workspace, SPEC, wait=True) as held:
        verified = verified_masks(_about_masks(workspace), _current_instances(workspace))
        before = held.commits()
        if not verified and not before:
            return 0
        sources = _sources(workspace)
        wanted = _wanted(workspace.storage, sources, verified)
        stale = [commit for key, commit in before.items() if key not in wanted]
        _bring_back(workspace.storage, stale, sources)
        made = commit_derived(held, wanted)
        _put_aside(workspace.storage, held.ledger)
        return made


def _about_masks(workspace: Workspace) -> list[Review]:
    """Return the reviews of the frames whose masks somebody judged; of the others none is read."""
    files = workspace.files("reviews")
    seen = workspace.arrow("reviews", files, ["frame_id", "kind"])
    of_masks = pc.equal(seen.column("kind"), "masks")
    frames = seen.column("frame_id")
    places = pc.is_in(frames, value_set=frames.filter(of_masks).combine_chunks()).to_numpy()
    rows: list[Review] = []
    start = 0
    for file in files:
        chosen = np.flatnonzero(places[start : start + file.rows])
        start += file.rows
        if len(chosen):
            table = workspace.arrow("reviews", [file]).take(chosen)
            rows += to_records(Review, table.to_pylist(), file.file)
    return rows


def verified_masks(reviews: Sequence[Review], instances: dict[str, str]) -> dict[str, Mask]:
    """Return the masks people vouch for, by instance.

    Of each frame the newest review of masks that counts decides.

    Args:
        reviews: all of them.
        instances: those that exist, with their frames.
    """
    found: dict[str, Mask] = {}
    for frame_id, review in deciding_reviews(reviews, "masks").items():
        for spoken in review.instances:
            if instances.get(spoken.instance_id or "") == frame_id:
                mask = _mask(spoken, review)
                found[mask.instance_id] = mask
    return found


def _mask(spoken: ReviewedInstance, review: Review) -> Mask:
    assert spoken.rle is not None
    assert spoken.instance_id is not None
    drawn = spoken.drawn_by or _BY_HAND
    return Mask(
        instance_id=spoken.instance_id,
        frame_id=review.frame_id,
        rle=spoken.rle,
        area=rle.area(spoken.rle),
        bbox=rle.bbox(spoken.rle),
        verified=review.verified,
        **drawn.model_dump(),
    )


def _wanted(
    storage: Storage, sources: Sequence[TableFile], verified: dict[str, Mask]
) -> dict[str, Callable[[], Derived]]:
    """Return the files that should stand in the table beside the segmenter's, by key."""
    left = set(verified)
    wanted: dict[str, Callable[[], Derived]] = {}
    for source in sources:
        own = verified.keys() & _names_in(storage, source)
        if own:
            left -= own
            copy = partial(_copy, storage, source, verified)
            wanted[copy().key] = copy
    if left:  # painted where no segmenter found anything
        painted = _derived("", "", [verified[name] for name in sorted(left)], "reviews")
        wanted[painted.key] = lambda: painted
    return wanted


def _names_in(storage: Storage, source: TableFile) -> set[str]:
    column = read_arrow(Mask, storage, _place(storage, source), source.sha256, ["instance_id"])
    return set(column.column(0).to_pylist())


def _copy(storage: Storage, source: TableFile, verified: dict[str, Mask]) -> Derived:
    """Return a segmenter's file with the masks people vouch for in place of its own."""
    rows = read_records(Mask, storage, _place(storage, source), source.sha256)
    merged = [verified.get(row.id, row) for row in rows]
    return _derived(source.file, source.sha256, merged, "masks")


def _derived(file: str, sha256: str, rows: Sequence[Mask], table: str) -> Derived:
    key = digest_of([file, sha256, [row.model_dump() for row in rows]])[:12]
    return Derived(key, file, sha256, [Ok(row.id, [row]) for row in rows], table)


def _place(storage: Storage, source: TableFile) -> str:
    return source.file if storage.exists(source.file) else _aside(source.file)


def _sources(workspace: Workspace) -> list[TableFile]:
    """Return the files the segmenters have committed."""
    return [
        file
        for ledger in workspace.ledgers()
        if ledger.stage != SPEC.name
        for file in ledger.files("masks")
    ]


def _bring_back(storage: Storage, stale: Sequence[Commit], sources: Sequence[TableFile]) -> None:
    """Give the table back what nothing will stand in for."""
    for source in sources:
        stood_in = any(part.file == source.file for commit in stale for part in commit.input.parts)
        if stood_in and not storage.exists(source.file):
            storage.move(_aside(source.file), source.file)


def _put_aside(storage: Storage, ledger: Ledger) -> None:
    """Take the files out of the table that others stand in for; sweep what nobody needs."""
    parts = (part for commit in ledger.commits() for part in commit.input.parts)
    needed = [part.file for part in parts if part.file]
    for file in needed:
        if storage.exists(file):
            storage.move(file, _aside(file))
    for name in storage.names(_ASIDE):
        if f"{_ASIDE}/{name}" not in map(_aside, needed):
            storage.remove(f"{_ASIDE}/{name}")


def _current_instances(workspace: Workspace) -> dict[str, str]:
    table = workspace.arrow("instances", columns=["instance_id", "frame_id"])
    names, frames = table.column("instance_id"), table.column("frame_id")
    return dict(zip(names.to_pylist(), frames.to_pylist(), strict=True))


def _aside(file: str) -> str:
    return f"{_ASIDE}/{file.rpartition('/')[2]}"
