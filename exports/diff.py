"""The comparison of two releases, row by row.

Rows are matched by the ids made from content (YouTube id, ``frame_id``, ``instance_id``). COCO's
numbers follow the order of the rows and say nothing about them, so they are not compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.release.document import Document, Row

_KINDS = {
    "video": ("videos", "video_id"),
    "frame": ("images", "frame_id"),
    "instance": ("annotations", "instance_id"),
    "category": ("categories", "name"),
}
"""Kind of row: the document's list, and what names a row in it."""
_NUMBERS = {"id", "image_id", "category_id", "license_id"}
"""Columns that number rows."""


@dataclass(frozen=True)
class Difference:
    """A row that one release has and the other has not, or has otherwise."""

    kind: str
    id: str
    change: str
    """``added``, ``removed`` or ``changed``."""
    columns: tuple[str, ...] = ()
    """The columns that changed."""


def compare(old: Document, new: Document) -> list[Difference]:
    """Return every row that is not the same in both, by kind and id."""
    found = []
    for kind, (name, key) in _KINDS.items():
        before, after = _by_key(getattr(old, name), key), _by_key(getattr(new, name), key)
        for row_id in sorted(before.keys() | after.keys()):
            if row_id not in before:
                found.append(Difference(kind, row_id, "added"))
            elif row_id not in after:
                found.append(Difference(kind, row_id, "removed"))
            else:
                ours, theirs = before[row_id], after[row_id]
                columns = tuple(name for name in ours if ours[name] != theirs[name])
                if columns:
                    found.append(Difference(kind, row_id, "changed", columns))
    return found


def table(old: Document, new: Document, found: Sequence[Difference]) -> list[dict[str, Any]]:
    """Count the rows of each kind in both releases, and those added, removed and changed."""
    rows = []
    for kind, (name, _) in _KINDS.items():
        changes = [item.change for item in found if item.kind == kind]
        rows.append(
            {
                "kind": kind,
                "before": len(getattr(old, name)),
                "after": len(getattr(new, name)),
                **{change: changes.count(change) for change in ("added", "removed", "changed")},
            }
        )
    return rows


def as_json(old: Document, new: Document) -> dict[str, Any]:
    """Return the whole comparison for machines."""
    found = compare(old, new)
    return {
        "versions": [old.info.version, new.info.version],
        "counts": table(old, new, found),
        "takedowns": sorted(set(new.info.takedowns) - set(old.info.takedowns)),
        "rows": [asdict(item) for item in found],
    }


def as_lines(old: Document, new: Document, most: int) -> list[str]:
    """Return the comparison for people: the table, then at most ``most`` rows."""
    found = compare(old, new)
    lines = [f"{old.info.version} -> {new.info.version}"]
    lines.append(f"{'':10}{'before':>9}{'after':>9}{'added':>9}{'removed':>9}{'changed':>9}")
    for row in table(old, new, found):
        kind, *numbers = row.values()
        lines.append(f"{kind:10}" + "".join(f"{number:>9,}" for number in numbers))
    taken = sorted(set(new.info.takedowns) - set(old.info.takedowns))
    if taken:
        lines.append(f"taken down: {', '.join(taken)}")
    for item in found[:most]:
        columns = f" ({', '.join(item.columns)})" if item.columns else ""
        lines.append(f"{item.change:8} {item.kind:9} {ascii(item.id)[1:-1]}{columns}")
    if len(found) > most:
        lines.append(f"and {len(found) - most:,} more (--json names all).")
    return lines


def _by_key(rows: Sequence[Row], key: str) -> dict[str, dict[str, Any]]:
    # A video's licence is its text, an image's the number of one.
    left_out = _NUMBERS | ({"license"} if key == "frame_id" else set())
    return {getattr(row, key): row.model_dump(exclude=left_out) for row in rows}
