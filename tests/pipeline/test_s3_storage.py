"""A real S3 protocol under ``Storage``: what is exact, what is refused, what is listed once."""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from pipeline.errors import StopRun, UsageError
from pipeline.workspace.storage import Storage
from pipeline.workspace.stores import object_store
from tests.pipeline.s3_server import S3, Refusal, served


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with pytest.MonkeyPatch.context() as patch, served(patch) as server:
        yield server


@pytest.fixture
def storage(s3: S3) -> Iterator[Storage]:
    """A folder in a bucket of its own."""
    yield Storage(f"{s3.make_bucket('storage')}/ws")
    s3.refuse, s3.lose = (lambda _: None), (lambda _: False)


def test_what_is_written_is_read_back_and_listed(storage: Storage, tmp_path: Path) -> None:
    storage.write("a/b/one.txt", b"1")
    storage.write("a/b/one.txt", b"11")
    storage.write("a/empty", b"")
    assert storage.read_all(["a/b/one.txt", "a/empty", "a/gone"]) == {
        "a/b/one.txt": b"11",
        "a/empty": b"",
    }
    assert (storage.names("a"), storage.folders("a")) == (["empty"], ["b"])
    assert storage.names("nowhere") == storage.folders("nowhere") == []
    storage.move("a/b/one.txt", "a/c")
    assert not storage.exists("a/b/one.txt")
    (tmp_path / "made").write_bytes(b"media")
    storage.publish(tmp_path / "made", "media/x")
    with storage.as_local("media/x") as path:
        assert path.read_bytes() == b"media"
    storage.remove("media/x")
    storage.remove("media/x")
    assert storage.folders(".") == ["a"]


def test_inside_listed_once_own_writes_show_and_others_do_not_until_looked_again(
    storage: Storage, s3: S3
) -> None:
    other = Storage(storage.url)
    for number in range(3):
        storage.write(f"commits/s/units/{number}.json", b"x")
    storage.write("tables/t/1", b"x")
    before = len(s3.requests)
    with storage.listed_once():
        assert storage.names("commits/s/units") == ["0.json", "1.json", "2.json"]
        assert storage.folders("commits") == ["s"]
        assert storage.names("commits/s/plan") == []
        assert not storage.exists("commits/s/plan/0")
        assert storage.size("commits/s/units/0.json") == 1
        assert dict(s3.since(before)) == {"LIST": 1}
        assert storage.names("tables/t") == ["1"]
        storage.write("commits/s/plan/new/1", b"xx")
        storage.remove("commits/s/units/0.json")
        storage.move("commits/s/units/1.json", "commits/s/old/1.json")
        other.write("commits/s/units/9.json", b"x")
        assert storage.names("commits/s/units") == ["2.json"]
        assert storage.folders("commits/s") == ["old", "plan", "units"]
        assert storage.size("commits/s/plan/new/1") == 2
        assert storage.age_s("commits/s/plan/new/1") < 5
        assert storage.times("commits/s/units").keys() == {"2.json", "9.json"}
        assert storage.read("commits/s/units/2.json") == b"x"
        other.write("commits/s/units/2.json", b"y")
        assert storage.read("commits/s/units/2.json") == b"x"
        assert storage.read("commits/s/units/2.json", anew=True) == b"y"
        storage.look_again()
        assert storage.names("commits/s/units") == ["2.json", "9.json"]
    assert storage.names("commits/s/units") == ["2.json", "9.json"]


def test_another_file_of_the_same_size_and_second_has_another_stamp(storage: Storage) -> None:
    storage.write("a/x", b"1")
    before = storage.stamps("a")
    assert before == storage.stamps("a")
    storage.write("a/x", b"2")
    assert before != storage.stamps("a")


def test_create_is_one_conditional_put_once_the_store_has_shown_that_it_knows_them(
    storage: Storage, s3: S3
) -> None:
    assert storage.create("c/1", b"1")
    assert storage.is_conditional
    worker = pickle.loads(pickle.dumps(storage))
    before = len(s3.requests)
    assert worker.create("c/2", b"2")
    assert dict(s3.since(before)) == {"PUT": 1}
    assert s3.requests[-1].headers["IF_NONE_MATCH"] == "*"
    assert not worker.create("c/1", b"other")
    assert worker.read("c/1") == b"1"


def test_a_file_in_parts_is_created_once_too(storage: Storage, s3: S3) -> None:
    size = 2 * 50 * 2**20  # from here on s3fs sends parts
    storage.create("c/small", b"1")
    before = len(s3.requests)
    assert storage.create("c/large", bytes(size))
    ends = [one for one in s3.requests[before:] if one.method == "POST" and "uploadId" in one.query]
    assert [one.headers.get("IF_NONE_MATCH") for one in ends] == ["*"]
    assert not storage.create("c/large", bytes(size - 1) + b"1")
    assert storage.size("c/large") == size


@pytest.mark.parametrize("lost", [1, 3])
def test_a_put_whose_answers_are_lost_is_known_for_the_own_one(
    storage: Storage, s3: S3, lost: int
) -> None:
    storage.create("c/0", b"0")
    answers = iter([True] * lost)
    s3.lose = lambda request: request.method == "PUT" and next(answers, False)
    assert storage.create("c/1", b"mine")
    assert not Storage(storage.url).create("c/1", b"other")


def test_of_many_writers_at_once_one_has_created_a_file(storage: Storage) -> None:
    storage.create("c/0", b"0")
    ready, won = threading.Barrier(8), []

    def write(number: int) -> None:
        mine = pickle.loads(pickle.dumps(storage))
        ready.wait()
        for name in range(20):
            if mine.create(f"c/{name + 1}", f"{number}".encode()):
                won.append((name, number))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name for name, _ in won) == list(range(20))
    assert all(storage.read(f"c/{name + 1}") == f"{number}".encode() for name, number in won)


def test_a_conditional_put_that_meets_another_one_is_tried_again(
    storage: Storage, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "_AGAIN_S", 0.0)
    storage.create("c/0", b"0")
    left = iter([Refusal(409, "ConditionalRequestConflict")] * 2)
    s3.refuse = lambda request: next(left, None) if request.method == "PUT" else None
    assert storage.create("c/1", b"1")


def test_on_a_store_without_conditional_puts_a_file_is_looked_for_first(
    storage: Storage, s3: S3
) -> None:
    for_all = s3.forget
    s3.forget = {"HTTP_IF_NONE_MATCH"}
    try:
        assert storage.create("c/1", b"1")
        assert storage.is_conditional is False
        assert not storage.create("c/1", b"2")
        assert storage.read("c/1") == b"1"
    finally:
        s3.forget = for_all


REFUSALS = {
    "credentials have expired": Refusal(400, "ExpiredToken"),
    "credentials are refused": Refusal(403, "InvalidAccessKeyId"),
    "clock is too far": Refusal(403, "RequestTimeTooSkewed"),
    "access denied": Refusal(403, "AccessDenied"),
    "store is full": Refusal(507, "InsufficientStorage"),
    "slow down": Refusal(503, "SlowDown"),
    "the store says": Refusal(400, "Unheard"),
}


@pytest.mark.parametrize("said", REFUSALS)
def test_what_a_store_refuses_is_one_line_with_the_way_out(
    storage: Storage, s3: S3, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 2)
    S3FileSystem.clear_instance_cache()
    storage = Storage(storage.url)
    storage.write("a", b"1")
    s3.refuse = lambda _request: REFUSALS[said]
    for ask in (
        lambda: storage.read("a"),
        lambda: storage.write("a", b"2"),
        lambda: storage.create("b", b"2"),
        lambda: storage.names("."),
        lambda: storage.read_all(["a"]),
    ):
        with pytest.raises(StopRun, match=said) as found:
            ask()
        line = str(found.value)
        assert line.startswith(f"{storage.url}/"), line
        assert "\n" not in line
    S3FileSystem.clear_instance_cache()


def test_a_bucket_that_is_not_there_is_named_and_not_made(s3: S3) -> None:
    storage = Storage("s3://no-such-bucket/ws")
    for ask in (
        lambda: storage.names("."),
        lambda: storage.write("a", b""),
        lambda: storage.create("a", b""),
    ):
        with pytest.raises(StopRun, match="no such bucket"):
            ask()
    assert not any(one.method == "PUT" and one.path == "/no-such-bucket" for one in s3.requests)


def test_a_store_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)
    S3FileSystem.clear_instance_cache()
    with pytest.raises(StopRun, match="no answer"):
        Storage("s3://silent-bucket/ws").read("a")
    S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize(
    ("url", "package", "way"),
    [
        ("s3://b/ws", "s3fs", r"pip install 'avatar-build\[s3\]'"),
        ("gs://b/ws", "gcsfs", "pip install 'gcsfs'"),
        ("abfs://b/ws", "adlfs", "pip install 'adlfs'"),
    ],
)
def test_without_its_package_a_scheme_is_one_line_that_names_it(
    url: str, package: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    known = sys.modules["fsspec.registry"]._registry
    monkeypatch.delitem(known, url.partition(":")[0], raising=False)
    with pytest.raises(UsageError, match=rf"{package} is not installed: {way}"):
        Storage(url)


def test_a_scheme_that_nobody_knows_is_one_line() -> None:
    with pytest.raises(UsageError, match="Protocol not known: nosuch"):
        Storage("nosuch://b/ws")
