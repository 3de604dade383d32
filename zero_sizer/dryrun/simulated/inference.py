"""Forward and generate on a simulated GPU: transformers' own loop, with a budget of tokens."""

from contextlib import ExitStack
from typing import Any

import torch

from zero_sizer.dryrun.simulated.request import Request
from zero_sizer.dryrun.training_loop import Observer
from zero_sizer.simulator.patches import generation
from zero_sizer.simulator.undo import Patches


class _Held:
    """Stands for an engine: the model is all that it has."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.optimizer = None


def run(request: Request, module: Any, where: Any, observer: Observer) -> None:
    """Brings the model to the GPU and runs ``steps`` requests; init has begun.

    A request's prefill lasts until its second forward begins, and its decode to its end.
    """
    model, engine = _engine(request, module, where)
    observer.end(engine)
    ids = torch.zeros((request.micro_batch, request.seq_len), dtype=torch.long, device=where)
    mask = torch.ones_like(ids)
    follower = _Follower(engine, observer)
    model.register_forward_pre_hook(follower.begins, prepend=True)  # before DeepSpeed fetches
    for step in range(request.steps):
        follower.start(step)
        with torch.no_grad(), ExitStack() as stack:
            if not request.new_tokens:
                found = model(input_ids=ids, attention_mask=mask)
            else:
                patches = Patches()
                stack.callback(patches.undo)
                generation.install(patches, request.new_tokens, [])
                found = model.generate(
                    ids,
                    attention_mask=mask,
                    max_new_tokens=request.new_tokens,
                    do_sample=False,
                    pad_token_id=0,
                    cache_implementation="static" if request.cache == "static" else None,
                )
        observer.end(engine)
        del found


def _engine(request: Request, module: Any, where: Any) -> tuple[Any, Any]:
    if "tensor_parallel" in request.config:
        import deepspeed

        engine = deepspeed.init_inference(module, config=dict(request.config))
        return engine.module.eval(), _Held(engine.module)
    zero = request.config.get("zero_optimization") or {}
    if zero.get("stage") == 3:
        import deepspeed

        engine, *_ = deepspeed.initialize(model=module, config=dict(request.config))
        return engine.module.eval(), engine
    if request.quantization is None:
        module = module.to(where)
    return module, _Held(module)


class _Follower:
    """Tells the observer of a request's phases: the second forward ends the prefill."""

    def __init__(self, engine: Any, observer: Observer) -> None:
        self._engine, self._observer = engine, observer
        self._step = self._begun = 0

    def start(self, step: int) -> None:
        """A request begins."""
        self._step, self._begun = step, 0
        self._observer.begin("prefill", step=step, micro_step=0)

    def begins(self, *_: Any) -> None:
        """A forward begins."""
        self._begun += 1
        if self._begun == 2:
            self._observer.end(self._engine)
            self._observer.begin("decode", step=self._step, micro_step=0)
