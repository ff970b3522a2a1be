"""Workers on the nodes of a Ray cluster: one pool per stage, pulling whole units.

An actor takes the room Ray gives it on a node, starts there the same worker process as on one
machine (``local``) and carries its messages. So it survives what a row does to that process, and
tells; where the actor itself is gone, its node is, or the way there, and no row is to blame. Only
messages travel; rows and media go through the workspace, which every node must reach. Ray's own
retries are off: the pool knows which row was at fault, Ray does not.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import StopRun, UsageError
from pipeline.run.gpus import VISIBLE
from pipeline.run.local import ProcessWorker
from pipeline.run.pool import CRASH, Message, Worker
from pipeline.run.unit import Job
from pipeline.versions import code_revision, tool_versions

if TYPE_CHECKING:
    from pipeline.config import RunConfig
    from pipeline.run.stage import Stage

OUT_OF_MEMORY = "out_of_memory"
"""Kind of a row whose worker Ray ended, as its node ran out of memory."""

_LISTEN_S = 2.0
"""An actor answers this often also where its worker says nothing."""
_SILENT_S = 30.0
"""An actor that answers nothing for so long is taken for lost, with its node or the way to it."""
_IDLE_S = 7.0
"""The silence of the cluster's head after which a run ends of which no worker is at work."""
_HEAD_S = 50.0
"""The silence of the head after which any run ends: after 60 s Ray would end this process."""
_LOOK_S = 1.0
"""The nodes of the cluster are looked at this often."""
_WAITS_S = 15.0
"""The seconds after which a run says that no node has room for a worker of it."""
_LEAVE_S = 5.0
_REVISION = "avatar-build's revision"


@dataclass(frozen=True)
class Node:
    """The place of an actor, as it says itself."""

    node_id: str
    address: str
    log: str
    """The file with what its worker writes to standard error."""
    reaches: bool
    """True where the run's workspace is there."""
    versions: Mapping[str, str]
    """The versions of Python and libraries there, and the revision of our own code."""

    def __str__(self) -> str:
        return f"on node {self.address}, its log there is {self.log}"


class StageActor:
    """Lives in a Ray worker process of a node and carries messages to and from a worker there."""

    def about(self, folder: str | None) -> dict[str, Any]:
        """Say where this is, with what code, and whether the run's folder is here, too."""
        ray = _ray()
        self._code = code_revision(), tool_versions()
        revision, versions = self._code
        return {
            "node_id": ray.get_runtime_context().get_node_id(),
            "log": os.path.realpath("/proc/self/fd/2"),
            "reaches": folder is None or Path(folder).is_dir(),
            "versions": {**versions, _REVISION: revision},
        }

    def open(self, job: Job, environment: Mapping[str, str]) -> tuple[list[Message], str]:
        """Start the worker; commits will name the code that is here."""
        revision, versions = self._code
        mine = replace(job, code_revision=revision, versions=versions)
        os.environ["PYTHONFAULTHANDLER"] = "1"  # its log shows where foreign code ended it
        self._worker = ProcessWorker(mine, environment)
        return self.listen()

    def send(self, message: Message) -> None:
        """Give the worker work."""
        self._worker.send(message)

    def listen(self) -> tuple[list[Message], str]:
        """Wait a moment for what the worker says; say also how it died, if it did."""
        worker = self._worker
        wait([worker.pipe, worker.process.sentinel], _LISTEN_S)
        alive = worker.is_alive()  # asked first: what it said before it died is heard
        return worker.messages(), "" if alive else worker.death()

    def end(self) -> None:
        """Let the worker close its stage and leave."""
        self._worker.send(("end", None))
        self._worker.end()


class ActorWorker:
    """An actor, as the pool sees it.

    Args:
        team: it is of.
        job: what its worker is to run.
        excluded: nodes it must not be placed on.
    """

    def __init__(self, team: RayTeam, job: Job, excluded: Sequence[str]) -> None:
        self._team, self._job = team, job
        self._actor = team.make_actor(excluded)
        self.owed = self._actor.about.remote(team.proof(job))
        self._node: Node | None = None
        self._death = ""
        self.heard = time.monotonic()
        self.blame = CRASH

    @property
    def placed(self) -> bool:
        """Say whether a node has taken it, and its code has started there."""
        return self._node is not None

    def send(self, message: Message) -> None:
        """Give it work."""
        if message[0] == "end":
            self.owed = self._actor.end.remote()
        else:
            self._actor.send.remote(message)

    def messages(self) -> list[Message]:
        """Return what its worker said; a node with other code, or no workspace, is refused here."""
        ray = _ray()
        if self._death:
            return []
        if not ray.wait([self.owed], timeout=0)[0]:
            if self._node and time.monotonic() - self.heard > _SILENT_S:
                self._lose(f"no sign of life for {_SILENT_S:g} s")
            return []
        try:
            answer = ray.get(self.owed)
        except ray.exceptions.RayError as error:
            if isinstance(error, ray.exceptions.OutOfMemoryError):
                self.blame = OUT_OF_MEMORY
                self._death = f"Ray says its node ran out of memory, {self._node}"
            else:
                self._lose(told_of(error))
            return []
        self.heard = time.monotonic()
        if self._node is None:
            self._node = Node(**answer, address=self._team.address_of(answer["node_id"]))
            if wrong := self._team.flaw(self._node, self._job):
                self.blame, self._death = "", wrong
                self.kill()
            else:
                self.owed = self._actor.open.remote(self._job, self._team.environment)
            return []
        said: list[Message]
        said, how = answer
        if how:
            self._death = f"{how}, {self._node}"
        else:
            self.owed = self._actor.listen.remote()
        return said

    def _lose(self, how: str) -> None:
        self.blame = ""
        self._death = f"{how}, {self._node}" if self._node else how
        self._team.say_once(f"a worker is lost, and its unit done again: {self._death}.")

    def is_alive(self) -> bool:
        """Say whether it has not been seen dead."""
        return not self._death

    def death(self) -> str:
        """Return how it died, and where to read more."""
        return self._death or f"ended by us, {self._node}"

    def kill(self) -> None:
        """End it at once, with its worker."""
        self._team.kill(self._actor)

    def end(self) -> None:
        """Give it seconds to close its stage."""
        ray = _ray()
        if self._node and not self._death and not self._team.gone:
            ray.wait([self.owed], timeout=_LEAVE_S)
        self.kill()


def told_of(error: Exception) -> str:
    """Return what Ray says of an actor's end, in the few words a line has room for."""
    said = " ".join(str(error).split())
    if "node has died" in said:
        return "its node has died" + (", preempted" if getattr(error, "preempted", False) else "")
    if "unavailable" in said:
        return "it is out of reach"
    if "process has died" in said:
        return "its Ray process has died"
    return said[:300].rstrip(".")


class RayTeam:
    """Actors on a Ray cluster.

    Args:
        settings: the cluster's address, and what an actor takes of it.
        stage: whose cores and memory an actor takes, and unless its device is ``cpu`` a part of a
            GPU of the cluster, where there are any.
        say: told once of each node that is refused or lost.

    Raises:
        UsageError: the extra is not installed, or there is no such cluster.
    """

    def __init__(self, settings: RunConfig, stage: Stage[Any], say: Callable[[str], None]) -> None:
        spec, device = stage.spec, stage.device()
        self._name, self._say = spec.name, say
        self._said: set[str] = set()
        ray = connect(settings.ray_address)
        self._head = ray.get_runtime_context().gcs_address
        self._refused: dict[str, str] = {}
        self._accepted = False
        self._nodes: list[dict[str, Any]] = []
        self._looked = -_LOOK_S
        self._began = self._head_answered = time.monotonic()
        self.gone = False
        """True while the head of the cluster does not answer: Ray would wait for it."""
        self._look()
        gpus = sum(node["Resources"].get("GPU", 0) for node in self._nodes)
        self.num_gpus = 0 if device == "cpu" else int(gpus)
        own = dict(settings.ray_resources)
        memory = int(own.pop("memory", stage.memory_bytes()))
        self._needs = {
            "CPU": spec.num_cpus,
            "GPU": 1 / settings.workers_per_gpu if self.num_gpus else 0,
            "memory": memory,
            **own,
        }
        # An actor that asks for no GPU is shown none by older Ray, all of its node's by newer
        # (2.60; ray-project/ray pull request 62492). Here it is none.
        self.environment = {VISIBLE: ""} if device == "auto" and not self.num_gpus else {}
        as_actor = ray.remote(
            num_cpus=spec.num_cpus,
            num_gpus=self._needs["GPU"],
            memory=memory or None,
            resources=own,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=4,  # to listen is to wait; meanwhile it is sent to
        )
        self._make: Any = as_actor(StageActor)

    @property
    def cores(self) -> int:
        """Return how many actors the nodes that are alive have room for when nothing else runs."""
        self._look()
        return max(1, sum(self._room(node) for node in self._nodes))

    def _room(self, node: dict[str, Any]) -> int:
        if node["NodeID"] in self._refused:
            return 0
        there, needs = node["Resources"], self._needs.items()
        # Thirds of a GPU make one; what is no number of workers is less than one more.
        return min(int(there.get(name, 0) / need + 1e-6) for name, need in needs if need)

    def _look(self) -> None:
        """Look at the cluster's nodes; workers that are placed go on while its head is gone."""
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        self.gone = not self._answers()
        if not self.gone:
            self._head_answered = now
            self._nodes = [node for node in _ray().nodes() if node["Alive"]]

    def _answers(self) -> bool:
        host, _, port = self._head.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=1.0).close()
        except OSError:
            return False
        return True

    def address_of(self, node_id: str) -> str:
        """Return the address of a node, by which it is known to people."""

        def known() -> str:
            found = (node for node in self._nodes if node["NodeID"] == node_id)
            return next((str(node["NodeManagerAddress"]) for node in found), "")

        if not known() and not self.gone:  # it joined after we last looked
            self._nodes = [node for node in _ray().nodes() if node["Alive"]]
        return known() or node_id

    def make_actor(self, excluded: Sequence[str]) -> Any:
        """Ask Ray for an actor on any node but these."""
        if not excluded:
            return self._make.remote()
        others = {"ray.io/node-id": f"!in({','.join(excluded)})"}
        return self._make.options(label_selector=others).remote()

    def proof(self, job: Job) -> str | None:
        """Return a folder that only the workspace of this run has; none on an object store."""
        path = job.storage.local_path(f"commits/{job.stage}/work/{job.run_id}")
        return None if path is None else str(path)

    def flaw(self, node: Node, job: Job) -> str:
        """Say why no unit may run on a node; empty where one may.

        Raises:
            UsageError: it is so of every node that is left, and none was ever fit.
        """
        wrong = _flaw(node, job)
        if wrong:
            line = f"node {node.address}: {wrong}"
            self._refused[node.node_id] = line
            self._raise_if_all_are_refused()
            self.say_once(f"{line} No unit runs there.")
            return line
        self._accepted = True
        return ""

    def _raise_if_all_are_refused(self) -> None:
        """End a run that no node was ever fit for, and none is left that might be.

        Asked again as nodes go: one that died a moment ago is among them until its cluster knows.
        A run that had a fit node waits for another instead, as for any that is lost.
        """
        if self._refused and not self._accepted and not any(map(self._room, self._nodes)):
            raise UsageError(f"{self._name}: {[*self._refused.values()][-1]}")

    def say_once(self, line: str) -> None:
        """Say a line about the cluster, unless it has been said."""
        if line not in self._said:
            self._said.add(line)
            self._say(f"{self._name}: {line}")

    def kill(self, actor: Any) -> None:
        """End an actor at once."""
        ray = _ray()
        if not self.gone:
            ray.kill(actor)

    def start(self, job: Job, place: int) -> ActorWorker:
        """Ask for an actor that opens the job's stage; Ray chooses its node and its GPU."""
        job.storage.make_folder(f"commits/{job.stage}/work/{job.run_id}")
        return ActorWorker(self, job, sorted(self._refused))

    def wait(self, workers: Sequence[Worker], timeout_s: float) -> None:
        """Wait until one of them has answered or died.

        Raises:
            UsageError: no node that is left may run a unit, and none did.
            StopRun: the head of the cluster does not answer any more.
        """
        actors = [worker for worker in workers if isinstance(worker, ActorWorker)]
        self._look()
        self._raise_if_all_are_refused()
        now = time.monotonic()
        if not any(one.placed for one in actors) and now - self._began > _WAITS_S:
            needs = ", ".join(f"{name} {need:g}" for name, need in self._needs.items() if need)
            self.say_once(f"waits for room on the Ray cluster; a worker takes {needs}.")
        if self.gone:
            at_work = any(one.placed and now - one.heard < _IDLE_S for one in actors)
            if now - self._head_answered > (_HEAD_S if at_work else _IDLE_S):
                raise StopRun(
                    f"{self._name}: the head of the Ray cluster, {self._head}, does not answer."
                    " What is committed stays; run again when it does."
                )
        _ray().wait([actor.owed for actor in actors], num_returns=1, timeout=timeout_s)


def _ray() -> Any:
    """Return the module: an extra, and of few types."""
    return importlib.import_module("ray")


def connect(address: str) -> Any:
    """Join the Ray cluster at an address, or start one on this machine; return the module.

    Raises:
        UsageError: it cannot be joined, or Ray is not installed.
    """
    # Ray is not to report on its users.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray = _ray()
    except ModuleNotFoundError as error:
        raise UsageError(
            "--executor ray: Ray is not installed. Install it: pip install 'avatar-build[ray]'."
        ) from error
    address = address or os.environ.get("RAY_ADDRESS", "")
    if address.startswith("ray://"):
        raise UsageError(
            f"run.ray_address: {address}: a run through Ray Client would not see its workers end."
            " Start it on a node of the cluster and give 'auto', or send it there: ray job submit."
        )
    if ray.is_initialized():
        return ray
    local: dict[str, Any] = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({} if address else local),
        )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        said = " ".join(str(error).splitlines()[-1:])[:200]
        raise UsageError(
            f"run.ray_address: {address or 'a Ray of its own'}: no cluster that this machine is a"
            f" node of ({said}). Start its head: ray start --head; join it: ray start --address=..."
        ) from error
    # A thread of Ray prints what raylets report to standard output, which is for results, whatever
    # ``log_to_driver`` says.
    with contextlib.suppress(ImportError):
        printing: Any = importlib.import_module("ray._private.worker")
        printing.print_to_stdstream = _print_nothing
    return ray


def _print_nothing(*_: object, **__: object) -> None:
    """Take the place of Ray's printing."""


def _flaw(node: Node, job: Job) -> str:
    mine = {**job.versions, _REVISION: job.code_revision}
    for name in sorted(mine.keys() | node.versions.keys(), key=lambda name: name == _REVISION):
        here, there = (versions.get(name, "missing") for versions in (mine, node.versions))
        if here != there:
            return f"{name} is {there} there and {here} here. Install the same on both."
    if not node.reaches:
        return f"{job.storage.url} is not there, or another one. Mount the same disk on it."
    return ""
