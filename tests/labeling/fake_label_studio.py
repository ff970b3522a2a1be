"""As much of Label Studio as ``push`` and ``pull`` ask for, in memory, with faults on request."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from labeling.label_studio.client import LabelStudio
from tests.labeling.label_server import Answer, Asked, label_server

TOKEN = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeLabelStudio:
    """Time passes by one second per change."""

    projects: list[dict[str, Any]] = field(default_factory=list)
    tasks: dict[int, dict[str, Any]] = field(default_factory=dict)
    views: list[dict[str, Any]] = field(default_factory=list)
    """Of the lists of tasks."""
    fault: Callable[[Asked], Answer | bool | None] = lambda asked: True
    """True lets a request through; None breaks its connection before anything is done."""
    lose_answers: bool = False
    """Imports arrive, and their connection breaks before the answer."""
    second: int = 0

    @contextlib.contextmanager
    def serve(self) -> Iterator[LabelStudio]:
        """Answer on the loopback interface; a client of it, which waits for nothing."""
        with label_server(self.answer) as running:
            yield LabelStudio(running.url, TOKEN, sleep=lambda _: None)

    def answer(self, asked: Asked) -> Answer | None:
        """Serve one request."""
        refused = self.fault(asked)
        if refused is not True:
            assert refused is not False
            return refused
        parts = urlsplit(asked.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        match asked.method, parts.path.strip("/").split("/"):
            case "GET", ["api", "version"]:
                return 200, {"label-studio-os-package": {"version": "fake"}}
            case "GET", ["api", "current-user", "whoami"]:
                return 200, {"id": 1}
            case "GET", ["api", "projects"]:
                return 200, {"results": self.projects, "next": None}
            case "POST", ["api", "projects"]:
                made = {**asked.body, "id": len(self.projects) + 1, "created_at": self.now()}
                self.projects.append(made)
                return 201, made
            case "GET", ["api", "projects", number]:
                tasks = [task for task in self.tasks.values() if task["project"] == int(number)]
                done = sum(
                    len({answer["completed_by"] for answer in task["annotations"]})
                    >= task["overlap"]
                    for task in tasks
                )
                return 200, {
                    "task_number": len(tasks),
                    "finished_task_number": done,
                    "skipped_annotations_number": 0,
                }
            case "GET", ["api", "dm", "columns"]:
                seen = {"explore": True, "labeling": False}
                return 200, {"columns": [{"id": "id", "visibility_defaults": seen}, {"id": "data"}]}
            case "POST", ["api", "dm", "views"]:
                self.views.append(asked.body)
                return 201, {"id": len(self.views), **asked.body}
            case "GET", ["api", "storages", "localfiles"]:
                return 200, []
            case "POST", ["api", "storages", "localfiles"]:
                return 201, {}
            case "POST", ["api", "projects", project, "import"]:
                for task in asked.body:
                    made = self.add(task["data"], task.get("predictions", []), int(project))
                    made["meta"] = task["meta"]
                return None if self.lose_answers else (201, {"task_count": len(asked.body)})
            case "GET", ["api", "tasks"]:
                return 200, self._page(query)
            case "POST", ["api", "tasks", number, "annotations"]:
                return 201, self.annotate(self.tasks[int(number)], **asked.body)
            case "PATCH", ["api", "tasks", number]:
                self.tasks[int(number)].update(asked.body, updated_at=self.now())
                return 200, self.tasks[int(number)]
            case "DELETE", ["api", "tasks", number]:
                del self.tasks[int(number)]
                return 204, b""
            case "GET", ["api", "annotations", number]:
                every = (a for task in self.tasks.values() for a in task["annotations"])
                found = [a for a in every if a["id"] == int(number)]
                return (200, found[0]) if found else (404, {})
            case "DELETE", ["api", "annotations", number]:
                task, annotation = self._annotation(int(number))
                self.delete(task, annotation)
                return 204, b""
            case "PATCH", ["api", "predictions", number]:
                (prediction,) = [
                    prediction
                    for task in self.tasks.values()
                    for prediction in task["predictions"]
                    if prediction["id"] == int(number)
                ]
                prediction.update(asked.body)
                return 200, prediction
        return 404, {}

    def now(self) -> str:
        """The next second."""
        self.second += 1
        return (datetime(2026, 11, 21) + timedelta(seconds=self.second)).isoformat() + ".000000Z"

    def add(
        self, data: dict[str, Any], predictions: Sequence[Any] = (), project: int = 1
    ) -> dict[str, Any]:
        """Make a task; numbers start again where the last one was deleted, as with SQLite."""
        number, when = max(self.tasks, default=0) + 1, self.now()
        self.tasks[number] = {
            "id": number,
            "project": project,
            "data": data,
            "meta": {},
            "annotations": [],
            "drafts": [],
            "overlap": 1,
            "is_labeled": False,
            "predictions": [{"id": number, **copy.deepcopy(made)} for made in predictions],
            "created_at": when,
            "updated_at": when,
        }
        return self.tasks[number]

    def of_frame(self, frame_id: str, project: int = 1) -> dict[str, Any]:
        """The only task of a frame in a project."""
        of_project = [t for t in self.tasks.values() if t["project"] == project]
        (task,) = [t for t in of_project if t["data"].get("frame_id") == frame_id]
        return task

    def of_clip(self, *frame_ids: str, project: int = 1) -> dict[str, Any]:
        """The only task of a project that shows just these frames of a clip."""
        of_project = [t for t in self.tasks.values() if t["project"] == project]
        (task,) = [t for t in of_project if t["data"].get("frame_ids") == list(frame_ids)]
        return task

    def annotate(self, task: dict[str, Any], result: list[Any], **changes: Any) -> dict[str, Any]:
        """Submit an answer."""
        when = self.now()
        annotation = {
            "id": 1
            + max((a["id"] for t in self.tasks.values() for a in t["annotations"]), default=0),
            "created_at": when,
            "completed_by": 7,
            "lead_time": 4.0,
            "was_cancelled": False,
            "result": copy.deepcopy(result),
            "updated_at": when,
            **changes,
        }
        task["annotations"].append(annotation)
        task["updated_at"] = when
        return annotation

    def edit(self, task: dict[str, Any], annotation: dict[str, Any], **changes: Any) -> None:
        """Change an answer."""
        when = self.now()
        annotation.update(changes, updated_at=when)
        task["updated_at"] = when

    def delete(self, task: dict[str, Any], annotation: dict[str, Any]) -> None:
        """Delete an answer; the task's time says so."""
        task["annotations"].remove(annotation)
        task["updated_at"] = self.now()

    def _annotation(self, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        (found,) = [
            (task, annotation)
            for task in self.tasks.values()
            for annotation in task["annotations"]
            if annotation["id"] == number
        ]
        return found

    def _page(self, query: dict[str, str]) -> dict[str, Any]:
        found = [self.tasks[number] for number in sorted(self.tasks)]
        found = [task for task in found if task["project"] == int(query["project"])]
        if "query" in query:
            (only,) = json.loads(query["query"])["filters"]["items"]
            value = only["value"]
            if only["filter"] == "filter:tasks:overlap":
                found = [task for task in found if task["overlap"] > value]
            elif only["filter"] in ("filter:tasks:data.frame_id", "filter:tasks:data.clip_id"):
                column = only["filter"].rpartition(".")[2]
                found = [task for task in found if task["data"].get(column) == value]
            else:
                datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%fZ")  # the real one answers 500 else
                found = [task for task in found if task["updated_at"] > value]
        size, page = int(query["page_size"]), int(query["page"])
        shown = found[size * (page - 1) : size * page]
        return {"total": len(found), "tasks": [self._counted(task, query) for task in shown]}

    def _counted(self, task: dict[str, Any], query: dict[str, str]) -> dict[str, Any]:
        """A task as the list has it: without "all", nobody is counted."""
        answers = task["annotations"] if query.get("fields") == "all" else []
        people = [answer.get("completed_by") for answer in answers]
        skips = [answer.get("was_cancelled") for answer in task["annotations"]]
        return {
            **task,
            "annotators": sorted({person for person in people if isinstance(person, int)}),
            "total_annotations": sum(not skip for skip in skips),
        }
