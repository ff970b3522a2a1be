"""Remember in which order people were asked, for who reads the release.

A chosen order is a setting of one push, so it is written down beside the pushes.
"""

from __future__ import annotations

import json
from typing import Any

from pipeline.workspace.storage import Storage

ASKED = "label push"
"""The name under which a release's provenance has the orders."""

_FILE = "commits/push-boxes/orders.json"


def note_order(storage: Storage, order: str, seed: int) -> None:
    """Write down that frames were sent in a chosen order."""
    found = chosen_orders(storage)
    if (one := {"order": order, "seed": seed}) not in found:
        found = sorted([*found, one], key=lambda row: (row["order"], row["seed"]))
        storage.write(_FILE, json.dumps(found).encode())


def chosen_orders(storage: Storage) -> list[dict[str, Any]]:
    """Return the orders, each with its seed, that frames were sent in; none when nobody chose."""
    return list(json.loads(storage.read(_FILE))) if storage.exists(_FILE) else []
