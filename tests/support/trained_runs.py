"""Real training runs on CPU ranks, watched: ``python -m support.trained_runs FOLDER RANK RANKS``.

All of them run one after the other in the same processes; each leaves its recordings in a folder of
its own, and ``said.RANK.json`` holds what was printed and how many steps were done.
"""

import contextlib
import io
import json
import os
import sys
from pathlib import Path

import torch

STEPS, FEW, ROWS, TOKENS, ACCUMULATION = 5, 3, 2, 64, 2
MODEL = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
}
CONFIG = {
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "bf16": {"enabled": "auto"},
    "optimizer": {
        "type": "AdamW",
        "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"},
    },
}
STAGE_2 = {**CONFIG, "zero_optimization": {"stage": 2}}
STAGE_3 = {
    **CONFIG,
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 1000},
}
OFFLOADED = {
    **CONFIG,
    "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}},
}


class Tokens(torch.utils.data.Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        ids = torch.arange(TOKENS) + index
        return {"input_ids": ids, "labels": ids}


def train(folder, model, config, *, said=None, steps=FEW, **arguments):
    """A Trainer's run with the callback; returns the steps it did."""
    from transformers import Trainer, TrainingArguments

    from zero_sizer.integrations.transformers import MemoryCallback

    options = {
        "max_steps": steps,
        "per_device_train_batch_size": ROWS,
        "gradient_accumulation_steps": ACCUMULATION,
        "use_cpu": True,
        "bf16": config is not None,
        "deepspeed": config,
        "report_to": [],
        "logging_steps": 2,
        "save_strategy": "no",
        "disable_tqdm": True,
        **arguments,
    }
    args = TrainingArguments(output_dir=str(folder), **options)
    trainer = Trainer(
        model=model(),
        args=args,
        train_dataset=Tokens(),
        eval_dataset=torch.utils.data.Subset(Tokens(), range(8)),
        callbacks=[MemoryCallback(**(said or {}))],
    )
    trainer.train()
    return trainer.state.global_step


def loop(folder):
    """A loop of DeepSpeed's own that runs out of memory in its third step's forward."""
    import deepspeed

    from zero_sizer.integrations.loop import watch

    model, logged = llama(), []
    config = {
        "train_micro_batch_size_per_gpu": ROWS,
        "bf16": {"enabled": True},
        "zero_optimization": {"stage": 1},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
    }
    engine, *_ = deepspeed.initialize(
        model=model, model_parameters=model.parameters(), config=config
    )
    with watch(
        engine,
        output=folder / "memory.json",
        log=lambda metrics, step: logged.append((step, metrics)),
        log_every=1,
    ):
        try:
            for step in range(STEPS):
                if step == 2:
                    model.model.register_forward_pre_hook(_out_of_memory)
                ids = torch.arange(TOKENS).repeat(ROWS, 1)
                engine.backward(engine(input_ids=ids, labels=ids).loss)
                engine.step()
        finally:
            rank = torch.distributed.get_rank()
            (folder / f"logged.{rank}.json").write_text(json.dumps(logged))


def _out_of_memory(*_):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**MODEL))


def pretrained(folder):
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(folder / "model")


def adapted():
    from peft import LoraConfig, get_peft_model

    return get_peft_model(llama(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))


def broken(folder):
    """A run whose memory cannot be read from its fourth phase on."""
    from zero_sizer.integrations import meters

    original, reads = meters.Meter.read, []

    def failing(meter):
        reads.append(meter)
        if len(reads) > 3:
            raise RuntimeError("no such device")
        return original(meter)

    meters.Meter.read = failing
    try:
        return train(folder, llama, STAGE_2)
    finally:
        meters.Meter.read = original


def plain(folder):
    """A run without DeepSpeed: transformers remembers the config of the one before."""
    from transformers.integrations import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()
    os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)
    return train(folder, llama, None, ddp_backend="gloo")


def run(folder, rank):
    reported = {"report_to": ["tensorboard"], "eval_strategy": "steps", "eval_steps": 3}
    runs = {
        "stage 2": lambda at: train(
            at, llama, STAGE_2, steps=STEPS, save_strategy="steps", save_steps=3, **reported
        ),
        "stage 3": lambda at: train(at, lambda: pretrained(folder), STAGE_3),
        "lora": lambda at: train(at, adapted, OFFLOADED),
        "refused": lambda at: train(at, llama, STAGE_2, said={"gpu": "no-such-gpu"}),
        "broken": broken,
        "plain": plain,
        "loop": loop,
    }
    from accelerate.state import AcceleratorState

    found = {}
    for name, start in runs.items():
        AcceleratorState._reset_state(reset_partial_state=True)
        at, text = folder / name, io.StringIO()
        at.mkdir(exist_ok=True)
        steps = error = None
        with contextlib.redirect_stdout(text):
            try:
                steps = start(at)
            except torch.OutOfMemoryError as raised:
                error = str(raised)
        found[name] = {"steps": steps, "error": error, "printed": text.getvalue()}
    (folder / f"said.{rank}.json").write_text(json.dumps(found))


def main(folder, rank, ranks):
    from deepspeed import init_distributed
    from deepspeed.accelerator import get_accelerator

    from zero_sizer.dryrun.launched import cpu

    cpu.prepare(get_accelerator(), "127.0.0.1")
    where = f"file://{folder / 'rendezvous'}"
    init_distributed(dist_backend="gloo", init_method=where, rank=rank, world_size=ranks)
    torch.manual_seed(0)
    if rank == 0:
        llama().save_pretrained(folder / "model")
    torch.distributed.barrier()
    run(folder, rank)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
