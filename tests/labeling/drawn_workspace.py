"""A workspace of frames from the drawn world, one for each thing an annotator may decide."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.records.schema import Clip, Frame, Instance, Mask, Proposal, Sounds, Video
from pipeline.synthetic.drawing import Painter, box_of, silhouettes
from pipeline.synthetic.render import encode
from pipeline.synthetic.scene import Scene
from pipeline.synthetic.world import scenes
from pipeline.workspace.workspace import Workspace
from tests.labeling.labelled_workspace import commit, mask_of
from tests.rows import clip, frame, proposal, sounds, video

VOCABULARY = ["baby crying", "bird", "car", "cat", "dog", "drum kit", "guitar", "piano", "violin"]

SINGLE, MIXED, MULTI = "dogInMeadow", "violGuitDuo", "twoDogs_one"
OFF_SCREEN, MUSIC, HALF_SEEN = "hornOffScrn", "violinStage", "babyOffBird"
VIDEOS = (SINGLE, MULTI, MIXED, OFF_SCREEN, MUSIC, HALF_SEEN)

SECONDS = 5.0
_AFTER_A_STROKE_S = 0.12
"""When what sounds has moved most."""


@dataclass(frozen=True)
class Drawn:
    """One frame and what is true of it."""

    scene: Scene
    frame: Frame

    def silhouette(self, actor: str) -> NDArray[np.bool_]:
        """What can be seen of an actor, ``(height, width)``."""
        return silhouettes(self.scene, self.frame.frame_index)[actor]

    def box(self, actor: str) -> list[float]:
        """Around the same, ``[x, y, w, h]``."""
        found = box_of(self.silhouette(actor))
        assert found is not None
        return [float(value) for value in found]


def drawn() -> dict[str, Drawn]:
    """The frame of each video, by video."""
    made = {}
    for scene in _scenes():
        onset = next(onset for onset in scene.sounds[-1].onsets if onset > 2)
        made[scene.video_id] = _at(scene, onset)
    return {name: made[name] for name in VIDEOS}


def drawn_clips() -> dict[str, list[Drawn]]:
    """A frame at each stroke of what sounds last in each video, three to five of them, by video."""
    return {
        scene.video_id: [_at(scene, onset) for onset in scene.sounds[-1].onsets if onset > 0.3]
        for scene in sorted(_scenes(), key=lambda scene: VIDEOS.index(scene.video_id))
    }


def _scenes() -> list[Scene]:
    return [_shortened(scene) for scene in scenes() if scene.video_id in VIDEOS]


def _at(scene: Scene, onset: float) -> Drawn:
    index = round((onset + _AFTER_A_STROKE_S) * scene.fps)
    at = {"time_s": index / scene.fps, "event_time_s": index / scene.fps}
    shown = frame(index, scene.video_id, width=scene.width, height=scene.height, **at)
    return Drawn(scene, shown)


def fill_drawn(workspace: Workspace) -> dict[str, Drawn]:
    """Give the workspace its videos and what the stages would say of them.

    A box of every thing of a heard category is proposed, but of the violin of ``MIXED``.
    """
    world = drawn()
    boxes = {name: _proposed(one, f"p_{name}") for name, one in world.items()}
    _fill(workspace, {name: [one] for name, one in world.items()}, boxes)
    return world


def fill_drawn_clips(workspace: Workspace) -> dict[str, list[Drawn]]:
    """The same with all frames of ``drawn_clips``; the boxes of a thing are one track."""
    world = drawn_clips()
    boxes = {
        name: [
            box.model_copy(update={"track_id": 10 * VIDEOS.index(name) + number})
            for one in frames
            for number, box in enumerate(_proposed(one, f"p_{name}_{one.frame.frame_index}"))
        ]
        for name, frames in world.items()
    }
    _fill(workspace, world, boxes)
    return world


def _fill(
    workspace: Workspace, world: dict[str, list[Drawn]], boxes: dict[str, list[Proposal]]
) -> None:
    for name, frames in world.items():
        path = workspace.storage.path(video(name).path)
        path.parent.mkdir(parents=True, exist_ok=True)
        encode(frames[0].scene, path)
        for one in frames:
            picture = workspace.storage.path(one.frame.path)
            picture.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(picture), Painter(one.scene).frame(one.frame.frame_index))
    shown = {"width": 640, "height": 360, "duration_s": SECONDS}
    files = [video(name, fps=float(ones[0].scene.fps), **shown) for name, ones in world.items()]
    commit(workspace, "download", Video, files)
    commit(workspace, "sample", Clip, [clip(name, end_s=SECONDS) for name in world])
    commit(workspace, "choose", Frame, [one.frame for ones in world.values() for one in ones])
    heard = [_heard(name, ones[0].scene) for name, ones in world.items()]
    commit(workspace, "hear", Sounds, heard)
    commit(workspace, "propose", Proposal, [box for of_one in boxes.values() for box in of_one])


def segment_drawn(workspace: Workspace, world: dict[str, Drawn]) -> list[Mask]:
    """Give every instance a mask that wants its left quarter, as a segmenter's may."""
    masks = []
    by_frame = {one.frame.frame_id: one for one in world.values()}
    for instance in workspace.rows(Instance):
        pixels = true_mask(by_frame[instance.frame_id], instance).copy()
        pixels[:, : round(instance.bbox[0] + instance.bbox[2] / 4)] = False
        masks.append(mask_of(instance, pixels))
    commit(workspace, "segment", Mask, masks)
    return masks


def true_mask(one: Drawn, instance: Instance) -> NDArray[np.bool_]:
    """The silhouette of the thing an instance is about."""
    names = [actor.name for actor in one.scene.actors]
    overlap = [_overlap(one.box(name), instance.bbox) for name in names]
    return one.silhouette(names[int(np.argmax(overlap))])


def _overlap(first: list[float], second: list[float]) -> float:
    sides = [
        max(0.0, min(first[axis] + first[axis + 2], second[axis] + second[axis + 2]))
        - max(first[axis], second[axis])
        for axis in (0, 1)
    ]
    return max(0.0, sides[0]) * max(0.0, sides[1])


def _shortened(scene: Scene) -> Scene:
    spoken = tuple(
        sound.model_copy(
            update={
                "onsets": tuple(onset for onset in sound.onsets if onset < SECONDS - 0.5),
                "end_s": min(sound.end_s, SECONDS),
            }
        )
        for sound in scene.sounds
    )
    return scene.model_copy(update={"duration_s": SECONDS, "sounds": spoken})


def _heard(name: str, scene: Scene) -> Sounds:
    categories = dict.fromkeys(sound.category for sound in scene.sounds)
    heard = [
        {"category": category, "score": 0.9 - 0.2 * rank, "active": True}
        for rank, category in enumerate(categories)
    ]
    faint = [{"category": "piano", "score": 0.1, "active": False}]
    return sounds(name, categories=heard + faint)


def _proposed(one: Drawn, prefix: str) -> list[Proposal]:
    heard = {sound.category for sound in one.scene.sounds}
    hidden = "violin" if one.scene.video_id == MIXED else ""
    return [
        proposal(
            f"{prefix}_{number}",
            frame_id=one.frame.frame_id,
            bbox=one.box(actor.name),
            detector_score=0.9 - 0.1 * number,
            categories=[actor.category],
            audible=actor.category in heard,
        )
        for number, actor in enumerate(one.scene.actors)
        if actor.name != hidden
    ]
