"""The running of models: their number format, batches that fit, and work done ahead.

Which device that is, ``pipeline.devices`` says. torch is imported when a backend opens, never with
a stage's class.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, NoReturn, TypeVar

from pipeline.devices import choose_device

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")
Made = TypeVar("Made")
Precision = Literal["auto", "float32", "float16", "bfloat16"]


def worker_device(setting: str) -> torch.device:
    """Choose the device of a worker; on a CPU each takes one thread, for processes fill it."""
    import torch

    device = choose_device(setting)
    if device.type == "cpu":
        torch.set_num_threads(1)
    return device


@contextlib.contextmanager
def inference(device: torch.device, precision: Precision) -> Iterator[None]:
    """Run what is inside without gradients, in the number format asked for.

    ``auto`` is bfloat16 where a CUDA device has it, float16 where it has not, float32 on a CPU.
    """
    import torch

    dtype = torch.float32
    if precision == "auto" and device.type == "cuda":
        with torch.cuda.device(device):
            dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    elif precision != "auto":
        dtype = getattr(torch, precision)
    lower = dtype is not torch.float32
    with torch.inference_mode(), torch.autocast(device.type, dtype=dtype, enabled=lower):
        yield


def halving(items: Sequence[Item], run: Callable[[Sequence[Item]], list[Made]]) -> list[Made]:
    """Run a batch; when the device is out of memory, free it and run the halves.

    Raises:
        Exception: whatever ``run`` raises, and out of memory for a single item.
    """
    try:
        return run(items)
    except RuntimeError as error:
        if not is_out_of_memory(error) or len(items) < 2:
            raise
    # Outside of the handler: the traceback would keep the failed batch's tensors alive.
    free_memory()
    half = len(items) // 2
    return halving(items[:half], run) + halving(items[half:], run)


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether torch ran out of a device's memory."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def free_memory() -> None:
    """Give cached device memory back."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def ahead(items: Iterable[Item], make: Callable[[Item], Made], depth: int = 2) -> Iterator[Made]:
    """Yield ``make(item)`` in order, made by a thread up to ``depth`` items ahead.

    Decoding and pre-processing release the interpreter, so they run while a model works.

    Raises:
        Exception: what ``make`` raised, when its turn comes; nothing comes after it.
    """
    ready: queue.Queue[Callable[[], Made] | None] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(value: Callable[[], Made] | None) -> bool:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(value, timeout=0.1)
                return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(partial(_give, make(item))):
                    return
        except BaseException as error:  # noqa: BLE001  raised again where it is waited for
            put(partial(_throw, error))
        put(None)

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while (give := ready.get()) is not None:
            yield give()
    finally:
        stopped.set()
        thread.join()


def _give(made: Made) -> Made:
    return made


def _throw(error: BaseException) -> NoReturn:
    raise error
