"""Odd values, and changes to sensible files: all drawn from one ``Random``."""

import contextlib
import copy
import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from support.fuzz_samples import ADAPTER, JOB, LLAMA, SAMPLE

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "deepspeed_configs").rglob("*.json"))
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
    "(?<!x)y", "\\1", "(x)\\1", "all-linear", "{}", "[]", "null", "<<", "&a", "*a",
    "!!python/name:os",
)  # fmt: skip
OTHERS: tuple[Any, ...] = (
    None,
    True,
    False,
    [],
    {},
    [[]],
    [None],
    [1, 2],
    ["a"],
    {"a": 1},
    {"": {}},
)
WORDS = (
    *SAMPLE, *SAMPLE["zero_optimization"], *LLAMA, *ADAPTER, *JOB["cluster"], *JOB["workload"],
    "fp16", "aio", "zenflow", "compile", "scheduler", "train_batch_size", "offload_param",
    "quantization_config", "text_config", "num_layers", "layer_types", "rope_scaling",
)  # fmt: skip


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
    items = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
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
    return (
        data[:where] + random.choice((b"-", b"e999", b"9" * 5000, b"NaN", b"Infinity")) + data[end:]
    )


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
        atoms = (
            "q_proj",
            "layers",
            ".",
            r"\.",
            r"\d+",
            "[a-z]",
            "[^.]",
            r"\w",
            "^",
            "$",
            r"\b",
            "a",
        )
        return random.choice(atoms) if which < 0.18 else random.choice(TEXTS)
    inner = pattern(random, depth - 1)
    if which < 0.45:
        return inner + pattern(random, depth - 1)
    if which < 0.6:
        return f"({inner}|{pattern(random, depth - 1)})"
    if which < 0.85:
        return f"(?:{inner}){random.choice(('*', '+', '?', '*?', '{2,5}', '{0,}', '*+', '{1000}'))}"
    return random.choice(("(?={})", "(?!{})", "(?<={})", "(?>{})", "(?P<g>{})", "(?i:{})")).format(
        inner
    )


def safetensors(random: Random) -> bytes:
    """A file of headers only."""
    header: dict[str, Any] = {}
    for index in range(random.choice((0, 1, 5, 40))):
        name = random.choice(("model.layers.{}.mlp.weight", "h.{}.x", "{}", "a.{}.b.²"))
        header[name.format(random.choice((index, 10**9, "9" * 30, "x")))] = {
            "dtype": random.choice(("BF16", "F32", "F8_E4M3", "U8", "Q4")),
            "shape": [
                random.choice((0, 1, 64, 2**20)) for _ in range(random.choice((0, 1, 2, 3, 9)))
            ],
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
             "w slots=-1", "worker-1 slots=8", "root:x:0:0:", "w slots=٣", " a",
             "\u202ew slots=2")  # fmt: skip
    text = "\n".join(random.choice(parts) for _ in range(random.randint(0, 5)))
    data = text.encode("utf-8", "surrogatepass")
    return damaged(random, data) if random.random() < 0.2 else data


def numbers_model(random: Random) -> str:
    """``params=...`` with odd figures."""
    given = {
        "params": "7e6",
        "layers": "2",
        "hidden": "64",
        "heads": "4",
        "ffn": "128",
        "vocab": "100",
    }
    for key in random.sample(list(given), random.randint(0, 2)):
        given[key] = str(random.choice(NUMBERS + TEXTS))
    return ",".join(f"{key}={item}" for key, item in given.items())


def config_text(random: Random) -> bytes:
    """A DeepSpeed config: a sensible one changed, or one of the examples changed."""
    source = random.random()
    if source < 0.5:
        return as_json(random, mutated(random, SAMPLE))
    path = random.choice(CONFIGS)
    text = path.read_bytes()
    with contextlib.suppress(ValueError):
        return as_json(random, mutated(random, json.loads(text)))
    return damaged(random, text)


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
