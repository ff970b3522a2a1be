"""Gold frames: answers that are known, against which annotators are scored unawares.

They stand in ``reviews`` with a purpose of their own, decide their frames, and are never counted as
anybody's work.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import ConfigDict, Field, ValidationError

from labeling.automatic.accept import automatic_review
from labeling.label_studio.shapes import SAME_PX, Text
from labeling.review.instances import deciding_reviews
from pipeline.errors import UsageError
from pipeline.records.boxes import clip
from pipeline.records.schema import (
    BBox,
    Decision,
    Frame,
    Record,
    Review,
    ReviewedInstance,
    Scenario,
    content_id,
    digest_of,
)
from pipeline.run.derive import Derived, bring_up_to_date, commit_derived, hold
from pipeline.run.stage import Ok, StageSpec
from pipeline.workspace.storage import Storage
from pipeline.workspace.table import read_records
from pipeline.workspace.workspace import Workspace

ANNOTATOR = "gold"

SPEC = StageSpec(name="gold", version=1, reads="", writes=("reviews",))


class GoldBox(Record):
    """A thing that sounds."""

    model_config = ConfigDict(strict=True)

    bbox: BBox
    category: Text
    scenario: Scenario


class GoldAnswer(Record):
    """The known answer about one frame, as a line of a JSON file."""

    model_config = ConfigDict(strict=True)

    frame_id: Text
    decision: Decision
    reject_reasons: list[Text] = Field(default_factory=list)
    off_screen_category: Text | None = None
    instances: list[GoldBox] = Field(default_factory=list)


def set_gold(workspace: Workspace, path: Path) -> int:
    """Make the answers of a file or table the gold answers, in place of earlier ones.

    Args:
        workspace: whose frames they speak of.
        path: JSON lines of ``GoldAnswer``, or a Parquet file or folder of ``reviews``, whose
            deciding review of each frame is taken.

    Returns:
        The number of gold frames.

    Raises:
        UsageError: the file cannot be read, or speaks of frames that are not there.
    """
    answers = _read(path)
    _check(answers, {row.frame_id: row for row in workspace.rows(Frame)}, path)
    digest = digest_of(sorted(answer.review_id for answer in answers))
    outcomes = [Ok(answer.frame_id, [answer]) for answer in answers]
    rows = Derived(digest[:12], path.name, digest, outcomes)
    with hold(workspace, SPEC) as held:
        commit_derived(held, {rows.key: lambda: rows} if answers else {})
    bring_up_to_date(workspace)
    return len(answers)


def _read(path: Path) -> list[Review]:
    if path.is_dir():
        files = sorted(path.glob("*.parquet"))
        if not files:
            raise UsageError(f"--gold {path}: no Parquet file in this folder.")
        return _deciding(files)
    if not path.exists():
        raise UsageError(f"--gold {path}: no such file.")
    return _deciding([path]) if path.suffix == ".parquet" else _lines(path)


def _deciding(files: Sequence[Path]) -> list[Review]:
    reviews = [
        row for file in files for row in read_records(Review, Storage(file.parent), file.name)
    ]
    return [
        _gold(review, review.verified)
        for review in deciding_reviews(reviews).values()
        if review.decision != "back_to_boxes"
    ]


def _lines(path: Path) -> list[Review]:
    answers: dict[str, GoldAnswer] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"--gold {path}: not UTF-8 text ({error.reason}). Save it so.") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            answer = GoldAnswer.model_validate(json.loads(line))
        except (ValueError, ValidationError) as error:
            raise UsageError(f"--gold {path}, line {number}: {_first(error)}.") from error
        if answer.frame_id in answers:
            raise UsageError(f"--gold {path}, line {number}: {answer.frame_id} is there twice.")
        answers[answer.frame_id] = answer
    return [_known(answer) for _, answer in sorted(answers.items())]


def _known(answer: GoldAnswer) -> Review:
    instances = [
        ReviewedInstance(**box.model_dump(), origin="added", proposal_id=None)
        for box in answer.instances
    ]
    said = answer.off_screen_category, answer.reject_reasons
    review = automatic_review(answer.frame_id, ANNOTATOR, answer.decision, instances, "", *said)
    return _gold(review, verified=True)


def _gold(review: Review, verified: bool) -> Review:
    """Turn a review into a gold answer; the same answer has the same id."""
    said = [
        review.decision,
        review.reject_reasons,
        review.off_screen_category,
        [[one.bbox, one.category, one.scenario] for one in review.instances],
    ]
    return review.model_copy(
        update={
            "review_id": content_id("r", review.frame_id, ANNOTATOR, said),
            "annotator": ANNOTATOR,
            "annotation_id": "",
            "updated_at": "",
            "lead_time_s": None,
            "verified": verified,
            "purpose": "gold",
        }
    )


def _check(answers: Sequence[Review], frames: dict[str, Frame], path: Path) -> None:
    unknown = [answer.frame_id for answer in answers if answer.frame_id not in frames]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise UsageError(f"--gold {path}: {unknown[0]}{more}: no such frame in this workspace.")
    for answer in answers:
        frame = frames[answer.frame_id]
        said = {
            "labelled": bool(answer.instances),
            "off_screen": bool(answer.off_screen_category) and not answer.instances,
            "rejected": not answer.instances,
            "back_to_boxes": False,
        }[answer.decision]
        if not said or not all(_is_inside(one.bbox, frame) for one in answer.instances):
            raise UsageError(
                f"--gold {path}: {answer.frame_id}: {answer.decision} needs boxes inside the frame"
                " when labelled, and a category but no box when off_screen."
            )


def _is_inside(bbox: Sequence[float], frame: Frame) -> bool:
    inside = clip(bbox, frame.width, frame.height)
    # What others wrote down may be rounded.
    return inside is not None and all(
        abs(was - now) < SAME_PX for was, now in zip(bbox, inside, strict=True)
    )


def _first(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return f"not JSON ({error})"
