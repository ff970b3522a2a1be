"""``tune``: thresholds proposed from reviews, and what they would have saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.columns import columns
from pipeline.config import HearConfig, ProposeConfig
from pipeline.errors import UsageError
from pipeline.records.schema import Review, digest_of
from pipeline.words import counted
from pipeline.workspace.settings_file import with_settings
from pipeline.workspace.workspace import Workspace
from stages.propose.again import Perceived, perceived
from stages.propose.calibration import HEAR, Calibration, calibrate, settings_of
from stages.propose.judged import (
    Judged,
    JudgedFrame,
    Tally,
    judge,
    seconds_per_removal,
    tally,
)


@dataclass(frozen=True)
class Tuning:
    """Proposed thresholds and their worth on the judged frames."""

    judged: Judged
    calibration: Calibration
    before: Tally
    """Counts under the settings in force."""
    after: Tally
    """Counts under the proposed ones."""
    held_out: Tally
    """Counts of every video under thresholds learnt from the half of videos it is not in; the mean
    over several halvings."""
    removal_s: float | None
    """Seconds of a removal; none where lead times do not tell."""
    settings: dict[str, dict[str, Any]]
    """The values to write, by section and key; empty when nothing is gained."""

    def as_dict(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        thresholds = self.calibration.thresholds
        return {
            "frames": len(self.judged.frames),
            "frames_of_other_boxes": self.judged.foreign,
            "frames_without_answers": self.judged.unanswered,
            "annotators": self.judged.annotators,
            "thresholds": [
                {"by": by or "hear", "category": category, "threshold": value}
                | self._of((by, category))
                for (by, category), value in thresholds.items()
            ],
            "left": [
                {"by": by or "hear", "category": category} | self._of((by, category))
                for by, category in self.calibration.too_few()
            ],
            "before": self.before._asdict(),
            "after": self.after._asdict(),
            "held_out": self.held_out._asdict(),
            "seconds_per_removal": self.removal_s,
            "settings": self.settings,
        }

    def _of(self, key: tuple[str, str]) -> dict[str, int]:
        one = self.calibration.evidence[key]
        return {"kept": one.kept, "videos": one.videos, "removed": one.removed}

    def lines(self) -> list[str]:
        """Return all of it for people."""
        frames, calibration = self.judged.frames, self.calibration
        videos = len({one.video_id for one in frames})
        said = [
            f"{counted(len(frames), 'frame')} of {counted(videos, 'video')}, judged by"
            f" {', '.join(self.judged.annotators)}: {self.before.kept} boxes kept or moved,"
            f" {self.before.removed} removed."
        ]
        if self.judged.foreign:
            said.append(
                f"{counted(self.judged.foreign, 'frame')} left out: their answers are about boxes"
                " of another detector."
            )
        if self.judged.unanswered:
            said.append(
                f"{counted(self.judged.unanswered, 'frame')} left out: what a detector answered is"
                " no longer in media/cache; 'avatar-build propose --redo' asks it again."
            )
        if all(one.sounds.tagger == "vggsound-label" for one in frames):
            said.append("The list's label is always heard, so seeing alone is tuned.")
        if calibration.thresholds:
            rows = [
                [
                    category,
                    by or "heard",
                    f"{value:.3f}",
                    *map(str, self._of((by, category)).values()),
                ]
                for (by, category), value in calibration.thresholds.items()
            ]
            head = ["category", "by", "from", "kept", "in videos", "removed"]
            said += ["", *columns(head, rows, right=set(head[2:])), ""]
            said.append(f"On these frames: {self._saved(self.after)}")
        else:
            said.append("No threshold would spare a removal without losing a kept box.")
        said.append(
            "Held out (learnt from half of the videos, measured on the other half, several times):"
            f" {self._saved(self.held_out)}"
        )
        if few := calibration.too_few():
            names = [
                f"{category} ({by or 'heard'}: {one.videos})" for (by, category), one in few.items()
            ]
            said.append(
                f"Left as they are, judged in fewer than {calibration.min_videos} videos:"
                f" {', '.join(names)}."
            )
        return said

    def _saved(self, then: Tally) -> str:
        spared, lost = self.before.removed - then.removed, self.before.kept - then.kept
        percent = round(100 * spared / max(self.before.removed, 1))
        time = (
            "lead times do not tell the seconds."
            if self.removal_s is None
            else f"about {spared * self.removal_s:.0f} s, at {self.removal_s:g} s a removal."
        )
        return (
            f"{spared} of {self.before.removed} removals spared ({percent} %), {lost} of"
            f" {self.before.kept} kept boxes lost; {time}"
        )


def tune(
    workspace: Workspace, max_loss: float = 0.0, min_videos: int = 5, halvings: int = 4
) -> Tuning:
    """Propose thresholds from a workspace's reviews; change nothing.

    Args:
        workspace: where ``propose`` has run and boxes were reviewed.
        max_loss: fraction of the kept boxes that may be lost.
        min_videos: kept boxes of so many videos are the least that a threshold is made of, or
            removed ones of a category that was never kept.
        halvings: how often the videos are halved to measure what is held out.

    Raises:
        UsageError: there is nothing to learn from.
    """
    known = perceived(workspace)
    hear, propose = workspace.config.hear, workspace.config.propose
    reviews = workspace.rows(Review)
    judged = judge(known, reviews, hear, propose)
    _check_judged(judged, reviews, known)

    def learnt(frames: Sequence[JudgedFrame]) -> Calibration:
        return calibrate(known, frames, hear, propose, max_loss=max_loss, min_videos=min_videos)

    def counts(frames: Sequence[JudgedFrame], calibration: Calibration | None = None) -> Tally:
        thresholds = calibration.thresholds if calibration else {}
        return tally(known, frames, *settings_of(thresholds, known.taxonomy, hear, propose))

    whole = learnt(judged.frames)
    folds = []
    for draw in range(halvings):
        halves = [[one for one in judged.frames if _half(one, draw) == half] for half in (0, 1)]
        folds += [counts(measured, learnt(others)) for measured, others in (halves, halves[::-1])]
    return Tuning(
        judged,
        whole,
        counts(judged.frames),
        counts(judged.frames, whole),
        Tally(*(round(sum(each) / halvings) for each in zip(*folds, strict=True))),
        seconds_per_removal(one.review for one in judged.frames),
        _to_write(whole, known, hear, propose),
    )


def _half(frame: JudgedFrame, draw: int) -> int:
    """Return 0 or 1, by the video's id and the number of the draw alone."""
    return int(digest_of([frame.video_id, draw]), 16) % 2


def _check_judged(judged: Judged, reviews: Sequence[Review], known: Perceived) -> None:
    if judged.frames:
        return
    names = ", ".join(one.name for one in known.detectors)
    if judged.foreign:
        raise UsageError(
            f"tune: the {counted(judged.foreign, 'reviewed frame')} are about boxes that {names}"
            " did not give, as after a change of detector. Review some of these:"
            " 'avatar-build label push boxes'."
        )
    if judged.unanswered:
        raise UsageError(
            f"tune: what {names} answered about the reviewed frames is no longer in media/cache."
            " Ask again: 'avatar-build propose --redo'."
        )
    rules = any(one.annotator.startswith("rule:") for one in reviews)
    said = "only those of a rule, which would teach what it went by" if rules else "none yet"
    raise UsageError(
        f"tune: it learns from people's reviews of boxes, and there are {said}. See 'avatar-build"
        " label push boxes' and 'label pull boxes'."
    )


def _to_write(
    calibration: Calibration, known: Perceived, hear: HearConfig, propose: ProposeConfig
) -> dict[str, dict[str, Any]]:
    """Return the settings that carry the thresholds, each kind only where it has any."""
    tuned = settings_of(calibration.thresholds, known.taxonomy, hear, propose)
    found: dict[str, dict[str, Any]] = {}
    if any(by == HEAR for by, _ in calibration.thresholds):
        found["hear"] = {"active_scores": dict(sorted(tuned[0].active_scores.items()))}
    if any(by != HEAR for by, _ in calibration.thresholds):
        found["propose"] = {"min_scores": tuned[1].min_scores}
    return found


def settings_file(workspace: Workspace, tuning: Tuning) -> str:
    """Return the workspace's settings file with the thresholds in it.

    Raises:
        ConfigError: the file is laid out so that it cannot be changed line by line.
    """
    toml = workspace.storage.read("avatar.toml").decode()
    return with_settings(toml, tuning.settings)
