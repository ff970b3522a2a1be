"""Our labeling configs, and the check that a task says only what they can show.

Label Studio takes any prediction and shows what it understands, so a task is checked here, against
the very config its project has, before it is sent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any
from xml.etree import ElementTree

from labeling.label_studio import brush
from pipeline.errors import InputError
from pipeline.records.schema import Frame

_CHOICE_TAGS = {"Choices", "RectangleLabels", "BrushLabels", "KeyPointLabels"}
"""Controls whose answer is one of several values; results have the tag's name in small letters."""

_RATING = "rating"

PREDICTED = "avatar-build"
"""The model version of every prediction: of others than the project's own, which is that of the
first, Label Studio shows annotators nothing. The tables say who proposed what."""

NO_KEY = "\N{ZERO WIDTH SPACE}"
"""A key on no keyboard and nothing to see beside a label; without one it is given a letter."""

COLOURS = ("#e6194b", "#3cb44b", "#a87900", "#4363d8", "#f58231", "#911eb4", "#00a0a0", "#d02090")

CARRIED_COLOUR = "#0095d9"
"""The colour of boxes that were carried on from an earlier picture; no category has it."""

AS_BEFORE = "As before"
"""The status of a page that is as the one before it."""

ONWARD = "onward"
"""The control whose mark on a box is about the same thing in later pictures."""

FROM_HERE = "From here on"
"""The mark that category and scenario hold for the thing's later boxes too."""

SILENT = "Silent from here on"
"""The mark that takes the box out, and the thing's later boxes with it."""

TASK_AGAIN = "delete the task and push again"
"""Advice where a task's data are not as a push made them."""


class BadTaskError(Exception):
    """A task that its config does not allow: always a bug in what made it."""


@dataclass(frozen=True)
class Control:
    """A tag an annotator answers with."""

    kind: str
    """The type of its results, such as ``choices``."""
    to_name: str
    values: frozenset[str]
    """The values that the config itself lists."""
    variable: str
    """The part of the task's data that lists more; empty for none."""


@dataclass(frozen=True)
class Layout:
    """A labeling config."""

    xml: str
    controls: Mapping[str, Control]
    variables: frozenset[str]
    """The parts of the task's data it shows."""
    hotkeys: frozenset[str]
    """Keys the config itself takes."""


@cache
def layout(name: str) -> Layout:
    """Read a config of ours, ``boxes``, ``clips`` or ``masks``."""
    file = resources.files("labeling.projects").joinpath("configs", f"{name}.xml")
    xml = file.read_text("utf-8")
    controls, variables, hotkeys = {}, set(), set()
    for tag in ElementTree.fromstring(xml).iter():
        if (key := tag.get("hotkey")) is not None:
            hotkeys.add(key)
        value = tag.get("value") or tag.get("valueList") or ""
        variable = value[1:] if value.startswith("$") else ""
        if variable:
            variables.add(variable)
        if tag.tag in _CHOICE_TAGS:
            values = frozenset(child.get("value", "") for child in tag)
            name, to = tag.get("name", ""), tag.get("toName", "")
            controls[name] = Control(tag.tag.lower(), to, values, variable)
        elif tag.tag == "Rating":
            controls[tag.get("name", "")] = Control(_RATING, tag.get("toName", ""), frozenset(), "")
    return Layout(xml, controls, frozenset(variables), frozenset(hotkeys))


def keys_html(name: str) -> str:
    """Return the keys of a config's page, as the page shows them to its annotators."""
    file = resources.files("labeling.projects").joinpath("configs", f"{name}.html")
    return file.read_text("utf-8")


def canonical(xml: str) -> str:
    """Return a config without what does not matter, so that two can be compared.

    >>> canonical('<View a="1" b="2"/>') == canonical("<View  b='2' a='1'></View>")
    True
    """
    return ElementTree.canonicalize(xml, strip_text=True)


def check_task(task: Mapping[str, Any], config: str) -> None:
    """See that a config of ours can show the task and its predictions.

    Raises:
        BadTaskError: naming what it cannot.
    """
    found = layout(config)
    data = task["data"]
    if missing := sorted(found.variables - data.keys()):
        raise BadTaskError(f"data lacks {', '.join(missing)}")
    keys = list(found.hotkeys)
    for control in found.controls.values():
        if control.variable:
            keys += _check_values(data[control.variable], control.variable)
    if len(set(keys)) != len(keys):
        raise BadTaskError(f"a hotkey twice among {sorted(keys)}")
    for prediction in task.get("predictions", ()):
        for item in prediction["result"]:
            _check_item(item, found, data)


def _check_values(values: Any, name: str) -> list[str]:
    texts = [item["value"] for item in values]
    if not all(texts) or len(set(texts)) != len(texts):
        raise BadTaskError(f"{name}: an empty value, or one twice")
    return [item["hotkey"] for item in values if item["hotkey"] != NO_KEY]


def _check_item(item: Mapping[str, Any], found: Layout, data: Mapping[str, Any]) -> None:
    name = item["from_name"]
    control = found.controls.get(name)
    if control is None or (item["type"], item["to_name"]) != (control.kind, control.to_name):
        raise BadTaskError(f"result {item['id']}: no control {name!r} of type {item['type']!r}")
    allowed = control.values
    if control.variable:
        allowed = allowed | {value["value"] for value in data[control.variable]}
    value = item["value"]
    if control.kind == _RATING:
        return
    if unknown := sorted(set(value[control.kind]) - allowed):
        raise BadTaskError(f"result {item['id']}: {name} has no {unknown[0]!r}")
    if "rle" in value:
        _check_brush(item)
    if "x" in value:
        x, y, w, h = (value[key] for key in ("x", "y", "width", "height"))
        inside = min(x, y) >= 0 and max(x + w, y + h) <= 100 + 1e-6 and min(w, h) > 0
        if not (inside and all(map(math.isfinite, (x, y, w, h)))):
            raise BadTaskError(
                f"result {item['id']}: box {x:g} {y:g} {w:g} {h:g} is not in percent"
            )


def _check_brush(item: Mapping[str, Any]) -> None:
    try:
        mask = brush.decode(item["value"]["rle"], item["original_height"], item["original_width"])
    except InputError as error:
        raise BadTaskError(f"result {item['id']}: {error.detail}") from error
    if not mask.any():
        raise BadTaskError(f"result {item['id']}: an empty mask")


def carried_label(category: str) -> str:
    """Return the label that a box carried on from an earlier picture has until it is changed."""
    return f"{category}, carried on"


def status(control: str, value: str) -> dict[str, Any]:
    """Make the prefilled answer about the frame as a whole."""
    return {
        "id": "status",
        "from_name": control,
        "to_name": "frame",
        "type": "choices",
        "value": {"choices": [value]},
    }


def region(
    name: str, control: str, kind: str, value: Mapping[str, Any], frame: Frame
) -> dict[str, Any]:
    """Make a region of a frame, or what one control says of it."""
    return {
        "id": name,
        "from_name": control,
        "to_name": "frame",
        "type": kind,
        "original_width": frame.width,
        "original_height": frame.height,
        "image_rotation": 0,
        "value": value,
    }


def prefilled_task(
    frame: Frame, data: Mapping[str, Any], result: list[dict[str, Any]], score: float
) -> dict[str, Any]:
    """Make the task of a frame; a result is what its annotator starts from."""
    prediction = {"model_version": PREDICTED, "score": score, "result": result}
    return {
        "data": {"frame_id": frame.frame_id, **data},
        "predictions": [prediction] if result else [],
    }
