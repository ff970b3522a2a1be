from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.records.schema import Source
from pipeline.run.stage import Drop, Fail
from stages.download.sources import ImportResult, ListRow, read_list, select_sources


def written(folder: Path, data: str | bytes, name: str = "list.csv") -> Path:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def test_the_official_test_list_is_read_whole(shared: Path) -> None:
    path = shared / "data/vggsound/test.csv"
    result = select_sources(read_list(path), path.name)
    assert (result.total_rows, len(result.sources)) == (15_446, 14_851)
    assert (len(result.drops), result.failures, result.not_selected) == (595, [], 0)
    assert {drop.reason for drop in result.drops} == {"duplicate_id"}
    assert len({source.label for source in result.sources}) == 309
    assert {source.split for source in result.sources} == {"test"}
    assert result.sources[0] == Source(
        video_id="glLQrEijrKg", label="playing hammond organ", split="test", start_s=300
    )


def test_both_forms_of_a_row_are_the_same_source(tmp_path: Path, shared: Path) -> None:
    two = read_list(shared / "data/vggsound/test.csv")
    path = tmp_path / "four.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([r.video_id, r.start_s, r.label, r.split] for r in two)
    assert read_list(path) == two


def test_the_subset_of_real_videos_is_read(shared: Path) -> None:
    result = select_sources(read_list(shared / "data/raw_videos/vggsound_subset.csv"), "s.csv")
    by_id = {source.video_id: source for source in result.sources}
    assert len(by_id) == result.total_rows == 17
    assert by_id["-1pRmoJIGQc"].start_s == 10
    assert by_id["KlsG1EnBEjc"].label == "electric shaver, electric razor shaving"


def test_ids_may_hold_underscores_and_start_with_a_dash(tmp_path: Path) -> None:
    path = written(tmp_path, "-a_000001_b_000070.mp4,dog barking\n")
    assert read_list(path) == [ListRow(1, "-a_000001_b", 70, "dog barking", "test")]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_a_byte_order_mark_change_nothing(
    tmp_path: Path, end: str, mark: bytes
) -> None:
    text = end.join(['00W1lcxW-WU,40,"a, b",train', "-1pRmoJIGQc,0,c,test", ""])
    assert read_list(written(tmp_path, mark + text.encode())) == [
        ListRow(1, "00W1lcxW-WU", 40, "a, b", "train"),
        ListRow(2, "-1pRmoJIGQc", 0, "c", "test"),
    ]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("", r"list\.csv: empty\. Expected 4 columns"),
        ("\n\n", r"list\.csv: empty"),
        ("a,b,c\n", r"list\.csv, row 1: 3 columns\. Expected 4 columns"),
        ("-1pRmoJIGQc,1,a,test\n00W1lcxW-WU,2,b\n", r"row 2: 3 columns\. Expected 4, as"),
        ("id,start,label,split\n", r"row 1: start second 'start' is no whole number.*header"),
        ("-1pRmoJIGQc,1.5,a,test\n", r"row 1: start second '1\.5' is no whole number"),
        ("-1pRmoJIGQc,-1,a,test\n", r"row 1: start second '-1' is no whole number"),
        ("\n-1pRmoJIGQc,x,a,test\n", r"row 2: start second 'x'"),
        ("-1pRmoJIGQc,1,,test\n", r"row 1: the label is empty"),
        ("-1pRmoJIGQc.mp4,a\n", r"row 1: '-1pRmoJIGQc\.mp4'\. Expected <id>_<start"),
        ('-1pRmoJIGQc,1,"a,test\n', r"row 1: not CSV"),
        (b"\xff\xfe\x00", r"list\.csv: not UTF-8 text \(byte 0\)"),
    ],
)
def test_a_file_that_is_no_list_is_refused_in_one_line(
    tmp_path: Path, data: str | bytes, expected: str
) -> None:
    with pytest.raises(UsageError, match=expected) as caught:
        read_list(written(tmp_path, data))
    assert "\n" not in str(caught.value)


def test_a_missing_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.csv: no such file"):
        read_list(tmp_path / "absent.csv")


def test_a_folder_is_no_list(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_list(tmp_path)


def test_a_bad_id_is_a_failure_and_a_second_one_a_drop() -> None:
    rows = [
        ListRow(1, "-1pRmoJIGQc", 10, "a", "test"),
        ListRow(2, "../../etc/passwd", 0, "a", "test"),
        ListRow(3, "-1pRmoJIGQc", 99, "b", "train"),
        ListRow(4, "short", 0, "a", "test"),
    ]
    result = select_sources(rows, "l.csv")
    assert [source.start_s for source in result.sources] == [10]
    detail = "-1pRmoJIGQc ('b' at 99 s) is already in row 1; its video is fetched whole, once"
    assert result.drops == [Drop("l.csv#3", "duplicate_id", detail)]
    assert [(fail.id, fail.kind) for fail in result.failures] == [
        ("l.csv#2", "invalid_id"),
        ("l.csv#4", "invalid_id"),
    ]
    assert all(isinstance(fail, Fail) and not fail.retryable for fail in result.failures)


def labelled(*labels: str) -> list[ListRow]:
    return [ListRow(n, f"{n:011d}", 0, label, "test") for n, label in enumerate(labels, 1)]


def test_labels_are_exact_and_may_be_given_in_one_string_or_several() -> None:
    rows = labelled("dog barking", "dog", "cat meowing", "dog")
    one = select_sources(rows, "l.csv", ["dog; cat meowing"])
    several = select_sources(rows, "l.csv", ["cat meowing", "dog"])
    assert one == several
    assert [source.video_id[-1] for source in one.sources] == ["2", "3", "4"]
    assert one.not_selected == 1


def test_an_unknown_label_is_an_error_that_names_near_ones() -> None:
    rows = labelled("dog barking", "cat meowing")
    with pytest.raises(UsageError, match=r"'dog barkin': no row .* Near: dog barking\."):
        select_sources(rows, "l.csv", ["dog barkin"])


@pytest.mark.parametrize("empty", ["", " ", ";"])
def test_an_empty_label_is_not_taken_for_every_label(empty: str) -> None:
    with pytest.raises(UsageError, match="no label"):
        select_sources([ListRow(1, "-1pRmoJIGQc", 0, "dog", "test")], "list.csv", [empty])


def test_a_limit_under_one_is_refused() -> None:
    with pytest.raises(UsageError, match="--limit 0"):
        select_sources(labelled("a"), "l.csv", limit=0)


IDS = st.sampled_from(["-1pRmoJIGQc", "00W1lcxW-WU", "__________-", "no id", ""])


@given(
    drawn=st.lists(st.tuples(IDS, st.sampled_from("abc")), min_size=1),
    labels=st.sets(st.sampled_from("abc")),
    limit=st.none() | st.integers(1, 4),
)
def test_every_row_ends_as_exactly_one_thing(
    drawn: list[tuple[str, str]], labels: set[str], limit: int | None
) -> None:
    rows = [ListRow(n, one, 0, label, "test") for n, (one, label) in enumerate(drawn, 1)]
    labels &= {row.label for row in rows}
    result: ImportResult = select_sources(rows, "l.csv", sorted(labels), limit)
    ends = len(result.sources) + len(result.drops) + len(result.failures) + result.not_selected
    assert ends == result.total_rows == len(rows)
    assert len({source.video_id for source in result.sources}) == len(result.sources)
    assert limit is None or len(result.sources) <= limit
