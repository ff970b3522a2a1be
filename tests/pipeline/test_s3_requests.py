"""How many requests a run on S3 makes: each costs 20 to 100 ms, and money."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from pipeline.run.runner import RunOptions, run_stage
from pipeline.workspace.workspace import Workspace
from tests.pipeline.faulty import ENTRY, FaultyConfig, add_sources
from tests.pipeline.s3_server import S3, served

A_UNIT = 6
"""The most that a unit costs that writes one file; each file more is a put more."""

NOTHING_TO_DO = 20
"""The most that a run costs that finds nothing to do, whatever was done before."""


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with pytest.MonkeyPatch.context() as patch, served(patch) as server:
        yield server


def run(s3: S3, url: str, label: str, units: int) -> Counter[str]:
    """Do so many units of such rows more in a run of its own, and count its requests."""
    workspace = Workspace(url)
    name = f"{len(workspace.ledger('list').commits()):06d}-list"
    add_sources(workspace, [label] * 8 * units, name)
    before = len(s3.requests)
    config, options = FaultyConfig(), RunOptions(workers=1)
    summary = run_stage(Workspace(url), "faulty", options, step=ENTRY, config=config)
    assert summary.counts["input"] == 8 * units
    found = s3.since(before)
    # A sign of life every 15 s, a read and a write, is of the time a busy machine takes.
    beats = sum(
        request.method == "GET" and "/faulty/runs/" in request.path
        for request in s3.requests[before:]
    )
    return found - Counter({"GET": beats, "PUT": beats})


@pytest.mark.parametrize("label", ["ok", "drop"])
def test_a_unit_costs_few_requests(s3: S3, label: str) -> None:
    url = f"{s3.make_bucket(f'units-{label}')}/ws"
    Workspace.create(url)
    few, many = run(s3, url, label, 10), run(s3, url, label, 30)
    assert (many.total() - few.total()) / 20 <= A_UNIT, (few, many)


def test_a_run_with_nothing_to_do_costs_few_requests_whatever_was_done(s3: S3) -> None:
    url = f"{s3.make_bucket('nothing')}/ws"
    Workspace.create(url)
    run(s3, url, "ok", 2)
    costs = [run_idle(s3, url)]
    run(s3, url, "drop", 40)
    costs.append(run_idle(s3, url))
    assert max(cost.total() for cost in costs) <= NOTHING_TO_DO, costs
    assert costs[1].total() - costs[0].total() <= 3, costs  # a plan and a list more to read


def run_idle(s3: S3, url: str) -> Counter[str]:
    """Run with nothing to do."""
    before = len(s3.requests)
    config, options = FaultyConfig(), RunOptions(workers=1)
    assert not run_stage(Workspace(url), "faulty", options, step=ENTRY, config=config).counts
    return s3.since(before)
