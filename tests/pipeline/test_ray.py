"""Actors of a Ray cluster give the table that processes give."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.runner import RunOptions, run_stage
from pipeline.workspace import Workspace
from tests.pipeline.faulty import ENTRY, EXPECTED_KIND, FaultyConfig, add_sources

LABELS = ["ok", "drop", "raise", "ok", "kill", "ok", "ok", "fail"] * 3


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray of two cores on the loopback interface."""
    ray = pytest.importorskip("ray", reason="the ray extra is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own, on sockets and deprecations
def test_ray_and_local_give_the_same_table_and_the_same_failures(
    cluster: None, tmp_path: Path
) -> None:
    results = []
    for executor in ("local", "ray"):
        root = tmp_path / executor
        Workspace.create(root)
        workspace = Workspace(root, [f"run.executor={executor}"])
        add_sources(workspace, LABELS)
        options = RunOptions(workers=2)
        run_stage(workspace, "faulty", options, entry=ENTRY, config=FaultyConfig())
        failed = {row.input_id: row.kind for row in workspace.ledger("faulty").failures()}
        results.append((workspace.digest("clips"), failed))
    assert results[0] == results[1]
    expected = sorted(EXPECTED_KIND[label] for label in LABELS if label in EXPECTED_KIND)
    assert sorted(results[1][1].values()) == expected
