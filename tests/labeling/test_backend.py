"""Label Studio's model protocol, spoken with what is no Label Studio too."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from labeling.label_studio import brush
from labeling.label_studio.client import LabelServerError, LabelStudio
from labeling.projects import backend as served
from labeling.projects.backend import TITLE, Backend, Prompts, connect_backend, read_prompt
from labeling.projects.labeling_config import PREDICTED
from labeling.projects.project_kind import Project
from labeling.review.instances import bring_instances_up_to_date
from pipeline.errors import InputError, UsageError
from pipeline.records import rle
from pipeline.records.moved_masks import Point
from pipeline.records.schema import Frame, Instance, Review
from pipeline.workspace.workspace import Workspace
from tests.labeling.label_server import Answer, Asked, label_server
from tests.labeling.labelled_workspace import add_reviews, fill, review
from tests.rows import frame

BOX = [32.0, 18.0, 64.0, 36.0]


@dataclass
class Drawn:
    """A mask as segmenters answer it."""

    mask: NDArray[np.bool_]
    predicted_iou: float | None = 0.75


@dataclass
class Fake:
    """Answers with the box itself, and remembers what it was asked."""

    name: str = "fake"
    asked: list[tuple[str, list[float], list[Point]]] = field(default_factory=list)
    guess: float | None = 0.75
    fails: Exception | None = None
    nothing: bool = False

    def refine(self, frame: Frame, box: list[float], points: list[Point]) -> Drawn:
        if self.fails:
            raise self.fails
        self.asked.append((frame.frame_id, box, points))
        mask = np.zeros((frame.height, frame.width), dtype=bool)
        x, y, w, h = map(round, box)
        mask[y : y + h, x : x + w] = not self.nothing
        return Drawn(mask, self.guess)


@dataclass
class Running:
    """A backend, what it said, and what answers in it."""

    backend: Backend
    fake: Fake
    said: list[str]
    workspace: Workspace


@pytest.fixture
def running(workspace: Workspace) -> Iterator[Running]:
    fill(workspace)
    spoken = {"bbox": BOX, "category": "dog", "scenario": "Single-sound"}
    box = {**spoken, "origin": "added", "proposal_id": None}
    add_reviews(workspace, review(frame(10).frame_id, "dog", 1, instances=[box]))
    bring_instances_up_to_date(workspace)
    fake, said = Fake(), list[str]()
    with Backend(Prompts(workspace, fake), 0, said.append) as backend:
        yield Running(backend, fake, said, workspace)


def instance(running: Running) -> Instance:
    (found,) = running.workspace.rows(Instance)
    return found


def ask(
    running: Running, path: str, body: Any = None, method: str = "POST", **headers: str
) -> tuple[int, str, Any]:
    """Status, reason and content."""
    address = running.backend.url.removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=10)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Content-Type": "application/json"} | headers
    connection.request(method, path, data if method == "POST" else None, sent)
    answer = connection.getresponse()
    content = json.loads(answer.read())
    connection.close()
    return answer.status, answer.reason, content


def point(x: float | str, y: float, label: str = "1 dog", **more: Any) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": 0.5, "keypointlabels": [label]}
    return {"type": "keypointlabels", "from_name": "sam_point", "value": value, **more}


def box(x: float, y: float, w: float, h: float, label: str = "1 dog") -> dict[str, Any]:
    value = {"x": x, "y": y, "width": w, "height": h, "rotation": 0, "rectanglelabels": [label]}
    return {"type": "rectanglelabels", "from_name": "sam_box", "value": value}


def request(running: Running, *items: Any, **data: Any) -> dict[str, Any]:
    """As Label Studio asks about the frame's task."""
    asked = [{"label": "1 dog", "instance_id": instance(running).instance_id}]
    task = {"id": 1, "data": {"frame_id": frame(10).frame_id, "asked": asked, **data}}
    context = {"result": list(items)} if items else None
    params = {"login": None, "password": None, "context": context}
    return {"tasks": [task], "project": "1.2", "label_config": "<View/>", "params": params}


def test_it_is_well_and_takes_what_label_studio_tells_it(running: Running) -> None:
    assert ask(running, "/health", method="GET")[2] == {"status": "UP", "model_class": "fake"}
    assert ask(running, "/versions", method="GET")[2] == {"versions": ["fake"]}
    setup = {"project": "1.2", "schema": "<View/>", "access_token": "secret"}
    assert ask(running, "/setup", setup)[::2] == (200, {"model_version": "fake"})
    assert ask(running, "/webhook", {"action": "TASKS_CREATED"})[0] == 200
    assert running.said == []


def test_points_speak_within_the_instances_box_and_the_answer_replaces_its_mask(
    running: Running,
) -> None:
    items = [point(25, 50), point(75, 10, is_positive=False)]
    status, _, content = ask(running, "/predict", request(running, *items))
    assert status == 200
    ((frame_id, used, points),) = running.fake.asked
    assert (frame_id, used) == (frame(10).frame_id, BOX)
    assert points == [(80.0, 90.0, True), (240.0, 18.0, False)]
    (prediction,) = content["results"]
    (region,) = prediction["result"]
    assert (prediction["model_version"], prediction["score"]) == ("fake", 0.75)
    assert region["id"] == instance(running).instance_id
    assert (region["from_name"], region["type"]) == ("mask", "brushlabels")
    assert region["value"]["brushlabels"] == ["1 dog"]
    assert brush.decode(region["value"]["rle"], 180, 320)[18:54, 32:96].all()


def test_a_drawn_box_takes_the_place_of_the_instances_and_is_cut_at_the_edge(
    running: Running,
) -> None:
    ask(running, "/predict", request(running, box(90, 50, 30, 60), point(95, 60)))
    ((_, used, points),) = running.fake.asked
    assert used == [288.0, 90.0, 32.0, 90.0]
    assert points == [(304.0, 108.0, True)]


def test_only_the_last_label_speaks(running: Running) -> None:
    ask(running, "/predict", request(running, point(1, 1, "2 cat"), point(50, 50)))
    ((_, _, points),) = running.fake.asked
    assert points == [(160.0, 90.0, True)]


def test_without_a_prompt_and_without_a_mask_the_prediction_is_empty(running: Running) -> None:
    empty = request(running)
    assert ask(running, "/predict", empty)[2]["results"][0]["result"] == []
    two = {**empty, "tasks": empty["tasks"] * 2}
    assert len(ask(running, "/predict", two)[2]["results"]) == 2
    assert running.fake.asked == []
    running.fake.nothing = True
    assert ask(running, "/predict", request(running, point(50, 50)))[2]["results"][0] == {
        "model_version": "fake",
        "score": 0.75,
        "result": [],
    }


def test_what_was_pulled_while_it_runs_is_known(running: Running) -> None:
    ask(running, "/predict", request(running, point(50, 50)))
    spoken = {"bbox": BOX, "category": "cat", "scenario": "Single-sound", "origin": "added"}
    row = review(frame(11).frame_id, "cat", 2, instances=[{**spoken, "proposal_id": None}])
    add_reviews(running.workspace, row)
    bring_instances_up_to_date(running.workspace)
    (cat,) = [r for r in running.workspace.rows(Instance) if r.audio_visual_category == "cat"]
    asked = [{"label": "1 cat", "instance_id": cat.instance_id}]
    body = {"tasks": [{"data": {"frame_id": frame(11).frame_id, "asked": asked}}]}
    items = {"context": {"result": [point(50, 50, "1 cat")]}}
    assert ask(running, "/predict", {**body, "params": items})[0] == 200


def spoken(index: int, track: int | None, category: str = "dog", **changes: Any) -> Review:
    """A person's box of a thing in a frame; the box moves 20 pixels to the right a frame."""
    one = {"bbox": [32.0 + 20 * (index - 10), 18.0, 64.0, 36.0], "category": category}
    link = {"scenario": "Single-sound", "origin": "added", "proposal_id": None, "track_id": track}
    return review(frame(index).frame_id, category, 3, instances=[{**one, **link}], **changes)


def verify(running: Running, index: int, left: int = 0) -> None:
    """A person accepts a mask of a frame's thing: its box without so many columns on the left."""
    (thing,) = [
        row for row in running.workspace.rows(Instance) if row.frame_id == frame(index).frame_id
    ]
    pixels = np.zeros((180, 320), bool)
    x, y, w, h = map(round, thing.bbox)
    pixels[y : y + h, x + left : x + w] = True
    said = spoken(index, thing.track_id).instances[0]
    drawn = {"instance_id": thing.instance_id, "rle": rle.encode(pixels)}
    row = review(
        frame(index).frame_id,
        "dog",
        4,
        kind="masks",
        review_id=f"r_masks_{index}",
        annotation_id=f"masks {index}",
        instances=[said.model_copy(update=drawn)],
    )
    add_reviews(running.workspace, row)


def prompt(running: Running, index: int, *items: Any) -> list[Point]:
    """The points that the segmenter is told when these are prompted."""
    (thing,) = [
        row for row in running.workspace.rows(Instance) if row.frame_id == frame(index).frame_id
    ]
    asked = [{"label": "1 dog", "instance_id": thing.instance_id}]
    body = {"tasks": [{"data": {"frame_id": frame(index).frame_id, "asked": asked}}]}
    context = {"context": {"result": list(items)}}
    assert ask(running, "/predict", {**body, "params": context})[0] == 200
    return running.fake.asked[-1][2]


@pytest.fixture
def tracked(running: Running) -> Running:
    """One thing in the three frames."""
    add_reviews(running.workspace, *(spoken(index, 7) for index in (10, 11, 12)))
    bring_instances_up_to_date(running.workspace)
    return running


def test_a_verified_mask_tells_of_the_same_thing_in_another_frame(tracked: Running) -> None:
    here = point(30, 20)
    said = [(96.0, 36.0, True)]
    assert prompt(tracked, 11, here) == said
    verify(tracked, 10, left=32)
    *carried, last = prompt(tracked, 11, here)
    assert [last] == said, "what the person says comes last"
    assert {inside for *_, inside in carried} == {True, False}
    middle = 52 + 32  # of the box, which moved with the thing
    assert all((x > middle) == inside for x, _, inside in carried)
    assert all(52 < x < 116 and 18 < y < 54 for x, y, _ in carried)


def test_the_nearest_frame_speaks_and_what_contradicts_the_person_nearby_does_not(
    tracked: Running,
) -> None:
    verify(tracked, 10, left=32)
    verify(tracked, 11, left=0)
    carried = prompt(tracked, 12, point(40, 20))[:-1]
    assert carried
    assert all(inside for *_, inside in carried), "the mask of frame 11 fills its box"
    x, y, _ = carried[0]
    against = point(100 * x / 320, 100 * y / 180, is_positive=False)
    left = prompt(tracked, 12, against)[:-1]
    assert left == carried[1:]


@pytest.mark.parametrize("why", ["another track", "no track", "another category", "no person"])
def test_other_things_and_masks_nobody_verified_say_nothing(running: Running, why: str) -> None:
    other = {"another track": (8, "dog"), "no track": (None, "dog"), "another category": (7, "cat")}
    track, category = other.get(why, (7, "dog"))
    add_reviews(running.workspace, spoken(10, track, category), spoken(11, 7))
    bring_instances_up_to_date(running.workspace)
    if why != "no person":
        verify(running, 10)
    assert len(prompt(running, 11, point(30, 20))) == 1


def test_a_mask_of_a_box_that_was_decided_anew_says_nothing(tracked: Running) -> None:
    verify(tracked, 10)
    assert len(prompt(tracked, 11, point(30, 20))) > 1
    moved = spoken(10, 7)
    box = moved.instances[0].model_copy(update={"bbox": [200.0, 90.0, 30.0, 30.0]})
    later = {"instances": [box], "review_id": "r_later", "annotation_id": "later"}
    at = {"updated_at": "2026-01-09T00:00:00+00:00"}
    add_reviews(tracked.workspace, moved.model_copy(update=later | at))
    bring_instances_up_to_date(tracked.workspace)
    assert len(prompt(tracked, 11, point(30, 20))) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r["tasks"][0]["data"].update(frame_id="../../etc/passwd"), "unknown_frame"),
        (lambda r: r["tasks"][0]["data"].update(frame_id={"a": 1}), "unknown_frame"),
        (lambda r: r["tasks"][0]["data"].pop("asked"), "bad_request"),
        (lambda r: r["tasks"][0]["data"].update(asked=[{"label": "1 dog"}]), "bad_request"),
        (
            lambda r: r["tasks"][0]["data"].update(
                asked=[{"label": "1 dog", "instance_id": "i_none"}]
            ),
            "unknown_label",
        ),
        (lambda r: r.update(tasks=[]), "bad_request"),
        (lambda r: r.update(tasks=7), "bad_request"),
        (lambda r: r.update(params={"context": {"result": [point(1, 1, "9 cow")]}}), "9 cow"),
        (lambda r: r.update(params={"context": {"result": [{"type": "x"}]}}), "unknown_prompt"),
        (lambda r: r.update(params={"context": {"result": ["x"]}}), "bad_request"),
        (lambda r: r.update(params={"context": {"result": [box(101, 0, 5, 5)]}}), "empty_box"),
        (lambda r: r.update(params={"context": {"result": [point("nan", 1)]}}), "not_a_place"),
        (lambda r: r.update(params={"context": {"result": [point(1, 1)] * 999}}), "are enough"),
    ],
)
def test_a_request_that_cannot_be_answered_gets_one_line(
    running: Running, change: Any, says: str
) -> None:
    body = request(running, point(50, 50))
    change(body)
    status, reason, content = ask(running, "/predict", body)
    assert status == 422
    assert says in content["error"]
    assert says in reason, "Label Studio shows the reason of the status line"
    (line,) = running.said
    assert "\n" not in line
    assert says in line


def test_a_segmenter_that_fails_fails_one_request(running: Running) -> None:
    body = request(running, point(50, 50))
    running.fake.fails = RuntimeError("CUDA error:\nout of luck")
    status, reason, _ = ask(running, "/predict", body)
    assert (status, reason) == (500, "RuntimeError: CUDA error: out of luck")
    running.fake.fails, running.fake.guess = None, float("nan")
    assert ask(running, "/predict", body)[0] == 422
    running.fake.guess = None
    assert ask(running, "/predict", body)[0] == 200


def test_requests_of_a_page_too_large_or_no_json_are_refused_unread(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = request(running, point(50, 50))
    assert ask(running, "/predict", body, **{"Content-Type": "text/plain"})[0] == 415
    assert ask(running, "/predict", b"{")[0] == 400
    assert ask(running, "/predict", b"[" * 100_000)[0] == 400
    assert ask(running, "/data/upload", {})[0] == 404
    assert ask(running, "/../secret", method="GET")[0] == 404
    monkeypatch.setattr(served, "MAX_BYTES", 100)
    assert ask(running, "/predict", body)[0] == 413
    assert len(running.said) == 6


def test_a_request_that_says_no_size_is_refused(running: Running) -> None:
    host, port = running.backend.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        raw.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        assert raw.recv(100).startswith(b"HTTP/1.0 411")


def test_it_listens_on_the_loopback_interface_and_a_taken_port_is_named(running: Running) -> None:
    host, port = running.backend.url.removeprefix("http://").split(":")
    assert host == "127.0.0.1"
    with pytest.raises(UsageError, match=r"label\.backend_port"):
        Backend(Prompts(running.workspace, running.fake), int(port), print)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["type", "value", "x", "y", "width", "height", "keypointlabels"]),
                inner,
                max_size=5,
            )
        ),
        max_leaves=8,
    )
)
def test_no_prompt_is_too_strange_to_be_refused(item: Any) -> None:
    try:
        read_prompt([item], frame())
    except (InputError, KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return


def test_it_is_made_known_once_and_moves_with_its_port(running: Running) -> None:
    known: list[dict[str, Any]] = []

    def answer(asked: Asked) -> Answer:
        if asked.method == "GET":
            return 200, known
        if asked.method == "POST":
            known.append({"id": 3, **asked.body})
        else:
            assert asked.path == "/api/ml/3"
            known[0].update(asked.body)
        return 201, known[0]

    project = Project(5, "p masks", "k")
    with label_server(answer) as server:
        studio = LabelStudio(server.url, "0" * 40, sleep=lambda _: None)
        connect_backend(studio, project, running.backend)
        known[0]["url"] = "http://127.0.0.1:1"
        connect_backend(studio, project, running.backend)
    (backend,) = known
    assert (backend["url"], backend["is_interactive"]) == (running.backend.url, True)
    assert backend["title"] == TITLE != PREDICTED


def test_a_server_that_refuses_loopback_addresses_is_told_what_to_set(running: Running) -> None:
    def answer(asked: Asked) -> Answer:
        if asked.method == "GET":
            return 200, []
        return 400, {"url": ["URL resolves to a reserved network address"]}

    with label_server(answer) as server:
        studio = LabelStudio(server.url, "0" * 40, sleep=lambda _: None)
        with pytest.raises(LabelServerError, match="LABEL_STUDIO_ML_BLOCK_LOCAL_IP=0"):
            connect_backend(studio, Project(5, "p", "k"), running.backend)
