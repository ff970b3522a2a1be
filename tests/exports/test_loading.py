from __future__ import annotations

import contextlib
import importlib.util
import io
import re
from pathlib import Path

import numpy as np
import pytest

from exports import load_release
from pipeline.errors import AvatarBuildError, UsageError
from pipeline.workspace.storage import Storage
from tests.conftest import ROOT
from tests.exports.drawn import DOG, HEIGHT, WIDTH, WORLD, blob, draw_media, release, tables

SNIPPETS = re.findall(
    r"^## ([^\n]+)\n.*?^```python\n(.*?)^```",
    (ROOT / "docs/using-a-release.md").read_text(encoding="utf-8"),
    re.DOTALL | re.MULTILINE,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = Storage(tmp_path_factory.mktemp("ws"))
    rows = tables()
    rows = draw_media(storage, rows)
    release(storage, rows, unverified=True, media=True)
    return storage.path("releases/1.0")


def test_frames_come_with_picture_masks_and_what_sounds(folder: Path) -> None:
    opened = load_release(folder)
    assert (len(opened), opened.info.version) == (len(WORLD), "1.0+unverified")
    assert opened.categories == ["bird", "cat meowing", "dog barking", "train horn"]
    frame = next(f for f in opened if f.video.id == DOG and f.row.frame_index == 40)
    assert frame.image().shape == (HEIGHT, WIDTH, 3)
    assert frame.time_in_clip_s == pytest.approx(1.6)
    assert [thing.scenario for thing in frame.instances] == ["Mixed-sound", "Mixed-sound"]
    expected = blob((8, 6, 20, 16)) | blob((40, 2, 9, 9))
    np.testing.assert_array_equal(frame.mask(), expected)
    assert frame.clip_path.is_file()
    off_screen = [frame for frame in opened if frame.off_screen]
    assert len(off_screen) == 2
    assert not any(frame.mask().any() for frame in off_screen)
    assert opened.cross_event == {DOG}


def test_opening_decodes_nothing_and_missing_media_is_said(tmp_path: Path) -> None:
    release(Storage(tmp_path))
    frame = next(iter(load_release(tmp_path / "releases/1.0")))
    with pytest.raises(AvatarBuildError, match="fetch-media"):
        frame.image()
    with pytest.raises(UsageError, match="No release at"):
        load_release(tmp_path)


@pytest.mark.parametrize(("title", "code"), SNIPPETS, ids=[title for title, _ in SNIPPETS])
def test_every_snippet_of_the_page_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, title: str, code: str
) -> None:
    if title == "FiftyOne" and importlib.util.find_spec("fiftyone") is None:
        pytest.skip("fiftyone is not installed")
    monkeypatch.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(code, title, "exec"), {"__name__": "snippet"})


def test_the_page_has_a_snippet_for_each_tool() -> None:
    assert [title for title, _ in SNIPPETS] == [
        "With this package",
        "pandas",
        "pycocotools",
        "A torch Dataset",
        "FiftyOne",
        "The authors' layout",
    ]
