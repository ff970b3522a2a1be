"""The check that no model is scored on what it was trained on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.release.video_lists import VideoNames, read_list
from tavlo.evaluation.evaluation_set import EvaluationSet


@dataclass(frozen=True)
class TrainingOverlap:
    """The overlap of a training list and a scored set."""

    list_name: str
    list_ids: int
    """Videos on the list."""
    shared: int
    """Videos on both."""
    of_list: float
    """Percent of the list that is in the set."""
    of_set: float
    """Percent of the set that is on the list."""
    unsure: int = 0
    """Videos of the set that may be on the list; their names do not tell."""
    unread: int = 0
    """Lines of the list that name no video."""

    def sentence(self) -> str:
        """Tell the overlap to people."""
        said = (
            f"Training list {self.list_name}: {self.shared} of its {self.list_ids} videos"
            f" ({self.of_list:.2f} %) are in the scored set, {self.of_set:.2f} % of which they are."
        )
        if self.unsure:
            said += f" {self.unsure} more of the set may be on it: names do not tell."
        if self.unread:
            said += f" {self.unread} of its lines name no video."
        return said


def training_overlap(videos: Collection[str], path: Path) -> TrainingOverlap:
    """Hold scored videos against a training list, however it spells its clips.

    Raises:
        UsageError: the list is missing or names nothing.
    """
    listed = read_list(path)
    scored = VideoNames.of(videos)
    found = scored.shared_with(listed)
    shared = len({one.video_id for one in found.same})
    return TrainingOverlap(
        list_name=path.name,
        list_ids=len(listed),
        shared=shared,
        of_list=100 * shared / len(listed),
        of_set=100 * shared / len(scored) if len(scored) else 0.0,
        unsure=len(found.unsure),
        unread=len(listed.unread),
    )


def count_seen(
    trained_on: Iterable[str], data: EvaluationSet, name: str, *, allowed: bool
) -> tuple[int, str]:
    """Count the videos of a release that a model was trained on.

    Args:
        trained_on: videos, however they are spelt.
        data: what the model shall be scored on.
        name: of the model, for the error.
        allowed: whether there may be some.

    Returns:
        How many, and a sentence on names that do not tell; empty when all do.

    Raises:
        UsageError: there are some, and there may be none.
    """
    scored = VideoNames.of(frame.video_id for frame in data.frames)
    found = VideoNames.of(trained_on).shared_with(scored)
    both = sorted({one.video_id for one in found.same})
    if both and not allowed:
        some = ", ".join(both[:5]) + (", ..." if len(both) > 5 else "")
        raise _seen(name, len(both), f" ({some})")
    return len(both), found.doubt()


def refuse_seen(about: Mapping[str, Any], name: str) -> None:
    """Insist that what made some heatmaps was not trained on their videos, as far as it is stated.

    Args:
        about: what ``model.json`` says.
        name: of the heatmaps, for the error.

    Raises:
        UsageError: it was.
    """
    seen = about.get("videos_seen_in_training")
    if isinstance(seen, int) and seen:
        raise _seen(f"{name}: the model", seen, "")


def _seen(name: str, seen: int, some: str) -> UsageError:
    return UsageError(
        f"{name} was trained on {seen} of this release's videos{some}; its score would say nothing"
        " of others. --allow-overlap scores it all the same."
    )
