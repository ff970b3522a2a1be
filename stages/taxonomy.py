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

SEEN = {
    "openimages": ("Open Images V7", "openimages_v7_classes.csv"),
    "coco": ("COCO", "coco_classes.csv"),
    "objects365": ("Objects365", "objects365_classes.csv"),
}
"""The vocabularies of detectors: title, and file of the classes in the order of a detector's
outputs. Its columns of the target categories are ``<name>_classes`` and ``<name>_generic``."""

_COLUMNS = (
    "category",
    "group",
    "openimages_classes",
    "audioset_classes",
    "vggsound_classes",
    "notes",
    "openimages_generic",
)
"""Columns that every list has; those of other vocabularies may be missing."""

_VOCABULARIES = {
    "audioset_classes": ("audioset_classes.csv", "display_name"),
    "vggsound_classes": ("vggsound_classes.csv", "label"),
    **{
        f"{name}_{kind}": (file, "display_name")
        for name, (_, file) in SEEN.items()
        for kind in ("classes", "generic")
    },
}
"""Column to the file of names allowed in it and that file's column."""


@dataclass(frozen=True)
class Category:
    """A target category, and its names in other vocabularies."""

    name: str
    group: str
    audioset: tuple[str, ...]
    vggsound: tuple[str, ...]
    seen: Mapping[str, tuple[str, ...]]
    """Exact classes by detectors' vocabulary."""
    seen_generic: Mapping[str, tuple[str, ...]]
    """Broader classes a detector may answer where the exact one is missing, likewise."""


@dataclass(frozen=True)
class Taxonomy:
    """All target categories, in the file's order."""

    categories: tuple[Category, ...]
    digest: str
    """SHA-256 of the CSV file."""
    where: str
    """The file, as errors name it."""
    vocabularies: frozenset[str]
    """Detectors' vocabularies that it has the columns of."""

    @property
    def names(self) -> list[str]:
        """The categories' names, in the file's order."""
        return [category.name for category in self.categories]

    def of_vggsound(self, label: str) -> list[str]:
        """Return the categories a VGGSound label belongs to; empty when it is no target."""
        return self._of_vggsound.get(label, [])

    def of_seen(self, vocabulary: str, generic: bool = False) -> Mapping[str, list[str]]:
        """Return the categories a detector's class may be, in the file's order, by its name.

        Args:
            vocabulary: a key of ``SEEN``, or ``prompts``.
            generic: count broader classes too, such as Musical instrument for a clarinet.

        Raises:
            UsageError: the file has no columns for this vocabulary.
        """
        if vocabulary == "prompts":
            return self._of_prompt
        if vocabulary not in self.vocabularies:
            raise UsageError(
                f"{self.where}: no columns {vocabulary}_classes and {vocabulary}_generic, which a"
                f" detector of {SEEN[vocabulary][0]}'s classes needs. Add them (the package's own"
                " target_categories.csv has them), or choose another detector."
            )
        return self._inverted(
            lambda c: (*c.seen[vocabulary], *(c.seen_generic[vocabulary] if generic else ()))
        )

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

    @cached_property
    def _of_prompt(self) -> dict[str, list[str]]:
        return self._inverted(
            lambda c: [name.lower() for name in c.seen["openimages"] or (c.name,)]
        )

    @cached_property
    def _of_vggsound(self) -> dict[str, list[str]]:
        return self._inverted(lambda category: category.vggsound)

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
        known = _known_vocabularies(reader.fieldnames or (), where)
        categories = tuple(_categories(reader, where, known))
    except csv.Error as error:
        raise UsageError(f"{where}, after row {reader.line_num}: not a CSV: {error}.") from error
    return Taxonomy(categories, hashlib.sha256(data).hexdigest(), where, frozenset(known))


def _known_vocabularies(columns: Sequence[str], where: str) -> list[str]:
    """Return the detectors' vocabularies of which a file has both columns."""
    both = {name: [f"{name}_classes", f"{name}_generic"] for name in SEEN}
    begun = [column for pair in both.values() if set(pair) & set(columns) for column in pair]
    if missing := [name for name in (*_COLUMNS, *begun) if name not in columns]:
        needed = ", ".join(dict.fromkeys((*_COLUMNS, *begun)))
        raise UsageError(
            f"{where}: no column {', '.join(dict.fromkeys(missing))}; it needs {needed}."
        )
    return [name for name, pair in both.items() if pair[0] in begun]


def _categories(
    reader: csv.DictReader[str], where: str, known: Sequence[str]
) -> Iterator[Category]:
    vocabularies = {
        column: frozenset(_column(*place))
        for column, place in _VOCABULARIES.items()
        if column in (reader.fieldnames or ())
    }
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
            audioset=_split(row["audioset_classes"]),
            vggsound=_split(row["vggsound_classes"]),
            seen={name: _split(row[f"{name}_classes"]) for name in known},
            seen_generic={name: _split(row[f"{name}_generic"]) for name in known},
        )
        if not category.name:
            raise UsageError(f"{place}: category: empty. Name it, or delete the row.")
        if category.name in seen:
            raise UsageError(
                f"{place}: category: {category.name!r} is in row {seen[category.name]} already."
            )
        seen[category.name] = number
        for column, names in vocabularies.items():
            for name in _split(row[column]):
                if name not in names:
                    raise UsageError(
                        f"{place}: {column}: {name!r} is not one of the {len(names)} names in"
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
def seen_classes(vocabulary: str) -> tuple[str, ...]:
    """Return the classes of a detectors' vocabulary, in the order of a detector's outputs."""
    return _column(SEEN[vocabulary][1], "display_name")


def check_classes(names: Mapping[int, str], vocabulary: str, path: Path) -> None:
    """Compare the classes that weights say they know with a vocabulary's.

    Case, spaces and signs are no matter, and spellings in the vocabulary's column ``also`` hold.

    Args:
        names: by the place in the detector's output.
        vocabulary: a key of ``SEEN``.
        path: of the weights, for the error.

    Raises:
        UsageError: naming the first that differs.
    """
    title, file = SEEN[vocabulary]
    expected = dict(enumerate(seen_classes(vocabulary)))
    also = dict(zip(expected.values(), _column(file, "also"), strict=True))
    for index in sorted({*names, *expected}):
        said, wanted = names.get(index), expected.get(index)
        held = {_letters(spelling) for spelling in (wanted, also.get(wanted or "")) if spelling}
        if said is None or _letters(said) not in held:
            raise UsageError(
                f"{path}: class {index} is {said!r}, in {title} it is {wanted!r}: these weights"
                " were trained on another vocabulary."
            )


def _letters(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


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
    return tuple(row.get(column, "") for row in rows)


def _shipped(file: str) -> str:
    return resources.files("stages").joinpath("data", file).read_text(encoding="utf-8")
