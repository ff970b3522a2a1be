"""The drawings: one function per category, on a square of 100 x 100 units.

A drawing is painted large once, with its outline, and scaled to the size it is shown at. Channels
are blue, green, red, alpha, with colours already multiplied by alpha: anti-aliased strokes on a
black, transparent square come out so by themselves, and such pixels may be interpolated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]

_UNIT = 8
"""Pixels per unit while painting."""

_INK = "#33272a"
_WHITE = "#ffffff"


class Pen:
    """Paints outlined shapes in units of the drawing; y grows downwards."""

    def __init__(self) -> None:
        self.canvas = np.zeros((100 * _UNIT, 100 * _UNIT, 4), np.uint8)

    def oval(
        self,
        centre: Point,
        radii: Point,
        colour: str,
        *,
        turn: float = 0,
        outline: float = 1.6,
    ) -> None:
        """Fill an ellipse; ``turn`` in degrees, clockwise."""
        corner = np.radians(np.arange(0, 360, 4))
        x, y = radii[0] * np.cos(corner), radii[1] * np.sin(corner)
        c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
        outer = np.stack([centre[0] + c * x - s * y, centre[1] + s * x + c * y], axis=1)
        self._fill(outer, colour, outline)

    def shape(self, points: Sequence[Point], colour: str, *, outline: float = 1.6) -> None:
        """Fill a polygon."""
        self._fill(np.array(points, float), colour, outline)

    def blob(self, points: Sequence[Point], colour: str, *, outline: float = 1.6) -> None:
        """Fill a closed smooth curve through ``points``."""
        self._fill(_smooth(points, closed=True), colour, outline)

    def line(self, points: Sequence[Point], colour: str = _INK, width: float = 1.6) -> None:
        """Draw an open smooth curve through ``points``."""
        self._stroke(_smooth(points, closed=False), colour, width, closed=False)

    def limb(self, points: Sequence[Point], colour: str, width: float) -> None:
        """Draw a thick outlined curve: a tail, a leg, a stick."""
        self.line(points, _INK, width + 3.2)
        self.line(points, colour, width)

    def both(self, draw: Callable[..., None], place: Any, *rest: Any, **how: Any) -> None:
        """Draw a shape on one half and its mirror image on the other."""
        draw(place, *rest, **how)
        if "turn" in how:
            how["turn"] = -how["turn"]
        a_point = isinstance(place, tuple)
        other = [(100 - x, y) for x, y in ([place] if a_point else place)]
        draw(other[0] if a_point else other, *rest, **how)

    def eye(self, centre: Point, size: float = 5) -> None:
        """Draw an eye that looks at us."""
        x, y = centre
        self.oval((x, y), (size * 0.85, size), _WHITE, outline=1.2)
        self.oval((x, y + 0.8), (size * 0.5, size * 0.62), _INK, outline=0)
        self.oval((x + size * 0.2, y - size * 0.25), (size * 0.2, size * 0.22), _WHITE, outline=0)

    def _fill(self, points: NDArray[np.float64], colour: str, outline: float) -> None:
        cv2.fillPoly(self.canvas, [_fixed(points)], _bgra(colour), cv2.LINE_AA, _SHIFT)
        if outline:
            self._stroke(points, _INK, outline, closed=True)

    def _stroke(
        self, points: NDArray[np.float64], colour: str, width: float, *, closed: bool
    ) -> None:
        cv2.polylines(
            self.canvas,
            [_fixed(points)],
            closed,
            _bgra(colour),
            round(width * _UNIT),
            cv2.LINE_AA,
            _SHIFT,
        )


_SHIFT = 4
"""Binary digits of a pixel's fraction in OpenCV's fixed-point coordinates."""


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.rint(points * (_UNIT << _SHIFT)).astype(np.int32)


def _bgra(colour: str) -> tuple[int, int, int, int]:
    red, green, blue = bytes.fromhex(colour[1:])
    return blue, green, red, 255


def _smooth(points: Sequence[Point], *, closed: bool) -> NDArray[np.float64]:
    """Return a Catmull-Rom curve through the points, 12 steps from each to the next."""
    p = np.array(points, float)
    p = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([p[:1], p, p[-1:]])
    u = np.linspace(0, 1, 12, endpoint=False)[:, None]
    a, b, c, d = p[:-3, None], p[1:-2, None], p[2:-1, None], p[3:, None]
    curve = b + u * (c - a) / 2 + u**2 * (a - 2.5 * b + 2 * c - d / 2)
    curve = curve + u**3 * (1.5 * (b - c) + (d - a) / 2)
    flat: NDArray[np.float64] = curve.reshape(-1, 2)
    return flat if closed else np.concatenate([flat, p[-1:]])


def mix(colour: str, other: str, fraction: float) -> str:
    """Blend two ``#rrggbb`` colours; ``fraction`` of ``other``.

    >>> mix("#000000", "#ff0000", 0.5)
    '#800000'
    """
    pairs = zip(bytes.fromhex(colour[1:]), bytes.fromhex(other[1:]), strict=True)
    return "#" + bytes(round(a + (b - a) * fraction) for a, b in pairs).hex()


def _dog(pen: Pen, colour: str, loud: bool) -> None:
    ear, light = mix(colour, "#2b1712", 0.5), mix(colour, _WHITE, 0.75)
    pen.limb([(68, 84), (84, 80), (90, 66 if loud else 70)], colour, 6)
    pen.blob([(50, 48), (70, 62), (76, 86), (62, 97), (38, 97), (24, 86), (30, 62)], colour)
    pen.oval((50, 78), (13, 15), light, outline=0)
    pen.both(pen.oval, (37, 94), (10, 5), light)
    pen.oval((50, 32), (28, 25), colour)
    pen.both(pen.oval, (22, 34), (8.5, 19), ear, turn=14)
    pen.oval((64, 27), (10, 11), light, outline=0)
    pen.line([(34, 59), (50, 63), (66, 59)], "#d8423f", 4.5)
    pen.oval((50, 65), (3.5, 3.5), "#f6c445")
    if loud:
        pen.oval((50, 52), (10, 9), "#7c2430")
        pen.oval((50, 56), (6, 4.5), "#f28d8d", outline=0)
    pen.oval((50, 42), (15, 9.5), light)
    pen.oval((50, 37), (6, 4), _INK)
    if not loud:
        pen.line([(42, 45), (46, 47.5), (50, 45), (54, 47.5), (58, 45)])
    pen.both(pen.eye, (38, 27))


def _cat(pen: Pen, colour: str, loud: bool) -> None:
    dark, light = mix(colour, "#3a1a08", 0.45), mix(colour, _WHITE, 0.78)
    pen.limb([(66, 90), (88, 86), (90, 66), (80, 52)], dark, 6)
    pen.blob([(50, 48), (66, 60), (72, 86), (62, 97), (38, 97), (28, 86), (34, 60)], colour)
    pen.oval((50, 76), (11, 15), light, outline=0)
    pen.both(pen.oval, (40, 94), (8.5, 5), light)
    for x, tip in ((30, 20), (70, 80)):
        pen.shape([(x - 12, 24), (tip, 1), (x + 12, 18)], colour)
        pen.shape([(x - 6, 20), (tip + (x - tip) * 0.25, 7), (x + 6, 17)], "#f2a0a0", outline=0)
    pen.oval((50, 34), (30, 24), colour)
    for x in (42, 50, 58):
        pen.line([(x, 12), (x, 19)], dark, 3)
    pen.oval((50, 46), (10, 7 if not loud else 5), light, outline=0)
    if loud:
        pen.oval((50, 50), (7, 6.5), "#7c2430")
        pen.oval((50, 53), (4, 3), "#f28d8d", outline=0)
    else:
        pen.line([(44, 46), (47, 49), (50, 45), (53, 49), (56, 46)])
    pen.shape([(46.5, 40), (53.5, 40), (50, 44)], "#ef7f86", outline=1)
    pen.both(pen.line, [(66, 42), (83, 39)], width=1)
    pen.both(pen.line, [(66, 45), (83, 47)], width=1)
    pen.both(pen.oval, (37, 31), (6, 6.5), "#d9ee7c", outline=1.2)
    pen.both(pen.oval, (37, 31), (2.2, 5.6), _INK, outline=0)


def _frog(pen: Pen, colour: str, loud: bool) -> None:
    dark, light = mix(colour, "#0a3a10", 0.4), mix(colour, "#fffbd0", 0.7)
    pen.both(pen.oval, (82, 80), (15, 17), dark, turn=20)
    pen.both(pen.blob, [(68, 92), (84, 88), (96, 97), (70, 98)], colour)
    pen.oval((50, 70), (29, 28), colour)
    pen.oval((50, 80), (18, 17), light, outline=0)
    if loud:
        pen.oval((50, 70), (20, 14), light)
    pen.oval((50, 46), (34, 22), colour)
    pen.both(pen.oval, (30, 26), (12, 12), colour)
    pen.both(pen.eye, (30, 25), 8)
    if loud:
        pen.oval((50, 53), (21, 8.5), "#7c2430")
        pen.oval((50, 57), (12, 4), "#f28d8d", outline=0)
    else:
        pen.line([(24, 48), (36, 56), (50, 58), (64, 56), (76, 48)], width=2)
    for x, y in ((50, 33), (44, 38), (57, 38)):
        pen.oval((x, y), (2.4, 1.8), dark, outline=0)
    pen.both(pen.line, [(38, 84), (38, 94)], dark, 3)
    pen.both(pen.oval, (38, 96), (7, 3), colour)


def _bird(pen: Pen, colour: str, loud: bool) -> None:
    dark, light = mix(colour, "#b3541e", 0.5), mix(colour, _WHITE, 0.6)
    for x in (44, 58):
        pen.limb([(x, 84), (x, 96)], "#e98a2c", 2)
        pen.line([(x - 6, 97), (x, 95), (x + 6, 97)], "#e98a2c", 3)
    pen.blob([(20, 58), (4, 44), (2, 54), (8, 64), (22, 72)], dark)
    pen.blob(
        [(52, 8), (76, 18), (82, 42), (84, 66), (62, 88), (34, 84), (16, 64), (30, 40)], colour
    )
    pen.blob([(66, 48), (78, 62), (64, 84), (48, 82), (52, 60)], light, outline=0)
    pen.blob([(24, 50), (46, 48), (54, 62), (40, 76), (20, 70)], dark)
    for y in (58, 65):
        pen.line([(28, y), (40, y + 3), (48, y - 1)], width=1.2)
    for x, y in ((46, 4), (53, 3), (60, 5)):
        pen.line([(54, 13), (x, y)], dark, 3)
    if loud:
        pen.shape([(78, 26), (98, 18), (80, 36)], "#f08a24")
        pen.shape([(78, 36), (94, 48), (76, 44)], "#d56c16")
    else:
        pen.shape([(78, 28), (97, 36), (77, 43)], "#f08a24")
        pen.line([(78, 36), (94, 36)], width=1.2)
    pen.eye((66, 28), 7)
    pen.oval((62, 41), (5, 3.2), "#f7a07a", outline=0)


def _baby(pen: Pen, colour: str, loud: bool) -> None:
    skin, cheek = "#f7cfae", "#f29a8e"
    pen.both(pen.limb, [(68, 66), (82, 62), (88, 50 if loud else 74)], skin, 8)
    pen.both(pen.oval, (74, 91), (15, 7), skin, turn=8)
    pen.both(pen.oval, (86, 89), (5.5, 7), skin)
    pen.blob([(50, 54), (68, 62), (72, 84), (62, 95), (38, 95), (28, 84), (32, 62)], colour)
    pen.blob([(28, 80), (50, 84), (72, 80), (66, 96), (34, 96)], _WHITE)
    for x in (44, 50, 56):
        pen.oval((x, 72), (1.6, 1.6), _WHITE, outline=0.8)
    pen.both(pen.oval, (81, 36), (6, 7), skin)
    pen.oval((50, 34), (31, 28), skin)
    pen.line([(50, 6), (57, 2), (60, 9), (53, 12), (49, 8)], "#8a5a2b", 2.6)
    pen.both(pen.oval, (30, 44), (6, 4), cheek, outline=0)
    if loud:
        pen.oval((50, 48), (11, 10), "#8c2735")
        pen.oval((50, 54), (7, 4), "#f28d8d", outline=0)
        pen.both(pen.line, [(58, 30), (64, 33), (70, 29)], width=2.2)
        pen.both(pen.oval, (72, 40), (3, 5), "#7cc4ee", outline=1)
    else:
        pen.both(pen.eye, (38, 32), 5.5)
        pen.line([(44, 48), (50, 50), (56, 48)], width=2)
    pen.oval((50, 40), (2.6, 2), mix(skin, cheek, 0.6), outline=0)


def _car(pen: Pen, colour: str, loud: bool) -> None:
    light = mix(colour, _WHITE, 0.35)
    pen.blob(
        [(20, 62), (30, 42), (44, 37), (62, 38), (76, 58), (60, 64), (34, 65)],
        light,
    )
    pen.shape([(28, 61), (35, 46), (48, 43), (48, 61)], "#bfe4f2")
    pen.shape([(52, 61), (52, 43), (62, 45), (71, 61)], "#bfe4f2")
    pen.blob(
        [(4, 66), (14, 60), (50, 59), (82, 60), (95, 66), (96, 82), (82, 87), (18, 87), (4, 84)],
        colour,
    )
    pen.line([(50, 62), (50, 84)], width=1.2)
    pen.line([(54, 69), (59, 69)], width=2)
    pen.line([(10, 77), (90, 77)], light, 2.4)
    pen.shape([(0.9, 80), (10, 80), (10, 86), (0.9, 86)], "#c9ced6")
    pen.shape([(90, 80), (99, 80), (99, 86), (90, 86)], "#c9ced6")
    pen.oval((92, 69), (4.5, 5.5), "#fff3a0" if loud else "#f3d36a")
    pen.oval((6.5, 69), (3, 4.5), "#d8423f")
    pen.both(pen.oval, (25, 86), (12, 12), "#3b3b45")
    pen.both(pen.oval, (25, 86), (6, 6), "#d5d9de", outline=1.2)
    pen.both(pen.oval, (25, 86), (2, 2), "#3b3b45", outline=0)


def _alarm_clock(pen: Pen, colour: str, loud: bool) -> None:
    pen.both(pen.limb, [(72, 84), (81, 96)], "#c98f2b", 5)
    pen.both(pen.line, [(74, 26), (70, 34)], width=5)
    pen.both(pen.oval, (77, 19), (17, 13), "#f2b632", turn=32)
    pen.both(pen.line, [(70, 13), (79, 10)], "#ffe7a3", 2)
    pen.limb([(50, 24), (58 if loud else 50, 8)], "#9aa0a8", 2.5)
    pen.oval((59 if loud else 50, 7), (6, 4.5), "#9aa0a8", turn=25 if loud else 0)
    pen.oval((50, 57), (37, 37), colour)
    pen.oval((50, 57), (28.5, 28.5), "#fff8e7")
    for hour in range(12):
        at = np.radians(30 * hour)
        out = (50 + 24.5 * np.sin(at), 57 - 24.5 * np.cos(at))
        pen.oval(out, (1.9, 1.9) if hour % 3 == 0 else (1.1, 1.1), _INK, outline=0)
    pen.both(pen.oval, (38, 59), (2.6, 3.6), _INK, outline=0)
    if loud:
        pen.oval((50, 70), (7.5, 6), "#8c2735", outline=1.4)
    else:
        pen.line([(42, 67), (50, 71), (58, 67)], width=2)
    pen.line([(50, 57), (40, 46)], colour, 2.4)
    pen.line([(50, 57), (59, 39)], colour, 2.4)
    pen.oval((50, 57), (2.4, 2.4), _INK, outline=0)


def _drum_kit(pen: Pen, colour: str, loud: bool) -> None:
    dark, tilt = mix(colour, "#1c0f22", 0.35), 14 if loud else -4
    pen.both(pen.limb, [(88, 24), (86, 94)], "#a9b0b8", 1.4)
    pen.both(pen.limb, [(86, 82), (94, 96)], "#a9b0b8", 1.4)
    pen.both(pen.oval, (86, 23), (13, 3.6), "#f2c53d", turn=-tilt)
    for x, turn in ((33, 8), (67, -8)):
        pen.blob([(x - 14, 38), (x + 14, 38), (x + 12, 54), (x - 12, 54)], colour)
        pen.oval((x, 38), (14.5, 5.5), "#fbf3e4", turn=turn)
    for x in (17, 83):
        pen.line([(x - 7, 84), (x - 8, 97)], width=2.4)
        pen.line([(x + 7, 84), (x + 8, 97)], width=2.4)
        pen.shape([(x - 13, 64), (x + 13, 64), (x + 12, 85), (x - 12, 85)], colour)
        pen.oval((x, 64), (13.5, 4.5), "#fbf3e4")
        pen.line([(x - 12, 82), (x, 84), (x + 12, 82)], "#d5d9de", 2)
    pen.oval((50, 74), (25, 24), dark)
    pen.oval((50, 74), (20, 19), "#fbf3e4")
    star = [
        (50 + r * np.sin(a), 74 - r * np.cos(a))
        for a, r in zip(np.radians(np.arange(0, 360, 36)), [11, 4.6] * 5, strict=True)
    ]
    pen.shape(star, "#f2a541", outline=1.2)
    # One stick on a drum; the other crosses it, or flies out and hits a cymbal.
    pen.limb([(30, 12), (40, 37)], "#d9a066", 1.6)
    pen.limb([(66, 4), (80, 22)] if loud else [(70, 12), (60, 37)], "#d9a066", 1.6)


def _symmetric(top: Point, right: Sequence[Point]) -> list[Point]:
    return [top, *right, *[(100 - x, y) for x, y in reversed(right)]]


def _strings(pen: Pen, xs: Sequence[float], top: float, bottom: float) -> None:
    for x in xs:
        pen.line([(x, top), (x, bottom)], "#f4ead2", 0.5)


def _violin(pen: Pen, colour: str, loud: bool) -> None:
    dark = mix(colour, "#1f0a05", 0.5)
    pen.shape([(46.5, 8), (53.5, 8), (53.5, 46), (46.5, 46)], dark)
    pen.oval((50, 6), (5, 4.5), dark)
    for side, y in ((-1, 9), (1, 12), (-1, 15), (1, 18)):
        pen.limb([(50 + side * 3, y), (50 + side * 8, y)], dark, 1.4)
    right = [(60, 40), (69, 47), (67, 56), (61, 62), (66, 70), (75, 80), (70, 93), (58, 98)]
    pen.blob(_symmetric((50, 39), right), colour)
    pen.blob(
        [(41, 46), (46, 43), (42, 56), (40, 72), (36, 86), (30, 84), (36, 68), (36, 52)],
        mix(colour, _WHITE, 0.25),
        outline=0,
    )
    pen.both(pen.line, [(62, 66), (59, 69), (61, 77), (58, 80)], width=1.6)
    pen.shape([(47, 44), (53, 44), (52.6, 66), (47.4, 66)], _INK, outline=0.8)
    pen.shape([(46, 84), (54, 84), (51.5, 95), (48.5, 95)], _INK, outline=0.8)
    pen.shape([(43, 75), (57, 75), (56, 78), (44, 78)], "#f0c98b", outline=1)
    _strings(pen, (48.2, 49.4, 50.6, 51.8), 8, 84)
    shift = 14 if loud else 0
    pen.limb([(12 + shift, 79), (82 + shift, 55)], "#6b3a1e", 1.6)
    pen.line([(13 + shift, 82), (82 + shift, 59)], "#fdf6e3", 1.4)


def _guitar(pen: Pen, colour: str, loud: bool) -> None:
    dark = mix(colour, "#2b1004", 0.55)
    pen.shape([(46, 14), (54, 14), (54, 50), (46, 50)], "#5b3620")
    for y in range(18, 48, 5):
        pen.line([(46.5, y), (53.5, y)], "#d5d9de", 0.7)
    pen.shape([(44, 1.5), (56, 1.5), (54.5, 15), (45.5, 15)], dark)
    for y in (4, 8, 12):
        pen.both(pen.oval, (57.6, y), (2, 1.5), "#e8e2d0", outline=1)
    right = [(62, 43), (70, 50), (67, 60), (69, 66), (79, 77), (75, 92), (60, 98)]
    pen.blob(_symmetric((50, 43), right), colour)
    inner = [(60, 46), (66, 52), (63, 60), (66, 68), (74, 78), (71, 89), (59, 94)]
    pen.blob(_symmetric((50, 46), inner), mix(colour, _WHITE, 0.2), outline=0)
    pen.oval((50, 65), (10.5, 10.5), "#fbe3b5", outline=1.2)
    pen.oval((50, 65), (8, 8), "#3a1d10", outline=0)
    pen.shape([(46, 40), (54, 40), (54, 57), (46, 57)], "#5b3620", outline=0.8)
    pen.shape([(40, 83), (60, 83), (60, 87), (40, 87)], dark, outline=1)
    _strings(pen, (47.2, 48.3, 49.4, 50.6, 51.7, 52.8), 14, 84)
    if loud:
        pen.both(pen.line, [(60, 60), (64, 65), (60, 70)], "#fff6cf", 1.6)


DRAWINGS: dict[str, tuple[Callable[[Pen, str, bool], None], str]] = {
    "dog": (_dog, "#c98b4e"),
    "cat": (_cat, "#f29b3f"),
    "frog": (_frog, "#58b947"),
    "bird": (_bird, "#f7d233"),
    "baby crying": (_baby, "#7fb4ea"),
    "car": (_car, "#e2463f"),
    "alarm clock": (_alarm_clock, "#d64550"),
    "drum kit": (_drum_kit, "#7a4fc0"),
    "violin": (_violin, "#b5562a"),
    "guitar": (_guitar, "#e0a04a"),
}
"""Category to its drawing and the colour of its main part."""


@lru_cache(maxsize=64)
def sprite(category: str, colour: str, size: int, *, flip: bool, loud: bool) -> NDArray[np.uint8]:
    """Draw a category, ``(size, size, 4)``; colours are multiplied by alpha. Read-only."""
    draw, own = DRAWINGS[category]
    pen = Pen()
    draw(pen, colour or own, loud)
    drawn = pen.canvas[:, ::-1] if flip else pen.canvas
    image = cv2.resize(drawn, (size, size), interpolation=cv2.INTER_AREA).astype(np.uint8)
    image.flags.writeable = False
    return image
