"""Files written whole or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pipeline.files import replacing, sha256_of, write_whole


def test_a_file_that_could_not_be_finished_leaves_the_old_one_and_nothing_beside(
    tmp_path: Path,
) -> None:
    target = tmp_path / "deep" / "table.csv"
    write_whole(target, "ä\n")

    def stop_halfway() -> None:
        with replacing(target) as beside:
            beside.write_text("half")
            raise InterruptedError

    with pytest.raises(InterruptedError):
        stop_halfway()
    assert target.read_bytes() == "ä\n".encode()
    assert list(target.parent.iterdir()) == [target]


def test_what_is_written_beside_has_the_suffix_and_takes_the_place(tmp_path: Path) -> None:
    target = tmp_path / "curve.png"
    write_whole(target, b"old")
    with replacing(target) as beside:
        assert beside.suffix == ".png"
        beside.write_bytes(b"new")
    assert target.read_bytes() == b"new"
    assert sha256_of(target) == hashlib.sha256(b"new").hexdigest()
    assert list(tmp_path.iterdir()) == [target]


def test_nothing_written_is_an_error_and_no_empty_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "x.json"):
        pass
    assert list(tmp_path.iterdir()) == []
