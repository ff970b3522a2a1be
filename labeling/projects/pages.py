"""The frames of a task: the one it shows, or those of a clip, each a page of it.

A clip's task is made of its frames' tasks, and its answer is taken apart into theirs, so a frame is
asked about and read in one way. What is said of a page carries the page's number, from 0, as
``item_index``. A page whose things are those of the page before starts "As before"; nothing says
beforehand what another page is, and Label Studio holds back the answer of whoever skips one. It
also holds back the answer of whoever has not turned through all pages (``SEEN``).

Label Studio's list of images was taken because one set of controls serves all its pages. With its
``Repeater``, an ``Image`` and the controls for each frame, every key answers on all pages at once
(7 made all five frames Visible, w changed a box five times over), and a task of five frames and 80
categories opened in 10.1 s instead of 3.8 s (Label Studio 1.23.2, Chromium on two cores).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from labeling.label_studio.shapes import (
    BoxData,
    PagedAnswer,
    ShownThing,
    Stamp,
    is_text,
    name_region,
    read,
    unreadable,
)
from labeling.projects.box_project import TOP_KEYS
from labeling.projects.carry import carry_on
from labeling.projects.labeling_config import AS_BEFORE, NO_KEY, PREDICTED
from pipeline.errors import InputError
from pipeline.records.schema import Frame

PAGES = 5
"""The most frames of a task, for as many has the labeling config places; others are more tasks."""

NO_LOOP = "<span></span>"
"""The place of a page that a task does not have."""


def frames_of(task: Mapping[str, Any], part: str = "data") -> list[str]:
    """Return the frames a task shows; none when it is none of ours. Its ``meta`` says it too."""
    holder = task.get(part)
    if not isinstance(holder, dict):
        return []
    names = holder["frame_ids"] if "frame_ids" in holder else [holder.get("frame_id")]
    # No frame of ours is called by half a character or by several lines.
    if not isinstance(names, list) or not all(_is_name(name) for name in names):
        return []
    return names if len(set(names)) == len(names) else []


def _is_name(name: object) -> bool:
    return is_text(name) and isinstance(name, str) and len(name.splitlines()) == 1


def page_of(task: Mapping[str, Any], frame_id: str) -> dict[str, Any]:
    """Return a task as if it showed one of its frames alone."""
    data = task["data"]
    if "frame_ids" not in data or data.get("frame_id") == frame_id:
        return dict(task)
    place = data["frame_ids"].index(frame_id)
    pages = data.get("pages")
    page = pages[place] if isinstance(pages, list) and place < len(pages) else None
    return {**task, "data": {**page, "frame_id": frame_id} if isinstance(page, dict) else {}}


def pages_answered(annotation: object, shown: Sequence[Mapping[str, Any]]) -> list[object]:
    """Take an answer about a clip apart into one about each page.

    What was said of a page and holds for later ones stands in those too. The time it took is shared
    out equally: Label Studio says it of the whole alone.

    Args:
        annotation: as the server gives it.
        shown: the data of each page.

    Raises:
        InputError: ``unreadable_answer`` when it cannot be told what is said of which page.
    """
    count = len(shown)
    if not isinstance(annotation, dict) or read(Stamp, annotation, "the answer").was_cancelled:
        return [annotation] * count
    answer = read(PagedAnswer, annotation, "the answer")
    pages: list[list[Any]] = [[] for _ in shown]
    for raw, item in zip(annotation["result"], answer.result, strict=True):
        # The page shows a region without a number on its first picture.
        page = item.item_index or 0
        if not 0 <= page < count:
            raise unreadable(f"{name_region(item)} is of picture {page + 1}, of {count}; delete it")
        pages[page].append((raw, item))
    said = carry_on(pages, [_things(data) for data in shown])
    share = None if answer.lead_time is None else answer.lead_time / count
    return [{**annotation, "result": page, "lead_time": share} for page in said]


def _things(data: Mapping[str, Any]) -> Mapping[str, ShownThing]:
    """Return the things of a page by their boxes; whoever reads its answer says what is wrong."""
    try:
        return read(BoxData, data, "the task's data").things or {}
    except InputError:
        return {}


def in_tasks(frames: Iterable[Frame], by_clip: bool) -> list[list[Frame]]:
    """Group frames into tasks, in the order of the first of each.

    Args:
        frames: to ask about.
        by_clip: the frames of a clip together, in the order of time, and ``PAGES`` at most.
    """
    if not by_clip:
        return [[frame] for frame in frames]
    clips: dict[str, list[Frame]] = {}
    for frame in frames:
        clips.setdefault(frame.clip_id, []).append(frame)
    return [
        sorted(shown, key=lambda frame: frame.frame_index)[start : start + PAGES]
        for shown in clips.values()
        for start in range(0, len(shown), PAGES)
    ]


def clip_task(clip_id: str, tasks: Sequence[Mapping[str, Any]], clips_html: str) -> dict[str, Any]:
    """Make the task of a clip of the tasks of its frames.

    Args:
        clip_id: of the clip.
        tasks: of one to ``PAGES`` frames; each one's ``clips_html`` is what is watched beside it.
        clips_html: what is watched beside all of them.
    """
    assert 1 <= len(tasks) <= PAGES
    shared = "frame_id", "image", "clips_html", "categories", "off_screen_categories"
    of_frames = [task["data"] for task in tasks]
    result, scores = [_seen(0)], [0.0]
    for page, task in enumerate(tasks):
        for prediction in task["predictions"]:
            scores.append(prediction["score"])
            said = (item for item in prediction["result"] if item["from_name"] != "status")
            result += [{**item, "item_index": page} for item in said]
        result.append(_number(page))
        if page and _is_as_before(tasks[page - 1], task):
            result.append(_chosen("status", page, AS_BEFORE))
    loops = [data["clips_html"] for data in of_frames] + [NO_LOOP] * (PAGES - len(tasks))
    data = {
        "clip_id": clip_id,
        "frame_ids": [data["frame_id"] for data in of_frames],
        "pages": [{key: data[key] for key in data if key not in shared} for data in of_frames],
        "images": [data["image"] for data in of_frames],
        **{f"loop_{page}": loop for page, loop in enumerate(loops, start=1)},
        "clips_html": clips_html,
        "categories": _merged([data["categories"] for data in of_frames]),
        "off_screen_categories": _merged([data["off_screen_categories"] for data in of_frames]),
    }
    prediction = {"model_version": PREDICTED, "score": max(scores), "result": result}
    return {"data": data, "predictions": [prediction]}


def _is_as_before(before: Mapping[str, Any], task: Mapping[str, Any]) -> bool:
    """Say whether a page shows the same things as the one before, and no box of anything else."""
    shown = [_shown_things(one) for one in (before, task)]
    return shown[0] is not None and shown[0] == shown[1]


def _shown_things(task: Mapping[str, Any]) -> set[int] | None:
    """Return the things of a frame's task; none where one of its boxes is of no known thing."""
    things = task["data"].get("things")
    boxes = {
        item["id"]
        for prediction in task["predictions"]
        for item in prediction["result"]
        if item["from_name"] == "category"
    }
    if things is None or not boxes <= things.keys():
        return None
    return {things[name]["thing"] for name in boxes}


def one_page(task: Mapping[str, Any], frame_id: str, annotation: object) -> dict[str, Any]:
    """Make a clip's task that asks about one of its frames again.

    Args:
        task: of the clip, as the server has it.
        frame_id: of the page.
        annotation: an answer to the whole: what was said of that page is what the next one starts
            from.

    Raises:
        InputError: as ``pages_answered`` does.
    """
    data = task["data"]
    place = data["frame_ids"].index(frame_id)
    shown = [page_of(task, name)["data"] for name in data["frame_ids"]]
    answered = pages_answered(annotation, shown)[place]
    assert isinstance(answered, dict)
    said = [
        {**{key: item[key] for key in item if key != "origin"}, "item_index": 0}
        for item in answered["result"]
        if item.get("from_name") not in ("status", PAGE, SEEN)
    ]
    loops = {f"loop_{page}": NO_LOOP for page in range(2, PAGES + 1)}
    made = {
        **data,
        "frame_ids": [frame_id],
        "pages": [data["pages"][place]],
        "images": [data["images"][place]],
        "loop_1": data[f"loop_{place + 1}"],
        **loops,
    }
    prediction = {
        "model_version": PREDICTED,
        "score": 0.0,
        "result": [*said, _number(0), _seen(0)],
    }
    meta = {**task["meta"], "frame_ids": [frame_id]}
    return {"data": made, "meta": meta, "predictions": [prediction]}


PAGE = "page"
"""The control that nobody sees and whose value is a page's own number, so that the page can show
what belongs beside it."""


SEEN = "seen"
"""The control that nobody sees and that counts the key that turns on, on the page it leaves or on
the one it opens. It is set beforehand on the first page alone, which opens by itself: whoever
pressed the key on each page, the last too, has it on all, and saw them."""


def _number(page: int) -> dict[str, Any]:
    return _chosen(PAGE, page, str(page + 1))


def _seen(page: int) -> dict[str, Any]:
    return {**_chosen(SEEN, page, ""), "type": "rating", "value": {"rating": 1}}


def _chosen(control: str, page: int, value: str) -> dict[str, Any]:
    return {
        "id": f"{control}-{page + 1}",
        "from_name": control,
        "to_name": "frame",
        "type": "choices",
        "item_index": page,
        "value": {"choices": [value]},
    }


def _merged(lists: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Merge the frames' lists of categories: first what has a key in one, by its best place.

    >>> no_key = {"hotkey": NO_KEY}
    >>> first = [{"value": "dog", "hotkey": "1"}, {"value": "cat", **no_key}]
    >>> second = [{"value": "cat", "hotkey": "1"}, {"value": "dog", **no_key}]
    >>> [(one["value"], one["hotkey"]) for one in _merged([first, second])]
    [('dog', '1'), ('cat', '2')]
    """
    found: dict[str, tuple[bool, int]] = {}
    options_of: dict[str, Mapping[str, Any]] = {}
    for options in lists:
        for place, one in enumerate(options):
            rank = one["hotkey"] == NO_KEY, place
            found[one["value"]] = min(rank, found.get(one["value"], rank))
            options_of.setdefault(one["value"], one)
    order = sorted(found, key=found.__getitem__)
    heard = [name for name in order if not found[name][0]]
    key_of = dict(zip(heard, TOP_KEYS, strict=False))
    return [{**options_of[name], "hotkey": key_of.get(name, NO_KEY)} for name in order]
