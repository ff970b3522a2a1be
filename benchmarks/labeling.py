"""Pushing frames to a real Label Studio and pulling answers back: seconds and memory; and how long
a person waits for the answer to a point.

    python -m benchmarks.labeling --label-studio .venv-labelstudio/bin/label-studio
    python -m benchmarks.labeling --layouts .venv-labelstudio/bin/label-studio
    python -m benchmarks.labeling --clips .venv-labelstudio/bin/label-studio
    python -m benchmarks.labeling --prompts

Clips are made beforehand and not timed: they are made once. Annotations are written by the server's
own import, as if people had accepted every proposal. The reference is the floor of any client: the
same tasks, already made, posted to the same server in requests of the same size. Memory includes
the list of all tasks, which the benchmark itself holds.

``--layouts`` is a person's time: one scripted annotator labels the same drawn clips frame by frame
and clip by clip, in a real Chromium at a real Label Studio. Pages and what keys and mouse do are
measured, Label Studio's own scripts aside; the person's pauses are counted by
the model of ``tests.labeling.scripted``. ``--clips`` pushes and pulls clips of five frames.

A prompt goes over HTTP to ``label backend``, as Label Studio sends it; its reference is the
segmenter alone, asked in the same process. Weights are random numbers in the official files, so
times are right and answers mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import cv2
import numpy as np

from benchmarks.machine import describe
from benchmarks.models import write_weights
from labeling.label_studio.client import LabelStudio
from labeling.projects.annotator_clips import make_clips
from labeling.projects.backend import Backend, Prompts
from labeling.projects.box_project import BOXES
from labeling.projects.connect import connect
from labeling.projects.mask_project import MASKS
from labeling.projects.pages import frames_of
from labeling.projects.serve import start_server
from labeling.review.instances import bring_instances_up_to_date, derive_instances
from labeling.review.verified_masks import bring_masks_up_to_date
from labeling.sync.pull import pull
from labeling.sync.push import push
from pipeline.config import SegmentConfig
from pipeline.models.register import add
from pipeline.records import rle
from pipeline.records.schema import Frame, Instance, Mask, Review
from pipeline.workspace.workspace import Workspace
from stages.segment.refine import FrameRefiner
from stages.taxonomy import load_taxonomy
from tests.labeling.desk import beside, seat, send
from tests.labeling.drawn_workspace import VOCABULARY, fill_drawn_clips
from tests.labeling.labelled_workspace import commit, fill, fill_clips, review
from tests.labeling.scripted import DECIDE_S, DRAW_S, LOOK_S, Scripted, Worked, heard_s
from tests.rows import clip, frame, video

RESULT = Path(__file__).parent / "results" / "labeling.json"
BATCH = 250
BOX = [160.0, 80.0, 240.0, 200.0]
POINTS = [(200.0 + 10 * number, 120.0 + 5 * number) for number in range(16)]
SEGMENTERS = ("grabcut", "sam-vit-b", "sam2.1-hiera-tiny")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--label-studio", help="its command")
    what.add_argument("--layouts", metavar="LABEL_STUDIO", help="its command; needs Chromium")
    what.add_argument("--clips", metavar="LABEL_STUDIO", help="its command: clips by the thousand")
    parser.add_argument("--count", type=int, default=5000, help="clips of --clips")
    parser.add_argument("--tasks", type=int, default=2000)
    what.add_argument("--prompts", action="store_true", help="only how long a point takes")
    options = parser.parse_args()
    found = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        if options.prompts:
            found["prompts"] = measure_prompts(Path(folder))
        elif options.layouts:
            command = str(Path(options.layouts).absolute())
            found["layouts"] = measure_layouts(Path(folder), command)
        elif options.clips:
            command = str(Path(options.clips).absolute())
            found["clips"] = measure_clips(Path(folder), command, options.count)
        else:
            command = str(Path(options.label_studio).absolute())
            found |= measure(Path(folder) / "ws", command, options.tasks)
    print(json.dumps(found, indent=1))
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measure_layouts(root: Path, command: str) -> dict[str, Any]:
    """Label the drawn clips in both layouts."""
    with served(root / "ws", command) as (workspace, server):
        layouts, said = {}, []
        for layout in ("frame", "clip"):
            own = beside(workspace, server, f"{layout}s", layout)
            world = fill_drawn_clips(own)
            number = send(own, server, sum(map(len, world.values())))
            known = {one.frame.frame_id: one for ones in world.values() for one in ones}
            tasks = {
                int(task["id"]): [known[name] for name in frames_of(task)]
                for task in server.tasks(number)
            }
            with seat(workspace, server, root / f"profile-{layout}") as person:
                layouts[layout] = Scripted(person, tasks, heard_s).work(number)
            assert pull(own, server, BOXES, VOCABULARY).new == len(known)
            said.append(decisions(own))
        assert said[0] == said[1], "the tables of both say the same"
    return {
        "machine": describe(),
        "model of the person, s": {
            "the clip with sound": "its length, once per page",
            "a look at a picture": LOOK_S,
            "a decision or a submission": DECIDE_S,
            "a drawn box": DRAW_S,
            "what stands there and is right": 0,
        },
        **{layout: layout_row(worked) for layout, worked in layouts.items()},
        "clip / frame": {
            "page loads": round(layouts["clip"].tasks / layouts["frame"].tasks, 2),
            "bytes": round(layouts["clip"].bytes / layouts["frame"].bytes, 2),
            "scripted time": round(layouts["clip"].seconds / layouts["frame"].seconds, 2),
            "scripted time, were each turn of a page a decision": round(
                (layouts["clip"].seconds + DECIDE_S * layouts["clip"].turns)
                / layouts["frame"].seconds,
                2,
            ),
        },
    }


def decisions(workspace: Workspace) -> list[Any]:
    """What was decided; a drawn box is as exact as a pixel of the screen."""
    return sorted(
        (
            row.frame_id,
            row.decision,
            row.reject_reasons,
            row.off_screen_category or "",
            [
                (one.category, one.scenario, one.origin, one.proposal_id or "")
                for one in row.instances
            ],
        )
        for row in workspace.rows(Review)
    )


def layout_row(worked: Worked) -> dict[str, Any]:
    frames = worked.frames
    return {
        "frames": frames,
        "page loads": worked.tasks,
        "pages turned": worked.turns,
        "requests": worked.requests,
        "MB": round(worked.bytes / 1e6, 2),
        "s per frame": round(worked.seconds / frames, 2),
        "of that opening pages": round(worked.page_s / frames, 2),
        "of that keys and mouse": round(worked.hands_s / frames, 2),
        "of that the person's pauses": round(worked.pauses_s / frames, 2),
    }


def measure_clips(root: Path, command: str, count: int) -> dict[str, Any]:
    """Push clips of five frames, accept everything, pull; what is watched is there already."""
    names = [category.name for category in load_taxonomy().categories]
    seconds: dict[str, float] = {}
    with served(root / "ws", command) as (host, server):
        workspace = beside(host, server, "many", "clip")
        fill_clips(workspace, count)
        before = peak_mb()
        seconds["push"], pushed = timed(lambda: push(workspace, server, BOXES, names))
        seconds["push again"], again = timed(lambda: push(workspace, server, BOXES, names))
        for task in list(server.tasks(pushed.project.number)):
            accept_clip(server, task)
        pull_memory = peak_mb()
        seconds["pull"], pulled = timed(lambda: pull(workspace, server, BOXES, names))
        seconds["pull again"], _ = timed(lambda: pull(workspace, server, BOXES, names))
    assert (pushed.clips, again.new, pulled.new, pulled.bad) == (count, 0, 5 * count, [])
    return {
        "machine": describe(),
        "clips of five frames": count,
        "categories per task": len(names),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "peak memory of the client, MB": peak_mb(),
        "of that before the first push, MB": before,
        "of that with the list of all tasks, before the pull, MB": pull_memory,
    }


def accept_clip(server: LabelStudio, task: dict[str, Any]) -> None:
    shown = task["predictions"][0]["result"]
    result = [{**item, "origin": "prediction"} for item in shown if item["from_name"] != "status"]
    for page in range(len(frames_of(task))):
        seen = {"type": "choices", "value": {"choices": ["Visible"]}, "item_index": page}
        result.append({"id": f"s{page}", "from_name": "status", "to_name": "frame", **seen})
    body = {"result": result, "lead_time": 20.0}
    server.call("POST", f"/api/tasks/{task['id']}/annotations/", body)


def measure_prompts(folder: Path) -> dict[str, Any]:
    """Seconds to embed a frame, and milliseconds from a point to its mask after that."""
    os.environ["AVATAR_BUILD_MODELS"] = str(folder / "models")
    Workspace.create(folder / "ws")
    workspace = Workspace(folder / "ws")
    shown = frame(10, width=640, height=360)
    noise = np.random.default_rng(0).integers(0, 255, (36, 64, 3), np.uint8)
    picture = cv2.resize(noise, (640, 360), interpolation=cv2.INTER_CUBIC)
    assert cv2.imwrite(str(workspace.storage.path(shown.path)), picture)
    spoken = {"bbox": BOX, "category": "dog", "scenario": "Single-sound", "origin": "added"}
    boxes = review(shown.frame_id, "dog", 1, instances=[{**spoken, "proposal_id": None}])
    commit(workspace, "sample", Frame, [shown])
    commit(workspace, "pull", Review, [boxes])
    rows = {}
    for name in SEGMENTERS:
        if name != "grabcut":
            add(name, write_weights(name, folder), own=True)
        config = SegmentConfig.model_validate({"segmenter": name, "device": "cpu"})
        rows[name] = _prompt_row(workspace, shown, derive_instances([boxes])[0], config)
    return {"machine": describe(), "GPU": "not measured", "frame": "640x360", "segmenters": rows}


def _prompt_row(
    workspace: Workspace, shown: Frame, instance: Instance, config: SegmentConfig
) -> dict[str, Any]:
    refiner = FrameRefiner(workspace.storage, config, kept=2)
    points = [(x, y, True) for x, y in POINTS]
    first_s, first_cpu_s = cost(lambda: refiner.refine(shown, BOX, points[:1]))
    with Backend(Prompts(workspace, refiner), 0, print) as backend:
        post(backend.url, shown, instance, points[0])  # reads the tables
        alone = [cost(partial(refiner.refine, shown, BOX, [point])) for point in points]
        whole = [cost(partial(post, backend.url, shown, instance, point)) for point in points]
    # The best of them is the least disturbed; CPU time counts both ends of the connection.
    row = {
        "first answer, s": round(first_s, 2),
        "first answer, CPU s": round(first_cpu_s, 2),
        "answer after that, best ms": round(1000 * min(wall for wall, _ in whole), 1),
        "answer after that, CPU ms": round(1000 * statistics.median(cpu for _, cpu in whole), 1),
        "the segmenter alone, CPU ms": round(1000 * statistics.median(cpu for _, cpu in alone), 1),
    }
    fraction = row["answer after that, CPU ms"] / row["the segmenter alone, CPU ms"]
    return {**row, "answer / the segmenter alone": round(fraction, 2)}


def cost(act: Callable[[], Any]) -> tuple[float, float]:
    """Seconds, and seconds of this process's CPU time."""
    busy = time.process_time()
    wall, _ = timed(act)
    return wall, time.process_time() - busy


def post(url: str, shown: Frame, instance: Instance, point: tuple[float, float, bool]) -> None:
    """One prompt as Label Studio sends it."""
    place = {"x": point[0] / shown.width * 100, "y": point[1] / shown.height * 100, "width": 0.5}
    item = {"type": "keypointlabels", "value": {**place, "keypointlabels": ["1 dog"]}}
    asked = [{"label": "1 dog", "instance_id": instance.instance_id}]
    body = {
        "tasks": [{"data": {"frame_id": shown.frame_id, "asked": asked}}],
        "params": {"context": {"result": [item]}},
    }
    request = Request(
        f"{url}/predict", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urlopen(request, timeout=60) as answer:
        assert json.load(answer)["results"]


@contextlib.contextmanager
def served(root: Path, command: str) -> Iterator[tuple[Workspace, LabelStudio]]:
    """An empty workspace and its running Label Studio."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    Workspace.create(root)
    settings = [f"label.server_port={port}", f"label.server_command=['{command}']"]
    workspace = Workspace(root, settings)
    running = start_server(workspace)
    try:
        yield workspace, connect(workspace)
    finally:
        running.stop()


def measure(root: Path, command: str, count: int) -> dict[str, Any]:
    """Push, push again, accept everything, pull, pull again."""
    names = [category.name for category in load_taxonomy().categories]
    seconds: dict[str, float] = {}
    with served(root, command) as (workspace, server):
        fill(workspace, frames=count)
        copy_clips(workspace, count)
        before = peak_mb()
        seconds["push"], pushed = timed(lambda: push(workspace, server, BOXES, names))
        seconds["push again"], again = timed(lambda: push(workspace, server, BOXES, names))
        tasks = list(server.tasks(pushed.project.number))
        seconds["the same tasks posted"], _ = timed(lambda: post_again(server, tasks))
        accept_all(server, tasks)
        seconds["pull"], pulled = timed(lambda: pull(workspace, server, BOXES, names))
        seconds["pull again"], _ = timed(lambda: pull(workspace, server, BOXES, names))
        masks = measure_masks(workspace, server, count)
    assert (pushed.new, again.new, again.known, pulled.new) == (count, 0, count, count)
    return {
        "machine": describe(),
        "tasks": count,
        "categories per task": len(names),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "push / the same tasks posted": round(
            seconds["push"] / seconds["the same tasks posted"], 2
        ),
        "masks": {
            "tasks": count,
            "boxes pushed and pulled beside them, seconds": [
                round(seconds[name], 2) for name in ("push", "pull")
            ],
            "seconds": {name: round(value, 2) for name, value in masks.items()},
        },
        "peak memory of the client, MB": peak_mb(),
        "of that before the first push, MB": before,
    }


def measure_masks(workspace: Workspace, server: LabelStudio, count: int) -> dict[str, float]:
    """The same frames' masks: push, push again, accept everything, pull, verify."""
    seconds: dict[str, float] = {}
    bring_instances_up_to_date(workspace)
    drawn = np.zeros((180, 320), np.uint8)
    cv2.ellipse(drawn, (60, 60), (50, 40), 30, 0, 360, 1, cv2.FILLED)
    packed = rle.encode(drawn)
    made = [
        Mask(
            instance_id=row.instance_id,
            frame_id=row.frame_id,
            rle=packed,
            area=rle.area(packed),
            bbox=rle.bbox(packed),
            source="grabcut",
            model_digest="",
            predicted_iou=None,
            verified=False,
        )
        for row in workspace.rows(Instance)
    ]
    commit(workspace, "segment", Mask, made)
    seconds["push"], pushed = timed(lambda: push(workspace, server, MASKS, []))
    seconds["push again"], again = timed(lambda: push(workspace, server, MASKS, []))
    accept_all(server, list(server.tasks(pushed.project.number)))
    seconds["pull"], pulled = timed(lambda: pull(workspace, server, MASKS, []))
    seconds["put verified masks in place"], _ = timed(lambda: bring_masks_up_to_date(workspace))
    assert (pushed.new, again.known, pulled.new) == (count, count, count)
    assert all(row.verified for row in workspace.rows(Mask))
    return seconds


def copy_clips(workspace: Workspace, count: int) -> None:
    """Every frame's clips, copied from the first one's: making them is not what is timed."""
    config = workspace.config.label
    first = make_clips(workspace.storage, frame(10), clip(end_s=4.0), video(), config)
    for index in range(11, 10 + count):
        for name in first:
            target = name.replace(frame(10).frame_id, frame(index).frame_id)
            shutil.copyfile(workspace.storage.path(name), workspace.storage.path(target))


def post_again(server: LabelStudio, tasks: list[dict[str, Any]]) -> None:
    """The floor: the same tasks into another project."""
    made = server.create_project(title="reference", label_config="<View/>")
    bare = [
        {
            "data": task["data"],
            "predictions": [
                {key: prediction[key] for key in ("model_version", "score", "result")}
                for prediction in task["predictions"]
            ],
        }
        for task in tasks
    ]
    for start in range(0, len(bare), BATCH):
        server.import_tasks(int(made["id"]), bare[start : start + BATCH])


def accept_all(server: LabelStudio, tasks: list[dict[str, Any]]) -> None:
    """One annotation per task, as its proposals were."""
    for task in tasks:
        result = [{**item, "origin": "prediction"} for item in task["predictions"][0]["result"]]
        body = {"result": result, "lead_time": 4.0}
        server.call("POST", f"/api/tasks/{task['id']}/annotations/", body)


def timed(act: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    answer = act()
    return time.perf_counter() - started, answer


def peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
