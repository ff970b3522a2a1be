from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.records.schema import Scenario
from pipeline.release.document import from_json
from pipeline.workspace.storage import Storage
from tests.exports.drawn import CAT, DOG, Shot, Thing, release, tables

CATEGORIES = ["a", "b", "c"]


def labelled(video_id: str, *frames: str, start_s: int = 1) -> list[Shot]:
    """Frames from text: each letter a thing's category, after a dash off-screen."""
    shots = []
    for number, text in enumerate(frames):
        if text.startswith("-"):
            shots.append(Shot(video_id, number * 10, off_screen=text[1:], start_s=start_s))
        else:
            how: Scenario = "Mixed-sound" if len(text) > 1 else "Single-sound"
            things = [Thing(c, how, box=(6 * i, 2, 8, 8)) for i, c in enumerate(text)]
            shots.append(Shot(video_id, number * 10, things, start_s=start_s))
    return shots


def listed(folder: Path, shots: list[Shot]) -> list[str]:
    release(Storage(folder), tables(shots))
    return (folder / "releases/1.0/subsets/cross_event.txt").read_text().splitlines()


@pytest.mark.parametrize(
    ("frames", "belongs"),
    [
        (["a"], False),
        (["abc"], False),
        (["a", "a"], False),
        (["a", "b"], True),
        (["ab", "b", "a"], False),
        (["a", "ab"], True),
        (["-a"], False),
        (["-a", "a"], False),
        (["-a", "b"], True),
        (["a", "-b"], True),
        (["a", "-a", "a"], False),
        (["-", "a"], True),
        (["a", "a", "a", "c"], True),
    ],
)
def test_a_video_is_cross_event_when_a_later_frame_brings_a_new_category(
    tmp_path: Path, frames: list[str], belongs: bool
) -> None:
    assert listed(tmp_path, labelled(DOG, *frames)) == ([DOG] if belongs else [])


def test_frames_count_in_time_order_over_all_clips_of_a_video(tmp_path: Path) -> None:
    # In clip order b would come last; in time it comes first, and a is new after it.
    shots = labelled(DOG, "a", start_s=20) + labelled(DOG, "b", start_s=3)
    assert listed(tmp_path, shots + labelled(CAT, "a", "a")) == [DOG]


@settings(max_examples=60, deadline=None)
@given(
    frames=st.lists(
        st.text("abc", min_size=1, max_size=3) | st.sampled_from(["-a", "-b"]),
        min_size=1,
        max_size=5,
    )
)
def test_cross_event_agrees_with_the_pseudocode_of_the_supplement(
    tmp_path_factory: pytest.TempPathFactory, frames: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("ws")
    release(Storage(folder), tables(labelled(DOG, *frames)))
    document = from_json((folder / "releases/1.0/annotations/instances.json").read_bytes())
    seen: set[str] = set()
    expected = []
    for number, frame in enumerate(frames):
        new = set(frame.lstrip("-")) - seen
        if new and number > 0:
            expected = [DOG]
            break
        seen |= set(frame.lstrip("-"))
    assert document.cross_event() == expected


def test_table_a_and_the_distributions(tmp_path: Path) -> None:
    release(Storage(tmp_path), unverified=True)
    stated: dict[str, Any] = json.loads((tmp_path / "releases/1.0/statistics.json").read_bytes())
    assert (stated["videos"], stated["clips"]) == (3, 3)
    assert stated["frames"] == {"total": 6, "off_screen": 2, "with_missing_instances": 0}
    assert stated["instances"] == {
        "total": 5,
        "Single-sound": 2,
        "Multi-entity": 1,
        "Mixed-sound": 2,
    }
    assert stated["frames_per_clip"] == {"2": 3}
    assert stated["per_category"][0] == {
        "category": "dog barking",
        "instances": 2,
        "Single-sound": 1,
        "Multi-entity": 0,
        "Mixed-sound": 1,
        "frames": 2,
        "off_screen_frames": 0,
    }
    assert [row["category"] for row in stated["per_category"]] == [
        "dog barking",
        "bird",
        "cat meowing",
        "train horn",
    ]
    assert stated["left_out"] == []


def test_scenarios_sum_to_the_instances(tmp_path: Path) -> None:
    shots = labelled(DOG, "aab", "-c", "c") + labelled(CAT, "b")
    release(Storage(tmp_path), tables(shots))
    stated = json.loads((tmp_path / "releases/1.0/statistics.json").read_bytes())
    total = stated["instances"].pop("total")
    assert total == sum(stated["instances"].values()) == 5
    per_category = Counter({row["category"]: row["instances"] for row in stated["per_category"]})
    assert per_category == Counter(a=2, b=2, c=1)
