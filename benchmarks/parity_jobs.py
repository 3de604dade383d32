"""Jobs to compare: full-width models cut to a few blocks, drawn by kind from a seed.

A job is named ``SEED/NUMBER/KIND``: the same name is the same job, whatever else is drawn.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from zero_sizer import models
from zero_sizer.config import document
from zero_sizer.config.workload import Workload
from zero_sizer.dryrun.truncate import cut_model
from zero_sizer.errors import InputError
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.job.read import Job
from zero_sizer.models.changes import lora, lora_config, quantization
from zero_sizer.models.spec import ModelSpec

MODELS = {  # longest sequence that is tried
    "llama-3-8b": 4096,  # dense, grouped queries
    "llama-2-7b": 4096,  # dense
    "qwen3-4b": 2048,  # query and key norms, tied head
    "gemma-2-9b": 2048,  # soft caps, two kinds of layers
    "gpt2": 1024,  # learned positions, dropout
    "gpt-neox-20b": 2048,  # parallel attention
    "mixtral-8x7b": 2048,  # mixture of experts
    "t5-3b": 1024,  # encoder-decoder
    "bert-large": 512,  # encoder
}
MORE_MODELS = {
    "qwen2.5-0.5b": 2048,  # tied head, biases of queries, keys and values
    "qwen2.5-7b": 2048,
    "mistral-7b": 2048,
    "phi-3-mini": 2048,  # fused projections
    "opt-1.3b": 1024,  # learned positions, biases
    "falcon-7b": 1024,  # one key and value head
    "gemma-2b": 1024,  # a vocabulary larger than the blocks
}
PAIRED = ("gemma-2-9b",)  # two kinds of layers in turn: an odd number is none that there is
BF16_ONLY = ("mixtral-8x7b",)  # torch knows no other shapes of a grouped product
ADAPTED = ("llama-3-8b", "llama-2-7b", "qwen3-4b", "gemma-2-9b", "gpt-neox-20b", *MORE_MODELS)
WORLDS = (1, 2, 2, 2, 3, 4, 4, 4, 8, 8, 16)
FROZEN = ("*.0.*", "*.1.*", "*mlp*", "*attn*", "*embed*", "*norm*", "*wte*")  # patterns of names
KINDS = {  # kind: how often of all
    "plain": 5,  # what is drawn without any of the below
    "buckets": 3,  # buckets below the largest tensor
    "lora": 4,  # an adapter of which nothing was traced
    "qlora": 2,
    "freeze": 2,  # frozen modules without an adapter
    "hpz": 2,  # ZeRO++'s second partition
    "states": 3,  # 16-bit master weights, moments and gradients
    "optimizer": 2,  # other optimizers than AdamW and Lion
    "linear": 2,  # torch's own linear layers at stage 3
    "built": 2,  # stage 3 on a model that was built whole
    "unstated": 2,  # neither attention nor zero.Init nor checkpointing said
    "nvme": 2,  # optimizer states on NVMe
    "reduction": 3,  # gradients in no buffer, not scattered, dealt out, sent in another dtype
    "muon": 2,  # two groups, whole matrices on the way
}
if find_spec("zero_sizer.models.changes.freeze") is None:
    del KINDS["freeze"]


class Case(NamedTuple):
    """One job and what it was drawn as."""

    name: str
    job: Job
    id: str = ""

    def __repr__(self) -> str:
        return self.name


Choose = Callable[[Sequence[Any]], Any]
"""Picks one of several: ``random.choice``, or a property test's drawing."""


def case_of(identity: str) -> Case:
    """The job of a name ``SEED/NUMBER/KIND``."""
    case = draw(random.Random(identity).choice, identity.rpartition("/")[2])
    return case._replace(id=identity)


def cases(seed: int, kinds: Sequence[str]) -> Iterator[Case]:
    """Jobs without end, of these kinds in the proportions of ``KINDS``."""
    number = 0
    weights = [KINDS[kind] for kind in kinds]
    while True:
        identity = f"{seed}/{number}"
        (kind,) = random.Random(identity).choices(list(kinds), weights)
        with suppress(InputError):  # a model of which nothing can be packed
            yield case_of(f"{identity}/{kind}")
        number += 1


def draw(choose: Choose, kind: str = "plain") -> Case:
    """A job of one kind; everything else is drawn alike for all of them."""
    adapts = kind in ("lora", "qlora")
    pool = dict(MODELS) if kind == "plain" else MODELS | MORE_MODELS
    model = choose([name for name in pool if not adapts or name in ADAPTED])
    stage = _stage(choose, kind)
    precision = choose(("bf16", "bf16", "bf16", "fp16", "fp32", "autocast"))
    if kind in ("states", "qlora") or model in BF16_ONLY:
        precision = "bf16"
    offload = choose(("none", "none", "optimizer", "both")) if stage else "none"
    if offload == "both" and stage < 3:
        offload = "optimizer"
    config = _config(choose, kind, stage, precision, offload)
    # without ZeRO DeepSpeed accumulates in the weights' dtype only (engine.py:2322)
    accumulated = choose((None, "fp32")) if stage and precision in ("bf16", "fp16") else None
    if accumulated:
        config["data_types"] = {"grad_accum_dtype": accumulated}
    ranks = choose([n for n in WORLDS if n > 1] if kind == "hpz" else WORLDS)
    if kind == "hpz":
        sizes = [n for n in (2, 4, 8, 16) if ranks % n == 0]
        config["zero_optimization"]["zero_hpz_partition_size"] = choose(sizes or [ranks])
    attention = choose(("flash", "eager", "sdpa") if precision != "fp32" else ("eager", "sdpa"))
    workload: dict[str, Any] = {
        "seq_len": choose([s for s in (256, 512, 1024, 2048, 4096) if s <= pool[model]]),
        "checkpointing": choose((False, True)),
        "attention": attention if model != "t5-3b" else "eager",
        "zero_init": stage == 3 and kind != "built",
    }
    if kind == "unstated":
        workload |= dict.fromkeys(("checkpointing", "attention", "zero_init"))
    blocks = choose((2, 4) if model in PAIRED else (2, 3, 4))
    spec, changes = _model(choose, kind, model, blocks)
    zero = {k: v for k, v in config["zero_optimization"].items() if k != "stage"}
    name = (
        f"{kind} {spec.name}{changes} stage {stage} {precision} accumulated {accumulated} "
        f"offload {offload} ranks {ranks} batch {config['train_micro_batch_size_per_gpu']} x "
        f"{config['gradient_accumulation_steps']} {config['optimizer']['type']} {zero} {workload}"
    )
    job = Job(
        document=document.from_mapping(config),
        model=spec,
        cluster=Cluster(nodes=-(-ranks // 8), gpus_per_node=min(ranks, 8), origins={}),
        workload=Workload(**workload),
        origins={},
    )
    return Case(name, job)


def _stage(choose: Choose, kind: str) -> int:
    match kind:
        case "hpz" | "linear" | "built" | "nvme":
            return 3
        case "buckets" | "states" | "reduction":
            return int(choose((1, 2, 2, 3)))
        case "lora" | "qlora":
            return int(choose((1, 2, 3, 3)))
    return int(choose((0, 1, 2, 3)))


def _model(choose: Choose, kind: str, name: str, blocks: int) -> tuple[ModelSpec, str]:
    """The model, cut, and what packing and freezing make of it, in words."""
    spec, said = cut_model(models.load(name), blocks), ""
    if kind == "qlora":
        packed = choose(("nf4", "nf4,double", "int8"))
        spec = quantization.with_quantization(spec, quantization.read(packed, "--quantization"))
        said += f" packed {packed}"
    if kind in ("lora", "qlora"):
        linear = {tensor.module.rpartition(".")[2] for tensor in spec.parameters}
        pairs = [p for p in ("q_proj+v_proj", "query_key_value", "qkv_proj") if _has(linear, p)]
        targets = choose(["all-linear", *pairs])
        words = f"r={choose((8, 64))},targets={targets}{choose(('', ',dropout=0.05'))}"
        spec = lora.with_adapter(spec, lora_config.read(words, "--adapter"))
    if kind == "freeze":
        names = [tensor.name for tensor in spec.parameters]
        pattern = choose([p for p in FROZEN if any(fnmatchcase(n, p) for n in names)])
        module = import_module("zero_sizer.models.changes.freeze")
        spec = module.with_freeze(spec, module.Freeze((pattern,), "--freeze"))
        said += f" without {pattern}"
    return spec, said


def _has(modules: set[str], targets: str) -> bool:
    return set(targets.split("+")) <= modules


def _config(choose: Choose, kind: str, stage: int, precision: str, offload: str) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": stage, **_buckets(choose, kind, stage)}
    zero |= _offloaded(choose, kind, offload)
    if kind == "linear":
        zero["memory_efficient_linear"] = False
    if kind == "reduction":
        zero |= _reduction(choose, stage)
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": choose((1, 2, 4)),
        "gradient_accumulation_steps": choose((1, 1, 2)),
        "optimizer": {"type": choose(("AdamW", "AdamW", "Lion")), "params": {"lr": 1e-4}},
        "zero_optimization": zero,
    }
    if precision == "autocast":
        config["torch_autocast"] = {"enabled": True, "dtype": choose(("bfloat16", "float16"))}
    elif precision != "fp32":
        config[precision] = {"enabled": True}
    _of_kind(choose, kind, config, offload)
    return config


def _of_kind(choose: Choose, kind: str, config: dict[str, Any], offload: str) -> None:
    """Keys that a kind has beyond those of all."""
    if kind == "optimizer":
        kinds = ({"type": "Lamb"}, {"type": "Adagrad"}, {"type": "SGD"}, {"torch_adam": True})
        _optimizer(config, choose(kinds))
    if kind == "states":
        # on the host 16-bit masters need DeepSpeedCPUAdam, on the GPU 16-bit moments beside them
        held = offload == "none" or choose((False, True))
        config["bf16"] |= {"bf16_master_weights_and_grads": True, "bf16_optimizer_states": held}
        kinds = ({"type": "Lamb"}, {"type": "Lion"}, {"torch_adam": True}, {}, {}, {})
        _optimizer(config, choose(kinds) if offload == "none" else {"type": "AdamW"})
    if kind == "reduction":
        dtype = choose((None, None, None, "fp32"))
        config |= {"communication_data_type": dtype} if dtype else {}
    if kind == "muon":
        zero = config["zero_optimization"]
        _optimizer(config, {"type": "Muon"})
        config["zero_force_ds_cpu_optimizer"] = False
        if zero["stage"] == 3:  # which takes no other
            zero["reduce_scatter"] = False


def _offloaded(choose: Choose, kind: str, offload: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if offload != "none":
        found["offload_optimizer"] = {"device": "cpu"}
    if offload == "both":
        found["offload_param"] = {"device": "cpu"}
    if kind == "nvme":
        found["offload_optimizer"] = _swapped(choose)
        found["sub_group_size"] = choose((10**7, 10**8, 10**9))
    return found


def _swapped(choose: Choose) -> dict[str, Any]:
    """Optimizer states on NVMe, with as many buffers as sub-groups in flight take."""
    ways = choose(((), (), ("pipeline_read",), ("pipeline_read", "pipeline_write")))
    count = 4 * (1 + len(ways))
    on_nvme = {"device": "nvme", "nvme_path": "/nvme", "buffer_count": count}
    return {**on_nvme, **dict.fromkeys(ways, True)}


def _buckets(choose: Choose, kind: str, stage: int) -> dict[str, Any]:
    small = kind == "buckets"
    large, least = (10**7, 10**8, 5 * 10**8), (10**6, 5 * 10**6, 2 * 10**7)
    zero: dict[str, Any] = {"reduce_bucket_size": choose(least if small else large)}
    if stage == 3:
        zero["stage3_prefetch_bucket_size"] = choose((0, 10**7, 5 * 10**7))
        zero["stage3_max_reuse_distance"] = choose((0, 10**9))
        zero["stage3_param_persistence_threshold"] = choose((0, 10**5))
    else:
        zero["overlap_comm"] = choose((False, False, True))
    if small:
        zero["overlap_comm"] = choose((False, True))
        zero["allgather_bucket_size"] = choose((10**7, 5 * 10**8))
        zero["sub_group_size"] = choose((10**7, 10**8, 10**9))
    return zero


def _reduction(choose: Choose, stage: int) -> dict[str, Any]:
    """Ways of reduction: as many are the default's as are not."""
    zero: dict[str, Any] = {
        "contiguous_gradients": choose((False, True)),
        "reduce_scatter": choose((False, True)),
        "reduce_bucket_size": choose((10**6, 2 * 10**7, 10**8, 5 * 10**8)),
        "overlap_comm": choose((False, True)),
    }
    if stage < 3:
        zero["round_robin_gradients"] = choose((False, True))
        zero["use_multi_rank_bucket_allreduce"] = choose((False, True, True))
    return zero


def _optimizer(config: dict[str, Any], choice: dict[str, Any]) -> None:
    params = {"lr": 1e-4}
    if choice.get("torch_adam"):
        params["torch_adam"] = True
    config["optimizer"] = {"type": choice.get("type", "AdamW"), "params": params}
    config["zero_allow_untested_optimizer"] = True
