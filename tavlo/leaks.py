"""Whether a model was trained on what it is scored on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pipeline.train_lists import read_ids


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

    def sentence(self) -> str:
        """For people."""
        return (
            f"Training list {self.list_name}: {self.shared} of its {self.list_ids} videos"
            f" ({self.of_list:.2f} %) are in the scored set, {self.of_set:.2f} % of which they are."
        )


def leak(videos: Collection[str], path: Path) -> Leak:
    """Hold scored videos against a training list, however it spells its clips.

    Raises:
        UsageError: the list is missing or names nothing.
    """
    listed = read_ids(path)
    scored = set(videos)
    shared = len(listed & scored)
    return Leak(
        list_name=path.name,
        list_ids=len(listed),
        shared=shared,
        of_list=100 * shared / len(listed),
        of_set=100 * shared / len(scored) if scored else 0.0,
    )
