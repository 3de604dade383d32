"""Inputs that nobody would write, for every reader and command; what each must not do.

A case is drawn from a ``random.Random``: the same seed gives the same case. ``broken`` runs one and
says what is wrong with what happened: an exception that reached the user, an exit code that is not
in the contract, more than a line of error, a character that steers a terminal, JSON that is none,
more than ``SECONDS`` of work, or nonsense that was taken without a word.
"""

import contextlib
import copy
import io
import json
import math
import struct
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from zero_sizer import cli
from zero_sizer.cli.streams import _UNSEEN
from zero_sizer.errors import ZeroSizerError

SECONDS = 5.0
ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "deepspeed_configs").rglob("*.json"))
JOBS = sorted((ROOT / "deepspeed_configs" / "jobs").glob("*.y*ml"))
CLUSTER = ["--gpus-per-node", "8", "--gpu", "h100-80gb"]
CODES = (0, 1, 2, 3)

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
MOE = {
    **LLAMA,
    "model_type": "qwen3_moe",
    "architectures": ["Qwen3MoeForCausalLM"],
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "decoder_sparse_step": 1,
    "head_dim": 16,
}
GPT2 = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
    "vocab_size": 128,
}
T5 = {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "d_model": 64,
    "d_ff": 128,
    "d_kv": 16,
    "num_layers": 2,
    "num_heads": 4,
    "vocab_size": 128,
}
QUANTIZED = {
    **LLAMA,
    "quantization_config": {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "bnb_4bit_use_double_quant": True,
        "llm_int8_skip_modules": ["lm_head"],
    },
}
MODELS = (LLAMA, MOE, GPT2, T5, QUANTIZED)
ADAPTER = {
    "peft_type": "LORA",
    "r": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "target_modules": ["q_proj", "v_proj"],
    "modules_to_save": None,
    "bias": "none",
    "task_type": "CAUSAL_LM",
    "rank_pattern": {"layers.0.self_attn.q_proj": 4},
    "layers_to_transform": [0],
    "layers_pattern": ["layers"],
    "exclude_modules": ["k_proj"],
}
RECORDING = {
    "schema_version": 1,
    "how": "simulated",
    "versions": {"deepspeed": "0.19.8"},
    "world_size": 8,
    "rank": 0,
    "job": {"layers": None, "local_world_size": 8},
    "phases": [
        {
            "name": name,
            "step": 0,
            "micro_step": 0,
            "device": {"gpu": {"allocated": 1000, "max_allocated": 2000}},
            "live": [
                {
                    "name": "p",
                    "category": "parameters",
                    "device": "gpu",
                    "pinned": False,
                    "num_bytes": 512,
                    "num_storages": 1,
                }
            ],
        }
        for name in ("init", "forward", "backward", "step")
    ],
    "log": [],
    "notes": [],
    "rooms": [{"num_bytes": 10**9, "fits": True}],
    "ranks": [],
}
JOB = {
    "model": "gpt2",
    "deepspeed": {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 2}},
    "cluster": {
        "nodes": 1,
        "gpus_per_node": 8,
        "gpu": "h100-80gb",
        "gpu_memory": "80GB",
        "host_memory": "2TiB",
        "nvme": "7TB",
        "matmul_tflops": 400,
    },
    "workload": {
        "seq_len": 1024,
        "micro_batch": 1,
        "grad_accum": 2,
        "checkpointing": True,
        "attention": "sdpa",
        "precision": "bf16",
        "zero_init": True,
    },
    "adapter": {"r": 8, "target_modules": ["c_attn"]},
    "quantization": "nf4",
}
SAMPLE = {
    "train_micro_batch_size_per_gpu": 1,
    "gradient_accumulation_steps": 2,
    "gradient_clipping": 1.0,
    "bf16": {"enabled": True},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "betas": [0.9, 0.95], "eps": 1e-8}},
    "zero_optimization": {
        "stage": 3,
        "reduce_bucket_size": 5e8,
        "stage3_prefetch_bucket_size": 5e7,
        "stage3_param_persistence_threshold": 1e5,
        "stage3_max_live_parameters": 1e9,
        "stage3_max_reuse_distance": 1e9,
        "sub_group_size": 1e9,
        "offload_optimizer": {"device": "cpu", "pin_memory": True, "buffer_count": 4},
        "leaf_module": {"classes": [], "names": ["h.0"], "name_suffixes": []},
    },
    "activation_checkpointing": {"partition_activations": False},
}

NUMBERS: tuple[Any, ...] = (
    0, 1, -1, 2, 3, 7, 8, 127, 1024, 10_000, 2**31, 2**53 + 1, 2**63, 2**64, 2**99, 10**400, 0.0,
    -0.0, 0.5, 1.5, -0.5, 1e-9, 5e8, 1e12, 1e19, 9.9e29, 1e30, 1e300, 1e308, math.inf, -math.inf,
    math.nan,
)  # fmt: skip
TEXTS: tuple[Any, ...] = (
    "", " ", "auto", "none", "None", "cpu", "nvme", "true", "5", "5e8", "-1", "nan", "inf", "1_000",
    "0x10", "\u202eevil", "\x1b[31mred", "a\nb", "\ud800", "\0", "é", "²", "٣", "x" * 300, "." * 40,
    "os:abort", "/etc/shadow", "../../etc/passwd", "bf16", "float32", "torch.bfloat16", "layers",
    "q_proj", "model.layers.0", "(", "(.*)*(.*)*(.*)*x", "(a+)+$", "[", "(?i)x", "a{99999999999}",
    "(?<!x)y", "\\1", "(x)\\1", "all-linear", "{}", "[]", "null", "<<", "&a", "*a", "!!python/name:os",
)  # fmt: skip
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [None], [1, 2], ["a"], {"a": 1}, {"": {}})
WORDS = (
    *SAMPLE, *SAMPLE["zero_optimization"], *LLAMA, *ADAPTER, *JOB["cluster"], *JOB["workload"],
    "fp16", "aio", "zenflow", "compile", "scheduler", "train_batch_size", "offload_param",
    "quantization_config", "text_config", "num_layers", "layer_types", "rope_scaling",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        kind: which reader or command.
        argv: of the command line, or empty where ``call`` is a reader.
        files: name -> bytes, written into the folder first; ``@`` in argv stands for the folder.
        call: a reader to call with the folder.
        nonsense: what must not be taken without a word: part of a key's name, or empty.
    """

    kind: str
    argv: tuple[str, ...] = ()
    files: dict[str, bytes] = field(default_factory=dict)
    call: Callable[[Path], Any] | None = None
    nonsense: str = ""


# Values.


def value(random: Random, depth: int = 0) -> Any:
    """Any JSON value, most often an odd one."""
    which = random.random()
    if which < 0.45:
        return random.choice(NUMBERS)
    if which < 0.75:
        return random.choice(TEXTS)
    if which < 0.9 or depth > 2:
        return copy.deepcopy(random.choice(OTHERS))
    if which < 0.95:
        return [value(random, depth + 1) for _ in range(random.randint(0, 4))]
    return {random.choice(WORDS + TEXTS): value(random, depth + 1) for _ in range(3)}


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value but the root."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [p for key, item in items for p in ((*path, key), *places(item, (*path, key)))]


def mutated(random: Random, original: Any) -> Any:
    """A copy with one to four changes."""
    root = copy.deepcopy(original)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        found = places(root)
        if not found:
            break
        *way, last = random.choice(found)
        parent = root
        for key in way:
            parent = parent[key]
        which = random.random()
        if which < 0.6:
            parent[last] = value(random)
        elif which < 0.7:
            del parent[last]
        elif which < 0.85 and isinstance(parent, dict):
            parent[random.choice(WORDS + TEXTS)] = value(random)
        elif isinstance(parent, list):
            parent += [value(random)] * random.choice((1, 2, 50))
        else:
            parent[last] = random.choice((copy.deepcopy(root), [parent[last]], {"x": parent[last]}))
    return root


def as_json(random: Random, node: Any) -> bytes:
    """JSON text, now and then damaged."""
    text = json.dumps(node, indent=random.choice((None, 1))).encode("utf-8", "surrogatepass")
    return damaged(random, text) if random.random() < 0.15 else text


def damaged(random: Random, data: bytes) -> bytes:
    """Bytes cut, doubled, swapped for others, or wrapped in brackets."""
    where = random.randrange(len(data) + 1)
    end = min(len(data), where + random.randint(0, 20))
    which = random.randrange(7)
    if which == 0:
        return data[:where]
    if which == 1:
        return data[:where] + data[end:]
    if which == 2:
        return data[:end] + data[where:]
    if which == 3:
        return data[:where] + random.randbytes(random.randint(1, 8)) + data[end:]
    if which == 4:
        odd = (b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"//", b"/*", b"#", b",", b"'''", b"\r", b"\\u")
        return data[:where] + random.choice(odd) + data[where:]
    if which == 5:
        return b"[" * random.choice((1, 100, 5000)) + data
    return data[:where] + random.choice((b"-", b"e999", b"9" * 5000, b"NaN", b"Infinity")) + data[end:]


def as_yaml(random: Random, node: Any) -> bytes:
    """YAML text, of which JSON is a part."""
    if random.random() < 0.3:
        return as_json(random, node)
    lines: list[str] = []
    for key, item in node.items() if isinstance(node, dict) else ():
        if isinstance(item, dict) and item:
            lines.append(f"{key}:")
            lines += [f"  {name}: {json.dumps(part)}" for name, part in item.items()]
        else:
            lines.append(f"{key}: {json.dumps(item)}")
    text = "\n".join(lines).encode("utf-8", "surrogatepass")
    return damaged(random, text) if random.random() < 0.25 else text


def adapter(random: Random) -> Any:
    """An adapter's fields, with a pattern more often than not."""
    fields = mutated(random, ADAPTER)
    if random.random() < 0.6 and isinstance(fields, dict):
        key = random.choice(("target_modules", "exclude_modules"))
        fields[key] = pattern(random)
        if random.random() < 0.7:
            for name in ("layers_to_transform", "layers_pattern"):
                fields.pop(name, None)
    if random.random() < 0.2 and isinstance(fields, dict):
        fields[random.choice(("layers_pattern", "modules_to_save"))] = [pattern(random)]
    if random.random() < 0.2 and isinstance(fields, dict):
        fields["rank_pattern"] = {pattern(random): 4}
    return fields


def pattern(random: Random, depth: int = 4) -> str:
    """A regular expression, or nearly."""
    which = random.random()
    if depth == 0 or which < 0.2:
        atoms = ("q_proj", "layers", ".", r"\.", r"\d+", "[a-z]", "[^.]", r"\w", "^", "$", r"\b", "a")
        return random.choice(atoms) if which < 0.18 else random.choice(TEXTS)
    inner = pattern(random, depth - 1)
    if which < 0.45:
        return inner + pattern(random, depth - 1)
    if which < 0.6:
        return f"({inner}|{pattern(random, depth - 1)})"
    if which < 0.85:
        return f"(?:{inner}){random.choice(('*', '+', '?', '*?', '{2,5}', '{0,}', '*+', '{1000}'))}"
    return random.choice(("(?={})", "(?!{})", "(?<={})", "(?>{})", "(?P<g>{})", "(?i:{})")).format(inner)


def safetensors(random: Random) -> bytes:
    """A file of headers only."""
    header: dict[str, Any] = {}
    for index in range(random.choice((0, 1, 5, 40))):
        name = random.choice(("model.layers.{}.mlp.weight", "h.{}.x", "{}", "a.{}.b.²"))
        header[name.format(random.choice((index, 10**9, "9" * 30, "x")))] = {
            "dtype": random.choice(("BF16", "F32", "F8_E4M3", "U8", "Q4")),
            "shape": [random.choice((0, 1, 64, 2**20)) for _ in range(random.choice((0, 1, 2, 3, 9)))],
            "data_offsets": [0, 0],
        }
    if random.random() < 0.5:
        header = mutated(random, header)
    text = as_json(random, header)
    length = len(text) if random.random() < 0.8 else random.choice((0, 2**63, len(text) + 9))
    return struct.pack("<Q", length) + text


def hostfile(random: Random) -> bytes:
    """Hosts with slots, more or less."""
    parts = ("worker-1 slots=8", "worker-2 slots=4", "# c", "", "w slots=0", "w slots=99999999999",
             "w slots=-1", "worker-1 slots=8", "root:x:0:0:", "w slots=٣", "\u202ew slots=2", " a")  # fmt: skip
    text = "\n".join(random.choice(parts) for _ in range(random.randint(0, 5)))
    data = text.encode("utf-8", "surrogatepass")
    return damaged(random, data) if random.random() < 0.2 else data


def numbers_model(random: Random) -> str:
    """``params=...`` with odd figures."""
    given = {"params": "7e6", "layers": "2", "hidden": "64", "heads": "4", "ffn": "128", "vocab": "100"}
    for key in random.sample(list(given), random.randint(0, 2)):
        given[key] = str(random.choice(NUMBERS + TEXTS))
    return ",".join(f"{key}={item}" for key, item in given.items())


# Cases.


def flags(random: Random) -> list[str]:
    """Options with odd values."""
    names = ("--nodes", "--gpus-per-node", "--gpu", "--gpu-memory", "--host-memory", "--nvme",
             "--seq-len", "--micro-batch", "--grad-accum", "--checkpointing-how", "--quantization",
             "--adapter", "--precision", "--attention", "--loss", "--sequences")  # fmt: skip
    sensible = ("1", "2", "8", "2048", "80GB", "2TiB", "nf4", "int8", "every-2", "r=8,targets=c_attn")
    found = []
    for name in random.sample(names, random.randint(0, 3)):
        pool = sensible if random.random() < 0.5 else NUMBERS + TEXTS
        found.append(f"{name}={str(random.choice(pool))[:3000]}".replace("\0", "0"))
    return found


def _config(random: Random) -> bytes:
    source = random.random()
    if source < 0.5:
        return as_json(random, mutated(random, SAMPLE))
    path = random.choice(CONFIGS)
    text = path.read_bytes()
    with contextlib.suppress(ValueError):
        return as_json(random, mutated(random, json.loads(text)))
    return damaged(random, text)


def _output(random: Random) -> list[str]:
    return random.choice(([], [], ["--format=json"], ["--timeline"]))


def check_config(random: Random) -> Case:
    argv = ["check", "@/ds.json", "--model", "gpt2", *CLUSTER, *_output(random)]
    return Case("check: config", tuple(argv), {"ds.json": _config(random)})


def check_flags(random: Random) -> Case:
    argv = ["check", "@/ds.json", "--model", "gpt2", *flags(random), *_output(random)]
    return Case("check: flags", tuple(argv), {"ds.json": json.dumps(SAMPLE).encode()})


def check_job(random: Random) -> Case:
    job: Any = copy.deepcopy(JOB)
    for key in ("adapter", "quantization"):
        if random.random() < 0.7:
            del job[key]
    job = mutated(random, job)
    argv = ["check", "@/job.yaml", *_output(random)]
    return Case("check: job file", tuple(argv), {"job.yaml": as_yaml(random, job)})


def check_model(random: Random) -> Case:
    fields = mutated(random, random.choice(MODELS))
    if isinstance(fields, dict) and fields.get("model_type") not in {m["model_type"] for m in MODELS}:
        fields["model_type"] = "llama"  # others are transformers', which takes its seconds to load
        fields["architectures"] = ["LlamaForCausalLM"]
    files = {"config.json": as_json(random, fields), "ds.json": json.dumps(SAMPLE).encode()}
    argv = ["check", "@/ds.json", "--model", "@/config.json", *CLUSTER, *_output(random)]
    return Case("check: config.json", tuple(argv), files)


def check_adapter(random: Random) -> Case:
    files = {"a.json": as_json(random, adapter(random)), "ds.json": json.dumps(SAMPLE).encode(),
             "config.json": json.dumps(LLAMA).encode()}  # fmt: skip
    argv = ["check", "@/ds.json", "--model", "@/config.json", "--adapter", "@/a.json", *CLUSTER]
    return Case("check: adapter", (*argv, *_output(random)), files)


def check_hostfile(random: Random) -> Case:
    files = {"hosts": hostfile(random), "ds.json": json.dumps(SAMPLE).encode()}
    argv = ["check", "@/ds.json", "--model", "gpt2", "--hostfile", "@/hosts", *_output(random)]
    return Case("check: hostfile", tuple(argv), files)


def check_safetensors(random: Random) -> Case:
    files = {"m.safetensors": safetensors(random), "ds.json": json.dumps(SAMPLE).encode()}
    argv = ["check", "@/ds.json", "--model", "@/m.safetensors", *CLUSTER, *_output(random)]
    return Case("check: safetensors", tuple(argv), files)


def check_numbers(random: Random) -> Case:
    model = numbers_model(random).replace("\0", "0")
    argv = ["check", "@/ds.json", f"--model={model}", *CLUSTER, *_output(random)]
    return Case("check: numbers", tuple(argv), {"ds.json": json.dumps(SAMPLE).encode()})


def crosscheck(random: Random) -> Case:
    files = {"r.json": as_json(random, mutated(random, RECORDING)),
             "ds.json": json.dumps(SAMPLE).encode()}  # fmt: skip
    argv = ["crosscheck", "@/ds.json", "--model", "gpt2", *CLUSTER, "--recording", "@/r.json"]
    return Case("crosscheck: recording", tuple(argv), files)


def choose(random: Random) -> Case:
    config = random.random() < 0.7
    argv = ["choose", *(["@/ds.json"] if config else []), "--model", "params=7e6,layers=2,hidden=64"]
    argv += [*CLUSTER, *flags(random)] if random.random() < 0.7 else CLUSTER
    return Case("choose", (*argv, *random.choice(([], ["--format=json"]))), {"ds.json": _config(random)})


def size(random: Random) -> Case:
    argv = ["size", "@/ds.json", "--model", "params=7e6,layers=2,hidden=64", *CLUSTER]
    argv += [f"--max-nodes={random.choice((1, 2, 4, '0', '-1', 'nan'))}"]
    odd = random.choice(NUMBERS + TEXTS)
    argv += random.choice(([], [f"--tokens={odd}".replace("\0", "0")], [f"--margin={odd}".replace("\0", "0")]))
    return Case("size", (*argv, *random.choice(([], ["--format=json"]))), {"ds.json": _config(random)})


def models(random: Random) -> Case:
    argv = ["models", *random.choice(([], ["--format=json"], [f"--adapter={random.choice(TEXTS)}"]))]
    argv += [f"--profile=params={random.choice(NUMBERS)}"] if random.random() < 0.5 else []
    return Case("models", tuple(word.replace("\0", "0") for word in argv))


def read_document(random: Random) -> Case:
    from zero_sizer.config import document

    return Case("reader: config", (), {"f": _config(random)}, lambda at: document.load(str(at / "f")))


def read_yaml(random: Random) -> Case:
    from zero_sizer import yaml_lines

    data = as_yaml(random, mutated(random, JOB))
    return Case("reader: YAML", (), {"f": data}, lambda at: yaml_lines.load(str(at / "f")))


def read_hostfile(random: Random) -> Case:
    from zero_sizer.hardware import hostfile as reader

    return Case("reader: hostfile", (), {"f": hostfile(random)}, lambda at: reader.read(str(at / "f")))


def read_recording(random: Random) -> Case:
    from zero_sizer.witnesses import recording

    data = as_json(random, mutated(random, RECORDING))
    return Case("reader: recording", (), {"f": data}, lambda at: recording.read(at / "f"))


def read_config_json(random: Random) -> Case:
    from zero_sizer.models.hf_config import read_config

    data = as_json(random, mutated(random, random.choice(MODELS)))
    return Case("reader: config.json", (), {"f": data}, lambda at: read_config(at / "f"))


def read_adapter(random: Random) -> Case:
    from zero_sizer.models import adapter as reader

    data = as_json(random, adapter(random))
    return Case("reader: adapter", (), {"f": data}, lambda at: reader.read(str(at / "f"), "f"))


def read_safetensors(random: Random) -> Case:
    from zero_sizer.models.safetensors import load_safetensors

    data = safetensors(random)
    return Case("reader: safetensors", (), {"f.safetensors": data},
                lambda at: load_safetensors(at / "f.safetensors"))  # fmt: skip


def read_pattern(random: Random) -> Case:
    from zero_sizer.patterns import Budget, Pattern, PatternError

    text, name = pattern(random, 6), random.choice(("model.layers.11.self_attn.q_proj", "a" * 120, ""))

    def match(_: Path) -> None:
        with contextlib.suppress(PatternError):
            Pattern(text, Budget(50_000_000)).matches_all(name)

    return Case("reader: pattern", (), {}, match)


def read_profile(random: Random) -> Case:
    from zero_sizer.profiles import store

    data = as_json(random, mutated(random, random.choice(_profiles())))
    return Case("reader: cached profile", (), {"f": data}, lambda at: store._read(at / "f"))


def _profiles() -> list[Any]:
    if not _PROFILES:
        paths = sorted((ROOT / "zero_sizer" / "profiles" / "data").glob("activations.*.json"))[:1]
        _PROFILES.extend(json.loads(path.read_text()) for path in paths)
    return _PROFILES or [{"schema_version": 3}]


_PROFILES: list[Any] = []

# Nonsense: of a key that holds a number, what no reader may take without a word.


def nonsense(random: Random, *, is_int: bool) -> Any:
    """A negative, infinite or undefined number, a truth value, a text."""
    odd: list[Any] = [-1, -7, math.nan, math.inf, -math.inf, True, False, "5", "many", "-1", [1], {}]
    return random.choice([*odd, 1.5] if is_int else odd)


CONFIG_NUMBERS = {
    "train_micro_batch_size_per_gpu": True,
    "gradient_accumulation_steps": True,
    "gradient_clipping": False,
    "zero_optimization.stage": True,
    "zero_optimization.reduce_bucket_size": True,
    "zero_optimization.stage3_prefetch_bucket_size": True,
    "zero_optimization.stage3_param_persistence_threshold": True,
    "zero_optimization.stage3_max_live_parameters": True,
    "zero_optimization.stage3_max_reuse_distance": True,
    "zero_optimization.sub_group_size": True,
    "zero_optimization.offload_optimizer.buffer_count": True,
    "zero_optimization.zero_hpz_partition_size": True,
}


def nonsense_config(random: Random) -> Case:
    key = random.choice(list(CONFIG_NUMBERS))
    config: Any = copy.deepcopy(SAMPLE)
    *way, last = key.split(".")
    parent = config
    for part in way:
        parent = parent[part]
    parent[last] = nonsense(random, is_int=CONFIG_NUMBERS[key])
    text = json.dumps(config)
    if random.random() < 0.1:  # a key twice
        parent[last] = 1
        text = json.dumps(config).replace(f'"{last}": 1', f'"{last}": 1, "{last}": 1')
    argv = ["check", "@/ds.json", "--model", "gpt2", *CLUSTER, "--format=json"]
    return Case("nonsense: config", tuple(argv), {"ds.json": text.encode()}, nonsense=key)


def nonsense_job(random: Random) -> Case:
    section, key = random.choice((("cluster", "nodes"), ("cluster", "gpus_per_node"),
        ("cluster", "gpu_memory"), ("cluster", "host_memory"), ("cluster", "nvme"),
        ("cluster", "matmul_tflops"), ("workload", "seq_len"), ("workload", "micro_batch"),
        ("workload", "grad_accum")))  # fmt: skip
    job: Any = {k: v for k, v in copy.deepcopy(JOB).items() if k not in ("adapter", "quantization")}
    job[section][key] = nonsense(random, is_int=key != "matmul_tflops")
    text = json.dumps(job).replace("-Infinity", "-.inf").replace("Infinity", ".inf").replace("NaN", ".nan")
    return Case("nonsense: job file", ("check", "@/job.yaml", "--format=json"), {"job.yaml": text.encode()}, nonsense=key)


def nonsense_model(random: Random) -> Case:
    key = random.choice(("hidden_size", "intermediate_size", "num_hidden_layers",
                         "num_attention_heads", "num_key_value_heads", "vocab_size"))  # fmt: skip
    fields = {**LLAMA, key: nonsense(random, is_int=True)}
    files = {"config.json": json.dumps(fields).encode(), "ds.json": json.dumps(SAMPLE).encode()}
    argv = ("check", "@/ds.json", "--model", "@/config.json", *CLUSTER, "--format=json")
    return Case("nonsense: config.json", argv, files, nonsense=key)


def nonsense_adapter(random: Random) -> Case:
    key = random.choice(("r", "lora_alpha", "lora_dropout", "layers_to_transform"))
    odd = nonsense(random, is_int=key in ("r", "layers_to_transform"))
    if key == "layers_to_transform" and odd == [1]:
        odd = [True]
    fields = {**ADAPTER, key: odd}
    files = {"a.json": json.dumps(fields).encode(), "ds.json": json.dumps(SAMPLE).encode(),
             "config.json": json.dumps(LLAMA).encode()}  # fmt: skip
    argv = ("check", "@/ds.json", "--model", "@/config.json", "--adapter", "@/a.json", *CLUSTER, "--format=json")
    return Case("nonsense: adapter", argv, files, nonsense=key)


def nonsense_recording(random: Random) -> Case:
    found: Any = copy.deepcopy(RECORDING)
    node, key = random.choice(((found, "world_size"), (found, "rank"), (found["phases"][0], "micro_step"),
        (found["phases"][1]["device"]["gpu"], "allocated"), (found["phases"][2]["live"][0], "num_bytes"),
        (found["job"], "local_world_size"), (found["rooms"][0], "num_bytes")))  # fmt: skip
    node[key] = nonsense(random, is_int=True)
    files = {"r.json": json.dumps(found).encode(), "ds.json": json.dumps(SAMPLE).encode()}
    argv = ("crosscheck", "@/ds.json", "--model", "gpt2", *CLUSTER, "--recording", "@/r.json", "--format=json")
    return Case("nonsense: recording", argv, files, nonsense=key)


WHOLE = {check_config: 10, check_flags: 4, check_job: 6, check_model: 8, check_adapter: 6,
         check_hostfile: 2, check_safetensors: 3, check_numbers: 3}  # fmt: skip
OTHER = {crosscheck: 3, models: 1}
SEARCHES = {choose: 1, size: 1}
NONSENSE = {nonsense_config: 4, nonsense_job: 2, nonsense_model: 2, nonsense_adapter: 1,
            nonsense_recording: 1}  # fmt: skip
READERS = {read_document: 6, read_yaml: 4, read_hostfile: 3, read_recording: 5, read_config_json: 5,
           read_adapter: 4, read_safetensors: 3, read_pattern: 3, read_profile: 1}  # fmt: skip
GROUPS = {"check": WHOLE, "others": OTHER, "searches": SEARCHES, "nonsense": NONSENSE,
          "readers": READERS}  # fmt: skip


def draw(group: str, seed: int) -> Case:
    """The case of a group and seed."""
    random = Random(f"{group} {seed}")  # noqa: S311 (the same each time)
    makers = GROUPS[group]
    (maker,) = random.choices(list(makers), list(makers.values()))
    return maker(random)


def broken(case: Case, folder: Path) -> str:
    """What is wrong with what happens, empty where nothing is."""
    for name, data in case.files.items():
        (folder / name).write_bytes(data)
    started = time.process_time()
    try:
        wrong = _read(case, folder) if case.call else _run(case, folder)
    except (KeyboardInterrupt, TimeoutError):
        raise
    except BaseException:  # whatever reaches the user
        return traceback.format_exc(limit=-6)
    seconds = time.process_time() - started
    return wrong or (f"took {seconds:.1f} s" if seconds > SECONDS else "")


def _read(case: Case, folder: Path) -> str:
    with contextlib.suppress(ZeroSizerError):
        assert case.call is not None
        case.call(folder)
    return ""


def _run(case: Case, folder: Path) -> str:
    out, err = io.StringIO(), io.StringIO()
    argv = [word.replace("@/", f"{folder}/") if word.startswith("@/") else word for word in case.argv]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code: Any = cli.main(argv)
        except SystemExit as stop:
            code = stop.code
    return said(case, code, out.getvalue(), err.getvalue())


def said(case: Case, code: Any, out: str, err: str) -> str:
    """What is wrong with an answer."""
    if code not in CODES:
        return f"exit code {code}"
    if err.count("\n") > 1 or (err and out) or not (err or out):
        return f"{err.count(chr(10))} lines of error beside {len(out)} characters of answer: {err[:300]}"
    if _UNSEEN.search(out) or _UNSEEN.search(err):
        return "a character that steers a terminal"
    longest = max(map(len, (out + err).split("\n")))
    is_json = "--format=json" in case.argv and bool(out)
    if longest > 4_100 and not is_json:
        return f"a line of {longest} characters"
    answer = json.loads(out, parse_constant=_no_constant) if is_json else {}
    if not case.nonsense or err:
        return ""
    about = [f["key"] + f["message"] for f in answer.get("findings", ())]
    if not any(case.nonsense.rpartition(".")[2] in text for text in about):
        return f"{case.nonsense} was taken without a word"
    return ""


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} in JSON")
