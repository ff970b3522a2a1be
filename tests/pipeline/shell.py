"""The command line, run in this process as the console script runs it."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.cli import main


@dataclass(frozen=True)
class Said:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    def check(self) -> None:
        """Insist that it went well."""
        assert self.code == 0, self.err

    def one_line(self) -> str:
        """The error; a second line fails the test."""
        assert self.code in (1, 2), self.out
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("Error: "), self.err
        return self.err


class Shell:
    """Runs commands; an exception that would be a traceback there is one here."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        patch.setattr("signal.signal", lambda *_: None)  # pytest's own handlers stay

    def __call__(self, *words: str | Path) -> Said:
        self._patch.setattr(sys, "argv", ["avatar-build", *map(str, words)])
        out, err, code = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as end:
                code = int(end.code or 0)
        return Said(code, out.getvalue(), err.getvalue())
