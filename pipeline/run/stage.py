"""The interface of a stage: records in, outcomes out.

A stage never sees files, units or commits of tables; those belong to the runner. It answers every
input row once, by id: ``Ok`` with its children, ``Drop`` with a reason, or ``Fail`` with a kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from pipeline.models.catalogue import worker_bytes
from pipeline.records.schema import Record

if TYPE_CHECKING:
    from pipeline.workspace.storage import Storage
    from pipeline.workspace.table import Lookup


@dataclass(frozen=True)
class Ok:
    """The row is done; ``rows`` are its children, 0 or more, of any output table."""

    id: str
    rows: Sequence[Record] = ()


@dataclass(frozen=True)
class Drop:
    """The row is set aside on purpose."""

    id: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Fail:
    """The row could not be processed."""

    id: str
    kind: str
    detail: str = ""
    retryable: bool = False


Outcome = Ok | Drop | Fail


@dataclass(frozen=True)
class StageSpec:
    """The facts of a stage that the runner needs before it imports anything heavy."""

    name: str
    version: int
    """Raised by hand when the same input and config give another answer than before."""
    reads: str
    """The table whose rows it answers for."""
    writes: tuple[str, ...]
    joins: tuple[str, ...] = ()
    """Tables it looks rows up in, by id."""
    rows_per_unit: int = 64
    """The rows of a unit, of a small table: one to five minutes of work. See ``planning``."""
    rows_worth_a_worker: int | None = None
    """The rows worth starting a worker for, where a row costs much: a small table is divided
    among the workers down to that. None: nothing under ``rows_per_unit`` is."""
    batch_size: int = 1
    """Rows given to one call of ``process``."""
    row_timeout_s: float = 300.0
    """A row that takes longer is a hang: its worker is replaced and the row fails."""
    max_workers: int | None = None
    """Upper bound on processes; stages that share one network identity take 1."""
    num_cpus: float = 1.0
    """Cores a worker takes of a cluster."""


@dataclass
class WorkerContext:
    """The things a stage may use besides its rows; made once per worker."""

    storage: Storage
    """The workspace: ``as_local`` to read media, ``publish`` to write it."""
    scratch: Path
    """A folder of this worker's own, on the workspace's disk when that is local."""
    lookup: Callable[[str, str], Lookup[Any]]
    """``lookup(table, column)`` finds committed rows of a joined table by a column's value."""
    heartbeat: Callable[[], None] = field(default=lambda: None)
    """Call while waiting on purpose (a rate limit), or the wait counts as a hang."""


ConfigT = TypeVar("ConfigT")


class Stage(Generic[ConfigT]):
    """A verb of the pipeline: a spec, and an answer for every row."""

    spec: ClassVar[StageSpec]

    def __init__(self, config: ConfigT) -> None:
        """Keep the config.

        Neither this nor the class's module imports what the work takes (torch, OpenCV, PyAV): each
        command asks a stage for its version, and mostly has nothing to do.
        """
        self.config = config

    def fingerprint(self) -> Mapping[str, str]:
        """Digests of everything besides the config that decides the answers.

        Model files, taxonomies. They become part of the stage's key. Called in the parent process
        before any worker starts, so a missing checkpoint stops the run before it begins.
        """
        return {}

    def device(self) -> str:
        """Return where the model of a worker runs: ``auto``, ``cpu`` or ``cuda:N``.

        ``cpu`` is a stage, or a choice of settings, that uses no GPU. For the others the executor
        shares the GPUs out.
        """
        return "cpu"

    def is_rule(self) -> bool:
        """Say whether answers follow from tables by a rule, in a millisecond and no foreign code.

        Few rows of such a stage are answered in the run's own process: starting one takes longer.
        """
        return False

    def memory_bytes(self) -> int:
        """Return the memory a worker takes of a cluster, bytes; 0 asks for none.

        It follows from the weights that the settings choose.
        """
        backends = getattr(self.config, "backends", None)
        return worker_bytes(backends()) if backends else 0

    def open(self, ctx: WorkerContext) -> None:
        """Import libraries, load models and clients, once per worker."""

    def process(self, rows: Sequence[Any]) -> Iterable[Outcome]:
        """Answer every row once, matched by id, in any order."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what ``open`` took."""
