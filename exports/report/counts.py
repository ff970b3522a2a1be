"""The counts of a report, added up part by part of the tables."""

from __future__ import annotations

from array import array
from collections import Counter
from statistics import median

from exports.report.frame_pictures import ReportTables
from pipeline.records.reviews import KINDS, by_frame, opinions
from pipeline.records.schema import Review


class Counts:
    """The counts of all parts that were added, and who made their rows."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        """Rows by table, and ``off_screen`` frames."""
        self.categories: Counter[str] = Counter()
        """Instances by category."""
        self.scenarios: Counter[str] = Counter()
        """Instances by scenario."""
        self.makers: dict[str, set[str]] = {
            name: set() for name in ("taggers", "detectors", "annotators", "rules", "masks")
        }
        """The names of those who made the rows."""
        self.people: set[str] = set()
        """Annotators who are people."""
        self._reviews = 0
        self._times = array("d")
        self._origins: Counter[str] = Counter()
        self._several = self._agreed = 0

    def add(self, tables: ReportTables) -> None:
        """Add a part of the tables; a frame's rows are in one part."""
        for name, rows in vars(tables).items():
            self.rows[name] += len(rows)
        self.rows["off_screen"] += len(
            {
                review.frame_id
                for review in tables.reviews
                if review.kind == "boxes" and review.decision == "off_screen"
            }
        )
        self.categories.update(row.audio_visual_category for row in tables.instances)
        self.scenarios.update(row.scenario for row in tables.instances)
        self.makers["taggers"].update(row.tagger for row in tables.sounds)
        self.makers["detectors"].update(row.detector for row in tables.proposals)
        self.makers["annotators"].update(row.annotator for row in tables.reviews)
        self.makers["rules"].update(row.annotator for row in tables.reviews if not row.verified)
        self.makers["masks"].update(row.source for row in tables.masks)
        self._add_people([row for row in tables.reviews if _by_a_person(row)])

    def _add_people(self, reviews: list[Review]) -> None:
        self.people.update(review.annotator for review in reviews)
        self._reviews += len(reviews)
        self._times.extend(row.lead_time_s for row in reviews if row.lead_time_s is not None)
        self._origins.update(
            instance.origin
            for review in reviews
            if review.kind == "boxes"
            for instance in review.instances
        )
        for rows in by_frame(reviews).values():
            for kind in KINDS:
                if len(answers := opinions(rows, kind)) > 1:
                    self._several += 1
                    self._agreed += len({answer.decision for answer in answers}) == 1

    def labelling(self) -> list[tuple[str, str]]:
        """Return what people's reviews cost and how far they agree; nothing without reviews."""
        if not self._reviews:
            return []
        lines = [("people", f"{len(self.people):,}"), ("reviews", f"{self._reviews:,}")]
        if self._times:
            lines.append(("hours", f"{sum(self._times) / 3600:.1f}"))
            lines.append(("seconds per review, median", f"{median(self._times):.1f}"))
        boxes = sum(self._origins.values())
        for origin in ("kept", "moved", "added") if boxes else ():
            lines.append((f"boxes {origin}", f"{100 * self._origins[origin] / boxes:.1f} %"))
        if self._several:
            share = 100 * self._agreed / self._several
            lines.append(("frames seen by several people", f"{self._several:,}"))
            lines.append(("of these decided alike", f"{share:.1f} %"))
        return lines


def _by_a_person(review: Review) -> bool:
    """Say whether a review is somebody's work; a known answer is nobody's."""
    return review.verified and review.purpose != "gold"
