"""A person's points and boxes in a task of masks, and the mask that answers them.

A request names a frame and a label; all else comes from the workspace. The answer has its
instance's id, which is also that of the mask the task came with: Label Studio then puts it in the
old one's place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from labeling.label_studio import brush
from labeling.projects.mask_tasks import region
from labeling.review.instances import every_instance
from pipeline.errors import InputError
from pipeline.records.boxes import clip
from pipeline.records.schema import Frame, Instance, Review
from pipeline.workspace.recorded import CHANGED
from pipeline.workspace.workspace import Workspace

Point = tuple[float, float, bool]
"""x, y in pixels, and whether the thing is there."""

_MOST = 200
"""Prompts one answer may rest on."""


class Found(Protocol):
    """A mask as segmenters answer it."""

    @property
    def mask(self) -> NDArray[np.bool_]:
        """``(height, width)`` of the frame; may be empty."""
        ...

    @property
    def predicted_iou(self) -> float | None:
        """The segmenter's own guess of its quality."""
        ...


class Refiner(Protocol):
    """What turns prompts into a mask."""

    @property
    def name(self) -> str:
        """The segmenter's."""
        ...

    def refine(self, frame: Frame, box: list[float], points: list[Point]) -> Found:
        """The thing in a frame that a box and points speak of, both in pixels."""
        ...


@dataclass(frozen=True)
class Prompt:
    """What a person says of one thing."""

    label: str
    box: list[float] | None
    """``[x, y, w, h]`` in pixels; none when no box was drawn."""
    points: list[Point]


class Prompts:
    """Answers the requests of a Label Studio.

    Args:
        workspace: whose frames and instances; what was pulled later is found too.
        refiner: opened.
    """

    def __init__(self, workspace: Workspace, refiner: Refiner) -> None:
        self.name = refiner.name
        self._workspace = workspace
        self._refiner = refiner
        self._frames: dict[str, Frame] = {}
        self._instances: dict[str, Instance] = {}

    def predict(self, request: Any) -> dict[str, Any]:
        """The answer to ``/predict``: one prediction per task, empty where nothing was prompted.

        Raises:
            InputError: the request is not as Label Studio makes it, or names what is not here.
        """
        try:
            tasks, prompts = request["tasks"], _prompts(request)
            if not prompts:
                return {"results": [self._prediction([], None) for _ in tasks]}
            (task,) = tasks
            return {"results": [self._answer(task["data"], prompts)]}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                "bad_request", f"not a request of Label Studio's ({error!r:.120})"
            ) from error

    def _answer(
        self, data: Mapping[str, Any], items: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        frame = self._frame(str(data["frame_id"]))
        prompt = read_prompt(items, frame)
        instance = self._instance(prompt.label, data["asked"], frame)
        try:
            found = self._refiner.refine(frame, prompt.box or instance.bbox, prompt.points)
        except InputError as error:
            if error.kind != CHANGED:
                raise
            self._look_again()  # sampled anew, the row is another one too
            frame = self._frame(frame.frame_id)
            found = self._refiner.refine(frame, prompt.box or instance.bbox, prompt.points)
        guess = found.predicted_iou
        if guess is not None and not math.isfinite(guess):
            raise InputError("not_a_number", f"{self.name} computed no number")
        if not found.mask.any():
            return self._prediction([], guess)
        shown = region(frame, instance, prompt.label, brush.encode(found.mask), guess)
        return self._prediction([shown], guess)

    def _prediction(self, result: list[dict[str, Any]], score: float | None) -> dict[str, Any]:
        return {"model_version": self.name, "score": score or 0.0, "result": result}

    def _frame(self, frame_id: str) -> Frame:
        if frame_id not in self._frames:
            self._look_again()
        if frame_id not in self._frames:
            raise InputError("unknown_frame", f"no frame {frame_id[:80]!r} in this workspace")
        return self._frames[frame_id]

    def _instance(self, label: str, asked: Sequence[Mapping[str, Any]], frame: Frame) -> Instance:
        for item in asked:
            if item["label"] == label:
                found = self._instances.get(item["instance_id"])
                if found is None:
                    self._look_again()
                    found = self._instances.get(item["instance_id"])
                if found is not None and found.frame_id == frame.frame_id:
                    return found
        raise InputError("unknown_label", f"{label[:80]!r} is no instance of {frame.frame_id}")

    def _look_again(self) -> None:
        self._frames = {row.frame_id: row for row in self._workspace.rows(Frame)}
        self._instances = every_instance(self._workspace.rows(Review))


def read_prompt(items: Sequence[Mapping[str, Any]], frame: Frame) -> Prompt:
    """What was last said: the points and the last box of the last item's label.

    Raises:
        InputError: a place that is none, or too many.
    """
    if len(items) > _MOST:
        raise InputError("too_many_prompts", f"{len(items)} points and boxes; {_MOST} are enough")
    label = _label(items[-1])
    points: list[Point] = []
    box = None
    for item in items:
        if _label(item) != label:
            continue
        x, y = _place(item, frame, "x", "y")
        if item["type"] == "keypointlabels":
            inside = bool(item.get("is_positive", True))
            points.append((min(max(x, 0.0), frame.width), min(max(y, 0.0), frame.height), inside))
            continue
        width, height = _place(item, frame, "width", "height")
        box = clip([x, y, width, height], frame.width, frame.height)
        if box is None:
            raise InputError("empty_box", "the box holds no pixel of the picture; draw it again")
    return Prompt(label, box, points)


def _prompts(request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    context = (request.get("params") or {}).get("context") or {}
    return list(context.get("result") or [])


def _label(item: Mapping[str, Any]) -> str:
    if item["type"] not in ("keypointlabels", "rectanglelabels"):
        raise InputError("unknown_prompt", f"{str(item['type'])[:40]!r} is no point and no box")
    (label,) = item["value"][item["type"]]
    return str(label)


def _place(item: Mapping[str, Any], frame: Frame, across: str, down: str) -> tuple[float, float]:
    """Two percentages of a prompt in pixels."""
    x, y = float(item["value"][across]), float(item["value"][down])
    if not (math.isfinite(x) and math.isfinite(y)):
        raise InputError("not_a_place", f"{across} {x}, {down} {y}")
    return x / 100 * frame.width, y / 100 * frame.height
