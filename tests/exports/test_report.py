from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from exports.report.write_report import ReportTables, write_report
from pipeline.pictures import mask_path
from pipeline.records.schema import DropRow, FailureRow, SoundCategory
from pipeline.run.status import StageStatus
from pipeline.workspace.storage import Storage
from tests.exports.drawn import (
    DOG,
    HEIGHT,
    WIDTH,
    WORLD,
    Shot,
    Thing,
    blob,
    draw_media,
    report_tables,
    tables,
)

EVIL = "<script>alert('x')</script>\"'><img src=http://evil.example/x>{{ 7*7 }}"


class Page(HTMLParser):
    """What a browser would make of the page: elements, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def count(self, tag: str, kind: str = "") -> int:
        return sum(
            name == tag and kind in [*(attrs.get("class") or "").split(), ""]
            for name, attrs in self.elements
        )


DROPS = [
    DropRow(
        input_id=f"video{n}", stage="download", reason="fps_low", detail=f"{n} fps", last_time=""
    )
    for n in range(5)
]
FAILURES = [
    FailureRow(
        input_id="broken",
        stage="download",
        kind="truncated",
        retryable=True,
        detail="12 of 99 bytes",
        attempts=2,
        last_time="",
    )
]
STAGES = [
    StageStatus("download", 10, 3, 5, 1, 1, {"videos": 3}, {"fps_low": 5}, {"truncated": 1}, 7.5)
]


def report(folder: Path, rows: ReportTables | None = None, **options: Any) -> str:
    storage = Storage(folder / "ws")
    draw_media(storage, tables())
    values: dict[str, Any] = {"stages": STAGES, "failures": FAILURES, "drops": DROPS, **options}
    path = write_report(
        storage, rows or report_tables(), target=folder / "out/report.html", **values
    )
    return path.read_text(encoding="utf-8")


def test_the_books_of_each_stage_are_told_with_reasons_and_examples(tmp_path: Path) -> None:
    page = Page(report(tmp_path))
    assert (
        "fetch whole videos, keep the suitable ones 10 3 5 1 3 videos (1 waiting) 7.5 s"
        in page.text
    )
    assert "fps low set aside 5 video0 0 fps video1 1 fps video2 2 fps and 2 more" in page.text
    assert "truncated failed, a retry may help 1 broken 12 of 99 bytes" in page.text
    widths = [
        a["style"]
        for tag, a in page.elements
        if tag == "i" and a.get("class") in ("ok", "drop", "fail", "wait") and "style" in a
    ]
    assert widths == ["flex: 3", "flex: 5", "flex: 1", "flex: 1"]


def test_every_frame_shows_its_proposals_boxes_masks_and_labels(tmp_path: Path) -> None:
    page = Page(report(tmp_path))
    assert page.count("figure") == page.count("img") == len(WORLD)
    assert page.count("rect", "s-audible") == page.count("rect", "s-unheard") == len(WORLD)
    instances = sum(len(shot.things) for shot in WORLD)
    assert page.count("rect", "s-box") == page.count("path", "s-mask") == instances
    assert "bird · Mixed-sound frame 40 · at 2.60 s · verified" in page.text
    assert "off-screen · cat meowing frame 12" in page.text
    assert page.text.count("heard: dog barking") == 3


def test_pictures_are_the_frames(tmp_path: Path) -> None:
    text = report(tmp_path)
    first = re.search(r"data:image/jpeg;base64,([^\"]+)", text)
    assert first
    data = np.frombuffer(base64.b64decode(first[1]), dtype=np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert abs(int(picture[40, 60, 0]) - 42) < 6  # frame 12 of the first clip, drawn 30 + 12


def test_the_page_needs_no_network_and_runs_its_own_script_alone(tmp_path: Path) -> None:
    text = report(tmp_path)
    page = Page(text)
    tags = {tag for tag, _ in page.elements}
    assert tags.isdisjoint({"link", "iframe", "object", "embed", "base", "form"})
    code = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(code) == 1
    allowed = base64.b64encode(hashlib.sha256(code[0].encode()).digest()).decode()
    assert f"script-src &#39;sha256-{allowed}&#39;" in text or f"'sha256-{allowed}'" in text
    scripts = [attributes for tag, attributes in page.elements if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {}]
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        if tag != "a":
            assert "href" not in attributes
        if "src" in attributes:
            assert (attributes["src"] or "").startswith("data:image/jpeg;base64,")
    assert any("default-src 'none'" in (a.get("content") or "") for _, a in page.elements)


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    plain = Page(report(tmp_path / "plain"))
    rows = report_tables()
    hostile = replace(
        rows,
        videos=[
            v.model_copy(
                update={
                    "title": EVIL,
                    "label": EVIL,
                    "uploader": EVIL,
                    "source_url": "javascript:" + EVIL,
                }
            )
            for v in rows.videos
        ],
        sounds=[
            s.model_copy(
                update={
                    "tagger": EVIL,
                    "categories": [SoundCategory(category=EVIL, score=1.0, active=True)],
                }
            )
            for s in rows.sounds
        ],
        proposals=[
            p.model_copy(update={"categories": [EVIL], "detector": EVIL}) for p in rows.proposals
        ],
        instances=[i.model_copy(update={"audio_visual_category": EVIL}) for i in rows.instances],
        masks=[m.model_copy(update={"source": EVIL}) for m in rows.masks],
        reviews=[
            r.model_copy(
                update={"annotator": EVIL, "reject_reasons": [EVIL], "off_screen_category": EVIL}
            )
            for r in rows.reviews
        ],
    )
    text = report(
        tmp_path / "hostile",
        hostile,
        drops=[
            d.model_copy(update={"input_id": EVIL, "reason": EVIL, "detail": EVIL}) for d in DROPS
        ],
        failures=[f.model_copy(update={"kind": EVIL, "detail": EVIL}) for f in FAILURES],
        stages=[replace(STAGES[0], stage=EVIL, children={EVIL: 3})],
        scores={EVIL: EVIL},
        title=EVIL,
    )
    page = Page(text)
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in plain.elements} | {"table"}
    assert page.count("img") == plain.count("img")
    known = {name for _, attributes in plain.elements for name in attributes}
    assert {name for _, attributes in page.elements for name in attributes} <= known
    assert "javascript:" not in text
    assert "{{ 7*7 }}" in page.text  # shown, not evaluated


def test_pictures_are_bounded_and_the_other_clips_show_their_shapes(tmp_path: Path) -> None:
    page = Page(report(tmp_path, max_clips=2))
    assert page.count("section", "clip") == 3
    assert page.count("img") == 4
    assert page.count("svg", "ground") == 2
    assert "3 clips; 2 of them, drawn at random and shown first" in page.text


def test_clips_beyond_the_first_page_wait_in_the_data(tmp_path: Path) -> None:
    shots = [
        Shot(f"video{number:06d}", 5, [Thing("dog" if number % 2 else "<cat>")])
        for number in range(30)
    ]
    text = report(tmp_path, ReportTables(**vars(tables(shots))), max_clips=0)
    assert Page(text).count("section", "clip") == 12
    held = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert held
    data = json.loads(held[1])
    assert len(data["clips"]) == 30
    assert [("html" in clip) for clip in data["clips"]] == [False] * 12 + [True] * 18
    assert Page(data["clips"][29]["html"]).count("figure") == 1
    # Categories by name: "<cat>" is 0, "dog" is 1.
    assert [clip["frames"][0][0] for clip in data["clips"][:3]] == [[0], [1], [0]]


def test_what_people_did_is_summed_up(tmp_path: Path) -> None:
    page = Page(report(tmp_path))
    assert "Labelling people 1 reviews 4 hours 0.0 seconds per review, median 3.0" in page.text
    assert "boxes kept 100.0 %" in page.text


def test_an_image_that_is_gone_or_broken_is_said_not_hidden(tmp_path: Path) -> None:
    rows = report_tables()
    draw_media(Storage(tmp_path / "ws"), tables())
    storage = Storage(tmp_path / "ws")
    storage.remove(rows.frames[0].path)
    storage.write(rows.frames[1].path, b"no image")
    storage.write(rows.frames[2].path, b"")
    path = write_report(storage, rows, [], [], [], target=tmp_path / "report.html")
    page = Page(path.read_text())
    assert page.text.count("the image cannot be shown") == 3
    assert page.count("img") == len(WORLD) - 3


def test_scores_are_told_by_name(tmp_path: Path) -> None:
    page = Page(report(tmp_path, scores={"recall": 0.5, "mask IoU": {"mean": 0.25, "n": 3}}))
    assert "recall 0.500 mask IoU: mean 0.250 mask IoU: n 3" in page.text
    assert "Measured against" not in Page(report(tmp_path)).text


def test_labels_that_no_person_made_are_called_unverified(tmp_path: Path) -> None:
    warning = "No person has labelled any frame here"
    assert warning not in Page(report(tmp_path / "people")).text
    rows = tables([Shot(DOG, 1, [Thing("dog barking", verified=False)], verified=False)])
    assert warning in Page(report(tmp_path / "rules", ReportTables(**vars(rows)))).text


def test_an_empty_workspace_has_a_report_too(tmp_path: Path) -> None:
    page = Page(report(tmp_path, ReportTables(), stages=[], failures=[], drops=[]))
    assert "No stage has run yet." in page.text
    assert "No clip was found." in page.text


def test_the_same_tables_give_the_same_page(tmp_path: Path) -> None:
    rows = report_tables()
    turned = ReportTables(**{name: list(table)[::-1] for name, table in vars(rows).items()})
    assert report(tmp_path / "a", rows, drops=DROPS) == report(
        tmp_path / "b", turned, drops=DROPS[::-1]
    )


def test_a_mask_s_outline_has_its_hole() -> None:
    inside = blob((8, 6, 20, 16))
    path = mask_path(inside)
    assert path.count("M") == path.count("Z") == 2
    drawn = np.zeros(inside.shape, dtype=np.uint8)
    loops = [
        np.array([[float(v) for v in point.split()] for point in loop.strip("MZ").split("L")])
        for loop in re.findall(r"M[^Z]*Z", path)
    ]
    cv2.fillPoly(drawn, [np.floor(loop).astype(np.int32) for loop in loops], 1)
    assert (drawn.astype(bool) ^ inside).sum() <= 0.1 * inside.sum()


@pytest.mark.browser
def test_a_browser_opens_it_and_shows_every_picture(tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on the PATH")
    report(tmp_path)
    shot = tmp_path / "shot.png"
    subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--window-size=1280,3000",
            f"--screenshot={shot}",
            (tmp_path / "out/report.html").as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    picture = cv2.imread(str(shot))
    assert picture is not None
    # The dark ground of the drawn frames; the page itself is light.
    dark = (picture < 90).all(axis=2)
    columns = np.flatnonzero(dark.any(axis=0))
    assert dark.sum() > 6 * 30_000
    assert columns[-1] - columns[0] > 400


@pytest.mark.browser
def test_a_browser_turns_the_pages(tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on the PATH")
    shots = [Shot(f"video{number:06d}", 5, [Thing("dog")]) for number in range(30)]
    report(tmp_path, ReportTables(**vars(tables(shots))), max_clips=0)
    done = subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--dump-dom",
            (tmp_path / "out/report.html").as_uri() + "#3",
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    page = Page(done.stdout)
    assert "30 clips, 30 frames" in page.text
    assert "page 3 of 3" in page.text
    assert page.count("section", "clip") == 6
    assert page.count("path", "s-mask") == 6


_MANY = """
import re, sys
from pathlib import Path

from exports.report.write_report import ReportTables, write_report
from pipeline.workspace.storage import Storage
from tests.exports.drawn import Shot, Thing, tables

folder, clips = Path(sys.argv[1]), int(sys.argv[2])


def parts():
    for first in range(0, clips, 1000):
        numbers = range(first, min(first + 1000, clips))
        shots = [Shot(f"video{n:06d}", 5, [Thing(f"thing {n % 300}")]) for n in numbers]
        yield ReportTables(**vars(tables(shots)))


write_report(Storage(folder), parts(), [], [], [], target=folder / "report.html", pictured=())
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def _peak_kb(folder: Path, clips: int) -> int:
    """The most memory of a process that writes a report of so many clips, each with one frame.

    By the kernel's count for the process's own memory: ``ru_maxrss`` begins at its parent's.
    """
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _MANY, str(folder), str(clips)],
        cwd=Path(__file__).parents[2],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to read memory from")
def test_a_report_of_39000_clips_has_no_large_file_and_little_memory(tmp_path: Path) -> None:
    few = _peak_kb(tmp_path / "few", 4_000)
    many = _peak_kb(tmp_path / "many", 39_000)
    # Bytes a clip; its HTML alone takes 6,000 when no file is written before the end.
    assert (many - few) * 1024 < 1_000 * (39_000 - 4_000)
    files = [path for path in (tmp_path / "many").rglob("*") if path.is_file()]
    assert max(path.stat().st_size for path in files) < 5_000_000
    shown = [
        name
        for path in files
        if path.name.startswith(("seen-0", "clips-0"))
        for name in re.findall(r'class=\\"own\\" href=\\"#(video\d{6})_', path.read_text())
    ]
    assert sorted(shown) == [f"video{number:06d}" for number in range(39_000)]
