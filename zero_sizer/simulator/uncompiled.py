"""torch's compiler, left out: what a program compiles runs as it is written.

Importing ``torch._dynamo`` takes seconds, and DeepSpeed, transformers and torch itself touch it
only to say what must not be compiled. Here the package stands in ``sys.modules`` without its
``__init__`` having run; whatever asks for more than is named below runs it then.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from zero_sizer.simulator.undo import Patches

_NAME = "torch._dynamo"
_MARKS = (
    *("disable", "allow_in_graph", "assume_constant_result", "mark_static_address"),
    "graph_break",
)
# Names of what turns fake; only symbolic shapes read them.
_SOURCES = ("ConstantSource", "AttrSource", "EphemeralSource", "RandomValueSource")
_LIGHT = ("config", "external_utils", "_trace_wrapped_higher_order_op")  # need no other module


@contextmanager
def uncompiled() -> Iterator[None]:
    """Inside, nothing is compiled, and torch's compiler is not imported unless it must be."""
    patches = Patches()
    config = _install(patches)
    try:
        with config.patch(disable=True):
            yield
    finally:
        patches.undo()


def compile_nothing() -> None:
    """From now on and to its end, this process is as inside ``uncompiled``."""
    _install(Patches()).disable = True


def _install(patches: Patches) -> Any:
    """Leaves the compiler out; returns its settings."""
    patches.set(torch, "compile", _as_written)
    if _NAME not in sys.modules:
        _Postponed.install()
    return importlib.import_module(f"{_NAME}.config")


class _Never:
    """A class for ``isinstance`` checks and unused arguments."""

    def __init__(self, *args: object) -> None: ...


def _as_written(thing: Any = None, /, *args: Any, **options: Any) -> Any:
    """``torch.compile``, ``torch._dynamo.disable`` and the like, as a function and a decorator."""
    thing = options.get("model", options.get("fn", thing))
    return _as_written if thing is None else thing


class _Postponed:
    """The package before its ``__init__`` runs, and the import hook that notices who needs it."""

    def __init__(self, package: ModuleType) -> None:
        self.package = package
        self.stand_ins = {
            **dict.fromkeys(_MARKS, _as_written),
            "graph_break": lambda *args, **options: None,  # in every step of torch's optimizers
            "trace_rules": SimpleNamespace(clear_lru_cache=lambda: None),
            "eval_frame": SimpleNamespace(OptimizedModule=_Never),
            "__getattr__": self._missing,
        }
        self.source = ModuleType(f"{_NAME}.source")
        vars(self.source).update(dict.fromkeys(_SOURCES, _Never), __getattr__=self._missing_source)

    @classmethod
    def install(cls) -> None:
        """Puts the package where ``import`` finds it."""
        spec = importlib.util.find_spec(_NAME)
        if spec is None:
            return
        postponed = cls(importlib.util.module_from_spec(spec))
        vars(postponed.package).update(postponed.stand_ins)
        sys.modules[_NAME] = torch._dynamo = postponed.package
        sys.modules[postponed.source.__name__] = postponed.source
        sys.meta_path.insert(0, postponed)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """A submodule that needs the package: the package first, which imports most of them."""
        parent, _, child = name.rpartition(".")
        if parent != _NAME or child in _LIGHT:
            return None
        self._run()
        return ModuleSpec(name, _Loaded()) if name in sys.modules else None

    def _missing(self, name: str) -> Any:
        return self._whole(_NAME, name)

    def _missing_source(self, name: str) -> Any:
        return self._whole(self.source.__name__, name)

    def _whole(self, module: str, name: str) -> Any:
        if name.startswith("__"):  # inspect goes through every module
            raise AttributeError(name)
        self._run()
        return getattr(sys.modules[module], name)

    def _run(self) -> None:
        if self not in sys.meta_path:
            return
        sys.meta_path.remove(self)
        del sys.modules[self.source.__name__]
        for name, stand_in in self.stand_ins.items():
            if vars(self.package).get(name) is stand_in:
                delattr(self.package, name)
        spec = self.package.__spec__
        if spec is not None and spec.loader is not None:
            with _disable_current_modes():  # tensors that its modules make are real
                spec.loader.exec_module(self.package)


class _Loaded(Loader):
    """Hands out the module that is there."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to do: it has run."""
