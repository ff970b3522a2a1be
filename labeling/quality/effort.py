"""The time that answers about boxes took, by page, clip and thing, and what it is held against.

A page turn is an answer: a page was opened, answered and submitted. Its own time is not in an
answer's lead time; it is the median time between two submissions of one person, less the lead time
of the second, where that is no pause (below ``PAUSE_S``).

What the same work would have cost frame by frame: a page turn for each frame, and for each frame
the median lead time of answers about one frame. Where there are fewer than ``ENOUGH`` of these, the
time that was spent stands for it, which is too little: each clip would have been heard again and
again.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from labeling.quality.kappa import ratio, section
from pipeline.records.schema import Proposal, Review, ReviewedInstance
from pipeline.words import counted

PAUSE_S = 60.0
"""The seconds between two answers from which on somebody did something else."""

ENOUGH = 20
"""The fewest answers about one frame whose median says what a frame costs."""


@dataclass(frozen=True)
class Effort:
    """Sums over people's answers about boxes."""

    page_turns: int
    """Answers given, each to one page that was opened."""
    frames: int
    """Frames they are about; one that two people answered counts twice."""
    clip_answers: int
    """Answers about several frames of a clip."""
    seconds_per_page_turn: float | None
    """The median time of opening the next page; none where nobody gave two answers in a row."""
    seconds_per_clip: float | None
    """The median over clips of all time spent on their frames."""
    seconds_per_thing: float | None
    """All time over the things decided: a track, or a box that is in none."""
    things: int
    carried: int
    """Boxes shown in a frame whose track was shown in an earlier frame of the clip."""
    carried_unchanged: int
    """The number of them that were kept, with category and scenario as in the frame before."""
    hours: float
    """The sum of lead times and page turns."""
    hours_by_frame: float
    """The hours the same frames would have cost one by one, by the rule above."""
    at_least: bool
    """True where that is a lower bound."""

    def as_dict(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        return {**asdict(self), "carried_share": ratio(self.carried_unchanged, self.carried)}

    def lines(self) -> list[str]:
        """Return the lines that the command prints, as Markdown."""
        if not self.page_turns:
            return []
        cells = [
            str(self.page_turns),
            str(self.clip_answers),
            str(self.frames),
            _seconds(self.seconds_per_page_turn),
            _seconds(self.seconds_per_clip),
            _seconds(self.seconds_per_thing),
        ]
        lines = section("effort, boxes", _COLUMNS, {"all": cells})
        if self.carried:
            share = 100 * self.carried_unchanged / self.carried
            lines += [
                "",
                f"{counted(self.carried, 'box', 'boxes')} carried on from an earlier frame,"
                f" {share:.0f} % without change.",
            ]
        if self.clip_answers:
            bound = "at least " if self.at_least else ""
            lines += [
                "",
                f"{self.hours:.2f} h of work; frame by frame it would have been"
                f" {bound}{self.hours_by_frame:.2f} h.",
            ]
        return lines


_COLUMNS = (
    *("page turns", "of a clip", "frames"),
    *("s per page turn", "s per clip", "s per thing"),
)


def effort_of(
    answers: Iterable[Review], decided: Iterable[Review], known: Mapping[str, Proposal]
) -> Effort:
    """Add up what answers took.

    Args:
        answers: of people about boxes, each person's newest of each frame.
        decided: the reviews that decide their frames.
        known: proposals by id.
    """
    pages: dict[str, list[Review]] = defaultdict(list)
    of_clip: dict[str, float] = defaultdict(float)
    for answer in answers:
        pages[answer.annotation_id].append(answer)
        if answer.lead_time_s is not None:
            of_clip[_clip(answer)] += answer.lead_time_s
    single = [
        page[0].lead_time_s
        for page in pages.values()
        if len(page) == 1 and page[0].lead_time_s is not None
    ]
    turn = _page_turn(pages.values())
    spent = sum(of_clip.values())
    frames = sum(map(len, pages.values()))
    enough = len(single) >= ENOUGH
    alone = statistics.median(single) * frames if enough else spent
    things, carried, unchanged = _things(list(decided), known)
    return Effort(
        page_turns=len(pages),
        frames=frames,
        clip_answers=sum(len(page) > 1 for page in pages.values()),
        seconds_per_page_turn=turn,
        seconds_per_clip=statistics.median(of_clip.values()) if of_clip else None,
        seconds_per_thing=spent / things if things else None,
        things=things,
        carried=carried,
        carried_unchanged=unchanged,
        hours=(spent + (turn or 0.0) * len(pages)) / 3600,
        hours_by_frame=(alone + (turn or 0.0) * frames) / 3600,
        at_least=not enough,
    )


def _page_turn(pages: Iterable[Sequence[Review]]) -> float | None:
    """Return the median time between two submissions of one person less the second's lead time."""
    by_person: dict[str, list[tuple[datetime, float | None]]] = defaultdict(list)
    for page in pages:
        times = [answer.lead_time_s for answer in page if answer.lead_time_s is not None]
        lead = sum(times) if times else None
        at = datetime.fromisoformat(max(answer.updated_at for answer in page))
        by_person[page[0].annotator].append((at, lead))
    gaps = []
    for submitted in by_person.values():
        for (before, _), (after, lead) in pairwise(sorted(submitted, key=lambda one: one[0])):
            if lead is not None and 0 <= (gap := (after - before).total_seconds() - lead) < PAUSE_S:
                gaps.append(gap)
    return statistics.median(gaps) if gaps else None


def _things(decided: Sequence[Review], known: Mapping[str, Proposal]) -> tuple[int, int, int]:
    """Count things decided, boxes carried on from an earlier frame, and those left as they were."""
    tracks: set[int] = set()
    alone = carried = unchanged = 0
    last: dict[tuple[str, int], ReviewedInstance | None] = {}
    for review in sorted(decided, key=lambda row: row.frame_id):
        if review.decision != "labelled":
            continue
        alone += sum(one.track_id is None for one in review.instances)
        now: dict[int, ReviewedInstance | None] = {
            box.track_id: None
            for name in review.shown or ()
            if (box := known.get(name)) is not None and box.track_id is not None
        }
        now |= {one.track_id: one for one in review.instances if one.track_id is not None}
        for track, one in now.items():
            key = _clip(review), track
            before = last.get(key)
            if key in last:
                carried += 1
                unchanged += _is_the_same(before, one)
            last[key] = one
            if one is not None:
                tracks.add(track)
    return alone + len(tracks), carried, unchanged


def _is_the_same(before: ReviewedInstance | None, one: ReviewedInstance | None) -> bool:
    if one is None or one.origin != "kept":
        return False
    return before is None or (one.category, one.scenario) == (before.category, before.scenario)


def _clip(review: Review) -> str:
    return review.frame_id.rpartition("_")[0]  # a frame's id is its clip's and its index


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
