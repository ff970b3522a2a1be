"""AVSBench: a binary mask per second of a 5 s video.

``gt_masks/.../<video>_<n>.png`` beside ``visual_frames/.../<video>_<n>.png`` (multi-source videos
are called ``<video>.mp4_<n>``), and a CSV with the split, the name first and, for single sources,
the category third. A multi-source mask holds all sources of the frame as one region.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

import cv2
import numpy as np

from exports.importers.frames import Notes, ReadFrame, mask_region
from exports.importers.tree import Tree
from pipeline.release.video_lists import safe_id

_FILE = re.compile(r"(.+?)(?:\.mp4)?_(\d{1,3})\.png")
_LENGTH_S = 5.0


def matches(tree: Tree) -> bool:
    """Say whether there is a folder of masks."""
    return any("gt_masks" in PurePosixPath(name).parts for name in tree.names)


def read(tree: Tree, notes: Notes) -> Iterator[ReadFrame]:
    """Yield every frame; one with an empty mask is off-screen, and noted.

    Nothing visible sounds in it. Whether anything sounds the set does not say.
    """
    about = _videos(tree)
    # Of multi-source videos the masks and pictures are spelt apart.
    pictures = {
        match.groups(): name
        for name in tree.ending(".png")
        if "gt_masks" not in PurePosixPath(name).parts
        and (match := _FILE.fullmatch(PurePosixPath(name).name))
    }
    for name in tree.ending(".png"):
        path = PurePosixPath(name)
        match = _FILE.fullmatch(path.name)
        if "gt_masks" not in path.parts or match is None:
            continue
        grey = cv2.imdecode(np.frombuffer(tree.read(name), dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
        if grey is None:
            notes.add("frame", name, "mask_unreadable")
            continue
        regions = []
        split, category = about.get(match[1], ("", ""))
        if grey.any():
            regions.append(mask_region(grey > 0, category or "unknown"))
        else:
            notes.add("mask", name, "no_source_kept_as_off_screen", name)
        second = int(match[2])
        yield ReadFrame(
            video_id=safe_id(match[1]),
            clip_end_s=_LENGTH_S,
            frame_index=second,
            time_s=float(second),
            width=grey.shape[1],
            height=grey.shape[0],
            regions=regions,
            off_screen=not regions,
            image=pictures.get(match.groups()),
            sound=tree.beside(match[1])["sound"],
            label=category,
            split=split,
        )


def _videos(tree: Tree) -> dict[str, tuple[str, str]]:
    """Return the split and category of each video, from the CSV files."""
    found: dict[str, tuple[str, str]] = {}
    for name in tree.ending(".csv"):
        text = tree.read(name).decode("utf-8", errors="replace")
        rows = list(csv.reader(io.StringIO(text)))
        if not rows or "split" not in rows[0]:
            continue
        place = rows[0].index("split")
        for row in rows[1:]:
            if len(row) > place:
                category = row[2] if len(row) > 3 or (place != 2 and len(row) > 2) else ""
                found[row[0].removesuffix(".mp4")] = (row[place], category)
    return found
