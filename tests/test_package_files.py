"""The files that stand beside the code for others: a citation and a container."""

from __future__ import annotations

import json
import re
import shlex
import tomllib

from pipeline.cli import cli
from tests.conftest import ROOT


def test_the_container_copies_what_is_there_and_runs_the_demo() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    let_in = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [word for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE)
              for word in shlex.split(line)[:-1]]  # fmt: skip
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {*packages, "pyproject.toml", "README.md", "LICENSE"} <= set(copied)
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in let_in, name
    assert re.search(r"^USER (?!root|0)", text, re.MULTILINE)
    ran = re.search(r"^CMD (.*)$", text, re.MULTILINE)
    assert ran
    command, *words = json.loads(ran[1])
    cli.commands[command].make_context(command, words)


def test_the_citation_names_this_version_and_the_paper() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    stated = dict(re.findall(r"^([a-z-]+): (.+)$", text, re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert stated["cff-version"] == "1.2.0"
    assert (stated["title"], stated["version"], stated["license"]) == (
        project["name"],
        project["version"],
        project["license"],
    )
    assert {"message"} < stated.keys()
    assert "\nauthors:\n  - name: " in text
    assert "https://arxiv.org/abs/2507.04667" in text
