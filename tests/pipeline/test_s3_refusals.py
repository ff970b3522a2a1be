"""A bucket that refuses in the middle of a run: one line, nothing lost, the next run completes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from pipeline.errors import StopRun
from pipeline.run.runner import RunOptions, RunSummary, run_stage
from pipeline.workspace import leases
from pipeline.workspace.workspace import Workspace
from tests.pipeline.faulty import ENTRY, FaultyConfig, add_sources, outcome_digest
from tests.pipeline.one_process import in_one_process
from tests.pipeline.s3_server import S3, Refusal, Request, served
from tests.pipeline.shell import Shell

LABELS = ["ok", "drop", "ok", "fail"] * 12


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with served(monkeypatch) as server:
        yield server


@pytest.fixture(autouse=True)
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_S", 0.5)
    monkeypatch.setattr(leases, "GIVE_UP_S", 5.0)
    monkeypatch.setattr(leases, "EXPIRES_S", 8.0)


def run(url: str) -> RunSummary:
    return run_stage(
        Workspace(url), "faulty", RunOptions(workers=1), step=ENTRY, config=FaultyConfig()
    )


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str], list[str]]:
    """What an undisturbed run makes of the rows."""
    alone = Workspace.create(tmp_path_factory.mktemp("alone") / "ws")
    add_sources(alone, LABELS)
    with pytest.MonkeyPatch.context() as patch:
        in_one_process(patch)
        run(alone.storage.url)
    return outcome_digest(alone)


def puts(request: Request) -> bool:
    return request.method == "PUT" and "/runs/" not in request.path


@pytest.mark.parametrize(
    ("refusal", "said", "of_puts"),
    [
        (Refusal(403, "AccessDenied"), "access denied", True),
        (Refusal(400, "ExpiredToken"), "the credentials have expired", False),
        (Refusal(507, "InsufficientStorage"), "the store is full", True),
        (Refusal(503, "SlowDown"), "asks to slow down", True),
    ],
)
@pytest.mark.parametrize("after", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_a_refusal_in_the_middle_stops_the_run_and_the_next_one_completes(
    s3: S3,
    monkeypatch: pytest.MonkeyPatch,
    expected: tuple[str, list[str], list[str]],
    refusal: Refusal,
    said: str,
    of_puts: bool,
    after: int,
) -> None:
    url = f"{s3.make_bucket('refusing')}/ws"
    workspace = Workspace.create(url)
    add_sources(workspace, LABELS)
    count = itertools.count()
    begun = False

    def refuse(request: Request) -> Refusal | None:
        nonlocal begun
        begun = begun or ("/ws/tables/clips" in request.path and next(count) >= after)
        return refusal if begun and (puts(request) or not of_puts) else None

    s3.refuse = refuse
    with pytest.raises(StopRun, match=said) as found:
        run(url)
    assert "\n" not in str(found.value)
    s3.refuse = lambda _request: None
    before = len(Workspace(url).ledger("faulty").commits())
    in_one_process(monkeypatch)
    summary = run(url)
    assert not summary.pending
    ledger = Workspace(url).ledger("faulty")
    assert 0 < before < len(ledger.commits())
    assert sum(one.counts["input"] for one in ledger.commits()) == len(LABELS)
    assert outcome_digest(Workspace(url)) == expected


def test_commands_say_in_one_line_what_a_bucket_refuses(s3: S3, shell: Shell) -> None:
    url = f"{s3.make_bucket('closed')}/ws"
    Workspace.create(url)
    place = ("--workspace", url)
    s3.refuse = lambda _request: Refusal(403, "AccessDenied")
    for words in (["status"], ["sample"], ["export", "--version", "1"], ["report"], ["doctor"]):
        assert "access denied" in shell(*words, *place).one_line()
    assert "access denied" in shell("init", f"{url}2").one_line()
    assert "access denied" in shell("export", "--verify", f"{url}/releases/1").one_line()
    s3.refuse = lambda _request: None
    assert "no such bucket" in shell("status", "--workspace", "s3://no-such/ws").one_line()
    assert "no such bucket" in shell("init", "s3://no-such/ws").one_line()
    assert "no workspace here" in shell("status", "--workspace", f"{url}3").one_line()


def test_without_credentials_a_command_says_where_they_are_named(
    s3: S3, shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    S3FileSystem.clear_instance_cache()
    assert "AWS_PROFILE" in shell("status", "--workspace", "s3://bucket/ws").one_line()
