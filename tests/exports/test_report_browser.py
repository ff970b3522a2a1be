"""What a person sees and hears in the report, in a real browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from exports.report import clip_files
from exports.report.films import cut_films, find_films
from exports.report.write_report import ReportTables, write_report
from pipeline.records.schema import DropRow
from pipeline.run.status import StageStatus
from pipeline.workspace.storage import Storage
from tests.exports.drawn import Shot, Thing, draw_media, release, tables

CHROMIUM = Path(os.environ.get("AVATAR_CHROMIUM", "/usr/bin/chromium"))

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="no chromium"),
    # Python asks for its child processes while one is being forgotten by the driver.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

STAGES = [
    StageStatus(
        stage,
        7_000,
        6_000,
        900,
        100,
        0,
        {"videos": 6_000, "clips": 123_456},
        {"resolution": 900},
        {"worker_crash": 100},
        75_000.5,
    )
    for stage in ("download", "sample", "pull-adjudication")
]
DROPS = [
    DropRow(
        input_id="x" * 60,
        stage="download",
        reason="a_reason_with_a_rather_long_name",
        detail="http://host/" + "d" * 150,
        last_time="",
    )
]


@contextmanager
def opened(path: Path, width: int) -> Iterator[Page]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"],
        )
        try:
            page = browser.new_page(viewport={"width": width, "height": 844})
            page.goto(path.as_uri())
            yield page
        finally:
            browser.close()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    storage = Storage(tmp_path_factory.mktemp("ws"))
    draw_media(storage, tables())
    return storage


def written(storage: Storage, name: str) -> Path:
    rows = ReportTables(**vars(tables()))
    target = storage.path(name)
    films = find_films(storage, rows.clips, target)
    return write_report(
        storage, rows, STAGES, [], DROPS, target=target, films=films, scores={"recall": 0.5}
    )


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_is_wider_than_the_window(workspace: Storage, width: int) -> None:
    cut_films(workspace, tables().clips, tables().videos)
    with opened(written(workspace, "report.html"), width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        wide = page.evaluate(
            """width => [...document.querySelectorAll("main *")]
              .filter(e => e.getClientRects().length && !e.closest("svg"))
              .filter(e => e.getBoundingClientRect().right > width + 1
                  || e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX == "auto")
              .map(e => e.outerHTML.slice(0, 120))""",
            width,
        )
        assert wide == []
        small = page.evaluate(
            """[...document.querySelectorAll("main *")].filter(e => e.getClientRects().length)
              .filter(e => parseFloat(getComputedStyle(e).fontSize) < 12)
              .map(e => e.outerHTML.slice(0, 80))"""
        )
        assert small == []


def test_a_click_on_a_picture_plays_its_moment_with_sound(workspace: Storage) -> None:
    cut_films(workspace, tables().clips, tables().videos)
    with opened(written(workspace, "report.html"), 390) as page:
        clip = page.locator("section.clip").first
        film = clip.locator("video")
        page.wait_for_function("document.querySelector('video').readyState >= 1")
        assert 1.5 <= film.evaluate("film => film.duration") <= 10.5
        for target in (".mark", ".play", ".picture"):
            asked = clip.locator(target).last
            at = float(asked.get_attribute("data-at") or "nan")
            asked.click()
            page.wait_for_function("document.querySelector('video').currentTime > 0")
            film.evaluate("film => film.pause()")
            assert at <= film.evaluate("film => film.currentTime") < at + 2
        assert film.evaluate("film => film.webkitAudioDecodedByteCount") > 0
        assert clip.locator(".now").is_visible()


def test_a_film_comes_from_a_release_where_one_has_it(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "a b#?%")  # an address must say these otherwise
    draw_media(storage, tables())
    bare = find_films(storage, tables().clips, storage.path("report.html"))
    assert (bare.addresses, "report --clips" in bare.silence) == ({}, True)
    release(storage, version="0.1")
    without = find_films(storage, tables().clips, storage.path("report.html"))
    assert "release 0.1 ships ids only" in without.silence
    release(storage, version="0.2", media=True)
    path = written(storage, "elsewhere/report.html")
    found = find_films(storage, tables().clips, path)
    assert all(a.startswith("./../releases/0.2/video/") for a in found.addresses.values())
    with opened(path, 1280) as page:
        page.wait_for_function("document.querySelector('video').readyState >= 1")


def test_a_clip_whose_video_is_gone_is_told_and_the_others_are_cut(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    draw_media(storage, tables())
    gone = tables().videos[0]
    storage.remove(gone.path)
    failed = cut_films(storage, tables().clips, tables().videos)
    assert {clip.rsplit("_", 1)[0] for clip in failed} == {gone.video_id}
    found = find_films(storage, tables().clips, storage.path("report.html"))
    assert len(found.addresses) == len(tables().clips) - len(failed)
    assert "1 clip cannot be heard" in found.silence


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report whose clips do not fit into its page, beside one that an earlier run left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clip_files, "_ONE_FILE", 50_000)
        patch.setattr(clip_files, "_FILE", 20_000)
        patch.setattr(clip_files, "_INDEX", 1_000)
        storage = Storage(tmp_path_factory.mktemp("large"))
        kinds = ("dog", "<cat>", "train & horn")
        shots = [
            Shot(
                f"video{n:06d}",
                i,
                [Thing(kinds[n % 3])] if i == 5 else (),
                None if i == 5 else "owl",
            )
            for n in range(60)
            for i in (5, 30)
        ]
        rows = ReportTables(**vars(tables(shots)))
        target = storage.path("report.html")
        for title in ("of before", "of now"):
            # In parts, as a large workspace is read.
            half = len(shots) // 2
            parts = [ReportTables(**vars(tables(some))) for some in (shots[:half], shots[half:])]
            draw_media(storage, tables(shots[:2]))
            taken = rows if title == "of before" else parts
            write_report(storage, taken, STAGES, [], DROPS, target=target, title=title, max_clips=1)
    return target


def test_a_large_report_is_walked_from_page_to_clip_and_back(large: Path) -> None:
    (folder,) = (path for path in large.parent.glob("report-*") if path.is_dir())
    assert len(list(folder.iterdir())) > 8
    with opened(large, 1280) as page:
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.reload()
        where, clips = page.locator("#where"), page.locator("#clips section")
        hits = page.locator("#hits")
        expect(where).to_have_text("page 1 of 5")
        expect(hits).to_have_text("60 clips, 120 frames")
        page.click("#after")
        page.click("#after")
        expect(where).to_have_text("page 3 of 5")
        assert page.url.endswith("#3")
        own = clips.nth(4).locator("a.own")
        name = own.inner_text()
        own.click()
        expect(hits).to_have_text("1 clip, 2 frames")
        expect(clips).to_have_count(1)
        assert page.url.endswith(f"#{name}")
        assert clips.locator("a.own").inner_text() == name
        page.go_back()
        expect(where).to_have_text("page 3 of 5")
        assert clips.nth(4).locator("a.own").inner_text() == name
        page.select_option("#category", label="train & horn")
        expect(hits).to_have_text("20 clips, 20 frames")
        expect(clips.first.locator("figure:visible")).to_have_count(1)
        page.select_option("#state", label="off-screen")
        expect(hits).to_have_text("0 clips, 0 frames")
        page.select_option("#category", "")
        expect(hits).to_have_text("60 clips, 60 frames")
        page.fill("#search", f"{name}_0030")  # a frame's id
        expect(hits).to_have_text("1 clip, 1 frame")
        page.reload()
        expect(hits).to_have_text("1 clip, 1 frame")
        assert page.input_value("#search") == f"{name}_0030"
        assert said == []


@pytest.mark.parametrize(
    ("kept", "seen"),
    [
        ("#4", "page 4 of 5"),
        ("#99", "page 5 of 5"),
        ("#video000031", "page 1 of 1"),
        ("#category=dog&page=2", "page 2 of 2"),
        ("#gallery", "page 1 of 5"),
    ],
)
def test_an_address_that_was_kept_leads_to_what_was_seen(large: Path, kept: str, seen: str) -> None:
    with opened(large, 1280) as page:
        page.goto("about:blank")
        page.goto(large.as_uri() + kept)
        expect(page.locator("#where")).to_have_text(seen)
        assert page.locator("#clips section").count() > 0


def test_a_page_without_its_folder_says_so(large: Path, tmp_path: Path) -> None:
    alone = tmp_path / "report.html"
    alone.write_bytes(large.read_bytes())
    with opened(alone, 1280) as page:
        expect(page.locator("#clips section")).to_have_count(12)
        page.click("#after")
        expect(page.locator("#clips")).to_contain_text("is not beside this page")
