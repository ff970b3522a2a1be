"""ONNX files of a given shape and answer, written by hand: the tests need no package for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_FLOAT = 1
_VARINT, _BYTES = 0, 2


def write_onnx(
    path: Path,
    answer: NDArray[np.float32],
    *,
    takes: Sequence[int | str] = (1, 3, 416, 416),
    gives: Sequence[int | str] | None = None,
    size: int = 3_680_000,
    opset: int = 11,
    operator: str = "Identity",
) -> Path:
    """A network that answers the same to every image, padded to a file of about ``size`` bytes."""
    padding = np.zeros(max(0, size - answer.nbytes) // 4, np.float32)
    graph = [
        _field(1, [_text(1, "answer"), _text(2, "output"), _text(4, operator)]),
        _text(2, "graph"),
        _tensor("answer", answer),
        _tensor("padding", padding),
        _value(11, "images", takes),
        _value(12, "output", gives or answer.shape),
    ]
    model = [_number(1, 6), _field(8, [_number(2, opset)]), _field(7, graph)]
    path.write_bytes(b"".join(model))
    return path


def _tensor(name: str, values: NDArray[np.float32]) -> bytes:
    dims = [_number(1, side) for side in values.shape]
    raw = _key(9, _BYTES) + _varint(values.nbytes) + values.tobytes()
    return _field(5, [*dims, _number(2, _FLOAT), _text(8, name), raw])


def _value(field: int, name: str, shape: Sequence[int | str]) -> bytes:
    dims = [
        _field(1, [_number(1, side) if isinstance(side, int) else _text(2, side)]) for side in shape
    ]
    kind = _field(1, [_number(1, _FLOAT), _field(2, dims)])
    return _field(field, [_text(1, name), _field(2, [kind])])


def _field(number: int, parts: Sequence[bytes]) -> bytes:
    body = b"".join(parts)
    return _key(number, _BYTES) + _varint(len(body)) + body


def _text(number: int, text: str) -> bytes:
    return _field(number, [text.encode()])


def _number(number: int, value: int) -> bytes:
    return _key(number, _VARINT) + _varint(value)


def _key(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(value: int) -> bytes:
    out = []
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
