"""Frames beside the one a task asks about, which its answer may decide too.

The task shows them as small pictures, and its data have for each what its answer is read with. The
frames of a task are those it asks about, then those beside them.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BESIDE_HTML = "beside_html"
"""The part of a task's data for small pictures, where its page has a place for them."""

_BESIDE = "beside"
"""The part of a page's data that names the frame it is beside."""


@dataclass(frozen=True)
class Beside:
    """A frame beside another."""

    frame_id: str
    of: str
    """The frame it is beside."""
    data: Mapping[str, Any]
    """The data an answer is read with."""
    html: str
    """The small picture of it."""


def with_beside(task: Mapping[str, Any], beside: Sequence[Beside], says: str) -> dict[str, Any]:
    """Put frames beside those that a task asks about.

    Args:
        task: of one frame, or of a clip's.
        beside: each of one of the task's frames.
        says: what a person is told of them.
    """
    if not beside:
        return dict(task)
    data = dict(task["data"])
    asked = data.get("frame_ids") or [data["frame_id"]]
    pages = data.get("pages") or [{}]  # of its only frame, the task's own data say everything
    data["frame_ids"] = [*asked, *(one.frame_id for one in beside)]
    data["pages"] = [*pages, *({**one.data, _BESIDE: one.of} for one in beside)]
    for place, frame_id in enumerate(asked, start=1):
        shown = "".join(one.html for one in beside if one.of == frame_id)
        if not shown:
            continue
        made = f"<p><b>{says}</b></p><div>{shown}</div>"
        if BESIDE_HTML in data:
            data[BESIDE_HTML] = made
        else:
            part = "clips_html" if data.get("frame_id") == frame_id else f"loop_{place}"
            data[part] = made + data[part]
    return {**task, "data": data}


def is_beside(page: Mapping[str, Any]) -> str:
    """Return the frame that a page of a task is beside; empty where it is asked about itself."""
    found = page["data"].get(_BESIDE)
    return found if isinstance(found, str) else ""


def picture_html(image: str, over: str) -> str:
    """Write a small picture.

    Args:
        image: its address.
        over: what lies over it, as HTML.
    """
    # Label Studio keeps the styles of elements, and not every page of ours has one for these.
    style = "position: relative; display: inline-block; width: 48%; margin: 0 1% 4px 0"
    return (
        f'<div class="small" style="{style}">'
        f'<img src="{html.escape(image)}" style="display: block; width: 100%">{over}</div>'
    )


def box_html(bbox: Sequence[float], width: int, height: int) -> str:
    """Write a box over a small picture; ``[x, y, w, h]`` in pixels of a frame of this size."""
    x, y, w, h = bbox
    sides = {"left": x / width, "top": y / height, "width": w / width, "height": h / height}
    place = "; ".join(f"{side}: {100 * part:.2f}%" for side, part in sides.items())
    return f'<div style="position: absolute; border: 2px solid #e6194b; {place}"></div>'
