"""Frames and their proposals as Label Studio tasks.

A region has its proposal's id, and Label Studio keeps it: that links a person's box back to what
was proposed. Boxes are percentages of the frame there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from labeling.automatic.accept import scenarios
from pipeline.records.boxes import clip
from pipeline.records.schema import Frame, Proposal, Scenario, SoundCategory, Sounds

TOP_KEYS = ("1", "2", "3", "4", "5", "6")
"""Keys of the categories heard best."""

NO_KEY = "\N{ZERO WIDTH SPACE}"
"""A key on no keyboard and nothing to see beside the category; without one it is given a letter."""

PREDICTED = "avatar-build"
"""The model version of every prediction: of others than the project's own, which is that of the
first, Label Studio shows annotators nothing. The tables say who proposed what."""

COLOURS = ("#e6194b", "#3cb44b", "#a87900", "#4363d8", "#f58231", "#911eb4", "#00a0a0", "#d02090")


def box_task(
    frame: Frame,
    proposals: Sequence[Proposal],
    sounds: Sounds | None,
    vocabulary: Sequence[str],
    image: str,
    clips_html: str,
) -> dict[str, Any]:
    """One frame to verify, its audible proposals as a prediction.

    Args:
        frame: to look at.
        proposals: of the frame; those that are not audible are left out.
        sounds: of its clip, if it was listened to.
        vocabulary: all target categories, in the order of the list.
        image: address of the frame's image.
        clips_html: the loop and the context clip.
    """
    names_shown = set(shown(proposals, frame))
    audible = sorted(
        (p for p in proposals if p.proposal_id in names_shown), key=lambda p: p.proposal_id
    )
    spoken = [name for proposal in audible for name in proposal.categories]
    names = list(dict.fromkeys([*vocabulary, *spoken]))  # the list may have changed since
    heard = heard_first(sounds.categories if sounds else [], names)
    categories = [best_category(proposal, heard) for proposal in audible]
    active = [c.category for c in sounds.categories if c.active] if sounds else []
    result = []
    for proposal, category, scenario in zip(
        audible, categories, prefilled(categories, active), strict=True
    ):
        box, *rest = region(proposal.proposal_id, proposal.bbox, category, scenario, frame)
        result += [{**box, "score": proposal.detector_score}, *rest]
    if result:
        result.append(status("status", "Visible"))
    prediction = {
        "model_version": PREDICTED,
        "score": max((proposal.detector_score for proposal in audible), default=0.0),
        "result": result,
    }
    return {
        "data": {
            "frame_id": frame.frame_id,
            "proposals": shown(proposals, frame),
            "image": image,
            "clips_html": clips_html,
            "categories": [
                {"value": name, "hotkey": key, "background": colour(name)}
                for name, key in zip(heard, _keys(sounds, len(heard)), strict=True)
            ],
            "off_screen_categories": [{"value": name, "hotkey": NO_KEY} for name in heard],
        },
        "predictions": [prediction] if result else [],
    }


def proposals_by_frame(proposals: Iterable[Proposal]) -> dict[str, list[Proposal]]:
    """Proposals by their frame."""
    found: dict[str, list[Proposal]] = {}
    for proposal in proposals:
        found.setdefault(proposal.frame_id, []).append(proposal)
    return found


def shown(proposals: Iterable[Proposal], frame: Frame) -> list[str]:
    """The ids of the proposals that a frame's task shows: audible ones inside the frame, sorted."""
    return sorted(
        proposal.proposal_id
        for proposal in proposals
        if proposal.audible and clip(proposal.bbox, frame.width, frame.height) is not None
    )


def heard_first(heard: Sequence[SoundCategory], vocabulary: Sequence[str]) -> list[str]:
    """The vocabulary, best heard first; what is not heard follows in its own order."""
    score = {sound.category: sound.score for sound in heard}
    return sorted(vocabulary, key=lambda name: -score.get(name, float("-inf")))


def best_category(proposal: Proposal, heard: Sequence[str]) -> str:
    """Of the categories a box may be, the one heard best."""
    return min(proposal.categories, key=heard.index)


def prefilled(categories: Sequence[str], active: Sequence[str]) -> list[Scenario]:
    """The scenario of each box: the rule of ``label accept``, and what is heard besides.

    >>> prefilled(["dog"], ["dog", "speech"])
    ['Mixed-sound']
    >>> prefilled(["dog", "dog"], ["dog", "speech"])
    ['Multi-entity', 'Multi-entity']
    """
    mixed = len(set(categories) | set(active)) > 1
    return [
        "Mixed-sound" if mixed and scenario == "Single-sound" else scenario
        for scenario in scenarios(categories)
    ]


def colour(name: str) -> str:
    """A colour of its own for each category, the same in every task."""
    return COLOURS[hashlib.sha256(name.encode()).digest()[0] % len(COLOURS)]


def to_percent(bbox: Sequence[float], width: int, height: int) -> dict[str, float]:
    """A box in pixels as Label Studio writes it.

    >>> to_percent([64, 36, 320, 180], 640, 360)
    {'x': 10.0, 'y': 10.0, 'width': 50.0, 'height': 50.0}
    """
    x, y, w, h = bbox
    return {
        "x": x / width * 100,
        "y": y / height * 100,
        "width": w / width * 100,
        "height": h / height * 100,
    }


def _keys(sounds: Sounds | None, count: int) -> list[str]:
    # A key for what nobody heard would only be pressed by mistake.
    keys = TOP_KEYS[: len(sounds.categories) if sounds else 0]
    return [*keys, *[NO_KEY] * count][:count]


def region(
    name: str, bbox: Sequence[float], category: str, scenario: Scenario, frame: Frame
) -> list[dict[str, Any]]:
    """A box with its category and scenario; the part of it inside the frame."""
    inside = clip(bbox, frame.width, frame.height)
    assert inside is not None
    shared = {
        "id": name,
        "to_name": "frame",
        "original_width": frame.width,
        "original_height": frame.height,
        "image_rotation": 0,
    }
    box = {**to_percent(inside, frame.width, frame.height), "rotation": 0}
    return [
        {
            **shared,
            "from_name": "category",
            "type": "rectanglelabels",
            "value": {**box, "rectanglelabels": [category]},
        },
        {
            **shared,
            "from_name": "scenario",
            "type": "choices",
            "value": {**box, "choices": [scenario]},
        },
    ]


def status(control: str, value: str) -> dict[str, Any]:
    """What the frame as a whole is, as it is prefilled."""
    return {
        "id": "status",
        "from_name": control,
        "to_name": "frame",
        "type": "choices",
        "value": {"choices": [value]},
    }
