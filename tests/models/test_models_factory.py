"""Models that a function of the user's returns."""

import sys

import pytest

from zero_sizer import models
from zero_sizer.errors import ZeroSizerError
from zero_sizer.units import DType

FACTORIES = """
import torch
from torch import nn


def good():
    model = nn.Sequential(nn.Embedding(7, 3), nn.Linear(3, 7, bias=False), nn.BatchNorm1d(7))
    model[1].weight = model[0].weight
    model[2].weight.requires_grad_(False)
    return model


def half():
    return nn.Linear(2, 3).to(torch.float16)


def lazy():
    return nn.LazyLinear(3)


def raises():
    raise RuntimeError("no weights\\nhere")


def leaves():
    raise SystemExit(3)


def not_a_module():
    return 3


def no_parameters():
    return nn.ReLU()


def complex_one():
    module = nn.Module()
    module.w = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    return module


def wants_arguments(size):
    return nn.Linear(size, size)


a_number = 3
"""


@pytest.fixture
def factories(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    (tmp_path / "my_factories.py").write_text(FACTORIES)
    (tmp_path / "my_broken.py").write_text("import does_not_exist_anywhere\n")
    (tmp_path / "my_syntax.py").write_text("def f(:\n")
    monkeypatch.chdir(tmp_path)
    yield
    for name in ("my_factories", "my_broken", "my_syntax"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("factories")
def test_a_factory_is_built_on_the_meta_device():
    before = list(sys.path)
    spec = models.load("my_factories:good")
    assert sys.path == before
    assert [(t.name, t.shape, t.trainable, t.module_type) for t in spec.parameters] == [
        ("0.weight", (7, 3), True, "Embedding"),
        ("2.weight", (7,), False, "BatchNorm1d"),
        ("2.bias", (7,), True, "BatchNorm1d"),
    ]
    assert (spec.num_params, spec.num_trainable) == (35, 28)
    assert [(t.name, t.shape, t.dtype) for t in spec.buffers] == [
        ("2.running_mean", (7,), None),
        ("2.running_var", (7,), None),
        ("2.num_batches_tracked", (), DType.INT64),
    ]
    assert models.load("my_factories:half").parameters[0].dtype is DType.FP16


@pytest.mark.usefixtures("factories")
@pytest.mark.parametrize(
    ("reference", "part"),
    [
        ("my_factories:gone", "has no gone"),
        ("my_factories:raises", "RuntimeError: no weights here"),
        ("my_factories:leaves", "SystemExit: 3"),
        ("my_factories:not_a_module", "returned a int"),
        ("my_factories:no_parameters", "no parameters"),
        ("my_factories:lazy", "no shape before the first forward"),
        ("my_factories:complex_one", "complex64"),
        ("my_factories:wants_arguments", "TypeError"),
        ("my_factories:a_number", "is a int, not a function"),
        ("my_broken:f", "cannot import my_broken: ModuleNotFoundError"),
        ("my_syntax:f", "SyntaxError"),
        ("my_missing:f", "cannot import my_missing"),
    ],
)
def test_a_failing_factory_is_one_line(reference, part):
    with pytest.raises(ZeroSizerError) as error:
        models.load(reference)
    assert part in str(error.value)
    assert "\n" not in str(error.value)
