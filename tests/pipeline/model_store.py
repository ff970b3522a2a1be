"""A model of an object store, and of the processes that send it requests one at a time.

Who comes next is drawn, and so is what goes wrong: a process ends before, after or in the middle of
a request, which then arrives late; an answer is lost and the request sent again; a process stands
still for minutes. Only a second passes for every request, so all of it can be repeated.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

import fsspec
from fsspec import AbstractFileSystem

from pipeline.run.pool import Message, Worker
from pipeline.run.unit import Job
from pipeline.run.worker import opened_stage, reply
from pipeline.workspace.leases import BEAT_S, EXPIRES_S, GIVE_UP_S, Lease

ROOT = "model://ws"

_UNDER_WAY_S = int(EXPIRES_S - GIVE_UP_S) - 1
"""A request that overwrites or deletes arrives within this, as a lease takes for granted."""

_FAR_S = 1000
"""A request that only adds may take this long."""


class Killed(BaseException):
    """The end of a process: nothing it does afterwards reaches the store."""


@dataclass
class Chances:
    """How often what goes wrong, of one."""

    kill: float = 0.0
    again: float = 0.0
    late: float = 0.0
    still: float = 0.0


class Actor:
    """A process, as a thread that goes on only when it is its turn."""

    def __init__(self, model: Model, work: Callable[[], object], chances: Chances) -> None:
        self.model, self.work, self.chances = model, work, chances
        self.go, self.paused = threading.Semaphore(0), threading.Semaphore(0)
        self.ended = self.dead = self.in_beat = False
        self.kill_at: tuple[int, str] | None = None
        """The number of a request, and how it ends this process."""
        self.requests = 0
        self.lease: Lease | None = None
        self.error: BaseException | None = None
        self.result: object = None
        self.thread = threading.Thread(target=self._live, daemon=True)
        self.thread.start()

    def _live(self) -> None:
        self.go.acquire()
        self.model.acting.actor = self
        try:
            self.result = self.work()
        except BaseException as error:  # noqa: BLE001  the test says which are right
            self.error = error
        self.ended = True
        self.paused.release()

    def turn(self) -> None:
        """Let it go on to its next request, or its end."""
        self.go.release()
        self.paused.acquire()

    def pause(self) -> None:
        """Wait for the next turn, in its own thread."""
        self.paused.release()
        self.go.acquire()
        lease = self.lease
        if self.dead or lease is None or self.in_beat or lease._writing.locked():
            return
        if self.model.now - lease._said_at >= BEAT_S and not lease.lost:
            self.in_beat = True
            try:
                lease.beat()
            finally:
                self.in_beat = False


@dataclass
class Model:
    """The objects of the store, with the time each was written."""

    seed: int
    objects: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    now: float = field(default_factory=time.time)
    acting: Any = field(default_factory=threading.local)
    under_way: list[tuple[float, Callable[[], object]]] = field(default_factory=list)
    after_each: Callable[[], None] = lambda: None
    """Called after each request that changed something."""

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)

    def tick(self, seconds: float = 1.0) -> None:
        """Let time go on, and requests arrive that are due."""
        for _ in range(int(seconds) - 1):
            self.tick()
        self.now += 1
        due = [one for one in self.under_way if one[0] <= self.now]
        self.under_way = [one for one in self.under_way if one[0] > self.now]
        for _, effect in due:
            with contextlib.suppress(OSError):
                effect()
            self.after_each()

    def sleep(self, _seconds: float) -> None:
        """Pause the process at hand."""
        if actor := getattr(self.acting, "actor", None):
            actor.pause()
            if actor.dead:
                raise Killed
        self.tick()

    def request(self, effect: Callable[[], Any], *, changes: bool, adds: bool = False) -> Any:
        """Do what a request asks, or what becomes of it."""
        actor: Actor | None = getattr(self.acting, "actor", None)
        if actor is None:
            return self._do(effect, changes)
        if actor.dead:
            raise Killed
        actor.pause()
        self.tick()
        actor.requests += 1
        how = self._fate(actor)
        if how:
            actor.dead = True
            if how == "after":
                with contextlib.suppress(OSError):
                    self._do(effect, changes)
            elif how == "late" and changes:
                self._later(effect, adds)
            raise Killed
        found = self._do(effect, changes)
        if changes and self.dice.random() < actor.chances.again:
            found = self._do(effect, changes)
        if changes and self.dice.random() < actor.chances.late:
            self._later(effect, adds)
        return found

    def _fate(self, actor: Actor) -> str:
        if actor.kill_at is not None:
            return actor.kill_at[1] if actor.requests == actor.kill_at[0] else ""
        if self.dice.random() < actor.chances.kill:
            return self.dice.choice(["before", "after", "late"])
        return ""

    def _do(self, effect: Callable[[], Any], changes: bool) -> Any:
        try:
            return effect()
        finally:
            if changes:
                self.after_each()

    def _later(self, effect: Callable[[], object], adds: bool) -> None:
        after = self.dice.randint(1, _FAR_S if adds else _UNDER_WAY_S)
        self.under_way.append((self.now + after, effect))

    def run(self, actors: list[Actor]) -> None:
        """Let them go on by turns until all have ended."""
        while living := [actor for actor in actors if not actor.ended]:
            actor = self.dice.choice(living)
            still = self.dice.random() < actor.chances.still
            for _ in range(self.dice.randint(1, 8)):
                if not actor.ended:
                    actor.turn()
            if still:  # the others go on alone for longer than a lease
                others = [one for one in living if one is not actor]
                for _ in range(int(EXPIRES_S) * 2):
                    for other in others:
                        if not other.ended:
                            other.turn()

    def damage(self) -> str:
        """Return a file that a commit names and that is not there as it says; empty: none."""
        for name, (data, _) in self.objects.items():
            if "/units/" in name and "/retired/" not in name:
                for file in json.loads(data)["files"]:
                    found = self.objects.get(f"ws/{file['file']}")
                    if found is None or hashlib.sha256(found[0]).hexdigest() != file["sha256"]:
                        return f"{name} names {file['file']}"
        return ""


class ModelStore(AbstractFileSystem):  # type: ignore[misc]
    """The model as fsspec's callers see it; of what ``Storage`` asks, all."""

    protocol: ClassVar[str] = "model"
    cachable = False
    model: ClassVar[Model]

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        pass

    def invalidate_cache(self, path: str | None = None) -> None:
        pass

    def _ask(self, effect: Callable[[dict[str, tuple[bytes, float]]], Any]) -> Any:
        return self.model.request(lambda: effect(self.model.objects), changes=False)

    def exists(self, path: str, **kwargs: Any) -> bool:
        return bool(self._ask(lambda has: path in has or _below(has, path)))

    def size(self, path: str) -> int:
        return len(self.cat_file(path))

    def modified(self, path: str) -> datetime:
        at: float = self._ask(lambda has: _found(has, path)[1])
        return datetime.fromtimestamp(at, UTC)

    def cat_file(self, path: str, **kwargs: Any) -> bytes:
        data: bytes = self._ask(lambda has: _found(has, path)[0])
        return data

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._ask(lambda has: _listed(has, path))
        return found

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        def put() -> None:
            if mode == "create" and path in self.model.objects:
                raise FileExistsError(path)
            self.model.objects[path] = (value, self.model.now)

        adds = mode == "create" or path.startswith("ws/tables/")
        self.model.request(put, changes=True, adds=adds)

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        def copied() -> None:
            self.model.objects[path2] = (_found(self.model.objects, path1)[0], self.model.now)

        self.model.request(copied, changes=True)

    def rm_file(self, path: str) -> None:
        self.model.request(lambda: self.model.objects.pop(path, None), changes=True)

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        found = [
            *self._ask(lambda has: [name for name in [path, *_below(has, path)] if name in has])
        ]
        for name in found:
            self.rm_file(name)


def _found(has: Mapping[str, tuple[bytes, float]], path: str) -> tuple[bytes, float]:
    if path not in has:
        raise FileNotFoundError(path)
    return has[path]


def _below(has: Mapping[str, object], path: str) -> list[str]:
    return [name for name in has if name.startswith(f"{path}/")]


def _listed(has: Mapping[str, tuple[bytes, float]], path: str) -> list[dict[str, Any]]:
    below = _below(has, path)
    if not below:
        raise FileNotFoundError(path)
    entries: dict[str, dict[str, Any]] = {}
    for name in below:
        first, _, rest = name.removeprefix(f"{path}/").partition("/")
        at = datetime.fromtimestamp(has[name][1], UTC)
        kind = "directory" if rest else "file"
        entries[first] = {"name": f"{path}/{first}", "type": kind, "LastModified": at}
    return list(entries.values())


class InlineWorker:
    """Opens the stage and answers in the thread of its run."""

    placed, blame, heard = True, "", 0.0

    def __init__(self, job: Job) -> None:
        self._opened = opened_stage(job, lambda: None)
        self._job, self._stage = job, self._opened.__enter__()
        self._said: list[Message] = [("ready", None)]

    def send(self, message: Message) -> None:
        if message[0] != "end":
            self._said.append(reply(self._job, self._stage, message, lambda _done: None))

    def messages(self) -> list[Message]:
        said, self._said = self._said, []
        return said

    def is_alive(self) -> bool:
        return True

    def death(self) -> str:
        return ""

    def kill(self) -> None:
        pass

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._opened.__exit__(None, None, None)


class InlineTeam:
    """One such worker at a time."""

    cores, num_gpus = 1, 0

    def __init__(self, model: Model) -> None:
        self._model = model

    def start(self, job: Job, place: int) -> Worker:
        return InlineWorker(job)

    def wait(self, workers: Sequence[Worker], timeout_s: float) -> None:
        self._model.sleep(timeout_s)


@contextlib.contextmanager
def modelled(monkeypatch: Any, seed: int) -> Iterator[Model]:
    """Yield a new model, which ``model://`` and all clocks of leases are of meanwhile.

    By an odd seed runs do not see each other's claims, as if all took a unit at the same instant.
    """
    from pipeline.run import runner, unit
    from pipeline.workspace import leases

    model = Model(seed)
    ModelStore.model = model
    fsspec.register_implementation("model", ModelStore, clobber=True)

    def registered(lease: Lease) -> None:
        if actor := getattr(model.acting, "actor", None):
            actor.lease = lease

    def leave(lease: Lease) -> None:
        if actor := getattr(model.acting, "actor", None):
            actor.lease = None
        left(lease)

    left = Lease.leave
    with monkeypatch.context() as patch:
        patch.setattr(leases, "_seconds", lambda: model.now)
        patch.setattr("uuid.uuid4", lambda: uuid.UUID(int=model.dice.getrandbits(128)))
        patch.setattr(Lease, "start_beating", registered)
        patch.setattr(Lease, "leave", leave)
        patch.setattr("pipeline.workspace.leases.time.sleep", model.sleep)
        # No two attempts at a unit write the same bytes.
        patch.setattr(unit, "_now", lambda: f"{model.now} {model.dice.random()}")
        if seed % 2:
            patch.setattr(Lease, "is_claimed", lambda _lease, _ordinal: False)
        patch.setattr(runner, "make_team", lambda *_: InlineTeam(model))
        yield model
