from __future__ import annotations

import json
from pathlib import Path

import pytest

from exports.release.freeze import write_release
from exports.release.leak_audit import audit
from exports.verify.verify_release import verify_release
from pipeline.config import ExportConfig
from pipeline.errors import UsageError
from pipeline.release.document import from_json
from pipeline.release.video_lists import parse_row, read_list, read_name
from pipeline.workspace.storage import Storage
from tests.exports.drawn import CAT, DOG, PROVENANCE, TRAIN, tables


def audited(folder: Path, *lists: Path) -> Path:
    write_release(
        tables(),
        Storage(folder),
        "1.0",
        unverified=True,
        media=False,
        config=ExportConfig(),
        provenance=PROVENANCE,
        leak_lists=lists,
    )
    return folder / "releases/1.0"


@pytest.mark.parametrize(
    "line",
    [
        [f"{DOG}_000020"],
        [f"{DOG}_00020"],
        [f"{DOG}_20000_30000"],
        [f"{DOG}_00020000"],
        [f"videos/train/{DOG}_000020.mp4"],
        [f"C:\\data\\{DOG}_000020.jpg"],
        [DOG, "20", "dog barking", "train"],
        [f" {DOG} ", " 20 "],
    ],
)
def test_every_spelling_names_the_same_clip(line: list[str]) -> None:
    found = parse_row(line)
    assert found is not None
    assert (found.youtube_id, found.start_s) == (DOG, 20.0)


def test_an_id_that_ends_in_digits_and_dashes_is_not_cut_short() -> None:
    for text, start_s in (("a_123456789", None), ("a_123456789_000007", 7.0)):
        found = read_name(text)
        assert (found.youtube_id, found.start_s) == ("a_123456789", start_s)


def test_the_overlap_is_in_the_card_the_head_and_the_statistics(tmp_path: Path) -> None:
    six = tmp_path / "six_digits.txt"
    six.write_text(f"{DOG}_000000\n{CAT}_000500\nzzzzzzzzzzz_000001\n")
    table = tmp_path / "bare.csv"
    table.write_text(f'id,class\n"{TRAIN}",train horn\nzzzzzzzzzzz,x\n')
    folder = audited(tmp_path, six, table)
    assert verify_release(folder) == []
    document = from_json((folder / "annotations/instances.json").read_bytes())
    assert [(leak.list_ids, leak.videos, leak.clips) for leak in document.info.leaks] == [
        (3, [CAT, DOG], 1),  # the cat's listed span lies elsewhere in the video
        (2, [TRAIN], 1),
    ]
    card = (folder / "README.md").read_text()
    assert r"| six\_digits.txt | 3 | 2 (66.7 %) | 1 |" in card
    assert json.loads((folder / "statistics.json").read_bytes())["leaks"][1]["videos"] == [TRAIN]


def test_what_cannot_be_told_is_counted_in_the_card(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"{DOG}\nnobody\nnothing\n")
    folder = audited(tmp_path, listed)
    assert verify_release(folder) == []
    (leak,) = from_json((folder / "annotations/instances.json").read_bytes()).info.leaks
    assert (leak.videos, leak.unread, leak.unsure) == ([DOG], 2, 0)
    assert "| list.txt (2 lines name no video) | 1 |" in (folder / "README.md").read_text()


def test_a_json_list_is_read_wherever_its_names_are(tmp_path: Path) -> None:
    path = tmp_path / "vggss.json"
    path.write_text(json.dumps([{"file": f"{DOG}_000002", "class": "dog", "bbox": [[0, 0, 1, 1]]}]))
    assert [(found.youtube_id, found.start_s) for found in read_list(path).names] == [(DOG, 2.0)]
    assert audit(
        from_json((audited(tmp_path) / "annotations/instances.json").read_bytes()), path
    ).videos == [DOG]


def test_a_list_without_ids_is_refused_not_taken_for_no_leak(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("dog\ncat\n")
    with pytest.raises(UsageError, match="no YouTube id"):
        audited(tmp_path, path)
    with pytest.raises(UsageError, match="No such file"):
        audited(tmp_path, tmp_path / "none.txt")
    assert not (tmp_path / "releases").exists()
