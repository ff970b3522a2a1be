from __future__ import annotations

import itertools
import json
import multiprocessing
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import StopRun, UsageError
from stages.download.identity import Identity, IdentityPool, Pace, parse_identities

DIRECT = Identity()
PROXY = Identity(proxy="http://me:secret@127.0.0.1:3128")


class Clock:
    """A clock that waiting moves: minutes of pacing take no time."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class PoolOfClock(IdentityPool):
    """Waits by moving the clock."""

    def wait(self, seconds: float, *, once: bool = False) -> None:
        assert isinstance(self._clock, Clock)
        self._clock.now += seconds


def pool(folder: Path, pace: Pace, *identities: Identity) -> tuple[PoolOfClock, Clock]:
    clock = Clock()
    state = folder / "identities.json"
    return PoolOfClock(identities or [DIRECT], pace, state, clock=clock), clock


def test_starts_of_one_identity_keep_their_distance(tmp_path: Path) -> None:
    one, clock = pool(tmp_path, Pace(8.0, None))
    starts = []
    for _ in range(5):
        one.start()
        starts.append(clock.now)
    assert [b - a for a, b in itertools.pairwise(starts)] == pytest.approx([8.0] * 4)


@given(bound=st.integers(1, 20), sleep_s=st.floats(0, 400), count=st.integers(1, 60))
def test_no_hour_ever_holds_more_starts_than_the_bound(
    tmp_path_factory: pytest.TempPathFactory, bound: int, sleep_s: float, count: int
) -> None:
    one, clock = pool(tmp_path_factory.mktemp("s"), Pace(sleep_s, bound))
    starts = []
    for _ in range(count):
        one.start()
        starts.append(clock.now)
    for first in starts:
        assert sum(first <= start < first + 3600 - 1e-6 for start in starts) <= bound


def test_two_identities_start_twice_as_often(tmp_path: Path) -> None:
    one, clock = pool(tmp_path, Pace(8.0, None), DIRECT, PROXY)
    begun = clock.now
    used = [one.start().label for _ in range(10)]
    assert clock.now - begun == pytest.approx(32.0)
    assert used.count("direct") == 5


def test_a_blocked_identity_rests_for_its_pause_while_the_other_works(tmp_path: Path) -> None:
    one, clock = pool(tmp_path, Pace(8.0, None, 3600.0, 3), DIRECT, PROXY)
    begun = clock.now
    one.block(DIRECT, "bot_check")
    while clock.now < begun + 3500:
        assert one.start() == PROXY
    used = set()
    while clock.now < begun + 3700:
        used.add(one.start().label)
    assert "direct" in used


def test_threads_that_meet_one_block_count_it_once(tmp_path: Path) -> None:
    one, _ = pool(tmp_path, Pace(0.0, None, 3600.0, 1))
    for _ in range(5):
        one.block(DIRECT, "rate_limited")
    state = json.loads((tmp_path / "identities.json").read_text())
    assert state[DIRECT.key]["pauses"] == 1


def test_pauses_without_a_success_stop_the_run_and_a_success_forgets_them(tmp_path: Path) -> None:
    one, clock = pool(tmp_path, Pace(0.0, None, 60.0, 2))
    for _ in range(3):
        for _ in range(2):
            one.block(DIRECT, "rate_limited")
            one.start()
        one.succeeded(DIRECT)
    one.block(DIRECT, "rate_limited")
    one.start()
    one.block(DIRECT, "rate_limited")
    one.start()
    with pytest.raises(StopRun, match=r"blocks direct .rate_limited. after 2 pauses"):
        one.block(DIRECT, "rate_limited")
    before = clock.now
    one.start()  # the next run waits for the block to end, and has its pauses again
    assert clock.now - before == pytest.approx(60.0)
    one.block(DIRECT, "rate_limited")


def test_one_spent_identity_does_not_stop_the_run(tmp_path: Path) -> None:
    one, _ = pool(tmp_path, Pace(0.0, None, 60.0, 0), DIRECT, PROXY)
    one.block(DIRECT, "bot_check")
    assert one.start() == PROXY
    with pytest.raises(StopRun, match=r"direct, http://127\.0\.0\.1:3128"):
        one.block(PROXY, "bot_check")


def test_a_clock_set_back_locks_nobody_away(tmp_path: Path) -> None:
    one, clock = pool(tmp_path, Pace(8.0, 10, 60.0, 5))
    one.start()
    one.block(DIRECT, "bot_check")
    clock.now -= 1_000_000
    before = clock.now
    one.start()
    assert clock.now - before <= 60.0


def test_a_stop_ends_a_wait(tmp_path: Path) -> None:
    stop = threading.Event()
    beats: list[float] = []
    one = IdentityPool(
        [DIRECT],
        Pace(3600.0, None),
        tmp_path / "s.json",
        beat=lambda: beats.append(time.monotonic()),
        stop=stop,
    )
    one.start()
    threading.Timer(0.2, stop.set).start()
    begun = time.monotonic()
    with pytest.raises(StopRun):
        one.start()
    assert time.monotonic() - begun < 2
    assert beats


def _start_often(state: Path, count: int) -> None:
    one = IdentityPool([DIRECT], Pace(0.0, 100_000), state)
    for _ in range(count):
        one.start()


def test_processes_share_one_count(tmp_path: Path) -> None:
    state = tmp_path / "s.json"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_start_often, args=(state, 100)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len(json.loads(state.read_text())[DIRECT.key]["starts"]) == 300


def test_identities_are_read_from_the_setting(tmp_path: Path) -> None:
    cookies = tmp_path / "c.txt"
    cookies.write_text("")
    assert parse_identities([]) == [DIRECT]
    found = parse_identities(["direct", PROXY.proxy, f"cookies:{cookies}", "socks5://h:1080"])
    assert [one.label for one in found] == [
        "direct",
        "http://127.0.0.1:3128",
        "cookies:c.txt",
        "socks5://h:1080",
    ]
    assert not any("secret" in one.label + one.key for one in found)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (["vpn"], "entry 1: write 'direct'"),
        (["direct", "http://me:secret@host"], "entry 2: write 'direct'"),
        (["http://me:secret@host:99999"], "entry 1: write"),
        (["direct", "direct"], "entry 2: the same identity twice"),
        (["cookies:/nowhere/c.txt"], "entry 1: no cookies file at /nowhere/c.txt"),
    ],
)
def test_an_identity_that_cannot_be_used_is_refused_without_its_password(
    entries: list[str], expected: str
) -> None:
    with pytest.raises(UsageError, match=expected) as caught:
        parse_identities(entries)
    assert "secret" not in str(caught.value)
