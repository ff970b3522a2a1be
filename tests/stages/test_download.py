from __future__ import annotations

import errno
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import DownloadConfig
from pipeline.errors import StopRun, UsageError
from pipeline.files import sha256_of
from pipeline.media import MediaFacts
from pipeline.partial import OVERLAP
from pipeline.records.schema import Source, Video
from pipeline.run.stage import Drop, Fail, Ok, Outcome, WorkerContext
from pipeline.workspace.storage import Storage
from stages.download.archive import Sidecar, VideoArchive
from stages.download.candidates import matches_license, rejections
from stages.download.failure_kinds import SiteFailure, classify
from stages.download.fetch_videos import FetchVideos
from stages.download.fetcher import backoff_s
from stages.download.fetching import Fetched, SiteFacts
from stages.download.identity import Identity
from stages.download.sources import read_list, select_sources
from tests.conftest import ROOT
from tests.video_factory import bursts, make_video
from tests.video_server import HTML, Fault, VideoServer, serving

ID = "-rAw_video0"
NAME = f"{ID}.mp4"


def source(video_id: str = ID) -> Source:
    return Source(video_id=video_id, label="dog barking", split="test", start_s=3)


@pytest.fixture(scope="session")
def drawn_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small video with sound, large enough to be cut in two."""
    path = tmp_path_factory.mktemp("drawn") / "v.mp4"
    return make_video(path, frames=300, sound=bursts(12, [1, 5]), options={"crf": "10"})


@pytest.fixture(scope="session")
def drawn(drawn_path: Path) -> bytes:
    return drawn_path.read_bytes()


@pytest.fixture
def server(drawn: bytes) -> Iterator[VideoServer]:
    with serving({NAME: drawn}) as running:
        yield running


class Bench:
    """A stage on a workspace of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "scratch").mkdir(parents=True)
        self.beats = 0

    def beat(self) -> None:
        self.beats += 1

    def stage(self, *, site: Any = None, **settings: Any) -> FetchVideos:
        defaults: dict[str, Any] = {
            "width": 96,
            "height": 72,
            "min_free_bytes": 0,
            "backoff_s": 0.0,
            "sleep_s": 0.0,
        }
        stage = FetchVideos(DownloadConfig(**defaults | settings), site)
        storage = Storage(self.root)
        stage.open(WorkerContext(storage, self.root / "scratch", _no_lookup, self.beat))
        return stage

    def run(self, rows: Sequence[Source] = (), **settings: Any) -> list[Outcome]:
        stage = self.stage(**settings)
        try:
            return list(stage.process(rows or [source()]))
        finally:
            stage.close()

    def one(self, **settings: Any) -> Outcome:
        (outcome,) = self.run(**settings)
        return outcome

    @property
    def part(self) -> Path:
        return self.root / "media/partial" / ID / f"{NAME}.part"

    @property
    def video(self) -> Path:
        return self.root / "media/videos" / NAME


def _no_lookup(table: str, column: str) -> Any:
    raise AssertionError(table)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "ws")


def kind(outcome: Outcome) -> str:
    assert isinstance(outcome, Fail), outcome
    return outcome.kind


# Whole lists


def test_exactly_the_real_videos_that_fit_the_filter_pass(shared: Path, bench: Bench) -> None:
    folder = shared / "data/raw_videos"
    rows = select_sources(read_list(folder / "vggsound_subset.csv"), "subset").sources
    with serving(folder) as server:
        outcomes = {
            one.id: one
            for one in bench.run(rows, source_template=server.template, width=640, height=360)
        }
        assert len(server.requests) == len(rows) == 17
    dropped = {one.id: one.detail for one in outcomes.values() if isinstance(one, Drop)}
    assert dropped == {
        "00W1lcxW-WU": "256x144, not 640x360; 12.5 fps, not 20 to 40",
        "54bz5yqN2IA": "480x360, not 640x360",
        "vasDog02677": "398x224, not 640x360; 6.01 s, under 10 s",
    }
    failed = {one.id: kind(one) for one in outcomes.values() if isinstance(one, Fail)}
    assert failed == {"goneAAAAAAA": "http_404", "goneBBBBBBB": "http_404"}
    for one in outcomes.values():
        if isinstance(one, Ok):
            (video,) = one.rows
            assert isinstance(video, Video)
            original = folder / f"{one.id}.mp4"
            assert video.sha256 == sha256_of(original) == sha256_of(bench.root / video.path)
            assert video.size_bytes == original.stat().st_size
            assert (video.width, video.height) == (640, 360)
    assert not any((bench.root / "media/partial").glob("*/*.mp4*"))


def test_one_by_one_gives_what_a_batch_gives(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data/raw_videos"
    rows = select_sources(read_list(folder / "vggsound_subset.csv"), "subset").sources
    settings = {"source_template": f"{folder}/{{video_id}}.mp4", "width": 640, "height": 360}
    batch = Bench(tmp_path / "a").run(rows, **settings)
    single = Bench(tmp_path / "b").run(rows, concurrency=1, **settings)
    assert sorted(map(repr, batch)) == sorted(map(repr, single))


def test_a_local_archive_is_linked_and_needs_no_yt_dlp(tmp_path: Path, drawn: bytes) -> None:
    archive = tmp_path / "old 100% #1"
    archive.mkdir()
    (archive / NAME).write_bytes(drawn)
    for number, template in enumerate(
        [f"{archive}/{{video_id}}.mp4", archive.as_uri() + "/{video_id}.mp4"]
    ):
        bench = Bench(tmp_path / f"ws{number}")
        good, missing = sorted(
            bench.run([source(), source("absent-0000")], source_template=template),
            key=lambda one: one.id,
        )
        assert isinstance(good, Ok)
        assert kind(missing) == "missing_file"
        assert bench.video.samefile(archive / NAME)
    assert (archive / NAME).read_bytes() == drawn


# Faults


@pytest.mark.parametrize(
    ("fault", "expected", "requests"),
    [
        (Fault(404), "http_404", 1),
        (Fault(410), "http_410", 1),
        (Fault(401), "http_4xx", 3),
        (Fault(403), "http_403", 3),
        (Fault(429), "http_429", 3),
        (Fault(500), "http_5xx", 3),
        (Fault(503), "http_5xx", 3),
        (Fault(body=HTML), "not_media", 2),
        (Fault(body=b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"), "not_media", 2),
        (Fault(body=bytes(range(256)) * 40), "not_media", 2),
        (Fault(body=b""), "truncated", 3),
        (Fault(announced=100), "truncated", 2),
        (Fault(cut_after=0), "truncated", 3),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_each_fault_has_its_kind_and_its_number_of_requests(
    server: VideoServer, bench: Bench, fault: Fault, expected: str, requests: int
) -> None:
    server.faults[NAME].extend([fault] * 9)
    outcome = bench.one(source_template=server.template, retries=3)
    assert kind(outcome) == expected
    assert len(server.requests) == requests
    assert not bench.video.exists()
    assert bench.part.parent.exists() == bench.part.exists()  # no empty folders stay


@pytest.mark.parametrize(
    "fault",
    [Fault(503), Fault(429), Fault(403), Fault(cut_after=999), Fault(body=HTML)],
    ids=lambda value: repr(value)[:30],
)
def test_a_fault_that_passes_costs_one_more_request(
    server: VideoServer, bench: Bench, drawn: bytes, fault: Fault
) -> None:
    server.faults[NAME].append(fault)
    assert isinstance(bench.one(source_template=server.template), Ok)
    assert len(server.requests) == 2
    assert bench.video.read_bytes() == drawn


def test_a_stalled_transfer_is_given_up_and_resumed(
    server: VideoServer, bench: Bench, drawn: bytes
) -> None:
    server.faults[NAME].append(Fault(stall_after=len(drawn) // 2))
    assert isinstance(bench.one(source_template=server.template, timeout_s=0.3), Ok)
    assert bench.video.read_bytes() == drawn
    assert [request.status for request in server.requests] == [200, 206]
    server.faults["another-one.mp4"].extend([Fault(stall_after=0)] * 9)
    server.files["another-one.mp4"] = drawn
    (stalled,) = bench.run(
        [source("another-one")], source_template=server.template, timeout_s=0.3, retries=2
    )
    assert kind(stalled) == "timeout"


def test_a_refused_connection_has_its_kind(bench: Bench) -> None:
    with serving({}) as gone:
        template = gone.template
    outcome = bench.one(source_template=template, retries=1)
    assert kind(outcome) == "connection"
    assert isinstance(outcome, Fail)
    assert outcome.retryable


def test_retry_after_is_honoured_and_bounded(server: VideoServer, bench: Bench) -> None:
    asked = Fault(429, headers=(("Retry-After", "3600"),))
    waits: list[float] = []
    stage = bench.stage(source_template=server.template, retries=3, backoff_max_s=50.0)
    stage._fetcher._pool.wait = waits.append  # type: ignore[assignment]
    server.faults[NAME].extend([asked, Fault(503, headers=(("Retry-After", "7"),))])
    (outcome,) = stage.process([source()])
    stage.close()
    assert isinstance(outcome, Ok)
    assert waits == [50.0, 7.0]


# Resuming


def cut_once(server: VideoServer, bench: Bench, at: int) -> None:
    """Leave a part of ``at`` bytes and its record, as an interrupted run does."""
    server.faults[NAME].append(Fault(cut_after=at))
    assert kind(bench.one(source_template=server.template, retries=1)) == "truncated"
    assert 0 < bench.part.stat().st_size <= at
    server.requests.clear()


def test_a_later_run_fetches_only_the_rest(server: VideoServer, bench: Bench, drawn: bytes) -> None:
    cut_once(server, bench, len(drawn) * 2 // 3)
    had = bench.part.stat().st_size
    assert isinstance(bench.one(source_template=server.template), Ok)
    (request,) = server.requests
    assert request.sent == len(drawn) - had + min(OVERLAP, had)
    assert bench.video.read_bytes() == drawn


@pytest.mark.parametrize("etags", [False, True])
def test_a_part_of_other_bytes_is_found_and_fetched_anew(
    server: VideoServer, bench: Bench, drawn: bytes, etags: bool
) -> None:
    if etags:
        server.etags[NAME] = '"one"'
    cut_once(server, bench, len(drawn) * 2 // 3)
    if etags:
        server.etags[NAME] = '"two"'
        server.faults[NAME].append(Fault(ignore_condition=True))
    else:
        # The head is right, so no index tells: only the bytes themselves do.
        had = bench.part.read_bytes()
        bench.part.write_bytes(had[: len(had) // 2] + bytes(len(had) - len(had) // 2))
    assert isinstance(bench.one(source_template=server.template, retries=1), Ok)
    assert [(one.range != "", one.status) for one in server.requests] == [(True, 206), (False, 200)]
    assert bench.video.read_bytes() == drawn


def test_a_server_that_heeds_the_condition_sends_a_changed_file_whole_at_once(
    server: VideoServer, bench: Bench, drawn: bytes
) -> None:
    server.etags[NAME] = '"one"'
    cut_once(server, bench, len(drawn) * 2 // 3)
    server.etags[NAME] = '"two"'
    assert isinstance(bench.one(source_template=server.template), Ok)
    (request,) = server.requests
    assert (request.if_range, request.status) == ('"one"', 200)
    assert bench.video.read_bytes() == drawn


def test_a_part_of_a_file_that_changed_its_size_is_fetched_anew(
    server: VideoServer, bench: Bench, drawn: bytes
) -> None:
    cut_once(server, bench, len(drawn) // 2)
    server.files[NAME] = drawn + b"\0\0\0\x10free12345678"
    assert isinstance(bench.one(source_template=server.template, retries=1), Ok)
    assert len(server.requests) == 2
    assert bench.video.read_bytes() == server.files[NAME]


def test_a_part_longer_than_the_file_is_fetched_anew(
    server: VideoServer, bench: Bench, drawn: bytes
) -> None:
    cut_once(server, bench, len(drawn) // 2)
    bench.part.write_bytes(drawn + bytes(2 * OVERLAP))
    assert isinstance(bench.one(source_template=server.template, retries=1), Ok)
    assert [request.status for request in server.requests] == [416, 200]
    assert bench.video.read_bytes() == drawn


@pytest.mark.parametrize("known", [True, False])
def test_a_part_that_was_whole_when_the_run_was_killed_becomes_the_file(
    server: VideoServer, bench: Bench, drawn: bytes, known: bool
) -> None:
    cut_once(server, bench, len(drawn) // 2)
    bench.part.write_bytes(drawn)
    if not known:  # a server that had not said how long the file is
        record = bench.part.parent / "part.json"
        record.write_text(json.dumps({**json.loads(record.read_text()), "size": None}))
    assert isinstance(bench.one(source_template=server.template, retries=1), Ok)
    assert sum(request.sent for request in server.requests) <= len(drawn) + OVERLAP
    assert bench.video.read_bytes() == drawn


def test_a_part_nobody_knows_is_not_used(server: VideoServer, bench: Bench, drawn: bytes) -> None:
    bench.part.parent.mkdir(parents=True)
    bench.part.write_bytes(drawn[:1000])
    (bench.part.parent / "part.json").write_text('{"source_url": "http://other/x.mp4"')
    assert isinstance(bench.one(source_template=server.template), Ok)
    assert [request.range for request in server.requests] == [""]


def test_a_part_of_another_mirror_is_not_used(
    server: VideoServer, bench: Bench, drawn: bytes
) -> None:
    cut_once(server, bench, len(drawn) // 2)
    with serving({NAME: drawn}) as other:
        assert isinstance(bench.one(source_template=other.template), Ok)
        assert [request.range for request in other.requests] == [""]


def test_a_server_without_ranges_sends_the_whole_again(
    server: VideoServer, bench: Bench, drawn: bytes
) -> None:
    cut_once(server, bench, len(drawn) // 2)
    server.faults[NAME].append(Fault(no_range=True))
    assert isinstance(bench.one(source_template=server.template), Ok)
    assert [request.status for request in server.requests] == [200]
    assert bench.video.read_bytes() == drawn


def test_a_finished_looking_file_in_the_part_folder_is_not_believed(
    server: VideoServer, bench: Bench, drawn: bytes
) -> None:
    bench.part.parent.mkdir(parents=True)
    (bench.part.parent / NAME).write_bytes(b"garbage")
    assert isinstance(bench.one(source_template=server.template), Ok)
    assert bench.video.read_bytes() == drawn


def test_a_garbage_final_file_is_not_believed(
    server: VideoServer, bench: Bench, drawn: bytes
) -> None:
    bench.video.parent.mkdir(parents=True)
    bench.video.write_bytes(b"garbage")
    assert isinstance(bench.one(source_template=server.template), Ok)
    assert bench.video.read_bytes() == drawn


# The ledger


def test_a_rerun_asks_for_nothing(server: VideoServer, bench: Bench) -> None:
    first = bench.one(source_template=server.template)
    assert bench.one(source_template=server.template) == first
    assert len(server.requests) == 1


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_file_that_changed_is_fetched_again(
    server: VideoServer, bench: Bench, drawn: bytes, damage: bytes | None
) -> None:
    first = bench.one(source_template=server.template)
    if damage is None:
        bench.video.unlink()
    else:
        bench.video.write_bytes(damage + drawn[len(damage) :] if damage else b"")
    assert bench.one(source_template=server.template) == first
    assert len(server.requests) == 2
    assert bench.video.read_bytes() == drawn


def test_a_broken_sidecar_is_not_believed(server: VideoServer, bench: Bench) -> None:
    first = bench.one(source_template=server.template)
    sidecar = bench.video.with_suffix(".json")
    sidecar.write_text(sidecar.read_text()[:50])
    assert bench.one(source_template=server.template) == first


def test_facts_of_an_earlier_reading_are_read_again_and_nothing_is_fetched(
    server: VideoServer, bench: Bench
) -> None:
    first = bench.one(source_template=server.template)
    sidecar = bench.video.with_suffix(".json")
    known = json.loads(sidecar.read_text())
    del known["probe_version"], known["media"]["video_stream"], known["media"]["audio_stream"]
    known["media"]["duration_s"] = 4012.0
    for rejected in ({}, {"max_fps": 24.0}):  # by those facts it was kept, or was not
        sidecar.write_text(json.dumps(known))
        again = bench.one(source_template=server.template, keep_rejected=True, **rejected)
        assert isinstance(again, Drop) if rejected else again == first
    assert len(server.requests) == 1
    assert json.loads(sidecar.read_text())["media"]["duration_s"] < 13


def test_the_row_says_which_tracks_were_taken(server: VideoServer, bench: Bench) -> None:
    outcome = bench.one(source_template=server.template)
    assert isinstance(outcome, Ok)
    (row,) = outcome.rows
    assert isinstance(row, Video)
    assert (row.video_stream, row.audio_stream) == (0, 1)


def test_a_rejected_file_goes_and_a_new_filter_decides_again(
    server: VideoServer, bench: Bench
) -> None:
    first = bench.one(source_template=server.template, width=640)
    assert first == Drop(ID, "resolution", "96x72, not 640x72")
    assert not bench.video.exists()
    longer = bench.one(source_template=server.template, min_duration_s=13)
    assert longer == Drop(ID, "duration", "12 s, under 13 s")
    assert len(server.requests) == 1
    assert isinstance(bench.one(source_template=server.template), Ok)
    assert len(server.requests) == 2
    assert isinstance(bench.one(source_template=server.template, max_fps=24), Drop)
    assert not bench.video.exists()


def test_keep_rejected_keeps_the_file(server: VideoServer, bench: Bench, drawn: bytes) -> None:
    outcome = bench.one(source_template=server.template, width=640, keep_rejected=True)
    assert isinstance(outcome, Drop)
    assert bench.video.read_bytes() == drawn
    assert isinstance(bench.one(source_template=server.template), Ok)
    assert len(server.requests) == 1


def test_another_format_setting_is_fetched_again(server: VideoServer, bench: Bench) -> None:
    bench.one(source_template=server.template)
    bench.one(source_template=server.template, format="b")
    assert len(server.requests) == 2


def test_a_format_the_source_does_not_have_is_no_format(server: VideoServer, bench: Bench) -> None:
    assert kind(bench.one(source_template=server.template, format="137")) == "no_format"
    assert server.requests == []


# Bounds


def test_a_video_over_max_bytes_is_dropped_before_its_body(
    server: VideoServer, bench: Bench, drawn: bytes
) -> None:
    outcome = bench.one(source_template=server.template, max_bytes=1000)
    assert outcome == Drop(ID, "too_large", f"{len(drawn)} bytes, over 1000")
    assert not bench.part.exists()


def test_an_endless_body_ends_at_max_bytes(server: VideoServer, bench: Bench) -> None:
    server.faults[NAME].append(Fault(endless=True))
    outcome = bench.one(source_template=server.template, max_bytes=3_000_000)
    assert isinstance(outcome, Drop)
    assert outcome.reason == "too_large"
    assert not bench.part.exists()


def test_a_video_over_max_duration_is_dropped(server: VideoServer, bench: Bench) -> None:
    outcome = bench.one(source_template=server.template, max_duration_s=11)
    assert outcome == Drop(ID, "too_long", "12 s, over 11")


def test_a_three_hour_video_passes_within_its_bound(tmp_path: Path, bench: Bench) -> None:
    path = tmp_path / "long.mp4"
    make_video(path, pts_ms=[0, 40, 3 * 3600 * 1000], sound=bursts(1, []))
    with serving({NAME: path.read_bytes()}) as server:
        dropped = bench.one(source_template=server.template, max_duration_s=3600)
        fits = bench.one(source_template=server.template, min_fps=1e-9, min_bitrate_bps=0)
    assert isinstance(dropped, Drop)
    assert dropped.reason == "too_long"
    assert isinstance(fits, Ok)


def test_too_little_disk_stops_the_run_before_any_request(
    server: VideoServer, bench: Bench
) -> None:
    with pytest.raises(StopRun, match=r"B free on the disk, under the 1000000\.0 TB"):
        bench.run(source_template=server.template, min_free_bytes=10**18)
    assert server.requests == []


@pytest.mark.parametrize("free", [10**12, 1000])
def test_a_write_error_fails_the_row_unless_the_disk_is_full(
    bench: Bench, drawn: bytes, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    def answer(video_id: str, identity: Identity) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free))
        raise classify(OSError(errno.ENOSPC, "No space left on device"))

    site = FakeSite(drawn, answer)
    if free < 10**6:
        with pytest.raises(StopRun, match="Make room and run again"):
            bench.one(site=site)
    else:
        outcome = bench.one(site=site)
        assert kind(outcome) == "local_disk"
        assert isinstance(outcome, Fail)
        assert outcome.retryable
    assert len(site.asked) == 1


def test_an_id_that_is_no_id_touches_nothing(server: VideoServer, bench: Bench) -> None:
    (outcome,) = bench.run([source("../../etc/x")], source_template=server.template)
    assert kind(outcome) == "invalid_id"
    assert server.requests == []
    assert not (bench.root / "media/partial").exists()


# Identities


class FakeSite:
    """Answers by a function of the video and the identity; the file is a drawn one."""

    def __init__(self, data: bytes, answer: Callable[[str, Identity], None]) -> None:
        self.data, self.answer = data, answer
        self.asked: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    def fetch(self, video_id: str, folder: Path, identity: Identity) -> Fetched:
        with self._lock:
            self.asked.append((video_id, identity.label))
        self.answer(video_id, identity)
        file = folder / f"{video_id}.mp4"
        file.write_bytes(self.data)
        return Fetched(file, SiteFacts(source_url=f"https://www.youtube.com/watch?v={video_id}"))


def test_a_blocked_identity_rests_and_the_row_keeps_its_attempts(
    bench: Bench, drawn: bytes
) -> None:
    blocks = iter(["rate_limited", "bot_check", "http_5xx"])

    def answer(video_id: str, identity: Identity) -> None:
        if trouble := next(blocks, None):
            raise SiteFailure(trouble, "said the site")

    site = FakeSite(drawn, answer)
    outcome = bench.one(site=site, retries=2, pause_s=0.3, max_pauses=2)
    assert isinstance(outcome, Ok)
    assert len(site.asked) == 4
    state = json.loads((bench.root / "media/identities.json").read_text())
    assert [one["pauses"] for one in state.values()] == [0]


def test_the_other_identities_go_on(bench: Bench, drawn: bytes) -> None:
    def answer(video_id: str, identity: Identity) -> None:
        if identity.label == "direct":
            raise SiteFailure("bot_check", "Sign in to confirm you're not a bot")

    site = FakeSite(drawn, answer)
    rows = [source(f"{n:011d}") for n in range(6)]
    identities = ["direct", "http://me:secret@127.0.0.1:9"]
    outcomes = bench.run(rows, site=site, identities=identities, concurrency=1)
    assert all(isinstance(one, Ok) for one in outcomes)
    assert [label for _, label in site.asked].count("direct") == 1
    assert "secret" not in (bench.root / "media/identities.json").read_text()


def test_a_site_that_keeps_blocking_stops_the_run_in_one_line(bench: Bench, drawn: bytes) -> None:
    def answer(video_id: str, identity: Identity) -> None:
        if video_id != "good-000000":
            raise SiteFailure("rate_limited", "try again later")

    site = FakeSite(drawn, answer)
    rows = [source("good-000000"), *(source(f"{n:011d}") for n in range(5))]
    expected = r"blocks direct \(rate_limited\) after 2 pauses\. Run again after \d{4}-\d\d-\d\d "
    with pytest.raises(StopRun, match=expected) as caught:
        bench.run(rows, site=site, pause_s=0.1, max_pauses=2, concurrency=1)
    assert "\n" not in str(caught.value)
    assert len(site.asked) == 1 + 3  # one served, then as many as pauses and the last straw
    resumed = FakeSite(drawn, lambda video_id, identity: None)
    assert all(isinstance(one, Ok) for one in bench.run(rows, site=resumed, pause_s=0.1))
    assert "good-000000" not in [video_id for video_id, _ in resumed.asked]


@given(
    served=st.integers(0, 6),
    pauses=st.integers(1, 3),
    kinds=st.lists(st.sampled_from(["http_403", "http_4xx", "site_error"]), min_size=1, max_size=3),
    concurrency=st.integers(1, 4),
    retries=st.integers(1, 4),
)
@settings(max_examples=8, deadline=None)
def test_a_storm_of_refusals_costs_no_row_an_attempt(
    tmp_path_factory: pytest.TempPathFactory,
    drawn_path: Path,
    served: int,
    pauses: int,
    kinds: list[str],
    concurrency: int,
    retries: int,
) -> None:
    bench = Bench(tmp_path_factory.mktemp("storm") / "ws")
    asked = itertools.count()

    def answer(video_id: str, identity: Identity) -> None:
        number = next(asked)
        state = json.loads((bench.root / "media/identities.json").read_text())
        if number >= served and state[identity.key]["pauses"] < pauses and not ended:
            raise SiteFailure(kinds[number % len(kinds)], "HTTP Error 400: Bad Request")
        if number >= served:
            ended.append(number)

    ended: list[int] = []
    rows = [source(f"{n:011d}") for n in range(16)]
    outcomes = bench.run(
        rows,
        site=FakeSite(drawn_path.read_bytes(), answer),
        concurrency=concurrency,
        retries=retries,
        pause_s=0.01,
        max_refusals=3,
    )
    assert sorted(one.id for one in outcomes) == [row.video_id for row in rows]
    assert len(ended) >= 16 - served
    assert all(isinstance(one, Ok) for one in outcomes), outcomes


def test_refusals_among_videos_that_are_served_are_the_rows_own(bench: Bench, drawn: bytes) -> None:
    def answer(video_id: str, identity: Identity) -> None:
        if int(video_id) % 2:
            raise SiteFailure("http_403", "HTTP Error 403: Forbidden")

    rows = [source(f"{n:011d}") for n in range(12)]
    site = FakeSite(drawn, answer)
    outcomes = bench.run(rows, site=site, retries=2, concurrency=1, max_refusals=2)
    assert [one.id for one in outcomes if isinstance(one, Ok)] == [r.video_id for r in rows[::2]]
    assert {kind(one) for one in outcomes if not isinstance(one, Ok)} == {"http_403"}
    assert len(site.asked) == 6 + 6 * 2


def test_a_storm_that_does_not_end_stops_the_run_with_its_rows_pending(
    bench: Bench, drawn: bytes
) -> None:
    def answer(video_id: str, identity: Identity) -> None:
        raise SiteFailure("http_4xx", "HTTP Error 400: Bad Request")

    rows = [source(f"{n:011d}") for n in range(8)]
    stage = bench.stage(
        site=FakeSite(drawn, answer), retries=1, concurrency=1, pause_s=0.01, max_pauses=1
    )
    with pytest.raises(StopRun, match=r"blocks direct \(http_4xx for 5 videos in a row\)"):
        # No answer comes before the stop.
        next(stage.process(rows))


def test_a_mirrors_refusals_are_its_files_own(bench: Bench, server: VideoServer) -> None:
    rows = [source(f"{n:011d}") for n in range(6)]
    for row in rows:
        server.faults[f"{row.video_id}.mp4"].append(Fault(403))
    outcomes = bench.run([*rows, source()], source_template=server.template, retries=1)
    assert sorted(kind(one) for one in outcomes if isinstance(one, Fail)) == ["http_403"] * 6
    assert sum(isinstance(one, Ok) for one in outcomes) == 1


def test_a_video_that_alone_is_refused_again_and_again_fails_and_the_others_come(
    bench: Bench, drawn: bytes
) -> None:
    others = threading.Semaphore(0)

    def answer(video_id: str, identity: Identity) -> None:
        if video_id != ID:
            others.release()
            return
        # On a busy machine it may be asked for several times before any other is.
        while others.acquire(blocking=False):
            pass
        assert others.acquire(timeout=60)
        raise SiteFailure("bot_check", "Please sign in")

    rows = [source(), *(source(f"{n:011d}") for n in range(60))]
    outcomes = bench.run(rows, site=FakeSite(drawn, answer), pause_s=0.3, max_pauses=2)
    assert [(one.id, kind(one)) for one in outcomes if not isinstance(one, Ok)] == [
        (ID, "bot_check")
    ]
    assert sum(isinstance(one, Ok) for one in outcomes) == 60


def test_a_bug_in_one_row_ends_the_others_at_once(bench: Bench, drawn: bytes) -> None:
    def answer(video_id: str, identity: Identity) -> None:
        if video_id == ID:
            raise ZeroDivisionError
        raise SiteFailure("http_5xx", "busy")

    rows = [*(source(f"{n:011d}") for n in range(3)), source()]
    with pytest.raises(ZeroDivisionError):
        bench.run(rows, site=FakeSite(drawn, answer), backoff_s=60.0, backoff_max_s=60.0)


def test_waiting_shows_life(server: VideoServer, bench: Bench) -> None:
    server.files |= {f"{n:011d}.mp4": server.files[NAME] for n in range(3)}
    rows = [source(f"{n:011d}") for n in range(3)]
    bench.run(rows, source_template=server.template, mirror_sleep_s=1.1)
    assert bench.beats >= 2


# Secrets


def test_no_secret_reaches_a_record_a_failure_or_the_disk(
    server: VideoServer, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    template = server.template.replace("http://", "http://me:pass-word@") + "?token=tok-en"
    options = {"http_headers": {"X-Key": "hea-der"}, "video_password": "vid-pass"}
    server.faults["absent-0000.mp4"].append(Fault(404))
    rows = [source(), source("absent-0000"), source("halved-0000")]
    server.files["halved-0000.mp4"] = server.files[NAME]
    server.faults["halved-0000.mp4"].append(Fault(cut_after=5000))
    outcomes = bench.run(rows, source_template=template, options=options, retries=1)
    assert {type(one).__name__ for one in outcomes} == {"Ok", "Fail"}
    seen = repr(outcomes) + caplog.text
    for path in bench.root.rglob("*.json"):
        seen += path.read_text()
    for secret in ("pass-word", "tok-en", "hea-der", "vid-pass", "token="):
        assert secret not in seen


def test_a_cookies_file_that_is_none_is_refused_without_repeating_it(
    bench: Bench, tmp_path: Path, server: VideoServer
) -> None:
    path = tmp_path / "cookies.txt"
    path.write_text("# Netscape HTTP Cookie File\n.youtube.com TRUE / SECRET\n")
    with pytest.raises(UsageError, match=r"cookies\.txt, line 2: no cookie") as caught:
        bench.stage(source_template=server.template, identities=[f"cookies:{path}"])
    assert "SECRET" not in str(caught.value)


def test_cookies_are_sent_and_their_file_is_never_written(
    bench: Bench, tmp_path: Path, server: VideoServer
) -> None:
    path = tmp_path / "cookies.txt"
    path.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tsid\tabc\n")
    path.chmod(0o400)
    before = path.read_bytes()
    outcome = bench.one(source_template=server.template, identities=[f"cookies:{path}"])
    assert isinstance(outcome, Ok)
    assert path.read_bytes() == before
    assert server.requests[0].cookie == "sid=abc"


def test_a_yt_dlp_option_passes_through(bench: Bench, server: VideoServer) -> None:
    bench.one(source_template=server.template, options={"http_headers": {"User-Agent": "lab/1"}})
    assert server.requests[0].agent == "lab/1"


@pytest.mark.parametrize(
    "settings", [{"format": "b[height"}, {"options": {"js_runtimes": ["se-cret"]}}], ids=repr
)
def test_what_yt_dlp_does_not_take_is_refused_before_any_row(
    bench: Bench, settings: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match=r"download\.format or download\.options"):
        bench.stage(**settings)


@pytest.mark.parametrize("template", ["http://host/x.mp4", "ftp://host/{video_id}.mp4"])
def test_a_template_that_cannot_work_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="source_template"):
        DownloadConfig(source_template=template)


# The filter


def facts(**changes: Any) -> MediaFacts:
    plain: dict[str, Any] = {
        "width": 640,
        "height": 360,
        "fps": 30.0,
        "frame_count": 300,
        "start_s": 0.0,
        "duration_s": 10.0,
        "bitrate_bps": 100,
        "video_codec": "h264",
        "audio_codec": "aac",
        "sample_rate_hz": 44100,
        "channels": 2,
    }
    return MediaFacts(**plain | changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"fps": 20.0}, []),
        ({"fps": 40.0}, []),
        ({"fps": 19.98}, ["frame_rate"]),
        ({"fps": 40.01}, ["frame_rate"]),
        ({"duration_s": 9.99}, ["duration"]),
        ({"bitrate_bps": 99}, ["bitrate"]),
        ({"audio_codec": None}, ["no_audio"]),
        ({"width": 360, "height": 640}, ["resolution"]),
        (
            {"height": 361, "fps": 1.0, "audio_codec": None},
            ["resolution", "frame_rate", "no_audio"],
        ),
    ],
)
def test_the_bounds_of_the_filter_are_the_papers(
    changes: dict[str, Any], expected: list[str]
) -> None:
    found = rejections(facts(**changes), "", DownloadConfig())
    assert [one.reason for one in found] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Creative Commons Attribution license (reuse allowed)", True),
        ("CC BY 4.0", True),
        ("cc-by", True),
        ("CC_BY", True),
        ("https://creativecommons.org/licenses/by/4.0/", True),
        ("Attribution 3.0 Unported", True),
        ("Standard YouTube License", False),
        ("", False),
        ("CC BY-NC 4.0", False),
        ("CC BY-ND", False),
        ("cc-by-sa-4.0", False),
        ("https://creativecommons.org/licenses/by-nc-sa/4.0/", False),
        ("Creative Commons Attribution-NonCommercial", False),
        ("Creative Commons Attribution Share Alike", False),
        ("Creative Commons Attribution-NoDerivatives", False),
        ("CC0", False),
        ("public domain, filmed by 4 people", False),
    ],
)
def test_cc_by_is_told_from_its_stricter_kin(text: str, expected: bool) -> None:
    assert matches_license(text, "cc-by") is expected
    found = rejections(facts(), text, DownloadConfig(require_license="cc-by"))
    assert bool(found) is not expected


def test_any_other_wanted_licence_is_a_part_of_the_text() -> None:
    assert matches_license("Standard YouTube License", "youtube")
    assert not matches_license("Standard YouTube License", "vimeo")
    assert matches_license("", "")


@given(attempt=st.integers(1, 40), asked=st.none() | st.floats(0, 1e6))
def test_backoff_grows_is_the_same_each_time_and_bounded(attempt: int, asked: float | None) -> None:
    config = DownloadConfig(backoff_s=2.0, backoff_max_s=300.0)
    failure = SiteFailure("http_429", "", retry_after_s=asked)
    seconds = backoff_s(ID, attempt, failure, config)
    assert seconds == backoff_s(ID, attempt, failure, config)
    assert min(300.0, 2.0 * 2 ** (attempt - 1)) <= seconds <= 300.0
    assert asked is None or seconds >= min(asked, 300.0)


# The process


def test_a_worker_of_this_stage_imports_no_torch() -> None:
    code = (
        "import sys, stages.download.fetcher;"
        "import stages.download.ytdlp, stages.download.local_files;"
        "print(sorted({'torch', 'librosa', 'pandas'} & sys.modules.keys()))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "[]"


def test_a_sidecar_reads_back_as_it_was_written(tmp_path: Path) -> None:
    archive = VideoArchive(Storage(tmp_path), tmp_path)
    sidecar = Sidecar(
        video_id=ID,
        selection="b",
        path=f"media/videos/{NAME}",
        sha256="0" * 64,
        size_bytes=3,
        media=facts(),
        site=SiteFacts(source_url="https://www.youtube.com/watch?v=" + ID, license="CC BY"),
    )
    archive.keep(sidecar, None)
    assert archive.recall(ID, "b") == sidecar
    assert archive.recall(ID, "best") is None
    assert not archive.is_whole(sidecar)
