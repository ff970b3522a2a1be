"""Say what other thresholds would change, from tables and kept answers alone; no model runs.

The same arithmetic as the stages' own is done again over the whole of ``sounds`` and the kept
answers of the detectors, and its rows are compared with those that stand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config import Config, load_config, typed_keys
from pipeline.errors import UsageError
from pipeline.records.reviews import by_frame, opinions
from pipeline.records.schema import Proposal, Review
from pipeline.workspace.settings_file import render_toml
from pipeline.workspace.workspace import Workspace
from stages.propose.activity import check_active_scores
from stages.propose.again import perceived
from stages.propose.filtering import check_min_scores


@dataclass(frozen=True)
class Preview:
    """The changes that other thresholds would make."""

    categories: dict[str, tuple[int, int]]
    """Audible boxes that would come and go, by category; a box may count for several."""
    boxes: tuple[int, int]
    """Rows that would come and go, audible or not."""
    audible: tuple[int, int]
    """Boxes that would become audible, new ones with them, and that would be so no longer."""
    reviews: int
    """People's reviews of boxes that stand."""
    orphaned: int
    """Reviews made from an audible box that would be none, or of a frame that would keep none."""
    frames: int
    unanswered: int
    """Frames without a kept answer: of them only the boxes in the table are known."""

    def as_dict(self) -> dict[str, Any]:
        """Return the changes for JSON."""
        return {
            "categories": {
                name: {"added": added, "removed": removed}
                for name, (added, removed) in self.categories.items()
            },
            "boxes": {"added": self.boxes[0], "removed": self.boxes[1]},
            "audible": {"added": self.audible[0], "removed": self.audible[1]},
            "reviews": {"human": self.reviews, "orphaned": self.orphaned},
            "frames": {"all": self.frames, "unanswered": self.unanswered},
        }

    def lines(self) -> list[str]:
        """Return the changes as lines for people."""
        table = [
            f"{name:24} +{added:<6} -{removed}"
            for name, (added, removed) in self.categories.items()
            if added or removed
        ]
        said = [
            *(table or ["No category would gain or lose an audible box."]),
            f"audible boxes: +{self.audible[0]} -{self.audible[1]}; all boxes:"
            f" +{self.boxes[0]} -{self.boxes[1]}; in {self.frames} frames.",
            f"human reviews that would lose what they were made from: {self.orphaned} of"
            f" {self.reviews}.",
        ]
        if self.unanswered:
            said.append(
                f"{self.unanswered} frames have no kept answer of a detector: boxes they might"
                " gain are not counted."
            )
        return said


def preview_settings(workspace: Workspace, settings: Sequence[str]) -> Preview:
    """Tell what ``propose`` would change under other thresholds.

    Args:
        workspace: where it has run.
        settings: ``section.key=value``, on top of the workspace's own.

    Raises:
        UsageError: a setting that is no threshold, or ``propose`` has not run.
    """
    _check_previewable(settings, workspace.config)
    config = load_config(render_toml(resolved=workspace.config), settings, where="--preview")
    known = perceived(workspace)
    check_active_scores(config.hear)
    check_min_scores(config.propose, known.taxonomy)
    sounds = known.heard(config.hear)
    again = known.propose(sounds, config.propose)
    unknown = len(known.unanswered(sounds, config.propose))
    return compare(known.proposals, again, workspace.rows(Review), len(known.frames), unknown)


def compare(
    now: Sequence[Proposal],
    then: Sequence[Proposal],
    reviews: Iterable[Review],
    frames: int,
    unanswered: int,
) -> Preview:
    """Count what comes and what goes.

    Args:
        now: the rows that stand.
        then: the rows that would.
        reviews: all there are.
        frames: how many there are.
        unanswered: how many of them a detector's answer is not known of.
    """
    counts: dict[str, tuple[int, int]] = {}
    pairs_now, pairs_then = (
        {(row.proposal_id, name) for row in rows if row.audible for name in row.categories}
        for rows in (now, then)
    )
    added = Counter(name for _, name in pairs_then - pairs_now)
    removed = Counter(name for _, name in pairs_now - pairs_then)
    for name in sorted({name for _, name in pairs_now | pairs_then}):
        counts[name] = (added[name], removed[name])
    human = [row for rows in by_frame(reviews).values() for row in opinions(rows, "boxes")]
    audible_now, audible_then = _audible(now), _audible(then)
    lost = audible_now.keys() - audible_then.keys()
    # A review made from no proposal is lost, too, where its frame keeps no audible box.
    emptied = set(audible_now.values()) - set(audible_then.values())
    orphaned = [
        review
        for review in human
        if review.frame_id in emptied
        or any(instance.proposal_id in lost for instance in review.instances)
    ]
    return Preview(
        categories=counts,
        boxes=_come_and_gone(now, then, lambda row: True),
        audible=_come_and_gone(now, then, lambda row: row.audible),
        reviews=len(human),
        orphaned=len(orphaned),
        frames=frames,
        unanswered=unanswered,
    )


def _audible(rows: Iterable[Proposal]) -> dict[str, str]:
    """Return frames by the ids of their audible boxes."""
    return {row.proposal_id: row.frame_id for row in rows if row.audible}


def _come_and_gone(
    now: Iterable[Proposal], then: Iterable[Proposal], counts: Callable[[Proposal], bool]
) -> tuple[int, int]:
    before = {row.proposal_id for row in now if counts(row)}
    after = {row.proposal_id for row in then if counts(row)}
    return len(after - before), len(before - after)


def _check_previewable(settings: Iterable[str], config: Config) -> None:
    fixed = config.propose.inference | config.propose.unhashed | config.propose.links
    fixed |= {"taxonomy"}
    thresholds = {f"propose.{name}" for name in type(config.propose).model_fields.keys() - fixed}
    active = [name for name in type(config.hear).model_fields if name.startswith("active_")]
    if config.hear.tagger != "vggsound-label":
        thresholds |= {f"hear.{name}" for name in active}
    for setting in settings:
        ((section, (key,)),) = typed_keys([setting]).items()
        if f"{section}.{key}" not in thresholds:
            raise UsageError(
                f"--preview {setting}: only thresholds can be previewed, here"
                f" {', '.join(sorted(thresholds))}."
            )
