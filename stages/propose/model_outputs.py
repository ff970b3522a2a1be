"""The kept answers of models, so that another threshold needs no new inference.

One small JSON file per input below ``media/cache``, named by everything that decides the answer.
It is a cache and no table: what is in it can be lost, and is found again by asking the model. An
answer is taken only for the very bytes it was given about.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.records.schema import digest_of
from pipeline.workspace.storage import Storage


class Answers:
    """The kept answers of one model under one set of inference settings.

    Args:
        storage: the workspace.
        kind: what is answered, a folder name such as ``detections``.
        decided_by: all that decides the answers besides the input: weights, settings, version.
    """

    def __init__(self, storage: Storage, kind: str, decided_by: Mapping[str, object]) -> None:
        self._storage = storage
        self._folder = f"media/cache/{kind}/{digest_of(dict(decided_by))[:16]}"

    def get(self, item_id: str, of: str | None = None) -> Any | None:
        """Return the answer about an input; none when there is none.

        Args:
            item_id: the input's id.
            of: digest of the input's bytes; none takes the answer whatever they were.
        """
        try:
            kept = json.loads(self._storage.read(self._name(item_id)))
        except (FileNotFoundError, ValueError):  # never asked, or a crash cut the file short
            return None
        return kept["answer"] if of in (None, kept["of"]) else None

    def put(self, item_id: str, of: str, answer: object, scratch: Path) -> None:
        """Keep an answer.

        Args:
            item_id: the input's id.
            of: digest of the input's bytes.
            answer: anything JSON can hold.
            scratch: a folder of this worker's own.
        """
        # Not Storage.write, which waits for the disk: an answer that is lost is asked for again.
        file = scratch / f"{item_id}.answer"
        file.write_text(json.dumps({"of": of, "answer": answer}, separators=(",", ":")))
        self._storage.publish(file, self._name(item_id))

    def _name(self, item_id: str) -> str:
        return f"{self._folder}/{item_id}.json"
