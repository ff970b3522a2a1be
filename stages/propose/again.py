"""Propose again under other thresholds, from tables and kept answers alone; no model runs.

The same arithmetic as the stages' own, over the whole of ``sounds`` and the kept answers of the
detectors.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from pipeline.config import HearConfig, ProposeConfig
from pipeline.errors import UsageError
from pipeline.records.schema import Frame, Proposal, Sounds
from pipeline.workspace.workspace import Workspace
from stages.backends.interfaces import Detection, Detector
from stages.propose.activity import active_categories
from stages.propose.filtering import AudioFilter
from stages.propose.propose_boxes import from_answer, kept_answers, make_detectors, sounds_of
from stages.taxonomy import Taxonomy, load_taxonomy

Found = dict[str, dict[str, list[Detection]]]
"""Boxes by frame, then by detector."""


@dataclass(frozen=True)
class Perceived:
    """All that was heard and seen when ``propose`` last ran, before any threshold."""

    detectors: list[Detector]
    taxonomy: Taxonomy
    frames: list[Frame]
    sounds: list[Sounds]
    proposals: list[Proposal]
    """The rows that stand."""
    found: Found
    """The kept answers."""

    def among(self, frames: Collection[str]) -> Perceived:
        """Return what was heard and seen of some frames, by their ids."""
        mine = [row for row in self.frames if row.frame_id in frames]
        clips = {row.clip_id for row in mine}
        return replace(
            self,
            frames=mine,
            sounds=[row for row in self.sounds if row.clip_id in clips],
            proposals=[row for row in self.proposals if row.frame_id in frames],
            found={row.frame_id: self.found[row.frame_id] for row in mine},
        )

    def heard(self, hear: HearConfig) -> dict[str, Sounds]:
        """Return what is heard of each frame that a detector is shown, under other thresholds."""
        rows = [tag_again(row, self.taxonomy, hear) for row in self.sounds]
        return sounds_by_frame(self.frames, rows)

    def propose(self, sounds: Mapping[str, Sounds], propose: ProposeConfig) -> list[Proposal]:
        """Return the rows ``propose`` would make.

        Args:
            sounds: what is heard of each frame.
            propose: thresholds.
        """
        rules = AudioFilter(self.detectors, self.taxonomy, propose)
        return propose_again(self.frames, sounds, with_table(self.found, self.proposals), rules)

    def unanswered(self, sounds: Mapping[str, Sounds], propose: ProposeConfig) -> set[str]:
        """Return the frames of which a detector's kept answer is missing."""
        rules = AudioFilter(self.detectors, self.taxonomy, propose)
        return {
            row.frame_id
            for row in self.frames
            if (own := sounds.get(row.frame_id)) is not None
            for found in [self.found[row.frame_id]]
            if any(
                d.name not in found and rules.wants(d.name, row, found, own) for d in self.detectors
            )
        }


def perceived(workspace: Workspace) -> Perceived:
    """Read what was heard and seen.

    Raises:
        UsageError: ``propose`` has not run.
    """
    generation = workspace.ledger("propose").generation()
    if generation is None:
        raise UsageError("propose: has not run in this workspace; there is nothing to compare.")
    made_with = ProposeConfig.model_validate(generation.config)
    detectors = make_detectors(made_with)
    frames = workspace.rows(Frame)
    found: Found = {row.frame_id: {} for row in frames}
    for one in detectors:
        answers = kept_answers(workspace.storage, made_with, generation.fingerprint, one.name)
        for row in frames:
            if (answer := answers.get(row.frame_id)) is not None:
                found[row.frame_id][one.name] = from_answer(answer)
    taxonomy = load_taxonomy(workspace.config.hear.taxonomy)
    sounds, proposals = workspace.rows(Sounds), workspace.rows(Proposal)
    return Perceived(detectors, taxonomy, frames, sounds, proposals, found)


def tag_again(sounds: Sounds, taxonomy: Taxonomy, config: HearConfig) -> Sounds:
    """Find a row's categories anew from its classes; those of a label stay as they are."""
    if sounds.tagger == "vggsound-label":
        return sounds
    categories = active_categories(sounds.classes, taxonomy, config)
    return sounds.model_copy(update={"categories": categories})


def sounds_by_frame(frames: Iterable[Frame], rows: Iterable[Sounds]) -> dict[str, Sounds]:
    """Return what is heard of each frame that a detector is shown.

    Frames of clips without a target category are not shown to any.
    """
    by_clip: dict[str, list[Sounds]] = {}
    for row in rows:
        by_clip.setdefault(row.clip_id, []).append(row)
    every = {one.frame_id: sounds_of(one, by_clip.get(one.clip_id, [])) for one in frames}
    return {name: own for name, own in every.items() if own is not None and own.categories}


def with_table(found: Found, proposals: Iterable[Proposal]) -> Found:
    """Return every frame's boxes by detector: the kept answer, or what the table has of it."""
    table: Found = {name: {} for name in found}
    for row in proposals:
        if row.frame_id in table:
            box = Detection(row.bbox, row.detector_class, row.detector_score)
            table[row.frame_id].setdefault(row.detector, []).append(box)
    return {name: table[name] | answers for name, answers in found.items()}


def propose_again(
    frames: Iterable[Frame], sounds: Mapping[str, Sounds], found: Found, rules: AudioFilter
) -> list[Proposal]:
    """Return the rows ``propose`` would make of these answers."""
    return [
        proposal
        for frame in frames
        if frame.frame_id in sounds
        for proposal in rules.proposals(frame, found[frame.frame_id], sounds[frame.frame_id])
    ]
