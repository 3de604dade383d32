"""DeepSpeed's compiled operators, silent.

Their Python halves run as they are and allocate as they do; the kernels would allocate nothing,
and here do nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from zero_sizer.errors import UnsupportedError
from zero_sizer.simulator.tracker import LOCKED, NVME, Tracker


class _Silent:
    """A compiled module whose every function accepts anything and does nothing."""

    def __init__(self, tracker: Tracker) -> None: ...

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


class _Quantizer:
    """ZeRO++'s quantizer: its outputs in its shapes (csrc/quantization/pt_binding.cpp)."""

    Symmetric, Asymmetric = 0, 1

    def __init__(self, tracker: Tracker) -> None: ...

    def quantize(self, values: Any, groups: int, num_bits: int, kind: int) -> list[Any]:
        scales = _scales(values, groups, kind)
        return [values.new_empty(_packed(values.shape, num_bits), dtype=torch.int8), scales]

    def dequantize(self, packed: Any, scales: Any, groups: int, num_bits: int, kind: int) -> Any:
        *rows, last = packed.shape
        return packed.new_empty((*rows, last * (8 // num_bits)), dtype=torch.float16)

    def swizzle_quant(
        self, values: Any, groups: int, num_bits: int, kind: int, *layout: int
    ) -> list[Any]:
        scales = _scales(values, groups, kind)
        return [values.new_empty(values.numel() * num_bits // 8, dtype=torch.int8), scales]

    def quantized_reduction(  # noqa: PLR0913 (DeepSpeed's signature)
        self,
        packed: Any,
        scales: Any,
        in_groups: int,
        out_groups: int,
        num_bits: int,
        kind: int,
        devices_per_node: int,
    ) -> list[Any]:
        *rows, last = packed.shape
        reduced = _scales(packed, out_groups, kind)
        return [packed.new_empty((*rows, last // devices_per_node)), reduced]


def _scales(values: Any, groups: int, kind: int) -> Any:
    """A scale for each group, and an offset beside it where the range is asymmetric."""
    return values.new_empty(
        (groups, 2 if kind == _Quantizer.Asymmetric else 1), dtype=torch.float32
    )


def _packed(shape: Sequence[int], num_bits: int) -> tuple[int, ...]:
    *rows, last = shape
    return (*rows, last * num_bits // 8)


class _AsyncIo:
    """DeepSpeed's asynchronous file access: sizes of the files, and nothing in them."""

    def __init__(self, tracker: Tracker) -> None:
        self._files = _Files(tracker)

    def aio_handle(self, **settings: object) -> "_AioHandle":
        return _AioHandle(self._files)


class _Files:
    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self._sizes: dict[str, tuple[int, int]] = {}

    def write(self, path: str, end: int) -> None:
        """A file that holds ``end`` bytes at least."""
        block, size = self._sizes.get(path, (-1, 0))
        if end > size:
            if block >= 0:
                self.tracker.free(NVME, block, size, size)
            block, _ = self.tracker.allocate(NVME, end)
            self._sizes[path] = (block, end)


class _AioHandle:
    """One queue of reads and writes, all of them done at once."""

    def __init__(self, files: _Files) -> None:
        self._files = files
        self._pending = 0

    def async_pread(self, buffer: Any, path: str, offset: int = 0) -> int:
        self._pending += 1
        return 0

    def async_pwrite(self, buffer: Any, path: str, offset: int = 0) -> int:
        self._files.write(path, offset + buffer.numel() * buffer.element_size())
        self._pending += 1
        return 0

    def sync_pread(self, buffer: Any, path: str, offset: int = 0) -> int:
        return 1

    def sync_pwrite(self, buffer: Any, path: str, offset: int = 0) -> int:
        self.async_pwrite(buffer, path, offset)
        return self.wait()

    def wait(self) -> int:
        done, self._pending = self._pending, 0
        return done

    def new_cpu_locked_tensor(self, numel: int, example: Any) -> Any:
        """Host memory locked page by page: no power of two (csrc/aio/py_lib)."""
        tensor = example.new_empty(numel, device="cpu")
        self._files.tracker.move(tensor.untyped_storage(), LOCKED)
        return tensor

    def free_cpu_locked_tensor(self, tensor: Any) -> bool:
        return True

    def is_pinned(self, buffer: Any) -> bool:
        return self._files.tracker.is_pinned(buffer.untyped_storage())


class _Builder:
    NAME = ""
    name = ""
    module: Any = None

    def load(self, verbose: bool = True) -> Any:
        """The stand-in, bound to the tracker of the accelerator that is set now."""
        from deepspeed.accelerator import get_accelerator

        if self.module is None:
            raise UnsupportedError(f"{self.NAME} cannot be simulated: it needs a compiled operator")
        return self.module(get_accelerator().tracker)

    def builder_available(self) -> bool:
        return True

    def is_compatible(self, verbose: bool = False) -> bool:
        return self.module is not None

    def absolute_name(self) -> str:
        return self.NAME


_MODULES: dict[str, tuple[str, Any]] = {
    "FusedAdamBuilder": ("fused_adam", _Silent),
    "FusedLambBuilder": ("fused_lamb", _Silent),
    "FusedLionBuilder": ("fused_lion", _Silent),
    "CPUAdamBuilder": ("cpu_adam", _Silent),
    "CPUAdagradBuilder": ("cpu_adagrad", _Silent),
    "CPULionBuilder": ("cpu_lion", _Silent),
    "AsyncIOBuilder": ("async_io", _AsyncIo),
    "QuantizerBuilder": ("quantizer", _Quantizer),
}
_BUILDERS: dict[str, type[_Builder]] = {}


def builder(class_name: str) -> type[_Builder]:
    """The builder class DeepSpeed asks its accelerator for."""
    if class_name not in _BUILDERS:
        name, module = _MODULES.get(class_name, (class_name, None))
        fields = {"NAME": name, "name": name, "module": module}
        _BUILDERS[class_name] = type(class_name, (_Builder,), fields)
    return _BUILDERS[class_name]
