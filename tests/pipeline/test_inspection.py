"""``status`` costs little, whatever the number of units, and an index never changes an answer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from pipeline.errors import UsageError
from pipeline.flow import STAGES
from pipeline.run.runner import RunOptions, run_stage
from pipeline.run.status import (
    check_names,
    dropped_rows,
    failed_rows,
    num_dropped,
    stage_status,
)
from pipeline.workspace.storage import Storage
from pipeline.workspace.workspace import Workspace
from tests.conftest import ROOT
from tests.pipeline.faulty import ENTRY, FaultyConfig, add_sources

UNITS = 70


def test_status_loads_no_stage_and_nothing_heavy(workspace: Workspace) -> None:
    add_sources(workspace, ["ok"])
    code = (
        "import sys; from pipeline.cli import main; sys.argv = ['avatar-build', 'status', '-w',"
        f" {workspace.storage.url!r}]; main();"
        " heavy = {'torch', 'scipy', 'numpy', 'cv2', 'av', 'pyarrow', 'pandas', 'stages'};"
        " sys.exit(str(heavy & sys.modules.keys()) if heavy & sys.modules.keys() else 0)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_why_loads_no_pandas(workspace: Workspace) -> None:
    add_sources(workspace, ["ok"])
    code = (
        "import sys; from pipeline.cli import cli; cli.main(['why', '00d00000000', '-w',"
        f" {workspace.storage.url!r}], standalone_mode=False);"
        " sys.exit('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "sources    00d00000000" in done.stdout


@pytest.mark.parametrize(
    ("command", "its_own"),
    [
        ("download", set()),
        ("sample", set()),
        ("propose", set()),
        ("segment", set()),
        ("run --check", set()),
        ("tune", set()),
        ("label accept", set()),
        ("label status", set()),
        ("label agreement", set()),
        ("report", {"cv2", "pyarrow.compute"}),
    ],
)
def test_a_command_loads_no_library_for_what_it_may_not_need(
    command: str, its_own: set[str], workspace: Workspace
) -> None:
    heavy = {"pandas", "scipy.optimize", "torch", "av", "cv2", "pyarrow.compute"} - its_own
    code = (
        "import sys; from pipeline.cli import cli;\n"
        "try: cli.main(sys.argv[1:], standalone_mode=False)\n"
        f"finally: print(sorted({heavy} & sys.modules.keys()))"
    )
    line = [sys.executable, "-c", code, *command.split(), "-w", str(workspace.storage.url)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_a_table_is_read_without_pandas(
    workspace: Workspace,
) -> None:
    add_sources(workspace, ["ok"])
    code = (
        "import sys; from pipeline.workspace.workspace import Workspace;"
        f" table = Workspace({workspace.storage.url!r}).arrow('sources');"
        " sys.exit(str((len(table), 'pandas' in sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.strip() == "(1, False)"


def test_status_lists_the_commits_of_each_stage_once(workspace: Workspace) -> None:
    listed: Counter[str] = Counter()

    class Counting(Storage):
        def stamps(self, folder: str) -> dict[str, tuple[int, int]] | None:
            listed[folder] += 1
            return super().stamps(folder)

    add_sources(workspace, ["ok"])
    run_stage(workspace, "faulty", RunOptions(workers=1), step=ENTRY, config=FaultyConfig())
    expected = stage_status(Workspace(workspace.storage.url))
    workspace = Workspace(workspace.storage.url)
    workspace.storage = Counting(workspace.storage.url)
    assert stage_status(workspace) == expected
    assert set(listed.values()) == {1}
    add_sources(workspace, ["ok"], "000001-list")
    assert stage_status(workspace)[0].input == expected[0].input + 1, "a moment ends"


def test_each_stage_of_the_registry_reads_what_its_spec_says() -> None:
    for name, entry in STAGES.items():
        assert entry.reads == entry.load().spec.reads, name


def test_an_index_of_many_commits_answers_as_they_do_and_never_for_one_that_changed(
    workspace: Workspace,
) -> None:
    for number in range(UNITS):
        add_sources(workspace, ["ok"], f"{number:06d}-list")
    ledger = workspace.ledger("list")
    ledger.recover()
    root, index = workspace.storage.url, workspace.storage.path("commits/list/index.json")
    assert index.is_file()
    read = Workspace(root).ledger("list").commits()
    assert read == ledger.commits()
    books = [one.as_dict() for one in stage_status(Workspace(root))]
    index.write_bytes(index.read_bytes()[:-1])
    assert [one.as_dict() for one in stage_status(Workspace(root))] == books
    ledger.committed.write_index()
    ledger.retire(read[:1], "former")
    assert len(Workspace(root).ledger("list").commits()) == UNITS - 1
    path = workspace.storage.path(f"commits/list/units/{read[1].unit}.json")
    text = path.read_text().replace('"ok": 1', '"ok": 1 ')
    path.write_text(text)
    os.utime(path, ns=(1, 1))
    assert Workspace(root).ledger("list").commits()[0] == read[1], "read anew: its time differs"


def test_kinds_and_reasons_are_those_of_the_rows_also_after_a_retry(workspace: Workspace) -> None:
    from pipeline.run.runner import plan_retry

    add_sources(workspace, ["ok", "drop", "fail", "refuse", "drop"])
    options = RunOptions(workers=1)
    run_stage(workspace, "faulty", options, step=ENTRY, config=FaultyConfig())
    ledger = workspace.ledger("faulty")
    assert ledger.drop_counts(ledger.commits()) == {"unwanted": 2}
    assert ledger.failure_counts(ledger.commits()) == {"bad_input": 1, "refused": 1}
    plan_retry(workspace, "faulty", "refused")
    run_stage(workspace, "faulty", options, step=ENTRY, config=FaultyConfig())
    assert ledger.failure_counts(ledger.commits()) == {"bad_input": 1, "refused": 1}
    for kind in (None, "unwanted", "refused"):
        assert num_dropped(workspace, kind=kind) == len(dropped_rows(workspace, kind=kind))
    assert len(failed_rows(workspace)) == 2
    assert [row.kind for row in failed_rows(workspace, "faulty", "refused")] == ["refused"]
    with pytest.raises(UsageError, match="there is bad_input, refused, unwanted"):
        check_names(workspace, None, "other")
