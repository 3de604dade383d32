"""Pipeline engines: phases are the instructions of their schedule.

The first stage runs as it is. What a later stage receives is known to the stage before alone: the
layers before it are built aside and asked for its shapes.
"""

import copy
import itertools
from collections.abc import Callable
from typing import Any

import torch

from zero_sizer.errors import UnsupportedError
from zero_sizer.simulator.undo import Patches

Timed = Callable[[str, Any], Any]
_PHASES = {"ForwardPass": "forward", "BackwardPass": "backward", "OptimizerStep": "step"}


def follow(patches: Patches, timed: Timed) -> None:
    """Times what ``PipelineEngine`` does for each instruction.

    Args:
        patches: remembers what stood there.
        timed: a phase of this name around a method.
    """
    from deepspeed.runtime.pipe.engine import PipelineEngine

    instructions = dict(PipelineEngine._INSTRUCTION_MAP)
    for instruction, method in instructions.items():
        name = _PHASES.get(instruction.__name__)
        if name is not None:
            instructions[instruction] = timed(name, method)
    patches.set(PipelineEngine, "_INSTRUCTION_MAP", instructions)
    patches.set(PipelineEngine, "_recv_tensor_meta", _received)


def _received(engine: Any, stage: int) -> Any:
    """Buffers for what stage ``stage`` sends: the shapes of what the layers so far return."""
    if engine.data_iterator is None or engine.is_pipe_partitioned:
        raise UnsupportedError(
            f"stage {engine.stage_id} of the pipeline receives what only stage {stage} knows",
            remedy="simulate a rank of the first stage",
        )
    batch = next(engine.data_iterator)
    engine.set_dataiterator(itertools.chain([batch], engine.data_iterator))
    sent = _passed(engine, batch[0])
    allocate = engine._allocate_or_extend_buffers
    if isinstance(sent, torch.Tensor):
        return allocate(0, list(sent.shape), sent.dtype)
    return tuple(allocate(i, list(part.shape), part.dtype) for i, part in enumerate(sent))


def _passed(engine: Any, inputs: Any) -> Any:
    """``inputs`` behind every layer before this stage, on the meta device."""
    from deepspeed.pipe import LayerSpec

    module = engine.module
    now = _on_meta(inputs)
    with torch.no_grad(), torch.device("meta"):
        for spec in module._layer_specs[: module._local_start]:
            layer = spec.build() if isinstance(spec, LayerSpec) else spec
            if isinstance(layer, torch.nn.Module):
                layer = copy.deepcopy(layer).to("meta")
                layer = layer.to(_dtype(engine)).train()
            forward = getattr(spec, "forward_fn", None)
            now = forward(layer, now) if forward is not None else layer(now)
    return now


def _on_meta(inputs: Any) -> Any:
    if isinstance(inputs, torch.Tensor):
        return inputs.to("meta")
    return tuple(part.to("meta") for part in inputs)


def _dtype(engine: Any) -> Any:
    if engine.fp16_enabled():
        return torch.float16
    return torch.bfloat16 if engine.bfloat16_enabled() else torch.float32
