"""Where models run: choice of device, batches that fit, memory that runs out, work done ahead."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import pytest
import torch

from pipeline.devices import choose_device
from pipeline.errors import UsageError
from stages.backends.device import (
    ahead,
    halving,
    inference,
)

CPU = torch.device("cpu")


def test_auto_is_the_cpu_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == CPU
    with pytest.raises(UsageError, match=r"cuda:0.*sees no GPU|built without CUDA"):
        choose_device("cuda:0")


def test_auto_is_the_first_gpu_and_a_number_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == torch.device("cuda", 0)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(UsageError, match=r"cuda:2.*sees 2 GPUs; choose one of cuda:0 to cuda:1"):
        choose_device("cuda:2")


@pytest.mark.parametrize(
    ("precision", "dtype"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_arithmetic_is_in_the_format_asked_for_and_keeps_no_gradients(
    precision: str, dtype: torch.dtype
) -> None:
    layer = torch.nn.Linear(2, 2)
    with inference(CPU, precision):  # type: ignore[arg-type]
        made = layer(torch.zeros(1, 2))
    assert made.dtype == dtype
    assert not made.requires_grad


class Small:
    """A device that holds so many items, and remembers what it was asked."""

    def __init__(self, holds: int) -> None:
        self.holds = holds
        self.asked: list[int] = []

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.asked.append(len(items))
        if len(items) > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return [item * 10 for item in items]


def test_a_batch_that_does_not_fit_is_halved_until_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    freed: list[bool] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(True))
    device = Small(holds=2)
    assert halving(range(7), device) == [item * 10 for item in range(7)]
    assert device.asked == [7, 3, 1, 2, 4, 2, 2]
    assert len(freed) == 3, "memory is given back before each smaller try"


def test_one_item_that_does_not_fit_is_the_callers_matter() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        halving([1, 2], Small(holds=0))


def test_another_error_is_not_taken_for_a_lack_of_memory() -> None:
    def wrong(items: Sequence[int]) -> list[int]:
        raise RuntimeError("shapes do not agree")

    with pytest.raises(RuntimeError, match="shapes"):
        halving([1, 2], wrong)


def test_work_is_done_ahead_in_order_and_not_without_bound() -> None:
    made: list[int] = []

    def make(item: int) -> int:
        made.append(item)
        return item

    found = ahead(iter(range(100)), make, depth=3)
    assert next(found) == 0
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.05)
    assert 4 <= len(made) <= 6
    assert list(found) == list(range(1, 100))


def test_an_error_ahead_comes_when_its_turn_comes() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("third")

    found = ahead(items(), str, depth=5)
    assert [next(found), next(found)] == ["1", "2"]
    with pytest.raises(KeyError, match="third"):
        next(found)


def test_who_stops_listening_leaves_no_thread_behind() -> None:
    found = ahead(iter(range(1000)), str)
    next(found)
    found.close()  # type: ignore[attr-defined]  # it is a generator
    assert not [thread for thread in threading.enumerate() if thread.name == "ahead"]
