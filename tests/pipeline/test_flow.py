"""The flow is one list: stages agree with it, and a line added to it is all a new one needs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import click
import pytest

from labeling.automatic.simulated import SimulatedConfig
from labeling.review import gold
from pipeline.cli import cli
from pipeline.config import Config, SampleConfig
from pipeline.flow import FLOW, PROJECTS, STAGES, Step
from pipeline.records.schema import TABLES, Source
from pipeline.run.stage import Drop, Outcome, Stage, StageSpec
from pipeline.workspace.workspace import Workspace
from stages.download import import_list
from tests.conftest import ROOT
from tests.pipeline.faulty import add_sources


class Refuse(Stage[SampleConfig]):
    """Drop every row of the list."""

    spec: ClassVar[StageSpec] = StageSpec("refuse", 1, "sources", ("clips",))

    def process(self, rows: Sequence[Source]) -> Iterator[Outcome]:
        for row in rows:
            yield Drop(row.id, "refused")


def specs_of(step: Step) -> list[StageSpec]:
    """Return what a step's own module declares of it."""
    if step.stage:
        return [step.load().spec]
    if step.derive:
        return [sys.modules[step.load_derive().__module__].SPEC]
    if step.project:
        return [step.load_project().step]
    at_once = [import_list.SPEC, gold.SPEC]
    return [spec for spec in at_once if spec.name == step.name]


@pytest.mark.parametrize("step", FLOW, ids=lambda step: step.name)
def test_a_line_of_the_flow_says_what_its_stage_declares(step: Step) -> None:
    (spec,) = specs_of(step)
    assert spec.name == step.name
    assert step.writes in spec.writes
    assert {step.reads, step.writes} - {""} <= TABLES.keys()
    # Verified masks are commits of the masks they copy, made for the reviews.
    assert step.reads in (spec.reads, "reviews") if step.derive else step.reads == spec.reads


@pytest.mark.parametrize("step", FLOW, ids=lambda step: step.name)
def test_a_step_has_a_command_and_the_settings_it_names(step: Step) -> None:
    found: click.Command = cli
    for word in step.command.split():
        if isinstance(found, click.Group):
            found = found.commands[word]
    assert found is not cli
    if step.section:
        section = getattr(Config(), step.section)
        assert hasattr(section, "device") == step.uses_device


def test_a_kind_of_project_is_called_as_its_commands_are() -> None:
    assert {name: step.load_project().name for name, step in PROJECTS.items()} == {
        name: name for name in ("boxes", "adjudication", "masks")
    }


def test_every_stage_of_the_packages_is_in_the_flow() -> None:
    defined = {
        f"{'.'.join(path.relative_to(ROOT).with_suffix('').parts)}:{line.split()[1].split('(')[0]}"
        for package in ("stages", "labeling")
        for path in (ROOT / package).rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("class ") and "(Stage[" in line
    }
    assert defined == {step.stage for step in STAGES.values()}


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_says_what_an_executor_asks_it(name: str) -> None:
    """Ray asks for the memory before it has a worker: a stage that cannot tell ends every run."""
    step = STAGES[name]
    config = getattr(Config(), step.section) if step.section else SimulatedConfig(truth="w")
    stage = step.load()(config)
    assert stage.config is config
    assert stage.memory_bytes() >= 0
    assert stage.device() in ("auto", "cpu")
    assert stage.is_rule() in (True, False)


LINE = (
    'Step("refuse", "refuse every row", "refuse", "sources", "clips",'
    ' stage="tests.pipeline.test_flow:Refuse", section="sample", uses_device=True),'
)
END = ')\n"""The steps, as the data flows."""'

WITH_THE_LINE = f"""
import json, sys, types
import click
from pathlib import Path
import pipeline
source = Path("pipeline/flow.py").read_text(encoding="utf-8")
changed = source.replace({END!r}, {LINE!r} + {END!r})
assert changed != source
flow = sys.modules["pipeline.flow"] = pipeline.flow = types.ModuleType("pipeline.flow")
exec(compile(changed, "flow.py", "exec"), flow.__dict__)

from exports.from_workspace import workspace_report
from pipeline.cli.common.options import device_option, in_workspace
from pipeline.cli.python import Workspace
from pipeline.errors import AvatarBuildError
from pipeline.run.status import stage_status
from pipeline.workspace.table import way_out
from stages.download import import_list

def told():
    workspace = Workspace(sys.argv[1])
    found = {{stage.stage: (stage.pending, stage.dropped) for stage in stage_status(workspace)}}
    return found["refuse"]

before = told()
@click.command()
@device_option
@in_workspace
def place(workspace):
    pass

def placed():
    try:
        place.main(["-w", sys.argv[1], "--device", "cpu"], standalone_mode=False)
    except AvatarBuildError as error:
        return str(error)

workspace = Workspace(sys.argv[1])
workspace.run("refuse", workers=1)
print(json.dumps({{
    "status": [before, told()],
    "report": "refuse every row" in workspace_report(workspace).read_text(encoding="utf-8"),
    "run": "refuse" in flow.automatic_stages(),
    "device": placed(),
    "way out": way_out("refuse"),
}}))
"""


def test_a_line_is_all_a_new_stage_needs(workspace: Workspace, tmp_path: Path) -> None:
    add_sources(workspace, ["ok", "ok"])
    code = [sys.executable, "-c", WITH_THE_LINE, workspace.storage.url]
    done = subprocess.run(code, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["status"] == [[2, 0], [0, 2]]
    assert said["report"]
    assert said["run"]
    assert "sample.device" in said["device"], "sampling has no such setting"
    assert said["way out"] == "do its rows again: 'avatar-build refuse --redo'"
