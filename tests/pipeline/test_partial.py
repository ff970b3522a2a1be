"""Half-fetched files, without a server."""

from __future__ import annotations

import io
from email.message import Message
from http.client import IncompleteRead
from pathlib import Path

import pytest

from pipeline.partial import OVERLAP, PartialFile, StalePartError

URL = "https://example.org/w.pth"
WHOLE = bytes(range(256)) * 1024
HAD = 200_000


def answer(**values: str) -> Message:
    headers = Message()
    for name, value in values.items():
        headers[name.replace("_", "-")] = value
    return headers


def begun(folder: Path, **validators: str) -> PartialFile:
    """A file of which the first ``HAD`` bytes came."""
    part, record = folder / "w.part", folder / "w.part.json"
    first = PartialFile(part, record, URL)
    length = str(len(WHOLE))
    assert first.check(200, answer(Content_Length=length, **validators), io.BytesIO()) == 0
    part.write_bytes(WHOLE[:HAD])
    return PartialFile(part, record, URL)


def rest(**values: str) -> tuple[int, Message, io.BytesIO]:
    start = HAD - OVERLAP
    span = f"bytes {start}-{len(WHOLE) - 1}/{len(WHOLE)}"
    return 206, answer(Content_Range=span, **values), io.BytesIO(WHOLE[start:])


@pytest.mark.parametrize(
    ("validators", "condition"),
    [
        ({"ETag": '"a"', "Last_Modified": "Tue"}, {"If-Range": '"a"'}),
        ({"ETag": 'W/"a"', "Last_Modified": "Tue"}, {"If-Range": "Tue"}),
        ({"ETag": 'W/"a"'}, {}),
        ({}, {}),
    ],
)
def test_the_rest_is_asked_for_on_the_strongest_condition_there_is(
    tmp_path: Path, validators: dict[str, str], condition: dict[str, str]
) -> None:
    asked = begun(tmp_path, **validators).headers(HAD)
    assert asked == {"Range": f"bytes={HAD - OVERLAP}-", **condition}


def test_the_body_goes_on_behind_the_part(tmp_path: Path) -> None:
    partial = begun(tmp_path)
    partial.headers(HAD)
    status, headers, body = rest()
    assert partial.check(status, headers, body) == HAD
    assert body.read() == WHOLE[HAD:]
    assert headers["Content-Range"] == f"bytes {HAD}-{len(WHOLE) - 1}/{len(WHOLE)}"


def test_an_answer_that_ends_inside_the_overlap_leaves_the_part(tmp_path: Path) -> None:
    partial = begun(tmp_path)
    partial.headers(HAD)
    status, headers, body = rest()
    with pytest.raises(IncompleteRead):
        partial.check(status, headers, io.BytesIO(body.read(10)))
    assert partial.length == HAD


def test_other_bytes_or_another_date_are_another_file(tmp_path: Path) -> None:
    partial = begun(tmp_path, Last_Modified="Tue")
    partial.headers(HAD)
    with pytest.raises(StalePartError, match="last_modified of the file was Tue, now is Wed"):
        partial.check(*rest(Last_Modified="Wed"))
    status, headers, body = rest(Last_Modified="Tue")
    with pytest.raises(StalePartError, match="are not the file's"):
        partial.check(status, headers, io.BytesIO(bytes(len(body.read()))))


def test_a_forgotten_part_begins_anew(tmp_path: Path) -> None:
    partial = begun(tmp_path, ETag='"a"')
    partial.forget()
    assert list(tmp_path.iterdir()) == []
    assert partial.headers(partial.length) == {}
    partial.check(200, answer(ETag='"a"', Content_Length="9"), io.BytesIO())
    assert [path.name for path in tmp_path.iterdir()] == ["w.part.json"]
