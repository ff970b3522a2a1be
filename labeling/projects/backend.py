"""The path of an annotator's click, from the page to the mask it brings back, in one file.

The page (``configs/masks.xml``) holds the frame, its labels and the prompts. With each point and
box Label Studio asks this server, in its model protocol (``_Handler``). ``Prompts`` finds the frame
and the instance in the workspace and reads what was clicked (``read_prompt``); the segmenter
(``Refiner``) makes a mask of it; ``brush`` packs that, and the page puts the answer in the place of
the mask it came with, because it has its instance's id.

Where people have verified the mask of the same thing in another frame of the clip, the segmenter is
told of that too (``carried_masks``). What the person says goes before it.

The server listens on the loopback interface and answers a Label Studio of the same machine.
Requests are bounded in size and time, and carry no address or path that is ever opened: a request
names a frame and a label, all else comes from the workspace. The token that Label Studio sends
along is not looked at.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from labeling.label_studio import brush
from labeling.label_studio.client import LabelServerError, LabelStudio
from labeling.projects.carried_masks import Refiner, VerifiedMasks
from labeling.projects.mask_project import mask_region
from labeling.projects.project_kind import Project
from labeling.review.instances import every_instance
from pipeline.errors import InputError, UsageError
from pipeline.records.boxes import clip
from pipeline.records.moved_masks import Point
from pipeline.records.schema import Frame, Instance, Review
from pipeline.workspace.recorded import CHANGED
from pipeline.workspace.workspace import Workspace

TITLE = "avatar-build backend"
"""The model's title at the server. It is not the predictions' model version: a project whose
version is a model's title asks that model for every task it opens."""

MAX_BYTES = 64 * 1024 * 1024
"""The bound on a request: it holds the whole task, all strokes and drafts of it."""

_QUIET = {"/setup", "/webhook", "/train"}
"""The addresses at which the server only tells us something."""


class Backend(ThreadingHTTPServer):
    """A running server; a context manager that ends it.

    Args:
        prompts: what answers.
        port: on the loopback interface; 0 takes a free one.
        say: told each error, in one line.

    Raises:
        UsageError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, prompts: Prompts, port: int, say: Callable[[str], None]) -> None:
        self.prompts = prompts
        self.say = say
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise UsageError(
                f"127.0.0.1:{port}: {error.strerror}. Take another port with"
                " --set label.backend_port=9091."
            ) from error
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True)

    def __enter__(self) -> Backend:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()

    def wait(self) -> None:
        """Wait until the server ends."""
        self._thread.join()


def connect_backend(server: LabelStudio, project: Project, backend: Backend) -> None:
    """Let the annotators of a project ask a running backend.

    Raises:
        LabelServerError: the server refuses, with what to do.
    """
    try:
        server.connect_backend(project.number, backend.url, TITLE)
    except LabelServerError as error:
        raise LabelServerError(
            f"{error} Label Studio must run on this machine, with LABEL_STUDIO_ML_BLOCK_LOCAL_IP=0"
            " and LABEL_STUDIO_SSRF_PROTECTION_ENABLED=0, as 'avatar-build label serve' does."
        ) from error


class _Handler(BaseHTTPRequestHandler):
    """One request; the connection ends with its answer."""

    server: Backend
    timeout = 30
    """Seconds without a byte before a connection is given up."""

    def do_GET(self) -> None:
        if self.path.partition("?")[0] == "/versions":
            self._answer(200, {"versions": [self.server.prompts.name]})
        elif self.path in ("/", "/health"):
            self._answer(200, {"status": "UP", "model_class": self.server.prompts.name})
        else:
            self._refuse(404, f"{self.path[:80]!r} is none of ours")

    def do_POST(self) -> None:
        # Only programs send this type; a page in somebody's browser would have to ask first.
        if self.headers.get_content_type() != "application/json":
            self._refuse(415, "send application/json")
            return
        size = self.headers.get("Content-Length", "")
        if not size.isascii() or not size.isdigit():
            self._refuse(411, "no Content-Length")
            return
        if int(size) > MAX_BYTES:
            self._refuse(413, f"{size} bytes, at most {MAX_BYTES}")
            return
        try:
            request = json.loads(self.rfile.read(int(size)))
        except (ValueError, RecursionError, TimeoutError) as error:
            self._refuse(400, f"not JSON ({error!s:.80})")
            return
        if self.path in _QUIET:
            self._answer(200, {"model_version": self.server.prompts.name})
        elif self.path == "/predict":
            self._predict(request)
        else:
            self._refuse(404, f"{self.path[:80]!r} is none of ours")

    def _predict(self, request: Any) -> None:
        try:
            answer = self.server.prompts.predict(request)
        except InputError as error:
            self._refuse(422, f"{error.kind}: {error.detail}")
        except Exception as error:  # noqa: BLE001  one request may fail; the server goes on
            self._refuse(500, f"{type(error).__name__}: {error}")
        else:
            self._answer(200, answer)

    def _refuse(self, status: int, why: str) -> None:
        line = " ".join(why.split())[:300]
        self.server.say(f"label backend: {status}: {line}")
        # Label Studio shows its user the reason of the status line and not the body.
        reason = line.encode("ascii", "replace").decode()
        self._answer(status, {"error": line}, reason)

    def _answer(self, status: int, content: Any, reason: str | None = None) -> None:
        data = json.dumps(content).encode()
        self.send_response(status, reason)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


_NEAR = 0.1
"""A point of another frame's mask that contradicts a person's and is this near to it is left out;
in diagonals of the box."""

_MOST = 200
"""The most prompts one answer may rest on."""


@dataclass(frozen=True)
class Prompt:
    """The points and the box a person gave of one thing."""

    label: str
    box: list[float] | None
    """The box ``[x, y, w, h]`` in pixels; none when no box was drawn."""
    points: list[Point]


class Prompts:
    """The answers to the requests of a Label Studio.

    Args:
        workspace: whose frames and instances; what was pulled later is found too.
        refiner: opened.
    """

    def __init__(self, workspace: Workspace, refiner: Refiner) -> None:
        self.name = refiner.name
        self._workspace = workspace
        self._refiner = refiner
        self._frames: dict[str, Frame] = {}
        self._instances: dict[str, Instance] = {}
        self._verified = VerifiedMasks({}, (), ())
        self._seen: list[str] = []
        """The files these were read from."""

    def predict(self, request: Any) -> dict[str, Any]:
        """Answer ``/predict``: one prediction per task, empty where nothing was prompted.

        Raises:
            InputError: the request is not as Label Studio makes it, or names what is not here.
        """
        try:
            context = (request.get("params") or {}).get("context") or {}
            tasks, prompts = request["tasks"], list(context.get("result") or [])
            if not prompts:
                return {"results": [self._prediction([], None) for _ in tasks]}
            (task,) = tasks
            return {"results": [self._answer(task["data"], prompts)]}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                "bad_request", f"not a request of Label Studio's ({error!r:.120})"
            ) from error

    def _answer(
        self, data: Mapping[str, Any], items: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        frame = self._frame(str(data["frame_id"]))
        prompt = read_prompt(items, frame)
        instance = self._instance(prompt.label, data["asked"], frame)
        box = prompt.box or instance.bbox
        points = [*self._carried(instance, frame, box, prompt.points), *prompt.points]
        try:
            found = self._refiner.refine(frame, box, points)
        except InputError as error:
            if error.kind != CHANGED:
                raise
            self._look_again()  # sampled anew, the row is another one too
            frame = self._frame(frame.frame_id)
            found = self._refiner.refine(frame, box, points)
        guess = found.predicted_iou
        if guess is not None and not math.isfinite(guess):
            raise InputError("not_a_number", f"{self.name} computed no number")
        if not found.mask.any():
            return self._prediction([], guess)
        shown = mask_region(frame, instance, prompt.label, brush.encode(found.mask), guess)
        return self._prediction([shown], guess)

    def _prediction(self, result: list[dict[str, Any]], score: float | None) -> dict[str, Any]:
        return {"model_version": self.name, "score": score or 0.0, "result": result}

    def _frame(self, frame_id: str) -> Frame:
        if frame_id not in self._frames:
            self._look_again()
        if frame_id not in self._frames:
            raise InputError("unknown_frame", f"no frame {frame_id[:80]!r} in this workspace")
        return self._frames[frame_id]

    def _instance(self, label: str, asked: Sequence[Mapping[str, Any]], frame: Frame) -> Instance:
        names = {item["label"]: item["instance_id"] for item in asked}
        if label in names and names[label] not in self._instances:
            self._look_again()
        found = self._instances.get(names.get(label, ""))
        if found is None or found.frame_id != frame.frame_id:
            raise InputError("unknown_label", f"{label[:80]!r} is no instance of {frame.frame_id}")
        return found

    def _carried(
        self, instance: Instance, frame: Frame, box: Sequence[float], said: Sequence[Point]
    ) -> list[Point]:
        """Return points of the same thing's verified mask in the nearest frame that has one.

        Args:
            instance: the thing in this frame.
            frame: this one.
            box: around it.
            said: the person's points; what contradicts one of them nearby is left out.
        """
        if instance.track_id is None:
            return []
        if self._files() != self._seen:
            self._look_again()
        verified = self._verified.nearest(instance, frame)
        points = [] if verified is None else verified.points(frame, box)
        near = _NEAR * math.hypot(box[2], box[3])
        return [
            point
            for point in points
            if all(point[2] == other[2] or math.dist(point[:2], other[:2]) > near for other in said)
        ]

    def _look_again(self) -> None:
        seen = self._files()
        reviews = self._workspace.rows(Review)
        frames = {row.frame_id: row for row in self._workspace.rows(Frame)}
        self._verified = VerifiedMasks(frames, self._workspace.rows(Instance), reviews)
        self._frames, self._instances, self._seen = frames, every_instance(reviews), seen

    def _files(self) -> list[str]:
        """Return the digests of what people said, and of what follows from it."""
        tables = "reviews", "instances"
        return [file.sha256 for table in tables for file in self._workspace.files(table)]


def read_prompt(items: Sequence[Mapping[str, Any]], frame: Frame) -> Prompt:
    """Read what was prompted last: the points and the last box of the last item's label.

    Raises:
        InputError: a place that is none, or too many.
    """
    if len(items) > _MOST:
        raise InputError("too_many_prompts", f"{len(items)} points and boxes; {_MOST} are enough")
    label = _label(items[-1])
    points: list[Point] = []
    box = None
    for item in items:
        if _label(item) != label:
            continue
        x, y = _place(item, frame, "x", "y")
        if item["type"] == "keypointlabels":
            inside = bool(item.get("is_positive", True))
            points.append((min(max(x, 0.0), frame.width), min(max(y, 0.0), frame.height), inside))
            continue
        width, height = _place(item, frame, "width", "height")
        box = clip([x, y, width, height], frame.width, frame.height)
        if box is None:
            raise InputError("empty_box", "the box holds no pixel of the picture; draw it again")
    return Prompt(label, box, points)


def _label(item: Mapping[str, Any]) -> str:
    if item["type"] not in ("keypointlabels", "rectanglelabels"):
        raise InputError("unknown_prompt", f"{str(item['type'])[:40]!r} is no point and no box")
    (label,) = item["value"][item["type"]]
    return str(label)


def _place(item: Mapping[str, Any], frame: Frame, across: str, down: str) -> tuple[float, float]:
    """Return two percentages of a prompt in pixels."""
    x, y = float(item["value"][across]), float(item["value"][down])
    if not (math.isfinite(x) and math.isfinite(y)):
        raise InputError("not_a_place", f"{across} {x}, {down} {y}")
    return x / 100 * frame.width, y / 100 * frame.height
