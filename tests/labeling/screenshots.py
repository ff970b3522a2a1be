"""Photograph the annotators' pages for the guide: the drawn world at a real Label Studio.

    python -m tests.labeling.screenshots docs

Needs what ``make test-labelstudio`` installs.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from playwright.sync_api import expect

from labeling.projects.backend import Backend, Prompts, connect_backend
from labeling.projects.box_project import BOXES
from labeling.projects.connect import connect, open_project
from labeling.projects.mask_project import MASKS
from labeling.projects.pages import frames_of
from labeling.projects.serve import start_server
from labeling.review.instances import bring_instances_up_to_date
from labeling.sync.pull import pull
from pipeline.config import SegmentConfig
from pipeline.workspace.workspace import Workspace
from stages.segment.refine import FrameRefiner
from tests.labeling.conftest import serve_settings
from tests.labeling.desk import Desk, beside, open_desk, seat, send, send_masks, with_masks
from tests.labeling.drawn_workspace import (
    HALF_SEEN,
    MIXED,
    MULTI,
    MUSIC,
    OFF_SCREEN,
    SINGLE,
    VOCABULARY,
    fill_drawn_clips,
)

_SIZE = (1200, 675)
_CLIPS_ARE_LOADED = "() => [...document.querySelectorAll('video')].every(v => v.readyState > 2)"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write ``annotating-*.png``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clip", action="store_true", help="only the pages of clips")
    options = parser.parse_args(arguments)
    folder = options.folder
    settings = serve_settings()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "ws"
        Workspace.create(root)
        workspace = Workspace(root, settings)
        running = start_server(workspace)
        try:
            _clip(workspace, Path(scratch) / "clips", folder)
            _mask_clip(workspace, Path(scratch) / "mask_clips", folder)
            if options.clip:
                return
            with open_desk(workspace, connect(workspace), Path(scratch) / "profile") as desk:
                _boxes(desk, folder)
                pull(desk.workspace, connect(desk.workspace), BOXES, VOCABULARY)
                bring_instances_up_to_date(desk.workspace)
                _masks(with_masks(desk), folder)
        finally:
            running.stop()


def _boxes(desk: Desk, folder: Path) -> None:
    person = desk.person
    at = person.begin(desk.project)
    order = sorted(desk.tasks, key=desk.tasks.__getitem__)
    for video in order:
        assert at == desk.tasks[video]
        if video == SINGLE:
            person.select(f"p_{SINGLE}_1")
            _photograph(desk, folder / "annotating-single.png")
        elif video == HALF_SEEN:
            person.select(f"p_{HALF_SEEN}_1")
            _photograph(desk, folder / "annotating-mixed.png")
        elif video == MULTI:
            person.select(f"p_{MULTI}_0")
            person.press("d")
            person.wait_for_regions(1)
            person.select(f"p_{MULTI}_1")
            _photograph(desk, folder / "annotating-multi.png")
        elif video == OFF_SCREEN:
            person.decide("8", "Off-screen")
            person.choose("car")
            _photograph(desk, folder / "annotating-off-screen.png")
        elif video == MUSIC:
            person.decide("9", "Reject")
            person.press("Shift+M")
            _photograph(desk, folder / "annotating-reject.png")
        person.submit()
        if video != order[-1]:
            at = person.wait_for_another_task(at)


def _clip(served: Workspace, profile: Path, folder: Path) -> None:
    """The second picture of the two dogs' clip, on a small screen."""
    api = connect(served)
    workspace = beside(served, api, "clips", "clip")
    world = fill_drawn_clips(workspace)
    number = send(workspace, api, sum(map(len, world.values())))
    wanted = [one.frame.frame_id for one in world[MULTI]]
    (task,) = [task for task in api.tasks(number) if frames_of(task) == wanted]
    with seat(served, api, profile) as person:
        person.page.set_viewport_size({"width": 1366, "height": 768})
        person.open(number, int(task["id"]))
        person.decide("7", "Visible")
        person.turn_page(1)
        person.select(f"p_{MULTI}_{world[MULTI][1].frame.frame_index}_1")
        person.page.mouse.move(0, 0)
        person.page.wait_for_function(_CLIPS_ARE_LOADED)
        person.page.wait_for_timeout(2000)  # the sign that it loads fades later
        _shrink(person.photograph(folder / "annotating-clip.png"), _SIZE)


def _mask_clip(served: Workspace, profile: Path, folder: Path) -> None:
    """The masks of the dog's clip, on a small screen."""
    api = connect(served)
    workspace = beside(served, api, "mask_clips", "clip")
    number = send_masks(workspace, api, fill_drawn_clips(workspace))
    task = min(api.tasks(number), key=lambda task: str(task["data"]["frame_id"]))
    with seat(served, api, profile) as person:
        person.page.set_viewport_size({"width": 1366, "height": 768})
        person.open(number, int(task["id"]))
        person.page.mouse.move(0, 0)
        person.page.wait_for_function(_CLIPS_ARE_LOADED)
        person.page.wait_for_timeout(2000)  # the sign that it loads fades later
        _shrink(person.photograph(folder / "annotating-mask-clip.png"), _SIZE)


def _masks(desk: Desk, folder: Path) -> None:
    person, server = desk.person, connect(desk.workspace)
    refiner = FrameRefiner(desk.workspace.storage, SegmentConfig(), kept=4)
    with Backend(Prompts(desk.workspace, refiner), 0, lambda _: None) as backend:
        connect_backend(server, open_project(server, "drawn", MASKS), backend)
        at = person.begin(desk.project)
        while at != desk.tasks[MIXED]:
            if at == desk.tasks[MULTI]:
                _photograph(desk, folder / "annotating-masks.png")
            person.submit()
            at = person.wait_for_another_task(at)
        person.switch_on_suggestions()
        x, y, width, height = desk.world[MIXED].box("guitar")
        person.prompt("a", x + width / 2, y + 0.8 * height)
        _photograph(desk, folder / "annotating-point.png")


def _photograph(desk: Desk, file: Path) -> None:
    """A small PNG of what the person sees once the page has come to rest."""
    page = desk.person.page
    page.mouse.move(0, 0)
    expect(page.get_by_text("Annotation saved successfully")).to_have_count(0, timeout=30_000)
    page.wait_for_function(_CLIPS_ARE_LOADED)
    _shrink(desk.person.photograph(file), _SIZE)


def _shrink(file: Path, size: tuple[int, int]) -> None:
    picture = Image.open(file).convert("RGB")
    small = picture.resize(size, Image.Resampling.LANCZOS)
    small.quantize(256, kmeans=1).save(file, optimize=True)


if __name__ == "__main__":
    main()
