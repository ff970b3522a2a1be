"""Workers as actors of a Ray cluster: one pool per stage, pulling whole units.

The same ``run_unit`` and the same supervision as on one machine. Only units and outcomes travel;
rows and media go through the workspace, which every node must reach. Ray's own retries are off:
the pool knows which row was at fault, Ray does not.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.errors import UsageError
from pipeline.run.gpus import VISIBLE
from pipeline.run.pool import Message, Worker
from pipeline.run.unit import Job
from pipeline.run.worker import opened_stage, raised, reply

if TYPE_CHECKING:
    from pipeline.run.stage import StageSpec


class StageActor:
    """Lives in a Ray worker process: opens the stage, then answers."""

    def open(self, job: Job, environment: Mapping[str, str]) -> Message:
        """Open the stage; ``ready``, or why not."""
        os.environ.update(environment)
        self._job = job
        try:
            self._opened = opened_stage(job, lambda: None)
            self._stage = self._opened.__enter__()
        except Exception as error:  # noqa: BLE001  the driver raises it again
            return raised(error)
        return "ready", None

    def answer(self, message: Message) -> Message:
        """Do a unit or a row."""
        return reply(self._job, self._stage, message, lambda _done: None)

    def close(self) -> None:
        """Close the stage."""
        self._opened.__exit__(None, None, None)


class ActorWorker:
    """An actor and the answer it owes."""

    beats = False

    def __init__(self, actor: Any, job: Job, environment: Mapping[str, str]) -> None:
        self._actor = actor
        self.owed: Any = actor.open.remote(job, environment)
        self._died = ""

    def send(self, message: Message) -> None:
        """Give it work."""
        if message[0] == "end":
            self.owed = self._actor.close.remote()
        else:
            self.owed = self._actor.answer.remote(message)

    def messages(self) -> list[Message]:
        """Return its answer, when it is there."""
        import ray

        if self.owed is None or not ray.wait([self.owed], timeout=0)[0]:
            return []
        owed, self.owed = self.owed, None
        try:
            answer: Message = ray.get(owed)
        except ray.exceptions.RayActorError as error:
            self._died = str(error).splitlines()[0]
            return []
        return [answer]

    def is_alive(self) -> bool:
        """Say whether it has not been seen dead."""
        return not self._died

    def death(self) -> str:
        """Return what Ray says of it."""
        return self._died or "ended by us"

    def kill(self) -> None:
        """End it at once."""
        import ray

        ray.kill(self._actor)

    def end(self) -> None:
        """Give it seconds to close its stage."""
        import ray

        if self.owed is not None and not self._died:
            ray.wait([self.owed], timeout=5.0)
        self.kill()


class RayTeam:
    """Actors on a Ray cluster.

    Args:
        address: of a running cluster, as ``ray.init`` takes it; empty starts one on this machine.
        spec: of the stage whose resources an actor needs.
        device: where the stage's model runs; unless that is ``cpu``, an actor takes a part of a
            GPU of the cluster, where there are any.
        workers_per_gpu: how many actors share one.

    Raises:
        UsageError: the extra is not installed.
    """

    def __init__(self, address: str, spec: StageSpec, device: str, workers_per_gpu: int) -> None:
        # Ray is not to report on its users.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ModuleNotFoundError as error:
            raise UsageError(
                "--executor ray: Ray is not installed. Install it: pip install 'avatar-build[ray]'."
            ) from error
        if not ray.is_initialized():
            local: dict[str, Any] = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                **({} if address else local),
            )
        cluster_resources: Callable[[], dict[str, float]] = ray.cluster_resources
        there = cluster_resources()
        self.cores = max(1, int(there.get("CPU", 0) / spec.num_cpus))
        self.num_gpus = 0 if device == "cpu" else int(there.get("GPU", 0))
        gpus_each = 1 / workers_per_gpu if self.num_gpus else 0
        # An actor that asks for no GPU is shown none by older Ray, all of its node's by newer
        # (2.60; ray-project/ray pull request 62492). Here it is none.
        self._environment = {VISIBLE: ""} if device == "auto" and not self.num_gpus else {}
        as_actor: Any = ray.remote(
            num_cpus=spec.num_cpus, num_gpus=gpus_each, max_restarts=0, max_task_retries=0
        )
        self._make: Any = as_actor(StageActor)

    def start(self, job: Job, place: int) -> ActorWorker:
        """Start an actor that opens the job's stage; Ray chooses its node and its GPU."""
        return ActorWorker(self._make.remote(), job, self._environment)

    def wait(self, workers: Sequence[Worker], timeout_s: float) -> None:
        """Wait until one of them has answered or died."""
        import ray

        actors = [worker for worker in workers if isinstance(worker, ActorWorker)]
        owed = [actor.owed for actor in actors if actor.owed is not None]
        if owed:
            ray.wait(owed, num_returns=1, timeout=timeout_s)
        else:
            time.sleep(timeout_s)
