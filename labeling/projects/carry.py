"""Carry what was said of one picture of a clip to the pictures after it.

Label Studio keeps what stands on each page and applies nothing to another one. So a page may say
that it is as the one before, and a box that what is said of it holds for the same thing from here
on; what that comes to is worked out here, when an answer is read. What somebody said of a later
picture itself always stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labeling.label_studio.shapes import Item, ShownThing
from labeling.projects.box_results import all_said
from labeling.projects.labeling_config import AS_BEFORE, FROM_HERE, ONWARD, SILENT
from pipeline.errors import InputError

OF_THE_CLIP = frozenset({"Background music", "Post-processed effect"})
"""Reasons to reject a picture that hold for the next one too; others are of one picture alone."""

_OFF_SCREEN = ("off_screen_category", "off_screen_text")
_OF_A_PAGE = ("status", "reject_reason", *_OFF_SCREEN)

Entry = tuple[dict[str, Any], Item]
"""An entry of an answer, as the server gives it and as it was read."""


@dataclass(frozen=True)
class _Box:
    """A box of a thing, with what an answer says of it."""

    labels: list[str]
    text: list[dict[str, Any]]
    """The entries that hold the category of a box labelled Other."""
    scenario: list[str]
    mark: list[str]
    is_moved: bool
    """True where somebody changed it by hand or drew it."""


def carry_on(
    pages: Sequence[Sequence[Entry]], shown: Sequence[Mapping[str, ShownThing]]
) -> list[list[dict[str, Any]]]:
    """Return the entries about each page, with what was said of earlier ones for it too.

    A page that is "As before" gets the status of the one before, with its reasons or with what
    sounds off screen. It keeps that word, which is no status, where what was said before does not
    hold for another picture. A box with a mark gives its category and scenario, or that it is
    silent, to the same thing's boxes on later pages, as far as nobody changed them there.

    Args:
        pages: the entries about each, in the order of time.
        shown: what the boxes of each page began with, by region, where they are of a thing.
    """
    found: list[list[dict[str, Any]]] = []
    status: list[dict[str, Any]] = []
    onward: dict[int, _Box] = {}
    plain = {one.label: one.category for things in shown for one in things.values()}
    for entries, things in zip(pages, shown, strict=True):
        try:
            of_page, lasting = _status(entries, status)
            found.append(of_page + _boxes(entries, things, onward, plain))
            status = lasting
        except InputError:  # whoever reads the page says what is wrong with it
            found.append([raw for raw, _ in entries])
            status = []
    return found


def _status(
    entries: Sequence[Entry], before: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return what is said of a page as a whole, and what of that the next page may take."""
    own = [(raw, item) for raw, item in entries if item.from_name in _OF_A_PAGE]
    items = [item for _, item in own]
    said = all_said(items, "status")
    if said == [AS_BEFORE] and before:
        return before, before
    lasting: tuple[str, ...] = ()
    if said == ["Visible"]:
        lasting = ("status",)
    elif said == ["Off-screen"]:
        lasting = ("status", *_OFF_SCREEN)
    elif said == ["Reject"]:
        reasons = set(all_said(items, "reject_reason"))
        lasting = ("status", "reject_reason") if reasons and reasons <= OF_THE_CLIP else ()
    return [raw for raw, _ in own], [raw for raw, item in own if item.from_name in lasting]


def _boxes(
    entries: Sequence[Entry],
    things: Mapping[str, ShownThing],
    onward: dict[int, _Box],
    plain: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Return what is said of a page's boxes; note in ``onward`` what holds for later ones."""
    found: list[dict[str, Any]] = []
    rest = [(raw, item) for raw, item in entries if item.from_name not in _OF_A_PAGE]
    for name in dict.fromkeys(item.id for _, item in rest):
        of_box = [(raw, item) for raw, item in rest if item.id == name]
        thing = things.get(name) if name is not None else None
        if thing is not None and any(item.from_name == "category" for _, item in of_box):
            of_box = _box(of_box, thing, onward)
        for raw, item in of_box:
            if item.from_name == "category" and (labels := _labels(raw.get("value"))):
                raw = _with(raw, "rectanglelabels", [plain.get(one, one) for one in labels])
            found.append(raw)
    return found


def _box(entries: list[Entry], thing: ShownThing, onward: dict[int, _Box]) -> list[Entry]:
    """Return what is said of one box of a thing; nothing where it is silent."""
    box = _read(entries)
    if box.mark in ([FROM_HERE], [SILENT]):
        onward[thing.thing] = box
        unmarked = [(raw, item) for raw, item in entries if item.from_name != ONWARD]
        return unmarked if box.mark == [FROM_HERE] else []
    held = onward.get(thing.thing)
    if held is None:
        return entries
    keeps_label, keeps_scenario = box.labels != [thing.label], box.scenario != [thing.scenario]
    if held.mark == [SILENT]:
        return entries if keeps_label or keeps_scenario or box.is_moved else []
    found: list[Entry] = []
    for raw, item in entries:
        if item.from_name == "category" and held.labels and not keeps_label:
            found.append((_with(raw, "rectanglelabels", held.labels), item))
            found += [({**said, "id": item.id}, item) for said in held.text]
        elif item.from_name == "scenario" and held.scenario and not keeps_scenario:
            found.append((_with(raw, "choices", held.scenario), item))
        else:
            found.append((raw, item))
    return found


def _read(entries: Sequence[Entry]) -> _Box:
    items = [item for _, item in entries]
    regions = [item for item in items if item.from_name == "category"]
    return _Box(
        labels=[label for item in regions for label in _labels(item.value)],
        text=[raw for raw, item in entries if item.from_name == "category_text"],
        scenario=all_said(items, "scenario"),
        mark=all_said(items, ONWARD),
        is_moved=any(item.origin != "prediction" for item in regions),
    )


def _labels(value: object) -> list[str]:
    labels = value.get("rectanglelabels") if isinstance(value, dict) else None
    return [one for one in labels if isinstance(one, str)] if isinstance(labels, list) else []


def _with(raw: dict[str, Any], key: str, words: list[str]) -> dict[str, Any]:
    value = raw.get("value")
    return {**raw, "value": {**(value if isinstance(value, dict) else {}), key: words}}
