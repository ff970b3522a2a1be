"""Heatmaps of any model, as files: one npz or Parquet per clip; and the one way to them.

``<clip_id>.npz`` holds ``frame_index`` ``(n,)`` and ``heatmap`` ``(n, y, x)``, of any resolution
and scale; ``<clip_id>.parquet`` has a row per frame, ``frame_index`` an integer and ``heatmap`` a
list of rows of numbers. That is all another lab's model needs to be scored. ``model.json`` beside
them may say what made them; scores carry it along.

Files that a checkpoint's run writes also hold ``made_by``, a digest of the checkpoint and of all
that decides its heatmaps, and ``clip_id``. Files of others have neither. A folder holds the
heatmaps of one model: where one file is of another model than the rest, nothing is scored.

``predict`` asks a model that takes one picture and one sound about the release's own images and
sounds (``image_models``), one that takes a whole clip about its clips (``open_predictor``). What is
asked, what may be missing, what is written and what ``model.json`` says is the same for both.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, Self, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import AvatarBuildError, UsageError, numpy_says
from tavlo.evaluation.evaluation_set import EvaluationSet, LabelledFrame
from tavlo.metrics.sound_sensitivity import draw_clips, exchange_sounds, sound_sensitivity

GRID_HW = (224, 224)
"""Heatmaps are compared on this grid, as the published models' are."""

ABOUT = "model.json"
MADE_BY = "made_by"
"""The key of the digest of what made the heatmaps, in ``model.json`` and in each file."""
HEARING = "hearing"
"""The key of the sound sensitivity in ``model.json``: ``of_clips`` and ``sounds_of``, by clip."""
_UNFINISHED = ".tmp.npz"

Heatmap = NDArray[np.float32]


class _Arrays(NamedTuple):
    """The arrays of one file."""

    frame_index: NDArray[Any]
    heatmap: NDArray[Any]
    made_by: str = ""
    """The digest of what made it, and its clip; empty where no checkpoint's run wrote it."""
    clip_id: str = ""


class Predictions:
    """The heatmaps of a folder.

    Args:
        folder: of ``<clip_id>.npz`` or ``<clip_id>.parquet`` files.
        made_by: the digest of what made them; by default what ``model.json`` states, else what the
            first file read has.

    Raises:
        UsageError: there is no such folder.
    """

    def __init__(self, folder: Path, made_by: str | None = None) -> None:
        if not folder.is_dir():
            raise UsageError(f"{folder}: no folder of predictions.")
        self._folder = folder
        self._made_by = made_by
        self._clip = lru_cache(maxsize=2)(self._read_clip)

    @classmethod
    def begin(cls, folder: Path, about: Mapping[str, Any]) -> Self:
        """Make a folder ready for a model's heatmaps; those of an earlier run are removed.

        Args:
            folder: made when missing.
            about: for ``model.json``: the model and all that decides its heatmaps.

        Raises:
            UsageError: it holds heatmaps that no checkpoint's run wrote; they are kept.
        """
        folder.mkdir(parents=True, exist_ok=True)
        old = sorted(path for path in folder.iterdir() if path.suffix in _READERS)
        own = [path for path in old if not path.name.endswith(_UNFINISHED) and not _maker(path)]
        if own:
            raise UsageError(
                f"{folder}: {own[0].name} was not written for a checkpoint by this command"
                f" ({len(own)} such files). Name another folder, or move them away."
            )
        text = json.dumps(dict(about), sort_keys=True)
        found = cls(folder, hashlib.sha256(text.encode()).hexdigest())
        # First, so that after a kill what is left of an earlier run is told from this one's.
        found.describe(about)
        for path in old:
            path.unlink()
        return found

    def has(self, frame: LabelledFrame) -> bool:
        """Say whether a heatmap of the frame is there."""
        return frame.frame_index in self._clip(frame.clip_id)

    def split(
        self, frames: Sequence[LabelledFrame], max_missing: int
    ) -> tuple[list[LabelledFrame], dict[str, str]]:
        """Return the frames that have a heatmap, and why each other one has none, by id.

        Raises:
            AvatarBuildError: more than ``max_missing`` have none, or all.
        """
        failed = self.about().get("failed", {})
        found, missing = [], {}
        for frame in frames:
            if self.has(frame):
                found.append(frame)
            else:
                missing[frame.frame_id] = failed.get(frame.frame_id, "no prediction")
        if len(missing) > max_missing:
            some = ", ".join(list(missing)[:5]) + (", ..." if len(missing) > 5 else "")
            told = [f": {why}" for why in missing.values() if why != "no prediction"][:1]
            raise AvatarBuildError(
                f"No prediction for {len(missing)} of {len(frames)} labelled frames"
                f" ({''.join([some, *told])}). A short set is not scored as if whole; allow it with"
                f" --max-missing {len(missing)}."
            )
        if not found:
            raise AvatarBuildError("no labelled frame has a prediction.")
        return found, missing

    def indices(self, clip_id: str) -> list[int]:
        """List a clip's frames that have a heatmap, ascending; most often the labelled ones."""
        return sorted(self._clip(clip_id))

    def heatmap(self, clip_id: str, frame_index: int) -> Heatmap:
        """Return the heatmap of a frame of a clip, on ``GRID_HW``."""
        return upsample(self._clip(clip_id)[frame_index])

    def about(self) -> dict[str, Any]:
        """Read what ``model.json`` says of the model; nothing where there is none.

        Raises:
            AvatarBuildError: it is no JSON object.
        """
        path = self._folder / ABOUT
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise AvatarBuildError(f"{path}: not JSON: {error}") from error
        if not isinstance(found, dict):
            raise AvatarBuildError(f"{path}: not a JSON object.")
        return found

    def describe(self, about: Mapping[str, Any]) -> None:
        """Write ``model.json``: name, checkpoint, post-processing, whatever tells runs apart."""
        stamp = {MADE_BY: self._made_by} if self._made_by else {}
        text = json.dumps(dict(about) | stamp, indent=1, sort_keys=True)
        (self._folder / ABOUT).write_text(f"{text}\n", encoding="utf-8")

    def heatmaps(self, frames: Sequence[LabelledFrame]) -> Iterator[Heatmap]:
        """Return the heatmaps of frames, read one at a time, on ``GRID_HW``."""
        return (self.heatmap(frame.clip_id, frame.frame_index) for frame in frames)

    def _read_clip(self, clip_id: str) -> dict[int, Heatmap]:
        found = [self._folder / f"{clip_id}{ending}" for ending in _READERS]
        found = [path for path in found if path.exists()]
        if len(found) > 1:
            raise AvatarBuildError(f"{found[0]}: there is {found[1].name} too. Remove one of them.")
        if not found:
            return {}
        (path,) = found
        try:
            arrays = _READERS[path.suffix](path)
        except _UNREADABLE as error:
            raise AvatarBuildError(
                f"{path}: not predictions: it must hold frame_index (n,) and heatmap (n, y, x):"
                f" {numpy_says(error)}"
            ) from error
        self._check_maker(path, arrays)
        return _checked(path, arrays.frame_index, arrays.heatmap)

    def _check_maker(self, path: Path, arrays: _Arrays) -> None:
        if self._made_by is None:
            stated = self.about().get(MADE_BY)
            self._made_by = stated if isinstance(stated, str) else arrays.made_by
        if arrays.made_by != self._made_by:
            raise AvatarBuildError(
                f"{path}: made by {_short(arrays.made_by)}, and the folder's others by"
                f" {_short(self._made_by)}. A folder holds the heatmaps of one model: compute them"
                " again, or move this file away."
            )
        if arrays.clip_id and arrays.clip_id != path.stem:
            raise AvatarBuildError(
                f"{path}: these are heatmaps of clip {arrays.clip_id[:80]}. Name it so."
            )

    def save(self, clip_id: str, frame_index: Sequence[int], heatmap: NDArray[Any]) -> None:
        """Write one clip's heatmaps, whole or not at all."""
        path = self._folder / f"{clip_id}.npz"
        beside = path.with_suffix(_UNFINISHED)
        arrays = {
            "frame_index": np.asarray(frame_index),
            "heatmap": np.asarray(heatmap, np.float32),
        }
        if self._made_by:
            arrays |= {MADE_BY: np.asarray(self._made_by), "clip_id": np.asarray(clip_id)}
        # Floats hardly shrink, and an evaluation reads them four times.
        np.savez(beside, allow_pickle=False, **arrays)
        beside.replace(path)


def upsample(heatmap: Heatmap) -> Heatmap:
    """Upsample bilinearly to ``GRID_HW``, pixel centres aligned (corners are not)."""
    rows, columns = GRID_HW
    if heatmap.shape == GRID_HW:
        return heatmap
    return np.asarray(
        cv2.resize(heatmap, (columns, rows), interpolation=cv2.INTER_LINEAR), np.float32
    )


def _short(made_by: str) -> str:
    return f"checkpoint run {made_by[:12]}" if made_by else "no checkpoint's run"


def _maker(path: Path) -> str:
    """Return the digest in a file; empty where it has none or cannot be read."""
    if path.suffix != ".npz":
        return ""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return str(arrays[MADE_BY]) if MADE_BY in arrays.files else ""
    except (*_UNREADABLE, AttributeError):  # a lone .npy has no files
        return ""


def _read_npz(path: Path) -> _Arrays:
    with np.load(path, allow_pickle=False) as arrays:
        made_by, clip_id = (
            str(arrays[name]) if name in arrays.files else "" for name in (MADE_BY, "clip_id")
        )
        return _Arrays(arrays["frame_index"], arrays["heatmap"], made_by, clip_id)


def _read_parquet(path: Path) -> _Arrays:
    from pyarrow import compute, parquet, types

    with path.open("rb") as stream:  # Arrow takes some paths for addresses
        table = parquet.ParquetFile(stream).read()
    index = table.column("frame_index").combine_chunks()
    frames = table.column("heatmap").combine_chunks()
    if not (types.is_nested(frames.type) and types.is_nested(frames.type.value_type)):
        raise ValueError(f"heatmap is {frames.type}, not a list of rows")
    rows = frames.flatten()
    heights = compute.list_value_length(frames).unique().to_pylist()
    widths = compute.list_value_length(rows).unique().to_pylist()
    if len(heights) != 1 or len(widths) != 1 or None in (*heights, *widths) or index.null_count:
        raise ValueError("its heatmaps are not lists of equally long rows, all of one size")
    values = rows.flatten().to_numpy(zero_copy_only=False)  # a null becomes NaN
    return _Arrays(index.to_numpy(), values.reshape(len(frames), heights[0], widths[0]))


_UNREADABLE = (
    *(KeyError, ValueError, OSError, EOFError, TypeError),
    *(zipfile.BadZipFile, zlib.error, NotImplementedError),
)
"""What NumPy, zip files and Parquet raise for bytes that are none of theirs."""
_READERS = {".npz": _read_npz, ".parquet": _read_parquet}


def _checked(path: Path, index: NDArray[Any], heat: NDArray[Any]) -> dict[int, Heatmap]:
    if index.ndim != 1 or heat.ndim != 3 or len(index) != len(heat):
        raise AvatarBuildError(
            f"{path}: frame_index is {index.shape}, heatmap {heat.shape}; they must be (n,) and"
            " (n, y, x)."
        )
    if not np.issubdtype(heat.dtype, np.floating) or not np.issubdtype(index.dtype, np.integer):
        raise AvatarBuildError(f"{path}: frame_index must be integers, heatmap floats.")
    if not heat.size and len(heat):
        raise AvatarBuildError(f"{path}: its heatmaps are empty, {heat.shape[1:]} (y, x).")
    with np.errstate(over="ignore"):
        heat = heat.astype(np.float32)  # what float32 cannot hold becomes infinite
    if not np.isfinite(heat).all():
        frame = int(index[~np.isfinite(heat).all((1, 2))][0])
        raise AvatarBuildError(f"{path}: the heatmap of frame {frame} holds NaN or infinity.")
    if len(set(index.tolist())) != len(index):
        raise AvatarBuildError(f"{path}: a frame_index is there twice.")
    return {int(i): h for i, h in zip(index, heat, strict=True)}


# The one way from a model to its files

Window = TypeVar("Window", bound=float | None)
"""Seconds of sound around a frame; None is all of its clip's."""
Show = Callable[[int, str], None]
"""Called with how many clips are done, and a note."""


@dataclass
class Notes:
    """Notes made while a model is asked: frames without a heatmap, and sentences for people."""

    num_frames: int
    """The number of frames to ask about."""
    max_missing: int = 0
    """The number of frames that may lack a heatmap."""
    show: Show = lambda _done, _note: None
    failed: dict[str, str] = field(default_factory=dict)
    """Frames without a heatmap, with why."""
    said: list[str] = field(default_factory=list)

    def miss(self, failed: Mapping[str, str]) -> None:
        """Note frames that cannot be asked about, with why.

        Raises:
            AvatarBuildError: there are more than may be missing; names some.
        """
        self.failed |= failed
        if len(self.failed) > self.max_missing:
            some = "; ".join(f"{name}: {why}" for name, why in list(self.failed.items())[:3])
            raise AvatarBuildError(
                f"{len(self.failed)} of {self.num_frames} labelled frames cannot be predicted"
                f" ({some}). Add what is missing, or score the others with --max-missing"
                f" {len(self.failed)}."
            )


class Answer(NamedTuple):
    """A model's heatmaps of one clip."""

    clip_id: str
    frame_index: Sequence[int]
    """Counted from the clip's first frame."""
    heatmaps: Mapping[Any, NDArray[np.float32]]
    """Window of sound to ``(n, y, x)``, of any scale."""
    exchanged: Mapping[Any, tuple[NDArray[np.float32], NDArray[np.float32]]] | None = None
    """Window to maps of the same frames with their own sound, and with the other clip's; None where
    the clip was not asked about with another one's."""


class Predictor(Protocol):
    """A model that is ready to be asked about the clips of a release."""

    of_images: ClassVar[bool]
    """True where it takes one picture and the sound of a window, rather than a whole clip."""

    @property
    def about(self) -> Mapping[str, Any]:
        """Return what it is and all that decides its heatmaps: digests, post-processing, ..."""
        ...

    def answers(
        self,
        data: EvaluationSet,
        windows: Sequence[Any],
        every_frame_of: Collection[str],
        notes: Notes,
        sounds_of: Mapping[str, str],
    ) -> Iterator[Answer]:
        """Yield the heatmaps of each clip once, computed anew from the release's files.

        Args:
            data: the labelled frames.
            windows: each frame is asked about with each of these.
            every_frame_of: clips whose other frames get a heatmap too, for a film.
            notes: told of frames that cannot be asked about.
            sounds_of: clips that are asked about once more, and the clip whose sound they get then;
                one whose other sound cannot be read is not.
        """
        ...


def _exchanged_sounds(data: EvaluationSet, count: int, seed: int) -> dict[str, str]:
    """Give some clips the sound of others, of other categories and videos where there are any."""
    categories: dict[str, set[str]] = {}
    videos: dict[str, str] = {}
    for frame in data.frames:
        kinds = {instance.category for instance in frame.instances}
        categories.setdefault(frame.clip_id, set()).update(kinds)
        videos[frame.clip_id] = frame.video_id
    chosen = draw_clips(categories, count, seed)
    labels = {clip: (*sorted(categories[clip]), f"video {videos[clip]}") for clip in chosen}
    found, _ = exchange_sounds(labels, seed)
    return found


def predict(
    model: Predictor,
    data: EvaluationSet,
    targets: Mapping[Window, Path],
    *,
    max_missing: int = 0,
    every_frame_of: Collection[str] = (),
    sensitivity_clips: int = 0,
    seed: int = 0,
    show: Show = lambda _done, _note: None,
) -> tuple[dict[Window, Predictions], Notes]:
    """Write the heatmaps of every labelled frame, for each window of sound.

    Args:
        model: asked once per frame and window.
        data: the labelled frames, whose folder holds their media.
        targets: the folder of each window; heatmaps of an earlier run are removed from it.
        max_missing: frames that may lack a heatmap; ``model.json`` names them.
        every_frame_of: clips whose other frames get a heatmap too, for a film.
        sensitivity_clips: clips that are asked about with another clip's sound too, of another
            category where these are known and differ; ``model.json`` keeps how much that changed.
        seed: of which these are.
        show: told of clips done, and a note.

    Returns:
        The heatmaps by window, and what there is to say of the media.

    Raises:
        UsageError: a folder holds heatmaps that no run of a model wrote.
        AvatarBuildError: more frames cannot be asked about.
    """
    about = {window: {**model.about, "window_s": window} for window in targets}
    found = {window: Predictions.begin(targets[window], about[window]) for window in targets}
    notes = Notes(len(data.frames), max_missing, show)
    sounds_of = _exchanged_sounds(data, sensitivity_clips, seed)
    changed: dict[Window, dict[str, float]] = {window: {} for window in targets}
    answers = model.answers(data, list(targets), every_frame_of, notes, sounds_of)
    for done, answer in enumerate(answers, start=1):
        for window, heatmaps in answer.heatmaps.items():
            found[window].save(answer.clip_id, answer.frame_index, heatmaps)
            if answer.exchanged is not None:
                maps = (np.stack([upsample(m) for m in of]) for of in answer.exchanged[window])
                changed[window][answer.clip_id] = sound_sensitivity(*maps)
        show(done, f"{len(notes.failed)} failed" if notes.failed else "")
    for window, predictions in found.items():
        told = about[window] | {"failed": notes.failed, "said": notes.said}
        if changed[window]:
            heard = {clip: other for clip, other in sounds_of.items() if clip in changed[window]}
            told |= {HEARING: {"of_clips": changed[window], "sounds_of": heard}}
        predictions.describe(told)
    return found, notes
