"""The target categories and how other vocabularies name them.

The list is a CSV the user can replace; see ``data/README.md`` for its columns. One foreign class
may belong to several categories, and a category may have no class in a vocabulary.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

from pipeline.errors import UsageError

_COLUMNS = (
    "category",
    "group",
    "openimages_classes",
    "audioset_classes",
    "vggsound_classes",
    "notes",
    "openimages_generic",
)

_VOCABULARIES = {"vggsound_classes": ("vggsound_classes.csv", "label")}
"""Column to the file of names allowed in it and that file's column. The other columns are read
but not checked: their vocabularies come with the backends that speak them."""


@dataclass(frozen=True)
class Category:
    """A target category, and its exact names in other vocabularies."""

    name: str
    group: str
    openimages: tuple[str, ...]
    audioset: tuple[str, ...]
    vggsound: tuple[str, ...]
    openimages_generic: tuple[str, ...]
    """Broader classes a detector may answer where the exact one is missing."""


@dataclass(frozen=True)
class Taxonomy:
    """All target categories, in the file's order."""

    categories: tuple[Category, ...]
    digest: str
    """SHA-256 of the CSV file."""

    def of_vggsound(self, label: str) -> list[str]:
        """The categories a VGGSound label belongs to; empty when it is no target."""
        return self._of_vggsound.get(label, [])

    @cached_property
    def _of_vggsound(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for category in self.categories:
            for label in category.vggsound:
                found.setdefault(label, []).append(category.name)
        return found


def load_taxonomy(path: str = "") -> Taxonomy:
    """Read and check the target categories.

    Args:
        path: a CSV of the user's; empty for the list that ships with the package.

    Raises:
        UsageError: naming the file, the row (lines, from 1), the column and the value.
    """
    if not path:
        data = _shipped("target_categories.csv").encode()
        return _parse(data, "the package's target_categories.csv")
    try:
        return _parse(Path(path).read_bytes(), path)
    except OSError as error:
        raise UsageError(
            f"{path}: cannot read the target categories: {error.strerror}."
            " Set hear.taxonomy to a CSV, or leave it empty for the package's own."
        ) from error


def _parse(data: bytes, where: str) -> Taxonomy:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{where}: not UTF-8 text: {error.reason} at byte {error.start}."
        ) from error
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        categories = tuple(_categories(reader, where))
    except csv.Error as error:
        raise UsageError(f"{where}, after row {reader.line_num}: not a CSV: {error}.") from error
    return Taxonomy(categories, hashlib.sha256(data).hexdigest())


def _categories(reader: csv.DictReader[str], where: str) -> Iterator[Category]:
    if missing := [name for name in _COLUMNS if name not in (reader.fieldnames or ())]:
        raise UsageError(
            f"{where}: no column {', '.join(missing)}; it needs {', '.join(_COLUMNS)}."
        )
    vocabularies = {column: _names(*place) for column, place in _VOCABULARIES.items()}
    seen: dict[str, int] = {}
    for row in reader:
        number = reader.line_num
        place = f"{where}, row {number}"
        if None in row or None in row.values():
            raise UsageError(
                f"{place}: not {len(reader.fieldnames or ())} cells, as the header has."
            )
        category = Category(
            name=row["category"].strip(),
            group=row["group"].strip(),
            openimages=_split(row["openimages_classes"]),
            audioset=_split(row["audioset_classes"]),
            vggsound=_split(row["vggsound_classes"]),
            openimages_generic=_split(row["openimages_generic"]),
        )
        if not category.name:
            raise UsageError(f"{place}: category: empty. Name it, or delete the row.")
        if category.name in seen:
            raise UsageError(
                f"{place}: category: {category.name!r} is in row {seen[category.name]} already."
            )
        seen[category.name] = number
        for column, known in vocabularies.items():
            for name in _split(row[column]):
                if name not in known:
                    raise UsageError(
                        f"{place}: {column}: {name!r} is not one of the {len(known)} names in"
                        f" {_VOCABULARIES[column][0]}. Names are exact, joined by ';'."
                    )
        yield category
    if not seen:
        raise UsageError(f"{where}: no categories below the header.")


def _split(cell: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in cell.split(";") if name.strip())


def _names(file: str, column: str) -> frozenset[str]:
    rows = csv.DictReader(io.StringIO(_shipped(file), newline=""))
    return frozenset(row[column] for row in rows)


def _shipped(file: str) -> str:
    return resources.files("stages").joinpath("data", file).read_text(encoding="utf-8")
