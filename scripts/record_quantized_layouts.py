"""Writes ``tests/data/quantized_layouts.json``: tensors of quantized layers, as packages make them.

    python scripts/record_quantized_layouts.py

Needs bitsandbytes 0.50.2, gptqmodel 7.7.0 and autoawq 0.2.9 (``pip install --no-deps`` will do),
none of which the tests need. bitsandbytes quantizes random weights on a CPU; the others' layers are
made empty, in the layout that they load a checkpoint into, as is transformers' layer of fp8.
"""

import json
import warnings
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

TARGET = Path(__file__).resolve().parent.parent / "tests" / "data" / "quantized_layouts.json"
SHAPES = ((96, 256), (1024, 4096), (4096, 11008), (130, 70), (25, 33))  # outputs, inputs


def bitsandbytes(shape: tuple[int, int]) -> Iterator[tuple[str, list[torch.Tensor]]]:
    """Codes, and what ``QuantState`` keeps."""
    from bitsandbytes import functional

    weight = torch.randn(shape)
    codes, scales, _ = functional.int8_vectorwise_quant(weight.half())
    yield "int8", [codes, scales]
    for kind in ("nf4", "fp4"):
        for double in (False, True):
            codes, state = functional.quantize_4bit(
                weight, quant_type=kind, compress_statistics=double, blocksize=64
            )
            tensors = [codes, state.absmax, state.code]
            if double:
                tensors += [state.offset, state.state2.absmax, state.state2.code]
            yield f"{kind},double" if double else kind, tensors


def gptq(shape: tuple[int, int]) -> Iterator[tuple[str, list[torch.Tensor]]]:
    """Buffers of gptqmodel's layer in plain torch."""
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear

    for bits in (2, 3, 4, 8):
        for group in (128, 64, -1):
            if shape[0] % 32 or shape[1] % 32 or (group > 0 and shape[1] % group):
                continue
            made = TorchLinear(
                bits=bits, group_size=group, sym=True, desc_act=False, bias=False,
                in_features=shape[1], out_features=shape[0], pack_dtype=torch.int32,
                register_buffers=True,
            )  # fmt: skip
            names = ("qweight", "qzeros", "scales", "g_idx")
            yield f"gptq,bits={bits},group={group}", [getattr(made, name) for name in names]


def awq(shape: tuple[int, int]) -> Iterator[tuple[str, list[torch.Tensor]]]:
    """Buffers of AutoAWQ's layer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from awq.modules.linear.gemm import WQLinear_GEMM

    for group in (128, 64, 32, -1):
        if shape[0] % 8 or (group > 0 and shape[1] % group):
            continue
        made = WQLinear_GEMM(4, group, shape[1], shape[0], False, "cpu")
        yield f"awq,bits=4,group={group}", [*made.buffers()]


def fp8(shape: tuple[int, int]) -> Iterator[tuple[str, list[torch.Tensor]]]:
    """Parameters of transformers' layer."""
    from transformers.integrations.finegrained_fp8 import FP8Linear

    made = FP8Linear(shape[1], shape[0], block_size=(128, 128))
    yield "fp8", [made.weight, made.weight_scale_inv]


def record() -> dict[str, Any]:
    """Everything, and which version of each package said it."""
    layers = [
        {
            "how": how,
            "shape": list(shape),
            "tensors": [[list(t.shape), str(t.dtype).removeprefix("torch.")] for t in tensors],
        }
        for make in (bitsandbytes, gptq, awq, fp8)
        for shape in SHAPES
        for how, tensors in make(shape)
    ]
    names = ("bitsandbytes", "gptqmodel", "autoawq", "transformers", "torch")
    return {"versions": {name: _version(name) for name in names}, "layers": layers}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # from its sources
        import importlib

        return str(importlib.import_module(name).__version__)


if __name__ == "__main__":
    found = record()
    rows = ",\n".join("  " + json.dumps(layer) for layer in found["layers"])
    head = json.dumps(found["versions"])
    TARGET.write_text(f'{{"versions": {head},\n "layers": [\n{rows}\n]}}\n', encoding="utf-8")
    print(f"wrote {TARGET.name}: {len(found['layers'])} layers")
