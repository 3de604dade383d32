"""DeepSpeed's compiled operators, silent.

Their Python halves run as they are and allocate as they do; the kernels would allocate nothing,
and here do nothing.
"""

from collections.abc import Callable
from typing import Any


class _Silent:
    """A compiled module whose every function accepts anything and does nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


class _Builder:
    NAME = ""
    name = ""
    module: Any = None

    def load(self, verbose: bool = True) -> Any:
        return type(self).module()

    def builder_available(self) -> bool:
        return True

    def is_compatible(self, verbose: bool = False) -> bool:
        return True

    def absolute_name(self) -> str:
        return self.NAME


class _Missing(_Builder):
    def is_compatible(self, verbose: bool = False) -> bool:
        return False

    def load(self, verbose: bool = True) -> Any:
        raise NotImplementedError(f"{self.NAME} has no silent stand-in on the simulated device")


def _make(class_name: str, name: str, module: Any) -> type[_Builder]:
    return type(class_name, (_Builder,), {"NAME": name, "name": name, "module": module})


_BUILDERS: dict[str, type[_Builder]] = {
    "FusedAdamBuilder": _make("FusedAdamBuilder", "fused_adam", _Silent),
    "FusedLambBuilder": _make("FusedLambBuilder", "fused_lamb", _Silent),
    "FusedLionBuilder": _make("FusedLionBuilder", "fused_lion", _Silent),
    "CPUAdamBuilder": _make("CPUAdamBuilder", "cpu_adam", _Silent),
    "CPUAdagradBuilder": _make("CPUAdagradBuilder", "cpu_adagrad", _Silent),
    "CPULionBuilder": _make("CPULionBuilder", "cpu_lion", _Silent),
}


def builder(class_name: str) -> type[_Builder]:
    """The builder class DeepSpeed asks its accelerator for."""
    if class_name not in _BUILDERS:
        _BUILDERS[class_name] = type(
            class_name, (_Missing,), {"NAME": class_name, "name": class_name}
        )
    return _BUILDERS[class_name]
