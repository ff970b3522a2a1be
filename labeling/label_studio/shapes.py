"""The JSON of a Label Studio server, held against what it must be before anything is read of it.

The server stores what it is sent, so every value may be anything: NaN, null, a word for a number,
half a character. What passes here is of a known shape; what does not is ``unreadable_answer``, with
the place and the value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    ValidationError,
)

from labeling.label_studio.client import LabelServerError, json_short
from pipeline.errors import InputError
from pipeline.records.schema import Frame, MaskSource, Rle
from pipeline.words import plain

UNKNOWN = "unknown"
"""The annotator of an answer that names nobody: the server forgets accounts that are deleted."""

SAME_PX = 0.1
"""The least move or turn, in pixels, that is one: the way through percentages costs far less."""

_YEAR_S = 366 * 86_400.0


def utc(text: str) -> str:
    """Write a time as all reviews do, so that times sort as text; one without a zone is UTC.

    >>> utc("2026-11-21T01:02:03.5Z")
    '2026-11-21T01:02:03.500000+00:00'
    """
    try:
        found = datetime.fromisoformat(text)
        found = found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)
    except OverflowError as error:  # the first or the last day there is, in another zone
        raise ValueError(f"no time of this world: {text!r}") from error
    return found.isoformat(timespec="microseconds")


def is_text(value: object) -> bool:
    """Say whether a value can be written down; JSON can hold half a character, UTF-8 cannot."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(value: str) -> str:
    if not is_text(value):
        raise ValueError("half a character")
    return value


def _time(value: str) -> str:
    utc(value)
    return value


def _name(value: object) -> object:
    return str(value) if type(value) is int else value


def _person(value: object) -> object:
    """Return a person's id, whether the server gives the number or the whole account."""
    if isinstance(value, dict):
        return _name(value.get("id"))
    return UNKNOWN if value is None else _name(value)


def _digits(value: str) -> str:
    if value != UNKNOWN and not value.isdecimal():
        raise ValueError("no number of an account")  # names such as "gold" are no people's
    return value


def _source(value: MaskSource | None) -> MaskSource | None:
    if value is not None:
        _text(value.source + value.model_digest)
    return value


def _seconds(value: object) -> float | None:
    """Return a lead time; none where a browser's clock was set meanwhile, or none was measured."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= _YEAR_S else None


Text = Annotated[str, AfterValidator(_text)]
Name = Annotated[Text, BeforeValidator(_name)]
Time = Annotated[Text, AfterValidator(_time)]
UtcTime = Annotated[Text, AfterValidator(utc)]
Person = Annotated[Text, BeforeValidator(_person), AfterValidator(_digits)]
Seconds = Annotated[float | None, BeforeValidator(_seconds)]


class Shape(BaseModel):
    """A JSON object whose named fields are of these types exactly; others are not looked at."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


class Task(Shape):
    """A task as the server itself has it, in the list of whole tasks."""

    created_at: UtcTime
    updated_at: UtcTime
    annotations: list[Any]
    drafts: list[Any]


class Named(Shape):
    """An annotation's number and time, which tell it from all others."""

    id: StrictInt
    created_at: Time


class Stamp(Shape):
    """The time an annotation was written last, and whether it is a skip."""

    updated_at: UtcTime
    was_cancelled: bool


class Item(Shape):
    """An entry of an annotation's result: a region, or something said of one or of the frame."""

    id: Name | None = None
    from_name: Text | None = None
    type: Text | None = None
    origin: Text | None = None
    original_width: float | None = None
    original_height: float | None = None
    image_rotation: float | None = None
    value: Any = None


class Answer(Shape):
    """An answer as a person submitted it."""

    updated_at: UtcTime
    completed_by: Person = Field(default=None, validate_default=True)
    lead_time: Seconds = None
    result: list[Item]


class PageItem(Item):
    """An entry about one picture of several."""

    item_index: StrictInt | None = None


class PagedAnswer(Shape):
    """An answer about a task of several pictures, as far as it is told what is of which."""

    lead_time: Seconds = None
    result: list[PageItem]


class Said(Shape):
    """The value of a control that is no region."""

    choices: Text | list[Text] | None = None
    text: Text | list[Text] | None = None


class Drawn(Shape):
    """The value of any region."""

    rotation: float | None = None

    @property
    def degrees(self) -> float:
        """The angle it is turned by, in [-180, 180]."""
        return math.remainder(self.rotation or 0.0, 360.0)


class Rectangle(Drawn):
    """The value of a box, in percent of its picture; it turns around its corner x, y."""

    x: float
    y: float
    width: float
    height: float
    rectanglelabels: list[Text] | None = None


class Brush(Drawn):
    """The value of a painted region; ``brush.decode`` reads the run lengths."""

    brushlabels: list[Text] | None = None
    rle: Any = None


class ShownThing(Shape):
    """The start of a box that is of a thing with boxes in several pictures of a clip."""

    thing: StrictInt
    category: Text
    label: Text
    scenario: Text


class BoxData(Shape):
    """The data of a task about boxes, as far as an answer is read with it."""

    proposals: list[Text] | None = None
    things: dict[Text, ShownThing] | None = None
    """The boxes of things, by region; none where a picture stands alone."""


class Question(Shape):
    """A label of a task about masks, and the instance it stands for."""

    label: Text
    instance_id: Text
    mask: Text | None
    drawn_by: Annotated[MaskSource | None, AfterValidator(_source)]


class MaskData(Shape):
    """The data of a task about masks, as far as an answer is read with it."""

    asked: list[Question] = Field(min_length=1)


class BesideData(MaskData):
    """The data of a frame beside the one that a task about masks asks about."""

    masks: list[Rle]
    """The masks that were shown, in the order of the questions."""


AnyShape = TypeVar("AnyShape", bound=Shape)
AnyRegion = TypeVar("AnyRegion", bound=Drawn)


def read(
    shape: type[AnyShape], raw: object, where: str, advice: str = "delete it and answer again"
) -> AnyShape:
    """Hold JSON against a shape.

    Args:
        shape: what it must be.
        raw: what the server gave.
        where: names it to a person.
        advice: what that person can do.

    Raises:
        InputError: ``unreadable_answer``.
    """
    try:
        return shape.model_validate(raw)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = "".join(f"{part}: " for part in problem["loc"])
        given = "" if problem["type"] == "missing" else f", not {json_short(problem['input'])}"
        what = "should be an object" if problem["type"] == "model_type" else plain(problem)
        raise unreadable(f"{where}: {place}{what}{given}; {advice}") from error


def read_task(task: Mapping[str, Any], link: str) -> Task:
    """Read a task as the server itself has it.

    Raises:
        LabelServerError: it is not whole, which no answer can bring about.
    """
    try:
        return read(Task, task, "the task")
    except InputError as error:
        raise LabelServerError(f"{link}: {error.detail} at the server, and run again.") from error


def is_skip(annotation: object) -> bool:
    """Say whether an annotation is a skip and no answer."""
    return isinstance(annotation, dict) and annotation.get("was_cancelled") is True


def unreadable(detail: str) -> InputError:
    """Make the error of an answer from which nobody can say what a person saw."""
    return InputError("unreadable_answer", detail)


def name_region(item: Item) -> str:
    """Name a region to a person."""
    return f"region {json_short(item.id)}"


def read_region(shape: type[AnyRegion], kind: str, item: Item, frame: Frame) -> AnyRegion:
    """Read the value of a region whose place in the frame is what its numbers say.

    Args:
        shape: what the value must be.
        kind: the type such a region has.
        item: a box or a painted region.
        frame: that it was drawn on.

    Raises:
        InputError: it is another shape, or was drawn on a picture of another size or on a turned
            one.
    """
    again = f"delete it and {'paint' if shape is Brush else 'draw'} it again"
    if item.type != kind:
        raise unreadable(
            f"{name_region(item)} is of the type {json_short(item.type)}, not {kind!r}; delete it"
            " and draw it with the tool of this page"
        )
    size = item.original_width, item.original_height
    if size != (frame.width, frame.height):
        said = "x".join("?" if side is None else f"{side:g}" for side in size)
        raise InputError(
            "other_size",
            f"{name_region(item)} is of a picture of {said}, the frame is"
            f" {frame.width}x{frame.height}; {again}",
        )
    if math.remainder(item.image_rotation or 0.0, 360.0):
        raise unreadable(
            f"{name_region(item)} was drawn on a picture turned by {item.image_rotation:g} degrees;"
            " delete it and draw it on the upright picture"
        )
    return read(shape, item.value, name_region(item), again)
