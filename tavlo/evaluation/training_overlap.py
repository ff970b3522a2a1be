"""Whether a model was trained on what it is scored on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pipeline.release.video_lists import VideoNames, read_list


@dataclass(frozen=True)
class Leak:
    """What a training list and a scored set have in common."""

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
        """For people."""
        said = (
            f"Training list {self.list_name}: {self.shared} of its {self.list_ids} videos"
            f" ({self.of_list:.2f} %) are in the scored set, {self.of_set:.2f} % of which they are."
        )
        if self.unsure:
            said += f" {self.unsure} more of the set may be on it: names do not tell."
        if self.unread:
            said += f" {self.unread} of its lines name no video."
        return said


def leak(videos: Collection[str], path: Path) -> Leak:
    """Hold scored videos against a training list, however it spells its clips.

    Raises:
        UsageError: the list is missing or names nothing.
    """
    listed = read_list(path)
    scored = VideoNames.of(videos)
    found = scored.shared_with(listed)
    shared = len({one.video_id for one in found.same})
    return Leak(
        list_name=path.name,
        list_ids=len(listed),
        shared=shared,
        of_list=100 * shared / len(listed),
        of_set=100 * shared / len(scored) if len(scored) else 0.0,
        unsure=len(found.unsure),
        unread=len(listed.unread),
    )
