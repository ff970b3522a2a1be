"""Pushing frames to a real Label Studio and pulling answers back: seconds and memory.

    python -m benchmarks.labeling --label-studio .venv-labelstudio/bin/label-studio

Clips are made beforehand and not timed: they are made once. Annotations are written by the server's
own import, as if people had accepted every proposal. The reference is the floor of any client: the
same tasks, already made, posted to the same server in requests of the same size. Memory includes
the list of all tasks, which the benchmark itself holds.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from labeling.client import LabelStudio
from labeling.clips import make_clips
from labeling.projects import connect
from labeling.pull import pull_boxes
from labeling.push import push_boxes
from labeling.serve import start_server
from pipeline.workspace import Workspace
from stages.taxonomy import load_taxonomy
from tests.labeling.labelled_workspace import fill
from tests.rows import clip, frame, video

RESULT = Path(__file__).parent / "results" / "labeling.json"
BATCH = 250


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--label-studio", required=True, help="its command")
    parser.add_argument("--tasks", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(
            Path(folder) / "ws", str(Path(options.label_studio).absolute()), options.tasks
        )
    print(json.dumps(found, indent=1))
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measure(root: Path, command: str, count: int) -> dict[str, Any]:
    """Push, push again, accept everything, pull, pull again."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    Workspace.create(root)
    settings = [f"label.server_port={port}", f"label.server_command=['{command}']"]
    workspace = fill(Workspace(root, settings), frames=count)
    copy_clips(workspace, count)
    names = [category.name for category in load_taxonomy().categories]
    seconds: dict[str, float] = {}
    running = start_server(workspace)
    try:
        server = connect(workspace)
        before = peak_mb()
        seconds["push"], pushed = timed(lambda: push_boxes(workspace, server, names))
        seconds["push again"], again = timed(lambda: push_boxes(workspace, server, names))
        tasks = list(server.tasks(pushed.project.number))
        seconds["the same tasks posted"], _ = timed(lambda: post_again(server, tasks))
        accept_all(server, tasks)
        seconds["pull"], pulled = timed(lambda: pull_boxes(workspace, server, names))
        seconds["pull again"], _ = timed(lambda: pull_boxes(workspace, server, names))
    finally:
        running.stop()
    assert (pushed.new, again.new, again.known, pulled.new) == (count, 0, count, count)
    return {
        "machine": describe(),
        "tasks": count,
        "categories per task": len(names),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "push / the same tasks posted": round(
            seconds["push"] / seconds["the same tasks posted"], 2
        ),
        "peak memory of the client, MB": peak_mb(),
        "of that before the first push, MB": before,
    }


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
