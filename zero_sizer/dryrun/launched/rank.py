"""One rank's training run over one config: a few real steps, measured at every phase boundary."""

import gc
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from deepspeed.accelerator import get_accelerator

from zero_sizer.dryrun import build_model
from zero_sizer.dryrun import training_loop as engine_loop
from zero_sizer.dryrun.launched import cpu, quiet
from zero_sizer.dryrun.launched.watch import StorageWatch, activations
from zero_sizer.dryrun.measure import PinnedStorages, measure
from zero_sizer.dryrun.owners import GPU, Owner
from zero_sizer.dryrun.recording import PhaseRecord, RankRecord
from zero_sizer.dryrun.replies import Report
from zero_sizer.dryrun.task import Task
from zero_sizer.simulator import batches

_NO_GPU_NOTES = (
    "CPU ranks: storages are placed where DeepSpeed would put them on a machine with GPUs",
    "max_allocated follows tensor storages; memory of gloo and of kernels is not seen, and what "
    "was freed within a phase counts as gpu",
)


class Run:
    """One config, from build to the last optimizer step.

    Args:
        task: what to run.
        pinned: pin requests, installed once for the process; None on a real GPU.
        report: told of every phase that ends; None where another rank tells.
    """

    def __init__(
        self, task: Task, pinned: PinnedStorages | None, report: Report | None = None
    ) -> None:
        self._task = task
        self._report = report
        self._pinned = pinned
        self._watch = StorageWatch() if pinned is not None and task.peak else None
        self._phases: list[PhaseRecord] = []
        self._batch: dict[str, Any] = {}
        self._engine: Any = None
        self._at = ("init", 0, 0)

    def record(self) -> RankRecord:
        """Run it and return what this rank saw."""
        gc.collect()
        gc.freeze()  # tensors of earlier runs and of imports are not this run's
        with self._watching():
            self.begin("init")
            self._engine = self._initialize()
            self.end(self._engine)
            feed = build_model.feed_of(self._task)
            engine_loop.train(
                self._engine,
                self._next_batch,
                steps=self._task.steps,
                # 0 where ZenFlow itself says when it steps (zenflow/engine.py:54)
                grad_accum=self._engine.gradient_accumulation_steps() or self._task.grad_accum,
                observer=self,
                loss_of=lambda output, batch: batches.loss_of(output, feed, batch),
            )
        skipped = int(self._engine.skipped_steps)
        notes = (*_NO_GPU_NOTES, *cpu.notes()) if self._pinned is not None else ()
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
        module = build_model.build(self._task, with_values=True)
        client = build_model.client_optimizer(self._task, module)
        if self._watch is not None:
            self._watch.adopt(list(module.parameters()), list(module.buffers()))
        return engine_loop.initialize(self._task.config, module, client)

    def _next_batch(self) -> dict[str, Any]:
        feed, task = build_model.feed_of(self._task), self._task
        if feed is not None:
            where = torch.device(get_accelerator().current_device_name())
            self._batch = build_model.batch(task, where)
            return self._batch
        shape = (self._task.micro_batch, self._task.seq_len)
        device = get_accelerator().current_device_name()
        tokens = torch.randint(0, self._task.vocab or 2, shape, device=device)
        self._batch = {"input_ids": tokens, "labels": tokens.clone()}
        if self._task.hf_config:
            self._batch |= _beside(self._task.sequences, tokens)
        return self._batch

    def begin(self, name: str, *, step: int = 0, micro_step: int = 0) -> None:
        """A phase begins."""
        self._at = (name, step, micro_step)
        if self._watch is not None:
            self._watch.begin(name)
        elif self._pinned is None:
            get_accelerator().reset_peak_memory_stats()

    def end(self, engine: Any) -> None:
        """Ends the phase: counts what is alive."""
        if self._pinned is not None:
            quiet.drain()
            gc.collect()  # a handle that goes now is let go of by gloo before the next barrier
            quiet.drain()
        gc.collect()
        tally = measure(
            engine,
            pinned=self._pinned,
            extra=[Owner(name="batch", category="other", place=GPU, value=self._batch)],
            leftovers=activations(self._watch),
            walk=self._task.walk,
        )
        name, step, micro_step = self._at
        record = PhaseRecord(
            name=name, step=step, micro_step=micro_step, device={}, live=tally.rows()
        )
        device = {place: {"allocated": record.num_bytes(device=place)} for place in (GPU, "host")}
        if self._watch is not None:
            for place, most in self._watch.peak(tally.on_host).items():
                device[place]["max_allocated"] = most
        elif self._pinned is None:
            device[GPU] = _allocator_figures()
        self._phases.append(replace(record, device=device))
        if self._report is not None:
            self._report(len(self._phases), name)


def _allocator_figures() -> dict[str, int]:
    accelerator = get_accelerator()
    return {
        "allocated": int(accelerator.memory_allocated()),
        "max_allocated": int(accelerator.max_memory_allocated()),
        "reserved": int(accelerator.memory_reserved()),
        "max_reserved": int(accelerator.max_memory_reserved()),
    }


def _beside(sequences: str, tokens: torch.Tensor) -> dict[str, Any]:
    """What says that the last token of each sample is padding, or that two samples are packed."""
    if sequences == "equal":
        return {}
    mask = torch.ones_like(tokens)
    if sequences == "padded":
        mask[:, -1] = 0
        return {"attention_mask": mask}
    half = max(tokens.shape[1] // 2, 1)
    return {"position_ids": (mask.cumsum(1) - 1) % half}
