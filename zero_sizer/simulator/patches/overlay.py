"""Files that a simulated script saves with torch, in a folder of their own.

Nothing is written where the script says; what it loads later from there is what it saved: its
values, and its tensors by shape. Everybody else's files are read as they are.
"""

import io
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes

from zero_sizer.simulator import values
from zero_sizer.simulator.undo import Patches

_MARK = b"simulated torch.save\n"


@contextmanager
def saved_files(patches: Patches) -> Iterator[None]:
    """``torch.save`` and ``torch.load`` meet in a temporary folder, which is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="zero-sizer-saved-") as folder:
        files = _Files(Path(folder))
        patches.set(torch, "save", files.save)
        patches.set(torch, "load", files.loading(torch.load))
        patches.set(torch.serialization, "save", files.save)
        patches.set(torch.serialization, "load", torch.load)
        for name in ("exists", "isfile"):
            patches.set(os.path, name, files.finding(getattr(os.path, name)))
        for name in ("exists", "is_file"):
            patches.set(Path, name, files.finding(getattr(Path, name)))
        yield


class _Files:
    """Path that a script named -> file in the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._saved: dict[str, Path] = {}

    def save(self, obj: Any, f: Any, *args: Any, **kwargs: Any) -> None:
        """``torch.save``."""
        buffer = io.BytesIO()
        buffer.write(_MARK)
        _Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(obj)
        name = _path_of(f)
        if name is None:
            f.write(buffer.getvalue())  # a buffer in memory
            return
        path = self._folder / str(len(self._saved))
        path.write_bytes(buffer.getvalue())
        self._saved[name] = path

    def loading(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """``torch.load``."""

        def load(f: Any, map_location: Any = None, *args: Any, **kwargs: Any) -> Any:
            name = _path_of(f)
            if name in self._saved:
                with self._saved[name].open("rb") as file:
                    return _read(file, map_location)
            if name is None and hasattr(f, "seek"):
                start = f.tell()
                if f.read(len(_MARK)) == _MARK:
                    f.seek(start)
                    return _read(f, map_location)
                f.seek(start)
            return original(f, map_location, *args, **kwargs)

        return load

    def finding(self, original: Callable[..., bool]) -> Callable[..., bool]:
        """Answers whether a file is there, saved ones included."""

        def found(path: Any, *args: Any, **kwargs: Any) -> bool:
            return original(path, *args, **kwargs) or (
                bool(self._saved)
                and isinstance(path, str | os.PathLike)
                and os.path.abspath(path) in self._saved
            )

        return found


def _path_of(f: Any) -> str | None:
    """The absolute path of a name or an open file; None for a buffer in memory."""
    name = f if isinstance(f, str | os.PathLike) else getattr(f, "name", None)
    return os.path.abspath(name) if isinstance(name, str | os.PathLike) else None


class _Pickler(pickle.Pickler):
    """Writes a tensor as its shape, and its value where that is known."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, torch.UntypedStorage | torch.TypedStorage):
            return _no_storage, (obj.nbytes(),)
        if not isinstance(obj, torch.Tensor):
            return NotImplemented
        known = values.of(obj) if type(obj) is FakeTensor else obj  # a real one: a random state
        with _disable_current_modes():
            told = None if known is None else known.tolist()
        is_parameter = isinstance(obj, torch.nn.Parameter)
        described = (tuple(obj.shape), obj.stride(), obj.dtype, str(obj.device), told)
        return _rebuilt, (*described, is_parameter, obj.requires_grad)


def _no_storage(num_bytes: int) -> Any:
    return torch.empty(num_bytes, dtype=torch.uint8).untyped_storage()


def _rebuilt(  # noqa: PLR0913 (what pickle keeps of a tensor)
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    dtype: Any,
    where: str,
    told: Any,
    is_parameter: bool,
    requires_grad: bool,
) -> Any:
    place = _Unpickler.place(where)
    tensor = torch.empty_strided(shape, stride, dtype=dtype, device=place)
    if told is not None:
        tensor = torch.tensor(told, dtype=dtype, device=place).reshape(shape)
    if is_parameter:
        return torch.nn.Parameter(tensor, requires_grad)
    return tensor.requires_grad_(requires_grad)


class _Unpickler:
    """Where the tensors of the file that is being read go."""

    map_location: Any = None

    @classmethod
    def place(cls, where: str) -> Any:
        """The device for a tensor saved from device ``where``."""
        chosen = cls.map_location
        if isinstance(chosen, dict):
            chosen = chosen.get(where, where)
        elif callable(chosen):  # of a storage and where it lay; most lambdas mean the host
            chosen = "cpu"
        return torch.device(where if chosen is None else chosen)


def _read(file: Any, map_location: Any) -> Any:
    if file.read(len(_MARK)) != _MARK:
        raise pickle.UnpicklingError("not a file that this simulated run saved")
    before, _Unpickler.map_location = _Unpickler.map_location, map_location
    try:
        return pickle.load(file)  # noqa: S301 (written by this process)
    finally:
        _Unpickler.map_location = before
