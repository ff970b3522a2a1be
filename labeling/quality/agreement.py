"""Agreement of people with one another and with known answers, and the frames in dispute.

Frames that two or more people answered are compared pair by pair, each pair in the order of the
annotators' names. Status: what the frame is (visible, off-screen, rejected). Where both say visible
their boxes are matched (``labeling.quality.matching``), and category and scenario are compared over
matched boxes. Masks are compared by instance. Gold frames are compared with their known answer.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from labeling.quality.kappa import cohen_kappa
from labeling.quality.matching import Comparison, compare, off_screen
from pipeline.columns import markdown_table
from pipeline.records import rle
from pipeline.records.reviews import by_frame, counting_reviews, opinions
from pipeline.records.schema import Review
from pipeline.words import counted

_Answers = tuple[str, str]
"""A pair: what the first said and what the second said."""


@dataclass
class Tally:
    """Comparisons of one kind of pairs, added up."""

    frames: int = 0
    """Answers about boxes compared: frames times pairs of people."""
    statuses: list[_Answers] = field(default_factory=list)
    off_screen: list[_Answers] = field(default_factory=list)
    """Pairs of categories where both say off-screen."""
    categories: list[_Answers] = field(default_factory=list)
    scenarios: list[_Answers] = field(default_factory=list)
    """Pairs of scenarios over matched boxes, as those of categories."""
    only_first: int = 0
    only_second: int = 0
    """Boxes of the second without a match, as ``only_first``; where both say visible."""
    ious: list[float] = field(default_factory=list)
    """The overlaps of matched boxes."""
    mask_statuses: list[_Answers] = field(default_factory=list)
    mask_ious: list[float] = field(default_factory=list)

    @property
    def f1(self) -> float | None:
        """F1 of boxes: twice the matched ones over all of both sides; none without a box."""
        matched = len(self.ious)
        return _ratio(2 * matched, 2 * matched + self.only_first + self.only_second)

    def add(self, found: Comparison) -> None:
        """Add one more frame's boxes."""
        self.frames += 1
        self.statuses.append((found.first.decision, found.second.decision))
        if found.both_off_screen:
            self.off_screen.append((off_screen(found.first), off_screen(found.second)))
        self.only_first += len(found.only_first)
        self.only_second += len(found.only_second)
        for pair in found.pairs:
            self.categories.append((pair.first.category, pair.second.category))
            self.scenarios.append((pair.first.scenario, pair.second.scenario))
            self.ious.append(pair.iou)

    def add_masks(self, first: Review, second: Review) -> None:
        """Add one more frame's masks."""
        self.mask_statuses.append((first.decision, second.decision))
        theirs = {one.instance_id: one.rle for one in second.instances}
        for one in first.instances:
            other = theirs.get(one.instance_id)
            if one.rle is not None and other is not None and one.rle.size == other.size:
                self.mask_ious.append(rle.iou(one.rle, other))

    def as_dict(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints; an undefined kappa is null."""
        return {
            "frames": self.frames,
            "status": cohen_kappa(self.statuses).as_dict(),
            "off_screen_category": cohen_kappa(self.off_screen).as_dict(),
            "boxes": {
                "matched": len(self.ious),
                "only_first": self.only_first,
                "only_second": self.only_second,
                "f1": self.f1,
                "mean_iou": _mean(self.ious),
            },
            "category": cohen_kappa(self.categories).as_dict(),
            "scenario": cohen_kappa(self.scenarios).as_dict(),
            "masks": {
                "status": cohen_kappa(self.mask_statuses).as_dict(),
                "compared": len(self.mask_ious),
                "mean_iou": _mean(self.mask_ious),
            },
        }

    def cells(self) -> list[str]:
        """Return the cells of a table row."""
        masks = f"{_text(_mean(self.mask_ious))} ({len(self.mask_ious)})" if self.mask_ious else "-"
        return [
            str(self.frames),
            cohen_kappa(self.statuses).sentence(),
            _text(self.f1),
            _text(_mean(self.ious)),
            cohen_kappa(self.categories).sentence(),
            cohen_kappa(self.scenarios).sentence(),
            masks,
        ]


@dataclass
class CategoryTally:
    """Comparisons about one category, added up."""

    first: int = 0
    second: int = 0
    """Boxes the second gave it, as ``first``; where both say visible."""
    scenarios: list[_Answers] = field(default_factory=list)
    """Pairs of scenarios of matched boxes to which both gave it."""
    ious: list[float] = field(default_factory=list)
    """The overlaps of the same boxes."""
    this_or_not: list[_Answers] = field(default_factory=list)
    """Pairs over all matched boxes: this category, or another."""

    def as_dict(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        return {
            "first": self.first,
            "second": self.second,
            "both": len(self.ious),
            "f1": _ratio(2 * len(self.ious), self.first + self.second),
            "mean_iou": _mean(self.ious),
            "kappa": cohen_kappa(self.this_or_not).as_dict(),
            "scenario": cohen_kappa(self.scenarios).as_dict(),
        }

    def cells(self) -> list[str]:
        """Return the cells of a table row."""
        return [
            str(self.first),
            str(self.second),
            str(len(self.ious)),
            _text(_ratio(2 * len(self.ious), self.first + self.second)),
            _text(_mean(self.ious)),
            cohen_kappa(self.this_or_not).sentence(),
            cohen_kappa(self.scenarios).sentence(),
        ]


@dataclass(frozen=True)
class Disputed:
    """A frame on which people differ and that nobody has adjudicated."""

    frame_id: str
    about: tuple[str, ...]
    answers: tuple[Review, ...]
    """The answers, one per person, by annotator."""


@dataclass
class Agreement:
    """All comparisons of the answers of a workspace, added up."""

    min_iou: float
    frames: int = 0
    """Frames with two or more people's answers about boxes."""
    everyone: Tally = field(default_factory=Tally)
    by_pair: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    by_annotator: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    """Comparisons of each annotator (first) with all others (second)."""
    by_category: dict[str, CategoryTally] = field(
        default_factory=lambda: defaultdict(CategoryTally)
    )
    gold: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    """Comparisons of each annotator (first) with the known answers (second)."""
    adjudicated: int = 0
    """Frames that an adjudicator decided."""
    disputed: list[Disputed] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        return {
            "min_iou": self.min_iou,
            "frames": self.frames,
            "all": self.everyone.as_dict(),
            "by_pair": _dicts(self.by_pair),
            "by_annotator": _dicts(self.by_annotator),
            "by_category": _dicts(self.by_category),
            "gold": _dicts(self.gold),
            "adjudicated": self.adjudicated,
            "disputed": [
                {
                    "frame_id": one.frame_id,
                    "about": list(one.about),
                    "annotators": [review.annotator for review in one.answers],
                }
                for one in self.disputed
            ],
        }

    def lines(self) -> list[str]:
        """Return the lines that the command prints, as Markdown."""
        lines = [
            f"{counted(self.frames, 'frame')} answered by several people; boxes match from IoU"
            f" {self.min_iou:g} on."
        ]
        pairs = {**dict(sorted(self.by_pair.items())), "all": self.everyone}
        if self.by_pair:
            lines += _table("annotators", _COLUMNS, pairs)
        if len(self.by_pair) > 1:
            lines += _table(
                "annotator and others", _COLUMNS, dict(sorted(self.by_annotator.items()))
            )
        if self.by_category:
            lines += _table("category", _CATEGORY_COLUMNS, dict(sorted(self.by_category.items())))
        if self.gold:
            lines += _table("annotator and gold", _COLUMNS, dict(sorted(self.gold.items())))
        about = Counter(name for one in self.disputed for name in one.about)
        if self.disputed or self.adjudicated:
            named = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in sorted(about.items()))
            count = counted(len(self.disputed), "frame")
            lines += ["", f"{count} in dispute{f' ({named})' * bool(named)}"]
            lines[-1] += f", {self.adjudicated} settled."
        return lines


_COLUMNS = (
    "frames",
    "status, kappa",
    "boxes, F1",
    "IoU",
    "category, kappa",
    "scenario, kappa",
    "mask IoU",
)
_CATEGORY_COLUMNS = (
    "first's",
    "second's",
    "both",
    "F1",
    "IoU",
    "this or not, kappa",
    "scenario, kappa",
)


def agreement(reviews: Iterable[Review], min_iou: float) -> Agreement:
    """Compare what people said of the same frames.

    Args:
        reviews: all of them; rules and simulations are left out here.
        min_iou: boxes that overlap less are not the same thing.
    """
    found = Agreement(min_iou)
    for frame_id, rows in sorted(by_frame(reviews).items()):
        boxes = sorted(opinions(rows, "boxes"), key=lambda row: row.annotator)
        comparisons = [compare(a, b, min_iou) for a, b in combinations(boxes, 2)]
        found.frames += bool(comparisons)
        for comparison in comparisons:
            for tally, same_way in _tallies(found, comparison.first, comparison.second):
                tally.add(comparison if same_way else _turned(comparison))
            _by_category(found, comparison)
        masks = sorted(opinions(rows, "masks"), key=lambda row: row.annotator)
        for first, second in combinations(masks, 2):
            for tally, same_way in _tallies(found, first, second):
                tally.add_masks(*((first, second) if same_way else (second, first)))
        counting = counting_reviews(rows, "boxes")
        purpose = counting[0].purpose if counting else "label"
        if purpose == "gold":
            for answer in boxes:
                found.gold[answer.annotator].add(compare(answer, counting[0], min_iou))
        found.adjudicated += purpose == "adjudicate"
        about = {name for comparison in comparisons for name in comparison.disputes()}
        # A known answer and an adjudication decide a frame, whatever people differ on.
        if about and purpose == "label":
            found.disputed.append(Disputed(frame_id, tuple(sorted(about)), tuple(boxes)))
    for name, category in found.by_category.items():
        category.this_or_not = [
            (str(a == name), str(b == name)) for a, b in found.everyone.categories
        ]
    return found


def disputed_frames(reviews: Iterable[Review], min_iou: float) -> list[Disputed]:
    """Return the frames on which people differ and that nobody has adjudicated, by id."""
    return agreement(reviews, min_iou).disputed


def _tallies(found: Agreement, first: Review, second: Review) -> Iterator[tuple[Tally, bool]]:
    """Yield where a comparison counts, and whether the first comes first there."""
    yield found.everyone, True
    yield found.by_pair[f"{first.annotator} / {second.annotator}"], True
    yield found.by_annotator[first.annotator], True
    yield found.by_annotator[second.annotator], False


def _turned(found: Comparison) -> Comparison:
    pairs = tuple(type(pair)(pair.second, pair.first, pair.iou) for pair in found.pairs)
    return Comparison(found.second, found.first, pairs, found.only_second, found.only_first)


def _by_category(found: Agreement, comparison: Comparison) -> None:
    tallies = found.by_category
    for pair in comparison.pairs:
        tallies[pair.first.category].first += 1
        tallies[pair.second.category].second += 1
        if pair.first.category == pair.second.category:
            both = tallies[pair.first.category]
            both.ious.append(pair.iou)
            both.scenarios.append((pair.first.scenario, pair.second.scenario))
    for one in comparison.only_first:
        tallies[one.category].first += 1
    for one in comparison.only_second:
        tallies[one.category].second += 1


def _dicts(rows: Mapping[str, Tally | CategoryTally]) -> dict[str, Any]:
    return {name: tally.as_dict() for name, tally in sorted(rows.items())}


def _table(
    title: str, columns: Sequence[str], rows: Mapping[str, Tally | CategoryTally]
) -> list[str]:
    return [
        "",
        *markdown_table([title, *columns], [[name, *row.cells()] for name, row in rows.items()]),
    ]


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _mean(values: list[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
