"""Answers of people about one frame or several, as literals."""

from __future__ import annotations

from typing import Any

from pipeline.records.schema import Review
from tests.rows import said

LEFT, RIGHT, FAR = [0.0, 0.0, 40.0, 40.0], [100.0, 0.0, 40.0, 40.0], [200.0, 0.0, 40.0, 40.0]


def box(bbox: list[float], category: str = "dog", scenario: str = "Single-sound") -> dict[str, Any]:
    return {
        "bbox": bbox,
        "category": category,
        "scenario": scenario,
        "origin": "added",
        "proposal_id": None,
    }


def answer(who: str, *boxes: dict[str, Any], frame: str = "f", **changes: Any) -> Review:
    values = {"frame_id": frame, "instances": list(boxes), "review_id": f"r_{frame}_{who}"}
    return said(who, 1, f"{frame}{who}", **(values | changes))


def off(who: str, category: str, frame: str = "f") -> Review:
    return answer(who, frame=frame, decision="off_screen", off_screen_category=category)
