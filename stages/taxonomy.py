"""The target categories and how other vocabularies name them.

The list is a CSV the user can replace; see ``data/README.md`` for its columns. One foreign class
may belong to several categories, and a category may have no class in a vocabulary. AudioSet's
classes form a graph: a class means all that descends from it too, on every way down, and nothing
above it.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
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

_VOCABULARIES = {
    "openimages_classes": ("openimages_v7_classes.csv", "display_name"),
    "audioset_classes": ("audioset_classes.csv", "display_name"),
    "vggsound_classes": ("vggsound_classes.csv", "label"),
    "openimages_generic": ("openimages_v7_classes.csv", "display_name"),
}
"""Column to the file of names allowed in it and that file's column."""


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
        """Return the categories a VGGSound label belongs to; empty when it is no target."""
        return self._of_vggsound.get(label, [])

    def of_openimages(self, name: str, generic: bool = False) -> list[str]:
        """Return the categories an Open Images class may be, in the file's order.

        Args:
            name: the class as Open Images displays it.
            generic: count broader classes too, such as Musical instrument for a clarinet.
        """
        return (self._of_openimages_generic if generic else self._of_openimages).get(name, [])

    def of_audioset(self, name: str) -> list[str]:
        """Return the categories an AudioSet class activates, in the file's order.

        Those that name the class or one of its ancestors: a child of a named class is an instance
        of it, a parent may be anything.
        """
        return self._of_audioset.get(name, [])

    @property
    def prompts(self) -> list[str]:
        """Prompts for an open-vocabulary detector, without repeats.

        What a category looks like: its Open Images classes (a man, not male speech), or its own
        name where it has none.
        """
        return list(self._of_prompt)

    def of_prompt(self, prompt: str) -> list[str]:
        """Return the categories a prompt asks for, in the file's order."""
        return self._of_prompt.get(prompt, [])

    @cached_property
    def _of_prompt(self) -> dict[str, list[str]]:
        return self._inverted(lambda c: [name.lower() for name in c.openimages or (c.name,)])

    @cached_property
    def _of_vggsound(self) -> dict[str, list[str]]:
        return self._inverted(lambda category: category.vggsound)

    @cached_property
    def _of_openimages(self) -> dict[str, list[str]]:
        return self._inverted(lambda category: category.openimages)

    @cached_property
    def _of_openimages_generic(self) -> dict[str, list[str]]:
        return self._inverted(lambda c: (*c.openimages, *c.openimages_generic))

    @cached_property
    def _of_audioset(self) -> dict[str, list[str]]:
        children = _audioset_children()
        return self._inverted(lambda category: _with_descendants(category.audioset, children))

    def _inverted(self, names_of: Callable[[Category], Iterable[str]]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for category in self.categories:
            for name in dict.fromkeys(names_of(category)):
                found.setdefault(name, []).append(category.name)
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
    vocabularies = {column: frozenset(_column(*place)) for column, place in _VOCABULARIES.items()}
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


@cache
def audioset_classes() -> tuple[str, ...]:
    """Return AudioSet's 527 classes, in the order of a tagger's outputs."""
    return _column("audioset_classes.csv", "display_name")


@cache
def openimages_classes() -> tuple[str, ...]:
    """Return the 601 classes Open Images V7 has boxes of, in the order of a detector's outputs."""
    return _column("openimages_v7_classes.csv", "display_name")


@cache
def _audioset_children() -> dict[str, tuple[str, ...]]:
    """Return children by parent, over the whole ontology: 105 of its 632 nodes are no classes."""
    children: dict[str, tuple[str, ...]] = {}
    for row in csv.DictReader(io.StringIO(_shipped("audioset_edges.csv"), newline="")):
        children[row["parent_name"]] = (*children.get(row["parent_name"], ()), row["child_name"])
    return children


def _with_descendants(names: Iterable[str], children: Mapping[str, Sequence[str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += children.get(name, ())
    return found


def _split(cell: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in cell.split(";") if name.strip())


def _column(file: str, column: str) -> tuple[str, ...]:
    rows = csv.DictReader(io.StringIO(_shipped(file), newline=""))
    return tuple(row[column] for row in rows)


def _shipped(file: str) -> str:
    return resources.files("stages").joinpath("data", file).read_text(encoding="utf-8")
