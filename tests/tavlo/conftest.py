"""Fixtures for trainings of seconds."""

from __future__ import annotations

import pytest

from tavlo.training import training_log


@pytest.fixture
def curve() -> None:
    """Asked for by a test that looks at the learning curve of its trainings."""


@pytest.fixture(autouse=True)
def no_curve(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere none is drawn: it takes longer than an epoch of a tiny network."""
    if "curve" not in request.fixturenames:
        monkeypatch.setattr(training_log, "draw_curve", lambda *_: None)
