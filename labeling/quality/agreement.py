"""Agreement of people with one another and with known answers, and the frames in dispute.

Frames that two or more people answered are compared pair by pair, each pair in the order of the
annotators' names. Status: what the frame is (visible, off-screen, rejected). Where both say visible
their boxes are matched (``labeling.quality.matching``), and category and scenario are compared over
matched boxes. Masks are compared by instance. Gold frames are compared with their known answer.
Frames in dispute are put together where they are one (``labeling.quality.disputes``).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from labeling.quality.disputes import Dispute, Disputed, differences_of, disputes_of
from labeling.quality.kappa import Kappa, cohen_kappa, mean, ratio, section, text
from labeling.quality.matching import Comparison, Pair, compare, compare_masks, off_screen
from pipeline.records.reviews import by_frame, counting_reviews, opinions
from pipeline.records.schema import Review, ReviewedInstance
from pipeline.words import counted


@dataclass
class Tally:
    """Comparisons of one kind of pairs of people."""

    boxes: list[Comparison] = field(default_factory=list)
    """Answers about boxes compared: frames times pairs of people."""
    masks: list[Comparison] = field(default_factory=list)

    @property
    def pairs(self) -> list[Pair]:
        """All matched boxes."""
        return [pair for found in self.boxes for pair in found.pairs]

    @property
    def only_first(self) -> list[ReviewedInstance]:
        """Boxes of the first without a match; where both say visible."""
        return [one for found in self.boxes for one in found.only_first]

    @property
    def only_second(self) -> list[ReviewedInstance]:
        """Boxes of the second without a match, as ``only_first``."""
        return [one for found in self.boxes for one in found.only_second]

    @property
    def f1(self) -> float | None:
        """F1 of boxes: twice the matched ones over all of both sides; none without a box."""
        matched = 2 * len(self.pairs)
        return ratio(matched, matched + len(self.only_first) + len(self.only_second))

    def as_dict(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints; an undefined kappa is null."""
        unseen = [
            (off_screen(found.first), off_screen(found.second))
            for found in self.boxes
            if found.both_off_screen
        ]
        mask_ious = [pair.iou for found in self.masks for pair in found.pairs]
        return {
            "frames": len(self.boxes),
            "status": _kappa(self.boxes, "decision").as_dict(),
            "off_screen_category": cohen_kappa(unseen).as_dict(),
            "boxes": {
                "matched": len(self.pairs),
                "only_first": len(self.only_first),
                "only_second": len(self.only_second),
                "f1": self.f1,
                "mean_iou": _mean_iou(self.pairs),
            },
            "category": _kappa(self.pairs, "category").as_dict(),
            "scenario": _kappa(self.pairs, "scenario").as_dict(),
            "masks": {
                "status": _kappa(self.masks, "decision").as_dict(),
                "compared": len(mask_ious),
                "mean_iou": mean(mask_ious),
            },
        }

    def cells(self) -> list[str]:
        """Return the cells of a table row."""
        masks = self.as_dict()["masks"]
        return [
            str(len(self.boxes)),
            _kappa(self.boxes, "decision").sentence(),
            text(self.f1),
            text(_mean_iou(self.pairs)),
            _kappa(self.pairs, "category").sentence(),
            _kappa(self.pairs, "scenario").sentence(),
            f"{text(masks['mean_iou'])} ({masks['compared']})" if masks["compared"] else "-",
        ]


class CategoryTally:
    """The part of a tally that is about one category."""

    def __init__(self, name: str, tally: Tally) -> None:
        firsts = [*(pair.first for pair in tally.pairs), *tally.only_first]
        seconds = [*(pair.second for pair in tally.pairs), *tally.only_second]
        both = [p for p in tally.pairs if p.first.category == name == p.second.category]
        self._first = sum(one.category == name for one in firsts)
        self._second = sum(one.category == name for one in seconds)
        self._both = len(both)
        self._f1 = ratio(2 * self._both, self._first + self._second)
        self._mean_iou = _mean_iou(both)
        # This category or another, over all matched boxes.
        this = [
            (str(p.first.category == name), str(p.second.category == name)) for p in tally.pairs
        ]
        self._kappa, self._scenario = cohen_kappa(this), _kappa(both, "scenario")

    def as_dict(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        return {
            "first": self._first,
            "second": self._second,
            "both": self._both,
            "f1": self._f1,
            "mean_iou": self._mean_iou,
            "kappa": self._kappa.as_dict(),
            "scenario": self._scenario.as_dict(),
        }

    def cells(self) -> list[str]:
        """Return the cells of a table row."""
        counts = map(str, (self._first, self._second, self._both))
        kappas = (self._kappa.sentence(), self._scenario.sentence())
        return [*counts, text(self._f1), text(self._mean_iou), *kappas]


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
    gold: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    """Comparisons of each annotator (first) with the known answers (second)."""
    adjudicated: int = 0
    """Frames that an adjudicator decided."""
    disputed: list[Disputed] = field(default_factory=list)
    """Frames on which people differ and that nobody has adjudicated."""

    @property
    def disputes(self) -> list[Dispute]:
        """The disputes to settle: frames of a clip that people differ on in the same way, once."""
        return disputes_of(self.disputed)

    @property
    def by_category(self) -> dict[str, CategoryTally]:
        """The parts of ``everyone`` by category, of frames where both say visible."""
        paired = [one for pair in self.everyone.pairs for one in (pair.first, pair.second)]
        boxes = [*paired, *self.everyone.only_first, *self.everyone.only_second]
        names = {one.category for one in boxes}
        return {name: CategoryTally(name, self.everyone) for name in names}

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
            "disputes": len(self.disputes),
            "disputed": [
                {
                    "frame_id": one.frame_id,
                    "about": list(one.about),
                    "annotators": [review.annotator for review in one.answers],
                    "settled_with": dispute.asked.frame_id,
                }
                for dispute in self.disputes
                for one in dispute.frames
            ],
        }

    def lines(self) -> list[str]:
        """Return the lines that the command prints, as Markdown."""
        lines = [
            f"{counted(self.frames, 'frame')} answered by several people; boxes match from IoU"
            f" {self.min_iou:g} on."
        ]
        if self.by_pair:
            pairs = {name: tally.cells() for name, tally in sorted(self.by_pair.items())}
            lines += section("annotators", _COLUMNS, {**pairs, "all": self.everyone.cells()})
        if len(self.by_pair) > 1:
            lines += _table("annotator and others", _COLUMNS, self.by_annotator)
        if categories := self.by_category:
            lines += _table("category", _CATEGORY_COLUMNS, categories)
        if self.gold:
            lines += _table("annotator and gold", _COLUMNS, self.gold)
        disputes = self.disputes
        about = Counter(name for dispute in disputes for name in dispute.asked.about)
        if disputes or self.adjudicated:
            named = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in sorted(about.items()))
            count = counted(len(self.disputed), "frame")
            if len(disputes) < len(self.disputed):
                count = f"{counted(len(disputes), 'dispute')}, {count}"
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
        for tally, comparison in _tallies(found, comparisons):
            tally.boxes.append(comparison)
        masks = sorted(opinions(rows, "masks"), key=lambda row: row.annotator)
        compared = [compare_masks(a, b) for a, b in combinations(masks, 2)]
        for tally, comparison in _tallies(found, compared):
            tally.masks.append(comparison)
        counting = counting_reviews(rows, "boxes")
        purpose = counting[0].purpose if counting else "label"
        if purpose == "gold":
            for answer in boxes:
                found.gold[answer.annotator].boxes.append(compare(answer, counting[0], min_iou))
        found.adjudicated += purpose == "adjudicate"
        about = {name for comparison in comparisons for name in comparison.disputes()}
        # A known answer and an adjudication decide a frame, whatever people differ on.
        if about and purpose == "label":
            tracks = differences_of(boxes, comparisons)
            found.disputed.append(Disputed(frame_id, tuple(sorted(about)), tuple(boxes), tracks))
    return found


def _tallies(
    found: Agreement, comparisons: Iterable[Comparison]
) -> Iterator[tuple[Tally, Comparison]]:
    """Yield where each comparison counts, and with whom first."""
    for one in comparisons:
        first, second = one.first.annotator, one.second.annotator
        yield found.everyone, one
        yield found.by_pair[f"{first} / {second}"], one
        yield found.by_annotator[first], one
        yield found.by_annotator[second], one.turned()


def _kappa(compared: Iterable[Comparison] | Iterable[Pair], column: str) -> Kappa:
    """Return how far both sides agree on a column of theirs."""
    return cohen_kappa(
        [(getattr(one.first, column), getattr(one.second, column)) for one in compared]
    )


def _mean_iou(pairs: Iterable[Pair]) -> float | None:
    return mean([pair.iou for pair in pairs])


def _dicts(rows: Mapping[str, Tally | CategoryTally]) -> dict[str, Any]:
    return {name: tally.as_dict() for name, tally in sorted(rows.items())}


def _table(
    title: str, columns: Sequence[str], rows: Mapping[str, Tally | CategoryTally]
) -> list[str]:
    return section(title, columns, {name: row.cells() for name, row in sorted(rows.items())})
