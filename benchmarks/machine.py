"""What a result was measured on, without saying where that is."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from pipeline.versions import code_revision, tool_versions


def describe() -> dict[str, object]:
    """Processor, cores, memory, versions and the date."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": tool_versions(),
        "code_revision": code_revision(),
        "date": datetime.now(UTC).date().isoformat(),
    }
