"""Draw a scene's frames and its actors' silhouettes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.synthetic.scene import Actor, Pose, Scene
from pipeline.synthetic.scenery import DRAWN_HEIGHT, panorama
from pipeline.synthetic.sprites import sprite


class _Layer(NamedTuple):
    """An actor as it stands in one frame."""

    actor: Actor
    rows: slice
    columns: slice
    pixels: NDArray[np.uint8]
    """``(h, w, 4)``; colours are multiplied by alpha."""


class Painter:
    """Paints the frames of one scene."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        camera = scene.camera
        self._left = math.ceil(camera.swing_px) + 2
        self._top = math.ceil(0.2 * camera.swing_px) + 2
        drift = math.ceil(camera.drift_px_s * scene.duration_s)
        size = (scene.width + 2 * self._left + drift, scene.height + 2 * self._top)
        # Backgrounds are drawn for pictures of one height, and shrunk for others.
        unit = DRAWN_HEIGHT / scene.height
        world = panorama(
            scene.background,
            round(size[0] * unit),
            round(size[1] * unit),
            round(self._top * unit),
            np.random.default_rng(scene.seed),
        )
        if unit != 1:
            world = np.asarray(cv2.resize(world, size, interpolation=cv2.INTER_AREA), np.uint8)
        self._world = world
        self._lay_shadows()

    def frame(self, index: int) -> NDArray[np.uint8]:
        """Paint presented frame ``index``: blue, green, red, ``(height, width, 3)``."""
        x, y = self.scene.camera.at(index / self.scene.fps)
        size = (self.scene.width, self.scene.height)
        centre = (x + self._left + (size[0] - 1) / 2, y + self._top + (size[1] - 1) / 2)
        image = np.asarray(cv2.getRectSubPix(self._world, size, centre), np.uint8)
        for layer in _layers(self.scene, index):
            under = image[layer.rows, layer.columns]
            rest = 255 - layer.pixels[..., 3:].astype(np.uint16)
            under[:] = (under * rest + 127) // 255 + layer.pixels[..., :3]
        return image

    def _lay_shadows(self) -> None:
        """Darken the ground under each actor; the shadow stays there when the actor hops."""
        shade = np.zeros(self._world.shape[:2], np.float32)
        for actor in self.scene.actors:
            if actor.walk_px_s:
                continue
            foot = (actor.x + self._left, actor.y + self._top - 0.03 * actor.size)
            cv2.ellipse(
                shade, (foot, (0.84 * actor.width * actor.size, 0.14 * actor.size), 0), 1.0, -1
            )
        light = 1 - 0.35 * cv2.GaussianBlur(shade, (0, 0), 3)[..., None]
        self._world = (self._world * light).astype(np.uint8)


def silhouettes(scene: Scene, index: int) -> dict[str, NDArray[np.bool_]]:
    """Return what can be seen of each actor in presented frame ``index``.

    Returns:
        Name to ``(height, width)``, for every actor; an actor in front takes the pixels it covers.
    """
    masks = {a.name: np.zeros((scene.height, scene.width), np.bool_) for a in scene.actors}
    taken = np.zeros((scene.height, scene.width), np.bool_)
    for layer in reversed(list(_layers(scene, index))):
        place = (layer.rows, layer.columns)
        solid = layer.pixels[..., 3] >= 128
        masks[layer.actor.name][place] = solid & ~taken[place]
        taken[place] |= solid
    return masks


def box_of(mask: NDArray[np.bool_]) -> list[int] | None:
    """Return the tight ``[x, y, w, h]`` of a mask; none when it is empty.

    >>> box_of(np.array([[False, True], [False, True]]))
    [1, 0, 1, 2]
    """
    box = list(cv2.boundingRect(mask.astype(np.uint8)))
    return box if box[2] else None


def _layers(scene: Scene, index: int) -> Iterator[_Layer]:
    """Yield the actors that touch the picture, from back to front."""
    time_s = index / scene.fps
    camera_x, camera_y = scene.camera.at(time_s)
    for actor in scene.actors:
        pose = scene.pose(actor, time_s)
        size = round(actor.size)
        drawing = sprite(actor.category, actor.colour, size, flip=actor.flip, loud=pose.loud)
        x = actor.x + actor.walk_px_s * time_s
        foot = (x - camera_x + pose.dx, actor.y - camera_y + pose.dy)
        matrix = _placement(pose, actor.width, size, foot)
        corners = matrix @ np.array([[0, size, 0, size], [0, 0, size, size], [1, 1, 1, 1]])
        left, top = np.maximum(np.floor(corners.min(axis=1)).astype(int) - 1, 0)
        right, bottom = np.ceil(corners.max(axis=1)).astype(int) + 2
        right, bottom = min(right, scene.width), min(bottom, scene.height)
        if left >= right or top >= bottom:
            continue
        matrix[:, 2] -= left, top
        area = (int(right - left), int(bottom - top))
        pixels = np.asarray(cv2.warpAffine(drawing, matrix, area), np.uint8)
        yield _Layer(actor, slice(top, bottom), slice(left, right), pixels)


def _placement(
    pose: Pose, width: float, size: int, foot: tuple[float, float]
) -> NDArray[np.float64]:
    """Return the 2 x 3 map from a drawing's pixels to the frame's: turned about the foot."""
    cos, sin = math.cos(math.radians(pose.turn)), math.sin(math.radians(pose.turn))
    wide, tall = width / math.sqrt(pose.stretch), pose.stretch
    linear = np.array([[cos * wide, -sin * tall], [sin * wide, cos * tall]])
    shift = np.array(foot) - linear @ np.array([size / 2, size])
    return np.concatenate([linear, shift[:, None]], axis=1)
