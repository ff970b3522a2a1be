"""The backgrounds: textured, wider than the picture, so that a camera can pan over them.

Colours here are blue, green, red, as OpenCV has them. The ground begins near row 240 of the
picture; actors stand on it.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Generator = np.random.Generator
Colour = tuple[int, int, int]

DRAWN_HEIGHT = 360
"""Rows of the picture that a background is drawn for."""
_FLOOR_Y = 240


def panorama(background: str, width: int, height: int, top: int, rng: Generator) -> Image:
    """Paint a background, ``(height, width, 3)``; ``top`` rows lie above the picture."""
    image = np.zeros((height, width, 3), np.uint8)
    _PAINTERS[background](image, top + _FLOOR_Y, rng)
    grain = 7 * _noise(image.shape[:2], 3, rng) + 5 * _noise(image.shape[:2], 24, rng)
    grained: Image = np.clip(image + grain[..., None], 0, 255).astype(np.uint8)
    return grained


def _meadow(image: Image, floor: int, rng: Generator) -> None:
    height, width = image.shape[:2]
    _gradient(image, 0, floor, (246, 206, 138), (235, 240, 222))
    for _ in range(width // 110):
        x, y = _place(rng, 0, width, 20, floor // 2)
        for dx, dy, size in ((-22, 4, 14), (0, -4, 20), (22, 3, 15), (8, 7, 16)):
            centre = (x + dx, y + dy)
            cv2.ellipse(image, (centre, (2.4 * size, 1.5 * size), 0), (255, 252, 248), -1)
    for rise, colour in ((62, (150, 176, 128)), (30, (118, 178, 142))):
        phase, wave = rng.uniform(0, 6), rng.uniform(110, 170)
        along = np.arange(width)
        crest = floor - rise * (0.62 + 0.38 * np.sin(along / wave + phase))
        edge = np.stack([along, crest], axis=1)
        hill = np.concatenate([edge, [[width, floor + 4], [0, floor + 4]]])
        cv2.fillPoly(image, [np.rint(hill).astype(np.int32)], colour, cv2.LINE_AA)
    _gradient(image, floor, height, (128, 212, 186), (92, 186, 156))
    for _ in range(width * 2):
        x, y = _place(rng, 0, width, floor + 4, height)
        tall = 3 + (y - floor) // 14
        green = tuple(int(c * rng.uniform(0.78, 1.08)) for c in (96, 184, 150))
        tip = (x + int(rng.integers(-3, 4)), y - tall)
        cv2.line(image, (x, y), tip, green, 1, cv2.LINE_AA)
    petals = ((255, 255, 255), (203, 160, 250), (120, 214, 255), (240, 170, 160))
    for _ in range(width // 9):
        x, y = _place(rng, 0, width, floor + 10, height)
        size = 2 + (y - floor) // 60
        colour = petals[int(rng.integers(len(petals)))]
        for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            cv2.circle(image, (x + dx * size, y + dy * size), size, colour, -1, cv2.LINE_AA)
        cv2.circle(image, (x, y), size, (70, 190, 245), -1, cv2.LINE_AA)


def _room(image: Image, floor: int, rng: Generator) -> None:
    width = image.shape[1]
    image[:floor] = (206, 220, 224)
    for x in range(0, width, 36):
        image[:floor, x : x + 18] = (196, 212, 214)
        for y in range(12 + 18 * (x // 36 % 2), floor, 36):
            rhomb = np.array([(x + 9, y - 6), (x + 13, y), (x + 9, y + 6), (x + 5, y)], np.int32)
            cv2.fillConvexPoly(image, rhomb, (176, 190, 160), cv2.LINE_AA)
    left = int(rng.integers(60, 130))
    while left < width - 150:
        if rng.random() < 0.5:
            _window(image, left, floor - 180)
        else:
            _framed_picture(image, left, floor - 165, rng)
        left += int(rng.integers(170, 240))
    image[floor - 14 : floor] = (238, 244, 246)
    image[floor - 15] = image[floor - 1] = (150, 170, 180)
    _planks(image, floor, (112, 160, 204), rng)
    rug = (width / 2, floor + 72), (width * 0.72, 84.0)
    for shrink, colour in ((1, (150, 120, 190)), (0.9, (222, 220, 236)), (0.82, (170, 150, 206))):
        axes = (rug[1][0] * shrink, rug[1][1] * shrink)
        cv2.ellipse(image, (rug[0], axes, 0), colour, -1, cv2.LINE_AA)


def _window(image: Image, x: int, y: int) -> None:
    cv2.rectangle(image, (x, y), (x + 110, y + 120), (245, 250, 252), -1)
    _gradient(image[:, x + 8 : x + 102], y + 8, y + 112, (240, 200, 140), (236, 236, 210))
    cv2.circle(image, (x + 78, y + 36), 13, (150, 226, 252), -1, cv2.LINE_AA)
    cv2.ellipse(image, ((x + 40, y + 60), (46, 16), 0), (252, 250, 246), -1, cv2.LINE_AA)
    cv2.rectangle(image, (x + 52, y), (x + 58, y + 120), (245, 250, 252), -1)
    cv2.rectangle(image, (x, y + 57), (x + 110, y + 63), (245, 250, 252), -1)
    cv2.rectangle(image, (x, y), (x + 110, y + 120), (150, 170, 180), 1)
    cv2.rectangle(image, (x - 8, y + 120), (x + 118, y + 129), (225, 234, 240), -1)


def _framed_picture(image: Image, x: int, y: int, rng: Generator) -> None:
    cv2.rectangle(image, (x, y), (x + 84, y + 66), (92, 132, 170), -1)
    cv2.rectangle(image, (x + 7, y + 7), (x + 77, y + 59), (228, 240, 246), -1)
    for _ in range(4):
        centre = _place(rng, x + 20, x + 64, y + 20, y + 46)
        colour = tuple(int(c) for c in rng.integers(90, 220, 3))
        cv2.circle(image, centre, int(rng.integers(6, 13)), colour, -1, cv2.LINE_AA)
    cv2.rectangle(image, (x, y), (x + 84, y + 66), (60, 90, 120), 1)


def _street(image: Image, floor: int, rng: Generator) -> None:
    height, width = image.shape[:2]
    _gradient(image, 0, floor, (236, 196, 150), (238, 232, 220))
    walls = ((150, 186, 222), (176, 206, 196), (206, 190, 170), (168, 168, 214), (170, 214, 230))
    x = -int(rng.integers(0, 60))
    while x < width:
        wide, tall = int(rng.integers(100, 150)), int(rng.integers(120, 185))
        colour = walls[int(rng.integers(len(walls)))]
        cv2.rectangle(image, (x, floor - tall), (x + wide, floor), colour, -1)
        roof = np.array([(x - 4, floor - tall), (x + wide // 2, floor - tall - 34)], np.int32)
        roof = np.concatenate([roof, [[x + wide + 4, floor - tall]]]).astype(np.int32)
        cv2.fillPoly(image, [roof], (86, 96, 164), cv2.LINE_AA)
        for wx in range(x + 14, x + wide - 24, 34):
            for wy in range(floor - tall + 14, floor - 46, 40):
                lit = (170, 232, 250) if rng.random() < 0.3 else (214, 190, 150)
                cv2.rectangle(image, (wx, wy), (wx + 20, wy + 26), lit, -1)
                cv2.rectangle(image, (wx, wy), (wx + 20, wy + 26), (240, 244, 246), 2)
        door = x + wide // 2 - 10
        cv2.rectangle(image, (door, floor - 38), (door + 22, floor), (80, 100, 130), -1)
        cv2.rectangle(image, (x, floor - tall), (x + wide, floor), (110, 120, 140), 1)
        x += wide
    _gradient(image, floor, floor + 48, (196, 204, 206), (178, 186, 190))
    for x in range(0, width, 40):
        cv2.line(image, (x, floor), (x - 14, floor + 48), (154, 162, 166), 1, cv2.LINE_AA)
    image[floor + 48 : floor + 53] = (214, 220, 222)
    _gradient(image, floor + 53, height, (126, 118, 114), (104, 98, 96))
    for x in range(0, width, 90):
        cv2.rectangle(image, (x, floor + 84), (x + 46, floor + 89), (210, 232, 238), -1)


def _stage(image: Image, floor: int, rng: Generator) -> None:
    height, width = image.shape[:2]
    x = np.arange(width)
    folds = 0.5 + 0.5 * np.sin(x / 9.0 + 1.6 * np.sin(x / 61.0 + rng.uniform(0, 6)))
    cloth = np.array([74, 56, 150]) + folds[:, None] * np.array([40, 40, 70])
    image[:floor] = np.clip(cloth, 0, 255)
    cv2.rectangle(image, (0, 0), (width, 34), (70, 48, 130), -1)
    for left in range(0, width, 64):
        cv2.ellipse(image, ((left + 32, 34), (64, 40), 0), (86, 60, 158), -1, cv2.LINE_AA)
        cv2.ellipse(image, ((left + 32, 34), (64, 40), 0), (96, 186, 232), 3, cv2.LINE_AA)
    for left in range(16, width, 32):
        y = 74 + round(8 * np.sin(left / 40))
        cv2.circle(image, (left, y), 5, (150, 226, 252), -1, cv2.LINE_AA)
        cv2.circle(image, (left, y), 2, (235, 250, 255), -1, cv2.LINE_AA)
    _planks(image, floor, (120, 172, 214), rng)
    light = np.zeros(image.shape[:2], np.float32)
    for share in (0.3, 0.62):
        foot = round(share * width)
        cone = np.array(
            [(foot - 20, 0), (foot + 20, 0), (foot + 130, height), (foot - 130, height)]
        )
        cv2.fillConvexPoly(light, cone.astype(np.int32), 1.0)
    glow = 26 * cv2.GaussianBlur(light, (0, 0), 14)
    image[:] = np.clip(image + glow[..., None] * np.array([0.7, 0.95, 1.0]), 0, 255)


def _beach(image: Image, floor: int, rng: Generator) -> None:
    height, width = image.shape[:2]
    sea = floor - 70
    _gradient(image, 0, sea, (228, 178, 120), (214, 226, 250))
    cv2.circle(image, _place(rng, 0, width, 30, 80), 26, (170, 236, 255), -1, cv2.LINE_AA)
    _gradient(image, sea, floor, (176, 128, 44), (206, 184, 106))
    for _ in range(width // 6):
        x, y = _place(rng, 0, width, sea + 4, floor)
        cv2.line(image, (x, y), (x + (y - sea) // 3 + 6, y), (230, 220, 190), 1, cv2.LINE_AA)
    for _ in range(width // 220):
        x, y = _place(rng, 0, width, sea - 6, sea + 10)
        hull = np.array([(x - 22, y), (x + 22, y), (x + 14, y + 9), (x - 14, y + 9)], np.int32)
        cv2.fillConvexPoly(image, hull, (60, 70, 120), cv2.LINE_AA)
        sail = np.array([(x, y - 34), (x, y - 3), (x + 18, y - 3)], np.int32)
        cv2.fillConvexPoly(image, sail, (244, 246, 250), cv2.LINE_AA)
    _gradient(image, floor, height, (150, 200, 232), (130, 186, 224))
    for _ in range(width // 2):
        x, y = _place(rng, 0, width, floor + 2, height)
        shade = (118, 170, 206) if rng.random() < 0.7 else (190, 222, 240)
        cv2.ellipse(image, ((x, y), (4 + (y - floor) / 14, 2.0), 0), shade, -1, cv2.LINE_AA)


def _forest(image: Image, floor: int, rng: Generator) -> None:
    height, width = image.shape[:2]
    _gradient(image, 0, floor, (196, 206, 170), (150, 190, 160))
    for depth, colour in ((0.55, (138, 160, 128)), (0.8, (88, 118, 84)), (1.0, (58, 80, 58))):
        x = -int(rng.integers(0, 40))
        while x < width:
            wide = round(depth * float(rng.uniform(16, 30)))
            cv2.rectangle(image, (x, 0), (x + wide, floor), colour, -1)
            bark = tuple(int(c * 0.8) for c in colour)
            cv2.rectangle(image, (x, 0), (x + wide // 4, floor), bark, -1)
            x += round(float(rng.uniform(60, 120)) * (1.4 - depth / 2))
    _gradient(image, floor, height, (64, 96, 88), (44, 70, 78))
    leaves = ((52, 110, 170), (60, 90, 130), (70, 130, 96), (40, 70, 90))
    for _ in range(width * 2):
        x, y = _place(rng, 0, width, floor + 2, height)
        colour = leaves[int(rng.integers(len(leaves)))]
        axes = (3 + (y - floor) / 20, 2 + (y - floor) / 40)
        cv2.ellipse(image, ((x, y), axes, float(rng.uniform(0, 180))), colour, -1, cv2.LINE_AA)


def _night(image: Image, floor: int, rng: Generator) -> None:
    height, width = image.shape[:2]
    _gradient(image, 0, floor, (58, 26, 18), (110, 62, 58))
    for _ in range(width // 4):
        x, y = _place(rng, 0, width, 0, floor - 60)
        cv2.circle(image, (x, y), int(rng.integers(1, 3)), (230, 236, 240), -1, cv2.LINE_AA)
    cv2.circle(image, _place(rng, 0, width, 30, 90), 22, (200, 236, 246), -1, cv2.LINE_AA)
    x = 0
    while x < width:
        wide, tall = int(rng.integers(50, 110)), int(rng.integers(60, 190))
        cv2.rectangle(image, (x, floor - tall), (x + wide, floor), (54, 34, 34), -1)
        for wx in range(x + 8, x + wide - 12, 18):
            for wy in range(floor - tall + 10, floor - 14, 22):
                if rng.random() < 0.4:
                    cv2.rectangle(image, (wx, wy), (wx + 8, wy + 11), (110, 214, 250), -1)
        x += wide + int(rng.integers(0, 14))
    _gradient(image, floor, height, (74, 56, 58), (52, 40, 44))
    for x in range(0, width, 60):
        cv2.ellipse(image, ((x, floor + 60), (70, 16), 0), (84, 88, 110), -1, cv2.LINE_AA)


def _planks(image: Image, floor: int, colour: tuple[int, int, int], rng: Generator) -> None:
    height, width = image.shape[:2]
    y, tall = floor, 14
    while y < height:
        x = -int(rng.integers(0, 120))
        while x < width:
            wide = int(rng.integers(90, 160))
            shade = rng.uniform(0.88, 1.06)
            board = tuple(min(255, int(c * shade)) for c in colour)
            cv2.rectangle(image, (x, y), (x + wide, y + tall), board, -1)
            edge = tuple(int(c * 0.74) for c in colour)
            cv2.rectangle(image, (x, y), (x + wide, y + tall), edge, 1)
            x += wide
        y += tall
        tall += 4


def _gradient(image: Image, top: int, bottom: int, above: Colour, below: Colour) -> None:
    share = np.linspace(0, 1, bottom - top)[:, None]
    rows = np.array(above) * (1 - share) + np.array(below) * share
    image[top:bottom] = np.rint(rows)[:, None].astype(np.uint8)


def _place(rng: Generator, left: int, right: int, top: int, bottom: int) -> tuple[int, int]:
    return int(rng.integers(left, right)), int(rng.integers(top, bottom))


def _noise(shape: tuple[int, ...], grain_px: int, rng: Generator) -> NDArray[np.float32]:
    """Smooth noise in about [-1, 1] whose blotches are ``grain_px`` wide."""
    height, width = shape
    coarse = rng.uniform(-1, 1, (height // grain_px + 2, width // grain_px + 2))
    smooth = cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return smooth.astype(np.float32)


_PAINTERS: dict[str, Callable[[Image, int, Generator], None]] = {
    "meadow": _meadow,
    "room": _room,
    "street": _street,
    "stage": _stage,
    "beach": _beach,
    "forest": _forest,
    "night": _night,
}
