"""One rank's training run over one config: a few real steps, measured at every phase boundary."""

import gc
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

import deepspeed
import torch
from deepspeed.accelerator import get_accelerator

from zero_sizer.witnesses.launched import build
from zero_sizer.witnesses.launched.watch import StorageWatch, activations
from zero_sizer.witnesses.measure import PinnedStorages, measure
from zero_sizer.witnesses.owners import GPU, Owner
from zero_sizer.witnesses.recording import PhaseRecord, RankRecord

_NO_GPU_NOTES = (
    "CPU ranks: storages are placed where DeepSpeed would put them on a machine with GPUs",
    "max_allocated follows tensor storages; memory of gloo and of kernels is not seen, and what "
    "was freed within a phase counts as gpu",
)


class Run:
    """One config, from build to the last optimizer step.

    Args:
        task: see ``task.RankTask``.
        pinned: pin requests, installed once for the process; None on a real GPU.
    """

    def __init__(self, task: Mapping[str, Any], pinned: PinnedStorages | None) -> None:
        self._task = task
        self._workload = task["workload"]
        self._pinned = pinned
        self._watch = StorageWatch() if pinned is not None and task.get("peak", True) else None
        self._walk = task.get("walk", True)
        self._phases: list[PhaseRecord] = []
        self._batch: dict[str, Any] = {}
        self._engine: Any = None

    def record(self) -> RankRecord:
        """Run it and return what this rank saw."""
        gc.collect()
        gc.freeze()  # tensors of earlier runs and imports are not this run's
        try:
            with self._watching():
                self._begin("init")
                self._engine = self._initialize()
                self._boundary("init")
                for step in range(self._task["steps"]):
                    self._optimizer_step(step)
            skipped = int(self._engine.skipped_steps)
        finally:
            gc.unfreeze()
        notes = _NO_GPU_NOTES if self._pinned is not None else ()
        rank = torch.distributed.get_rank()
        return RankRecord(rank=rank, phases=tuple(self._phases), skipped_steps=skipped, notes=notes)

    def close(self) -> None:
        """Let go of the engine, so that the next run in this process starts clean."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.destroy()
        self._batch.clear()
        del engine
        gc.collect()

    def _watching(self) -> AbstractContextManager[Any]:
        return self._watch if self._watch is not None else nullcontext()

    def _initialize(self) -> Any:
        config = dict(self._task["config"])
        source = self._task["model"]
        if self._workload.get("zero_init"):
            with deepspeed.zero.Init(config_dict_or_path=config):
                module = build.model(source, self._workload)
        else:
            module = build.model(source, self._workload)
        if self._watch is not None:
            self._watch.adopt(list(module.parameters()), list(module.buffers()))
        trainable = [param for param in module.parameters() if param.requires_grad]
        client = None
        if "optimizer" not in config:
            # Hugging Face's Trainer makes AdamW itself when the config names no optimizer.
            client = torch.optim.AdamW(trainable, lr=1e-5)
            config["zero_allow_untested_optimizer"] = True
            config.setdefault("zero_force_ds_cpu_optimizer", False)
        engine, *_ = deepspeed.initialize(
            model=module,
            model_parameters=trainable,
            optimizer=client,
            config=config,
            dist_init_required=False,
        )
        return engine

    def _optimizer_step(self, step: int) -> None:
        engine = self._engine
        for micro_step in range(engine.gradient_accumulation_steps()):
            self._batch = self._next_batch()
            self._begin("forward")
            loss = _loss(engine(**self._batch))
            self._boundary("forward", step, micro_step)
            self._begin("backward")
            engine.backward(loss)
            del loss
            self._boundary("backward", step, micro_step)
            self._begin("step")
            engine.step()
        self._boundary("step", step, micro_step)

    def _next_batch(self) -> dict[str, Any]:
        shape = (self._workload["micro_batch"], self._workload["seq_len"])
        device = get_accelerator().current_device_name()
        tokens = torch.randint(0, self._task["model"].get("vocab") or 2, shape, device=device)
        return {"input_ids": tokens, "labels": tokens.clone()}

    def _begin(self, phase: str) -> None:
        if self._watch is not None:
            self._watch.begin(phase)
        elif self._pinned is None:
            get_accelerator().reset_peak_memory_stats()

    def _boundary(self, name: str, step: int = 0, micro_step: int = 0) -> None:
        gc.collect(0)
        tally = measure(
            self._engine,
            pinned=self._pinned,
            extra=[Owner(name="batch", category="other", place=GPU, value=self._batch)],
            leftovers=activations(self._watch),
            walk=self._walk,
        )
        record = PhaseRecord(
            name=name, step=step, micro_step=micro_step, device={}, live=tally.rows()
        )
        device = {place: {"allocated": record.num_bytes(device=place)} for place in (GPU, "host")}
        if self._watch is not None:
            for place, most in self._watch.peak(tally.on_host).items():
                device[place]["max_allocated"] = most
        elif self._pinned is None:
            device[GPU] = _allocator_figures()
        fields = {**vars(record), "device": device}
        self._phases.append(PhaseRecord(**fields))


def _loss(output: Any) -> Any:
    return output if isinstance(output, torch.Tensor) else output.loss


def _allocator_figures() -> dict[str, int]:
    accelerator = get_accelerator()
    return {
        "allocated": int(accelerator.memory_allocated()),
        "max_allocated": int(accelerator.max_memory_allocated()),
        "reserved": int(accelerator.memory_reserved()),
        "max_reserved": int(accelerator.max_memory_reserved()),
    }


def as_json(record: RankRecord) -> dict[str, Any]:
    """A rank's record as JSON values."""
    return asdict(record)
