# ruff: noqa: D102 (the methods are DeepSpeed's; its abstract accelerator documents them)
"""DeepSpeed's accelerator interface in front of the simulated GPU."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

from zero_sizer.simulator import device
from zero_sizer.simulator.operators import kernels
from zero_sizer.simulator.tracker import GPU, Tracker


class Event:
    """A stream event: everything has already happened."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def record(self, stream: object = None) -> None: ...

    def wait(self, stream: object = None) -> None: ...

    def query(self) -> bool:
        return True

    def synchronize(self) -> None: ...

    def elapsed_time(self, end: object) -> float:
        return 1.0


class Stream(Event):
    """A stream that runs at once.

    PyTorch's allocator hands a block back to the stream alone on which it was allocated.
    """

    def wait_stream(self, stream: object) -> None: ...

    def wait_event(self, event: object) -> None: ...

    def record_event(self, event: object = None) -> Event:
        return Event()


class _Generator:
    """A random number generator: nothing is drawn."""

    def set_state(self, state: object) -> None: ...


class SimulatedAccelerator(CPU_Accelerator):  # type: ignore[misc]
    """A GPU as DeepSpeed sees it: asynchronous, with streams and pinned host memory.

    Memory questions are answered by the tracker, so DeepSpeed's own ``see_memory_usage`` prints
    what the simulated rank holds.

    Args:
        tracker: counts the storages; also an attribute.
        capacity: bytes of the GPU; what ``total_memory`` answers.
        local_world_size: devices of the node.
    """

    _torch_pins_host_memory = True

    def __init__(self, tracker: Tracker, *, capacity: int, local_world_size: int) -> None:
        super().__init__()
        self._name = device.NAME
        self._communication_backend_name = "fake"
        self.tracker = tracker
        self._capacity = capacity
        self._local_world_size = local_world_size
        self._streams = [Stream()]

    # A GPU runs behind the program's back; DeepSpeed then uses streams and delayed frees.
    def is_synchronized_device(self) -> bool:
        return False

    def use_host_timers(self) -> bool:
        return True

    def resolves_data_dependency(self) -> bool:
        return False

    def handles_memory_backpressure(self) -> bool:
        return False

    def device_name(self, device_index: int | None = None) -> str:
        return device.NAME if device_index is None else f"{device.NAME}:{device_index}"

    def device(self, device_index: int | None = None) -> Any:
        return nullcontext()

    def current_device(self) -> int:
        return 0

    def current_device_name(self) -> str:
        return f"{device.NAME}:0"

    def device_count(self) -> int:
        return self._local_world_size

    def on_accelerator(self, tensor: Any) -> bool:
        return device.holds(tensor)

    Stream = Stream
    Event = Event

    @contextmanager
    def stream(self, stream: object) -> Iterator[None]:
        outer = self.tracker.stream
        self.set_stream(stream)
        try:
            yield
        finally:
            self.tracker.stream = outer

    def set_stream(self, stream: object) -> None:
        if isinstance(stream, Stream):  # DeepSpeed's of a synchronous device are None
            if stream not in self._streams:
                self._streams.append(stream)
            self.tracker.stream = self._streams.index(stream)

    def current_stream(self, device_index: int | None = None) -> Any:
        return self._streams[self.tracker.stream]

    def default_stream(self, device_index: int | None = None) -> Any:
        return self._streams[0]

    def memory_allocated(self, device_index: int | None = None) -> int:
        return self.tracker.live(GPU)

    def max_memory_allocated(self, device_index: int | None = None) -> int:
        return self.tracker.device_peak(GPU)

    def reset_peak_memory_stats(self, device_index: int | None = None) -> None:
        self.tracker.reset_device_peak()

    reset_max_memory_allocated = reset_peak_memory_stats
    reset_max_memory_cached = reset_peak_memory_stats

    def memory_reserved(self, device_index: int | None = None) -> int:
        return self.tracker.reserved(GPU)

    def max_memory_reserved(self, device_index: int | None = None) -> int:
        return self.tracker.device_peak_reserved()

    memory_cached = memory_reserved
    max_memory_cached = max_memory_reserved

    def empty_cache(self) -> None:
        self.tracker.empty_cache()

    def memory_stats(self, device_index: int | None = None) -> dict[str, int]:
        return {
            "allocated_bytes.all.current": self.tracker.live(GPU),
            "allocated_bytes.all.peak": self.tracker.device_peak(GPU),
            "reserved_bytes.all.current": self.tracker.reserved(GPU),
            "reserved_bytes.all.peak": self.tracker.device_peak_reserved(),
            "num_alloc_retries": 0,
        }

    def total_memory(self, device_index: int | None = None) -> int:
        return self._capacity

    def available_memory(self, device_index: int | None = None) -> int:
        return max(self._capacity - self.tracker.live(GPU), 0)

    def is_fp16_supported(self) -> bool:
        return True

    def get_rng_state(self, device_index: int | None = None) -> Any:
        return torch.empty(0, dtype=torch.uint8)

    def set_rng_state(self, new_state: object, device_index: int | None = None) -> None: ...

    def default_generator(self, device_index: int) -> Any:
        return _Generator()

    def lazy_call(self, callback: Any) -> Any:
        return callback()

    def initial_seed(self) -> int:
        return 0

    def manual_seed(self, seed: int) -> None: ...

    manual_seed_all = manual_seed

    def pin_memory(self, tensor: Any, make_copy: bool = True, match_shape: bool = True) -> Any:
        from deepspeed.accelerator.abstract_accelerator import DeepSpeedAccelerator

        return DeepSpeedAccelerator.pin_memory(self, tensor, make_copy, match_shape)

    def _torch_pin_memory(self, tensor: Any) -> Any:
        return tensor.pin_memory()

    def _torch_empty_pinned(self, tensor: Any, shape: Any) -> Any:
        return tensor.new_empty(shape, pin_memory=True)

    def create_op_builder(self, op_name: str) -> Any:
        return kernels.builder(op_name)()

    def get_op_builder(self, class_name: str) -> Any:
        return kernels.builder(class_name)

    def _typed(self, dtype: Any) -> Any:
        def make(*args: Any) -> Any:
            where = self.current_device_name()
            if len(args) == 1 and not isinstance(args[0], int):
                return torch.tensor(args[0], dtype=dtype, device=where)
            return torch.empty(*args, dtype=dtype, device=where)

        return make

    BFloat16Tensor = property(lambda self: self._typed(torch.bfloat16))
    ByteTensor = property(lambda self: self._typed(torch.uint8))
    DoubleTensor = property(lambda self: self._typed(torch.float64))
    FloatTensor = property(lambda self: self._typed(torch.float32))
    HalfTensor = property(lambda self: self._typed(torch.float16))
    IntTensor = property(lambda self: self._typed(torch.int32))
    LongTensor = property(lambda self: self._typed(torch.int64))
