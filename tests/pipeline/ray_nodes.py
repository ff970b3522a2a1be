"""A Ray cluster of several nodes on this machine: loopback addresses, each a group of processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT

HEAD = "127.0.0.2"


class RayNodes:
    """Starts and kills nodes; ends with all of them gone.

    Args:
        port: of the head, which has no cores: drivers are there, workers are not.
    """

    def __init__(self, port: int) -> None:
        pytest.importorskip("ray", reason="the ray extra is not installed")
        # Not pytest's folder: the names of sockets have at most 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="ray-"))
        self.address = f"{HEAD}:{port}"
        self.environment = {
            **os.environ,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",  # a token of this machine's user is no part of the tests
            "RAY_ADDRESS": self.address,
        }
        self.environment.pop("CUDA_VISIBLE_DEVICES", None)
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        self.drivers: list[subprocess.Popen[str]] = []
        head = ("--head", f"--port={port}", "--include-dashboard=false")
        self.start(HEAD, 0, *head, f"--temp-dir={self.folder}/t")

    def begin(self, ip: str, cpus: int, *options: str, **how: object) -> None:
        """Start a node and do not wait for it; ``how``: ``before`` its command, ``environment``."""
        before, extra = how.get("before", ()), how.get("environment", {})
        assert isinstance(before, tuple)
        assert isinstance(extra, dict)
        where = () if "--head" in options else (f"--address={self.address}",)
        ray = Path(sys.executable).with_name("ray")
        sizes = (f"--num-cpus={cpus}", "--num-gpus=0", "--object-store-memory=80000000")
        command = [*before, ray, "start", "--block", f"--node-ip-address={ip}", *sizes, *where]
        with (self.folder / f"{ip}.log").open("w") as log:
            self.nodes[ip] = subprocess.Popen(
                [*command, *options],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**self.environment, **extra},
                cwd=self.folder,
                start_new_session=True,
            )

    def start(self, ip: str, cpus: int, *options: str, **how: object) -> None:
        """Start a node, and wait until it is one."""
        self.begin(ip, cpus, *options, **how)
        self.await_node(ip)

    def await_node(self, ip: str) -> None:
        log = self.folder / f"{ip}.log"
        until(lambda: "Ray runtime started" in log.read_text() or self.nodes[ip].poll() is not None)
        assert self.nodes[ip].poll() is None, log.read_text()

    def kill(self, ip: str) -> None:
        """Kill all processes of a node at once."""
        node = self.nodes.pop(ip)
        for pid, _ in family(node.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.wait()

    def workers(self, ip: str) -> list[int]:
        """Return the ids of a node's actors."""
        return [pid for pid, name in family(self.nodes[ip].pid) if "ray::StageActor" in name]

    def drive(
        self, root: Path, workers: int, *settings: str, cwd: Path = ROOT
    ) -> subprocess.Popen[str]:
        """Run the faulty stage on the cluster, in a process of its own."""
        command = [sys.executable, "-m", "tests.pipeline.faulty", str(root), str(workers)]
        driver = subprocess.Popen(
            [*command, "run.executor=ray", *settings],
            cwd=cwd,
            env={**self.environment, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.drivers.append(driver)
        return driver

    def close(self) -> None:
        """Kill what is left."""
        for driver in self.drivers:
            if driver.poll() is None:
                driver.kill()
            driver.communicate()
        for ip in list(self.nodes):
            self.kill(ip)
        shutil.rmtree(self.folder, ignore_errors=True)


def family(root: int) -> list[tuple[int, str]]:
    """List a process and all below it: id and command."""
    said = subprocess.run(
        ["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
    )
    rows = [line.split(None, 2) for line in said.stdout.splitlines()[1:]]
    found = {root: "ray start"}
    while more := {
        int(p): name for p, up, name in rows if int(up) in found and int(p) not in found
    }:
        found |= more
    return list(found.items())


def until(happens: Callable[[], bool], within_s: float = 120.0) -> None:
    """Wait for something."""
    deadline = time.monotonic() + within_s
    while not happens():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
