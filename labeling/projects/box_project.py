"""The project of boxes: which frames are sent, the task of a frame, how an answer is read.

A region has its proposal's id, and Label Studio keeps it: that links a person's box back to what
was proposed. Boxes are percentages of the frame there.
"""

from __future__ import annotations

import hashlib
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from labeling.automatic.accept import scenarios
from labeling.label_studio.shapes import BoxData, is_skip, read
from labeling.projects.box_results import read_boxes
from labeling.projects.labeling_config import (
    CARRIED_COLOUR,
    COLOURS,
    NO_KEY,
    TASK_AGAIN,
    carried_label,
    prefilled_task,
    region,
    status,
)
from labeling.projects.project_kind import (
    Answers,
    Project,
    ProjectKind,
    Questions,
    are_pulled,
    pulled_at,
)
from labeling.projects.things import Thing, things_of
from labeling.review.order import in_order
from labeling.review.overlap import OverlapPlan
from pipeline.records.boxes import clip
from pipeline.records.reviews import by_frame, is_sent_back
from pipeline.records.schema import Frame, Proposal, Review, Scenario, SoundCategory, Sounds
from pipeline.run.stage import StageSpec
from pipeline.words import command_line, counted
from pipeline.workspace.workspace import Workspace

TOP_KEYS = ("1", "2", "3", "4", "5", "6")
"""Keys of the categories heard best."""


class BoxQuestions(Questions):
    """Every frame that people have not answered yet, with its proposals.

    An answer that still holds is not asked for again, wherever it was given.
    """

    def __init__(self, workspace: Workspace, vocabulary: Sequence[str]) -> None:
        self._place = workspace.storage.url
        self._frames = {row.frame_id: row for row in workspace.rows(Frame)}
        self._vocabulary = list(vocabulary)
        self._sounds = SoundsOfFrames(workspace)
        proposals, reviews = workspace.rows(Proposal), workspace.rows(Review)
        self._proposals = by_frame(proposals)
        self._plan = OverlapPlan(self._frames.values(), proposals, reviews, workspace.config.label)
        self._pulled = pulled_at(reviews)
        # Frame by frame, the frames of a clip are seen apart, by different people.
        self._config = workspace.config.label
        self.order = self._config.order
        self._things = (
            things_of(self._frames.values(), self._proposals, reviews)
            if self._config.task == "clip"
            else None
        )
        self._sent_back = {name for name, rows in by_frame(reviews).items() if is_sent_back(rows)}
        self.asks_several = max(self._plan.wanted.values(), default=1) > 1

    def frames(self) -> list[Frame]:
        """Return the frames that still need an answer, in the order to ask in."""
        missing = [row for name, row in self._frames.items() if self._plan.missing[name]]
        return in_order(missing, self._proposals, self._config.order, self._config.seed)

    def notes(self) -> list[str]:
        """Say how many frames are answered, and how many answers no longer hold."""
        said = []
        if answered := sum(not missing for missing in self._plan.missing.values()):
            said.append(f"{counted(answered, 'frame is', 'frames are')} answered already.")
        if self._plan.orphaned:
            no_more = counted(
                len(self._plan.orphaned), "answer no longer holds", "answers no longer hold"
            )
            status = command_line("label", "status", "--workspace", self._place)
            said.append(f"{no_more}; to list them: {status}")
        return said

    def task(self, frame: Frame, image: str, clips_html: str) -> dict[str, Any]:
        """Make the frame's task."""
        proposals = self._proposals.get(frame.frame_id, [])
        heard = self._sounds.of(frame)
        made = frame, proposals, heard, self._vocabulary, image, clips_html
        return box_task(*made, things=self._things)

    def is_outdated(self, frame_id: str, task: dict[str, Any], project: Project) -> bool:
        """Say whether it shows other proposals than there are, or its answers no longer hold.

        A task somebody is at, one whose answer was not pulled yet, and one that the masks sent back
        (it shows that person's boxes) stay. Of a clip, a task of its own asks again about a frame
        that was sent back: the others' answers hold.
        """
        if not self._plan.missing.get(frame_id) or task["drafts"]:
            return False
        answers = [answer for answer in task["annotations"] if not is_skip(answer)]
        if frame_id in self._sent_back:
            asked_once = project.by_clip and bool(answers)
            return asked_once and are_pulled(answers, frame_id, project, self._pulled)
        if not answers:
            now = shown(self._proposals.get(frame_id, []), self._frames[frame_id])
            return bool(task["data"].get("proposals") != now)
        if frame_id in self._plan.gold or self._plan.is_held(frame_id):
            return False
        return are_pulled(answers, frame_id, project, self._pulled)

    def task_overlap(self, frame_id: str, annotators: Sequence[object]) -> int:
        """Return how many different people are to answer a frame's task."""
        return self._plan.task_overlap(frame_id, annotators)


class BoxAnswers(Answers):
    """A reader of which boxes sound."""

    def __init__(self, workspace: Workspace, vocabulary: Sequence[str]) -> None:
        self._vocabulary = frozenset(vocabulary)
        self._proposals = by_frame(workspace.rows(Proposal))

    def read(self, annotation: object, task: Mapping[str, Any], frame: Frame, name: str) -> Review:
        """Read one answer about a frame."""
        proposals = self._proposals.get(frame.frame_id, [])
        review = read_boxes(annotation, frame, proposals, self._labels(frame), name)
        data = read(BoxData, task["data"], "the task's data", TASK_AGAIN)
        return review.model_copy(update={"shown": data.proposals})

    def _labels(self, frame: Frame) -> frozenset[str]:
        """Return the labels that a frame's task offers."""
        return self._vocabulary


BOXES = ProjectKind(
    name="boxes",
    description=(
        "Which boxes make the sound: keep, move, delete or draw them; then, how they sound."
    ),
    config="boxes",
    step=StageSpec(name="pull", version=2, reads="", writes=("reviews",)),
    questions=BoxQuestions,
    answers=BoxAnswers,
    by_clip="clips",
)


class SoundsOfFrames:
    """The sounds tagged around each frame."""

    def __init__(self, workspace: Workspace) -> None:
        self._rows = {row.id: row for row in workspace.rows(Sounds)}

    def of(self, frame: Frame) -> Sounds | None:
        """Return what was heard around a frame, else in its whole clip."""
        return self._rows.get(frame.frame_id) or self._rows.get(frame.clip_id)


def box_task(
    frame: Frame,
    proposals: Sequence[Proposal],
    sounds: Sounds | None,
    vocabulary: Sequence[str],
    image: str,
    clips_html: str,
    *,
    things: Mapping[str, Thing] | None = None,
) -> dict[str, Any]:
    """Make the task of one frame, its audible proposals as a prediction.

    Args:
        frame: to look at.
        proposals: of the frame; those that are not audible are left out.
        sounds: of its clip, if it was listened to.
        vocabulary: all target categories, in the order of the list.
        image: address of the frame's image.
        clips_html: the loop and the context clip.
        things: what proposals show that are the same in other frames too, by ``proposal_id``; none
            where the frame is seen alone.
    """
    of_things = things or {}
    known = {proposal.proposal_id: proposal for proposal in proposals}
    audible = [known[name] for name in shown(proposals, frame)]
    may_be = [
        of_things[proposal.proposal_id].categories
        if proposal.proposal_id in of_things
        else proposal.categories
        for proposal in audible
    ]
    spoken = [name for names in may_be for name in names]
    names = list(dict.fromkeys([*vocabulary, *spoken]))  # the list may have changed since
    heard = heard_first(sounds.categories if sounds else [], names)
    active = [c.category for c in sounds.categories if c.active] if sounds else []
    data: dict[str, Any] = {
        "proposals": [proposal.proposal_id for proposal in audible],
        "image": image,
        "clips_html": _doubt(frame) + clips_html,
        "categories": [
            {"value": name, "hotkey": key, "background": colour(name)}
            for name, key in zip(heard, _keys(sounds, len(heard)), strict=True)
        ],
        "off_screen_categories": [{"value": name, "hotkey": NO_KEY} for name in heard],
    }
    # Of the categories a box may be, the one heard best.
    categories = [min(names, key=heard.index) for names in may_be]
    result: list[dict[str, Any]] = []
    shown_things: dict[str, dict[str, Any]] = {}
    for proposal, category, guess in zip(
        audible, categories, prefilled(categories, active), strict=True
    ):
        name, label, scenario = proposal.proposal_id, category, guess
        note = {}
        if (thing := of_things.get(name)) is not None:
            scenario = thing.scenario or guess
            label = carried_label(category) if frame.frame_id != thing.first_frame else category
            shown_things[name] = {
                "thing": thing.number,
                "category": category,
                "label": label,
                "scenario": scenario,
            }
            note = {"meta": {"text": [f"thing {thing.number}"]}}
        made = box_region(name, proposal.bbox, label, scenario, frame)
        made[0]["score"] = proposal.detector_score
        result += [{**item, **note} for item in made]
    if things is not None:
        data["things"] = shown_things
        labels = {one["label"] for one in shown_things.values()} - set(names)
        data["categories"] += [
            {"value": label, "hotkey": NO_KEY, "background": CARRIED_COLOUR}
            for label in sorted(labels)
        ]
    # A frame without a box is left to the person: neither visible nor rejected.
    result += [status("status", "Visible")] if audible else []
    score = max((proposal.detector_score for proposal in audible), default=0.0)
    return prefilled_task(frame, data, result, score)


def _doubt(frame: Frame) -> str:
    """Return what to tell the person where the picture may be broken in the source."""
    if frame.suspect is None:
        return ""
    return f"<p>This picture may be broken in the video itself ({html.escape(frame.suspect)}).</p>"


def shown(proposals: Iterable[Proposal], frame: Frame) -> list[str]:
    """Return the ids of the proposals a frame's task shows: audible, inside the frame, sorted."""
    return sorted(
        proposal.proposal_id
        for proposal in proposals
        if proposal.audible and clip(proposal.bbox, frame.width, frame.height) is not None
    )


def heard_first(heard: Sequence[SoundCategory], vocabulary: Sequence[str]) -> list[str]:
    """Sort the vocabulary, best heard first; what is not heard follows in its own order."""
    score = {sound.category: sound.score for sound in heard}
    return sorted(vocabulary, key=lambda name: -score.get(name, float("-inf")))


def prefilled(categories: Sequence[str], active: Sequence[str]) -> list[Scenario]:
    """Guess each box's scenario by the rule of ``label accept``, and what is heard besides.

    >>> prefilled(["dog"], ["dog", "speech"])
    ['Mixed-sound']
    >>> prefilled(["dog", "dog"], ["dog", "speech"])
    ['Multi-entity', 'Multi-entity']
    """
    mixed = len(set(categories) | set(active)) > 1
    return [
        "Mixed-sound" if mixed and scenario == "Single-sound" else scenario
        for scenario in scenarios(categories)
    ]


def colour(name: str) -> str:
    """Return the colour of a category, the same in every task."""
    return COLOURS[hashlib.sha256(name.encode()).digest()[0] % len(COLOURS)]


def to_percent(bbox: Sequence[float], width: int, height: int) -> dict[str, float]:
    """Write a box in pixels as Label Studio does, in percent.

    >>> to_percent([64, 36, 320, 180], 640, 360)
    {'x': 10.0, 'y': 10.0, 'width': 50.0, 'height': 50.0}
    """
    sizes = (width, height, width, height)
    sides = ("x", "y", "width", "height")
    return {
        side: number / size * 100 for side, number, size in zip(sides, bbox, sizes, strict=True)
    }


def _keys(sounds: Sounds | None, count: int) -> list[str]:
    # A key for what nobody heard would only be pressed by mistake.
    keys = TOP_KEYS[: len(sounds.categories) if sounds else 0]
    return [*keys, *[NO_KEY] * count][:count]


def box_region(
    name: str, bbox: Sequence[float], category: str, scenario: Scenario, frame: Frame
) -> list[dict[str, Any]]:
    """Make a box's region with its category and scenario; the part of it inside the frame."""
    inside = clip(bbox, frame.width, frame.height)
    assert inside is not None
    box = {**to_percent(inside, frame.width, frame.height), "rotation": 0}
    labels = {**box, "rectanglelabels": [category]}
    return [
        region(name, "category", "rectanglelabels", labels, frame),
        region(name, "scenario", "choices", {**box, "choices": [scenario]}, frame),
    ]
