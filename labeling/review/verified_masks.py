"""Keep ``masks`` in step with what people said of them.

A mask that a person verified stands in the table in place of the segmenter's. The segmenter's file
itself stays as it is: a copy with the verified rows takes its place in the table, and goes when the
reviews say otherwise or the segmenter has made another. What people painted where no segmenter
found anything has a file of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.records import rle
from pipeline.records.schema import Mask, MaskSource, Review, ReviewedInstance, digest_of
from pipeline.run.derive import Derived, HeldStep, Inputs, commit_derived, derive
from pipeline.run.stage import Ok, StageSpec
from pipeline.workspace.commit import Commit, TableFile
from pipeline.workspace.ledger import Ledger
from pipeline.workspace.storage import Storage
from pipeline.workspace.table import read_arrow, read_records, to_records
from pipeline.workspace.workspace import Workspace

SPEC = StageSpec(name="settle-masks", version=1, reads="masks", writes=("masks",))
_ASIDE = f"commits/{SPEC.name}/aside"
"""The folder of files that others stand in for."""
_SPOKEN = pa.schema(
    [
        ("instance_id", pa.string()),
        ("review_id", pa.string()),
        ("file", pa.int32()),
        ("row", pa.int32()),
    ]
)
_FILES_HELD = 2
"""The files of reviews in memory: the masks of a segmenter's file were mostly judged together."""
_BY_HAND = MaskSource(source="annotator", model_digest="", predicted_iou=None, stability=None)


def bring_masks_up_to_date(workspace: Workspace) -> int:
    """Put verified masks in the place of the segmenter's, where reviews changed.

    Returns:
        The number of files made anew.
    """
    if not (workspace.files("reviews") or workspace.ledger(SPEC.name).commits()):
        return 0

    def inputs() -> Inputs:
        files = {table: workspace.files(table) for table in ("reviews", "instances")}
        return {**files, "masks": _sources(workspace)}

    return derive(workspace, SPEC, inputs, partial(_make, workspace))


def _make(workspace: Workspace, held: HeldStep, inputs: Inputs) -> int:
    before = held.commits()
    verified = _Verified(workspace, inputs["reviews"], inputs["instances"])
    if not (len(verified.names) or before):
        return 0
    sources, storage = inputs["masks"], workspace.storage
    wanted = _wanted(storage, held.stage_key, sources, verified)
    stale = [commit for key, commit in before.items() if key not in wanted]
    _bring_back(storage, stale, sources)
    made = commit_derived(held, wanted)
    _put_aside(storage, held.ledger)
    return made


class _Verified:
    """The masks people vouch for: which they are, and where it is said what they look like.

    Of each frame the newest review of masks that counts decides. It holds about 80 bytes a mask,
    and reads the masks themselves when they are asked for.

    Args:
        workspace: where.
        reviews: the files of the table.
        instances: the same; masks of others wait for their instances.
    """

    def __init__(
        self,
        workspace: Workspace,
        reviews: Sequence[TableFile],
        instances: Sequence[TableFile],
    ) -> None:
        from labeling.review.standing import Standing

        self._reviews = reviews
        self._table = lru_cache(maxsize=_FILES_HELD)(partial(_read, workspace))
        there = workspace.arrow("instances", instances, ["instance_id", "frame_id"])
        there = there.combine_chunks()
        decides = Standing(workspace, reviews, (), "masks").decides
        found: list[pa.Table] = []
        first = 0
        for number, file in enumerate(reviews):
            rows = np.flatnonzero(decides[first : first + file.rows])
            first += file.rows
            if len(rows):
                found.append(_spoken_of(self._table(file).take(rows), there, number, rows))
        told = pa.concat_tables([_SPOKEN.empty_table(), *found])
        self.names = told.column("instance_id").combine_chunks()
        """The instances with such a mask."""
        self._said_in = told.column("review_id").combine_chunks()
        self._files = told.column("file").to_numpy()
        self._rows = told.column("row").to_numpy()

    def key(self, start: Sequence[str], places: NDArray[np.intp]) -> str:
        """Digest what decides the masks at these places of ``names``."""
        names, said_in = (one.take(places).to_pylist() for one in (self.names, self._said_in))
        digests = [self._reviews[number].sha256 for number in self._files[places]]
        return digest_of([*start, names, said_in, digests])[:12]

    def masks(self, places: NDArray[np.intp]) -> dict[str, Mask]:
        """Return the masks at these places of ``names``, by instance."""
        wanted = set(self.names.take(places).to_pylist())
        found: dict[str, Mask] = {}
        for number in np.unique(self._files[places]):
            file = self._reviews[number]
            rows = np.unique(self._rows[places[self._files[places] == number]])
            for review in to_records(Review, self._table(file).take(rows).to_pylist(), file.file):
                masks = (
                    _mask(one, review) for one in review.instances if one.instance_id in wanted
                )
                found |= {mask.instance_id: mask for mask in masks}
        return found


def _read(workspace: Workspace, file: TableFile) -> pa.Table:
    return workspace.arrow("reviews", [file])


def _spoken_of(reviews: pa.Table, there: pa.Table, number: int, rows: NDArray[np.intp]) -> pa.Table:
    """Return the instances that reviews of the file ``number`` speak of, of those there are."""
    import pyarrow.compute as pc

    reviews = reviews.combine_chunks()
    lists = reviews.column("instances").combine_chunks()
    of_review = pc.list_parent_indices(lists)
    names = lists.flatten().field("instance_id")
    place = pc.index_in(names, value_set=there.column("instance_id"))
    same = pc.equal(
        there.column("frame_id").take(place), reviews.column("frame_id").take(of_review)
    )
    columns = {
        "instance_id": names,
        "review_id": reviews.column("review_id").combine_chunks().take(of_review),
        "file": np.full(len(names), number, np.int32),
        "row": rows[of_review.to_numpy()].astype(np.int32),
    }
    table = pa.table(columns, _SPOKEN)
    return table.filter(same)  # without those of which it is null


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
    storage: Storage, stage_key: str, sources: Sequence[TableFile], verified: _Verified
) -> dict[str, Callable[[], Derived]]:
    """Return the files that should stand in the table beside the segmenter's, by key."""
    import pyarrow.compute as pc

    wanted: dict[str, Callable[[], Derived]] = {}
    columns = [_names_in(storage, source) for source in sources]
    names = pa.chunked_array([pa.array([], pa.string()), *columns])
    place = pc.fill_null(pc.index_in(names, value_set=verified.names), -1).to_numpy()
    first = 0
    for source, column in zip(sources, columns, strict=True):
        own = place[first : first + len(column)]
        own = own[own >= 0]
        first += len(column)
        if len(own):
            key = verified.key([stage_key, source.file, source.sha256], own)
            wanted[key] = partial(_copy, storage, source, key, verified, own)
    left = pc.invert(pc.is_in(verified.names, value_set=names)).to_numpy(zero_copy_only=False)
    if left.any():  # painted where no segmenter found anything
        own = np.flatnonzero(left)
        key = verified.key([stage_key], own)
        wanted[key] = partial(_painted, key, verified, own)
    return wanted


def _names_in(storage: Storage, source: TableFile) -> pa.Array:
    table = read_arrow(Mask, storage, _place(storage, source), source.sha256, ["instance_id"])
    return table.column(0).combine_chunks()


def _copy(
    storage: Storage, source: TableFile, key: str, verified: _Verified, own: NDArray[np.intp]
) -> Derived:
    """Return a segmenter's file with the masks people vouch for in place of its own."""
    rows = read_records(Mask, storage, _place(storage, source), source.sha256)
    masks = verified.masks(own)
    outcomes = [Ok(row.id, [masks.get(row.id, row)]) for row in rows]
    return Derived(key, source.file, source.sha256, outcomes, "masks")


def _painted(key: str, verified: _Verified, own: NDArray[np.intp]) -> Derived:
    """Return the masks that take no other's place."""
    masks = sorted(verified.masks(own).items())
    return Derived(key, "", "", [Ok(name, [mask]) for name, mask in masks], "reviews")


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


def _aside(file: str) -> str:
    return f"{_ASIDE}/{file.rpartition('/')[2]}"
