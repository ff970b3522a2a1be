"""Bring people's answers into ``reviews``, which only ever grows.

Only tasks that changed since the last pull are asked for, with some overlap. An answer is known by
its annotation and time, so reading it twice adds nothing. An answer that cannot be a review is a
failure row and asked for again until it is mended. A deleted or skipped one is taken back by a row
of its own, which says that the frame is to be looked at again. The answers of a task that was
deleted as a whole still count, and that it is gone is said.

An answer about a clip is one about each of its frames: what it says of one is a review even where
what it says of another is to mend, and each is known by the annotation and the frame. So
it is where an answer decides frames beside the one it is about.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from labeling.label_studio.client import LabelStudio
from labeling.label_studio.shapes import Stamp, Task, read, read_task, unreadable, utc
from labeling.projects.beside import is_beside
from labeling.projects.box_results import withdrawn
from labeling.projects.connect import find_projects
from labeling.projects.labeling_config import TASK_AGAIN
from labeling.projects.pages import frames_of, page_of, pages_answered
from labeling.projects.project_kind import Answers, Project, ProjectKind
from labeling.sync.push import foreign_line
from pipeline.errors import InputError, UsageError
from pipeline.records.reviews import DELETED, SKIPPED, is_withdrawn
from pipeline.records.schema import FailureRow, Frame, Review, content_id, digest_of
from pipeline.run.derive import Derived, HeldStep, bring_up_to_date, hold
from pipeline.run.stage import Drop, Fail, Ok, Outcome
from pipeline.run.unit import Clock
from pipeline.words import command_line
from pipeline.workspace.ledger import Ledger
from pipeline.workspace.workspace import Workspace

_OF = " of "
"""Between an annotation and a frame, in the name of what it says of that frame."""

_OVERLAP = timedelta(seconds=60)
"""A task written while the last pull was reading may carry an earlier time."""


@dataclass
class Pulled:
    """Counts and lists of what came in."""

    project: Project
    tasks: int = 0
    """Tasks that changed since the last pull."""
    new: int = 0
    edited: int = 0
    taken_back: int = 0
    """Answers deleted or skipped after they had been pulled."""
    skipped: int = 0
    """Answers that are a skip and nothing else."""
    bad: list[tuple[str, str]] = field(default_factory=list)
    """Frames whose answer is no review, with what to mend and where."""
    foreign: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    """Frames whose task was deleted at the server after it was answered; the answers count."""

    def as_dict(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        bad = [{"frame_id": name, "reason": reason} for name, reason in self.bad]
        return {**vars(self), "project": self.project.number, "bad": bad}

    def lines(self) -> list[str]:
        """Return the lines that the command prints."""
        parts = [f"{self.new} new", f"{self.edited} edited", f"{self.taken_back} taken back"]
        parts += [f"{self.skipped} skipped"] if self.skipped else []
        parts += [f"{len(self.bad)} to mend"] if self.bad else []
        lines = [f"pull: {self.tasks} changed tasks: {', '.join(parts)}."]
        lines += [f"  to mend: {name}: {reason}" for name, reason in self.bad]
        if self.gone:
            lines.append(
                f"  {len(self.gone)} answered tasks are gone from the server (first"
                f" {self.gone[0]}); their answers count. Only deleting an answer takes it back."
            )
        return lines + [foreign_line(link) for link in self.foreign]


def pull(
    workspace: Workspace, server: LabelStudio, kind: ProjectKind, vocabulary: Sequence[str]
) -> Pulled:
    """Read the answers of a kind of project that are new, and commit them.

    Args:
        workspace: that gets them; derived tables are brought up to date after it.
        server: connected.
        kind: of project.
        vocabulary: the labels that are target categories.

    Raises:
        UsageError: nothing was pushed there.
        AvatarBuildError: another pull is running, or the server fails; nothing is half done.
    """
    storage = workspace.storage
    projects = find_projects(server, workspace.config.label.project, kind)
    if not projects:
        again = command_line("label", "push", kind.name, "--workspace", storage.url)
        title = f"{workspace.config.label.project} {kind.name}"
        raise UsageError(f"{server.url}: no project {title!r}. Make it with: {again}")
    pulled = Pulled(projects[0])
    with hold(workspace, kind.step) as held:
        answers = kind.answers(workspace, vocabulary)
        # From which time on each project's tasks are to be looked at; none for all tasks.
        file = f"{held.ledger.folder}/since.json"
        since = json.loads(storage.read(file)) if storage.exists(file) else {}
        for project in projects:
            clock = Clock()
            reader = _Reader(workspace, server, project, answers, held.ledger, pulled)
            _commit(held, list(reader.read(since.get(project.key, ""))), project, clock)
            if reader.newest:
                since[project.key] = reader.next_since()
                storage.write(file, json.dumps(since).encode())
    bring_up_to_date(workspace)
    return pulled


class _Reader:
    """A reader that turns changed tasks into outcomes, by annotation."""

    def __init__(
        self,
        workspace: Workspace,
        server: LabelStudio,
        project: Project,
        answers: Answers,
        ledger: Ledger,
        pulled: Pulled,
    ) -> None:
        self.pulled = pulled
        self.newest = ""
        self._oldest_bad = ""
        self._read: set[str] = set()
        self._server = server
        self._project = project
        self._answers = answers
        self._frames = {row.frame_id: row for row in workspace.rows(Frame)}
        # The newest row of each annotation of this project that is known, by its name.
        self._known: dict[str, Review] = {}
        self._of_frame: dict[str, set[str]] = {}
        for review in sorted(workspace.rows(Review), key=lambda row: row.updated_at):
            if review.annotation_id.startswith(f"{project.key}/"):
                name = self._name(review.annotation_id, review.frame_id)
                self._known[name] = review
                self._of_frame.setdefault(review.frame_id, set()).add(name)
        self._failing: dict[str, FailureRow] = {row.input_id: row for row in ledger.failures()}

    def next_since(self) -> str:
        """Return when the next pull begins to look: our own settings may mend bad answers."""
        # A server whose clock runs ahead must not hide what is answered until then.
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        earliest = min(self.newest, self._oldest_bad or self.newest, now)
        return (datetime.fromisoformat(earliest) - _OVERLAP).isoformat()

    def read(self, since: str) -> Iterator[Outcome]:
        """Yield one outcome per annotation that says something new."""
        seen = set()
        for task in self._server.tasks(self._project.number, since):
            if task["id"] in seen:
                continue  # it moved to the next page while we read
            seen.add(task["id"])
            self.pulled.tasks += 1
            link = self._server.task_link(self._project.number, task["id"])
            whole = read_task(task, link)
            self.newest = max(self.newest, whole.updated_at)
            names = frames_of(task)
            if not names:
                self.pulled.foreign.append(link)
                continue
            yield from self._answers_of(task, whole, names, link)
        self.pulled.gone += self._without_task()

    def _name(self, annotation: str, frame_id: str) -> str:
        """Return the name of what an annotation says of a frame."""
        return f"{annotation}{_OF}{frame_id}" if self._project.of_several else annotation

    def _answers_of(
        self, task: dict[str, Any], whole: Task, frames: Sequence[str], link: str
    ) -> Iterator[Outcome]:
        alive: set[str] = set()
        given: set[str] = set()
        nameless = False
        for place, annotation in enumerate(whole.annotations):
            name = unnamed = f"{self._project.key}/task {task['id']}, {place + 1}"
            try:
                said = self._project.name_of(annotation)
                if said in self._read:
                    raise unreadable("another answer has its number and time; delete it")
                name = said
                pages = {frame_id: page_of(task, frame_id) for frame_id in frames}
                asked = [frame_id for frame_id in frames if not is_beside(pages[frame_id])]
                by_clip = self._project.by_clip
                if not asked or (len(asked) > 1 and not by_clip):
                    raise unreadable(f"the task says not what it asks about; {TASK_AGAIN}")
                shown = [pages[frame_id]["data"] for frame_id in asked]
                parts = pages_answered(annotation, shown) if by_clip else [annotation]
            except InputError as error:
                yield from self._bad(error, name, frames[0], whole.updated_at, link)
                alive.add(name)
            else:
                for frame_id, part in zip(asked, parts, strict=True):
                    beside = {
                        one: page for one, page in pages.items() if is_beside(page) == frame_id
                    }
                    about = {frame_id: pages[frame_id], **beside}
                    own = self._name(name, frame_id)
                    try:
                        yield from self._answer(about, part, name)
                    except InputError as error:
                        yield from self._bad(error, own, frame_id, whole.updated_at, link)
                alive |= {self._name(name, frame_id) for frame_id in frames}
            nameless = nameless or name == unnamed
            given.add(name)
            self._read.add(name)
        # Which one has no name is not known, so none is said to be deleted.
        for frame_id in [] if nameless else frames:
            for name in sorted(self._of_frame.get(frame_id, set()) - alive):
                annotation_id = self._known[name].annotation_id
                # An answer older than the task was given to an earlier task of the frame, and one
                # that cannot be read now was not deleted.
                old = utc(annotation_id.rpartition("@")[2]) < whole.created_at
                if not old and annotation_id not in given and self._is_deleted(annotation_id):
                    yield from self._take_back(name, whole.updated_at, DELETED)
        yield from self._gone(link, alive)

    def _is_deleted(self, annotation_id: str) -> bool:
        """Say whether an answer that a task does not have is gone.

        A frame has one task, but one of several may be asked about in two: the server knows.
        """
        if not self._project.of_several:
            return True
        number, _, made = annotation_id.partition("/")[2].partition("@")
        found = self._server.annotation(int(number))
        return found is None or found.get("created_at") != made

    def _without_task(self) -> list[str]:
        """Return the frames whose answers count and whose task is no longer there."""
        answered = {row.frame_id for row in self._known.values() if not is_withdrawn(row)}
        if not answered:
            return []
        tasks = self._server.task_columns(self._project.number, "id", "meta")
        return sorted(answered - {name for task in tasks for name in frames_of(task, "meta")})

    def _answer(
        self, about: dict[str, dict[str, Any]], annotation: object, annotation_id: str
    ) -> Iterator[Outcome]:
        """Yield what an answer says of a frame and of those beside it.

        Args:
            about: their pages, that of the frame first.
            annotation: the part that is about them.
            annotation_id: what the reviews will say they came from.
        """
        frame_id, *beside = about
        names = {one: self._name(annotation_id, one) for one in about}
        known = self._known.get(names[frame_id])
        stamp = read(Stamp, annotation, "the answer")
        if stamp.was_cancelled:
            self.pulled.skipped += 1
            for name in names.values():
                yield from self._take_back(name, stamp.updated_at, SKIPPED)
        elif known is None or known.updated_at < stamp.updated_at:
            if frame_id not in self._frames:
                raise InputError(
                    "unknown_frame", "this workspace has no such frame; it was sampled anew"
                )
            frame = self._frames[frame_id]
            review = self._answers.read(annotation, about[frame_id], frame, annotation_id)
            reviews = [review]
            for other in beside:
                row = None
                if other in self._frames:
                    shown = about[other], self._frames[other]
                    row = self._answers.beside(review, annotation, *shown)
                if row is None:
                    yield from self._take_back(names[other], stamp.updated_at, DELETED)
                else:
                    reviews.append(row)
            for row in _shared_out(reviews):
                name = names[row.frame_id]
                again = name in self._known
                self.pulled.edited += again
                self.pulled.new += not again
                yield Ok(name, [self._own(row)])

    def _own(self, review: Review) -> Review:
        """Give a review an id of its own among those of one answer."""
        if not self._project.of_several:
            return review
        own = content_id("r", review.annotation_id, review.updated_at, review.frame_id)
        return review.model_copy(update={"review_id": own})

    def _bad(
        self, error: InputError, name: str, frame: str, changed: str, link: str
    ) -> Iterator[Outcome]:
        """List an answer to mend; it is written down once."""
        detail = f"{frame}: {error.detail}. {link}"
        self.pulled.bad.append((frame, f"{error.kind}: {error.detail}. {link}"))
        self._oldest_bad = min(self._oldest_bad or changed, changed)
        before = self._failing.get(name)
        if before is None or (before.kind, before.detail) != (error.kind, detail):
            yield Fail(name, error.kind, detail)

    def _take_back(self, name: str, at: str, reason: str) -> Iterator[Outcome]:
        known = self._known.get(name)
        if known is None or is_withdrawn(known):
            return
        self.pulled.taken_back += 1
        later = datetime.fromisoformat(known.updated_at) + timedelta(microseconds=1)
        taken_back = withdrawn(known, max(at, utc(later.isoformat())), reason)
        if self._project.of_several:
            own = content_id("r", taken_back.review_id, known.frame_id)
            taken_back = taken_back.model_copy(update={"review_id": own})
        yield Ok(name, [taken_back])

    def _gone(self, link: str, alive: set[str]) -> Iterator[Outcome]:
        """Drop failures whose annotation is no longer there: they need no mending."""
        for name, failure in self._failing.items():
            if failure.detail.endswith(f" {link}") and name not in alive:
                yield Drop(name, "deleted", link)


def _shared_out(reviews: list[Review]) -> list[Review]:
    """Share the time of an answer out equally among the frames it decides."""
    time = reviews[0].lead_time_s
    share = None if time is None else time / len(reviews)
    return [row.model_copy(update={"lead_time_s": share}) for row in reviews]


def _commit(held: HeldStep, outcomes: Sequence[Outcome], project: Project, clock: Clock) -> None:
    """Commit the answers; those that failed before are answered again, as a retry does."""
    failing = {row.input_id: row.attempts for row in held.ledger.failures()}
    again = [outcome for outcome in outcomes if outcome.id in failing]
    first = [outcome for outcome in outcomes if outcome.id not in failing]
    for answers, attempts in ((first, None), (again, failing)):
        if answers:
            said = [
                [one.id, [row.id for row in one.rows] if isinstance(one, Ok) else one.detail]
                for one in answers
            ]
            digest = digest_of(said)
            rows = Derived(digest[:12], project.title, digest, answers, attempts=attempts)
            held.commit(rows, clock)
