"""A block of which parts are frozen or adapted: names, and layers that belong together."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from math import prod

from zero_sizer.activations.levels import ComposedPart, PartLevels
from zero_sizer.activations.lora import Adapted, Sizes
from zero_sizer.activations.structure import rotated_share
from zero_sizer.models.changes.lora import PREFIX
from zero_sizer.models.changes.quantization import BLOCK
from zero_sizer.models.changes.records import Quantization
from zero_sizer.models.spec import ModelSpec, Tensor
from zero_sizer.units import DType, ceil_div, num_bytes, round_up
from zero_sizer.util.identity import Identity

SAVED = "modules_to_save.default"
_A, _B = ".lora_A.default.weight", ".lora_B.default.weight"
# Layers that are handed the same input (transformers 5.23, the families' attention and MLP).
_TOGETHER = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("query", "key", "value")
# T5's, by the module around: keys and values of cross attention are made of the encoder's output.
_OF_T5 = {"SelfAttention": ("q", "k", "v"), "EncDecAttention": ("k", "v")}
_PARALLEL = {
    "phi": (("q_proj", "k_proj", "v_proj", "fc1"),),
    "falcon": (("query_key_value", "dense_h_to_4h"),),
    "gptj": (("q_proj", "k_proj", "v_proj", "fc_in"),),
}
_APART = {ends for groups in _PARALLEL.values() for ends in groups}  # in modules of their own
# What runs beside attention is handed the block's input, too (``use_parallel_residual``).
_BESIDE = {
    "gpt_neox": ("post_attention_layernorm", "dense_h_to_4h", "dense_4h_to_h"),
    "falcon": ("dense_h_to_4h", "dense_4h_to_h"),
    "phi": ("fc1", "fc2"),
    "gptj": ("fc_in", "fc_out"),
}
_LINEAR = ("Linear", "Conv1D", "Embedding")  # ends of classes' names; a tied head is an Embedding
_HEADS = ("lm_head", "embed_out", "cls.predictions.decoder")
_PUT_TOGETHER = ("phi3",)
_PARALLEL_KEYS = ("use_parallel_residual", "parallel_attn")
_JOIN = ("o_proj", "down_proj", "dense", "dense_4h_to_h", "out_proj", "fc2", "c_proj")
_SANDWICH = "pre_feedforward_layernorm"  # outputs are normalized before they are added
_BLOCK = 512  # what torch rounds storages up to


class _Names:
    """A model's tensors by block and by name.

    Args:
        spec: the model.

    Attributes:
        start: what an adapter puts before every name.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self.start = PREFIX if spec.adapter is not None else ""
        self._rows = {t.name.removeprefix(self.start): t for t in spec.parameters}
        self._own = {t.name: t for t in (spec.base or spec).parameters}
        self._trained: dict[str, dict[int, frozenset[str]]] = {}

    def below(self, prefix: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The model's and the base's below a prefix, without it."""
        cut = len(prefix)
        rows, own = (
            {name[cut:]: t for name, t in of.items() if name.startswith(prefix)}
            for of in (self._rows, self._own)
        )
        return rows, own

    def trained(self, blocks: str) -> dict[int, frozenset[str]]:
        """Names of what is trained in each block."""
        if blocks not in self._trained:
            found: dict[int, set[str]] = {}
            prefix = f"{blocks}."
            for name, tensor in self._rows.items():
                if name.startswith(prefix):
                    number, _, rest = name[len(prefix) :].partition(".")
                    trained = found.setdefault(int(number), set())
                    trained.update({rest} if tensor.trainable else ())
            self._trained[blocks] = {number: frozenset(names) for number, names in found.items()}
        return self._trained[blocks]


@lru_cache(maxsize=64)
def _names(spec: Identity) -> _Names:
    return _Names(spec.of)


def pieces(spec: ModelSpec, part: PartLevels, *, is_first_apart: bool) -> Iterator[PartLevels]:
    """The part, cut where other tensors are trained than in the block before.

    ``is_first_apart``: it is cut behind the first block that trains something, too, whose input
    carries no gradient.
    """
    if not part.blocks:
        yield part
        return
    trained = _names(Identity(spec)).trained(part.blocks)
    first = part.first
    for index in range(part.first, part.first + part.count):
        is_last = index + 1 == part.first + part.count
        is_apart = is_first_apart and bool(trained.get(index))
        if is_last or is_apart or trained.get(index + 1) != trained.get(index):
            yield ComposedPart.like(part, blocks=range(first, index + 1))
            first = index + 1
            is_first_apart = is_first_apart and not is_apart


def rules_of(spec: ModelSpec, blocks: str, first: int) -> "Rules":
    """Rules of one block, or of what lies outside of them."""
    return _rules(Identity(spec), f"{blocks}.{first}." if blocks else "")


@lru_cache(maxsize=256)
def _rules(spec: Identity, prefix: str) -> "Rules":
    return Rules(spec.of, prefix)


class Rules:
    """Names, tensors and training of one block, or of what lies outside of blocks.

    Args:
        spec: the model.
        prefix: of the block's names, with a dot at its end; empty outside.

    Attributes:
        start: what names outside of blocks begin with here.
        spec: the model.
        rows: its tensors there, by name without the prefix.
        own: the base's.
        adapted: layers under an adapter, by the base's names.
        beside: ends of names of layers that run beside attention, where it runs in parallel.
    """

    def __init__(self, spec: ModelSpec, prefix: str) -> None:
        names = _names(Identity(spec))
        self.spec = spec
        self._blocks_start = names.start
        self._family = spec.arch.family
        self.beside = _BESIDE.get(self._family, ())
        self.rows, self.own = names.below(prefix)
        self.start = "" if prefix else names.start
        self._is_block = bool(prefix)
        self._modules = {name.rpartition(".")[0] for name in self.rows}
        self.adapted = dict(self._adapted())
        self._renamed: dict[str, list[str]] = {}
        self._groups: dict[tuple[str, ...], dict[str, list[str]]] = {}

    def _adapted(self) -> Iterator[tuple[str, Adapted]]:
        drops = self.spec.adapter is not None and self.spec.adapter.lora_dropout > 0
        is_sandwich = any(_SANDWICH in name for name in self.own)
        for name, tensor in self.rows.items():
            if name.endswith(_A):
                module = name.removesuffix(_A)
                rank, into = tensor.shape
                out = self.rows[module + _B].shape[0]
                is_late = module.rpartition(".")[2] in _JOIN
                how = (rank, drops, is_late and not is_sandwich, is_late)
                yield module, Adapted(self.start + module, into, out, *how)

    def blocks_of(self, blocks: str) -> str:
        """Name of a list of blocks in the changed model."""
        return self._blocks_start + blocks if blocks else ""

    def opens(self) -> list[str]:
        """Words of what is around the base."""
        return [f"~{self._blocks_start.removesuffix('.')}"] if self._blocks_start else []

    def trains(self, run: list[str], gradients: Iterable[str]) -> bool:
        """True if anything is trained in the block, or in a part outside of blocks.

        Args:
            run: modules of the part in the order in which they run forward.
            gradients: of the base, that its backward completes; a tied tensor goes by another name
                than the module that runs (T5's embeddings are ``shared``).
        """
        trained = [name for name, tensor in self.rows.items() if tensor.trainable]
        if self._is_block:
            return bool(trained)
        if any(name.startswith(f"{module}.") for name in trained for module in run):
            return True
        return any(map(self.completed, gradients))

    def without_gradient(self, run: list[str]) -> frozenset[str]:
        """Modules whose input carries no gradient where nothing before the block is trained.

        Args:
            run: modules in the order in which they run forward.
        """
        if not self._is_block:
            return frozenset()
        found = set(self._until_trained(run))
        for name in tuple(found):
            found.update(self.group(name))
        if self.is_parallel:
            beside = [n for n in run if n.rpartition(".")[2] in self.beside]
            found.update(self._until_trained(beside))
        return frozenset(found)

    @property
    def copies_outputs(self) -> bool:
        """True if the layer after attention is handed a copy of what attention keeps.

        Heads that are rotated in part are put together again (torch.cat; Phi-3's always are),
        which lays heads before tokens, and so does attention with its output.
        """
        share = rotated_share(self.spec.hf_config, self._family)
        return self._family in _PUT_TOGETHER or bool(share != 1.0)

    @property
    def is_parallel(self) -> bool:
        """True if attention and what runs ``beside`` it are added up before the residual."""
        fields = self.spec.hf_config
        return bool(self.beside) and all(fields.get(key, True) for key in _PARALLEL_KEYS)

    def _until_trained(self, run: list[str]) -> Iterator[str]:
        """Modules in their order, to the first that is trained or adapted."""
        for name in run:
            yield name
            if name in self.adapted or self.is_trained(f"{name}.weight"):
                return

    def is_trained(self, name: str) -> bool:
        """True if the base's tensor ``name`` is trained: itself, a copy or a tied embedding."""
        if self.tied(name.removesuffix(".weight")) is not None and name not in self.rows:
            shared = self.rows.get(next(iter(self.own)))
            if shared is not None and shared.trainable:
                return True
        return any(
            tensor is not None and tensor.trainable
            for tensor in map(self.rows.get, self._candidates(name))
        )

    def _candidates(self, name: str) -> Iterator[str]:
        module, _, key = name.rpartition(".")
        yield name
        yield f"{module}.base_layer.{key}"
        yield from self._copies(name)

    def _copies(self, name: str) -> Iterator[str]:
        parts = name.split(".")
        for depth in range(1, len(parts)):
            yield ".".join((*parts[:depth], SAVED, *parts[depth:]))

    def completed(self, name: str) -> str:
        """Name of the gradient of the base's tensor ``name``; empty: there is none."""
        for candidate in self._candidates(name) if name else ():
            tensor = self.rows.get(candidate)
            if tensor is not None and tensor.trainable:
                return self.start + candidate
        return ""

    def completed_by(self, tokens: list[str]) -> str:
        """The gradient of a trained copy of a tied layer, which the base has none of."""
        for token in tokens:
            if token.startswith("^") and token.endswith(SAVED):
                name = token[1:].removeprefix(self.start)
                original = name.removesuffix(f".{SAVED}") + ".weight"
                if f"{name}.weight" in self.rows and original not in self.own:
                    return f"{self.start}{name}.weight"
        return ""

    def renamed(self, token: str) -> list[str]:
        """A word of the base's ``runs`` here."""
        found = self._renamed.get(token)
        if found is None:
            found = self._renamed[token] = self._word(token)
        return found

    def _word(self, token: str) -> list[str]:
        name = token.lstrip("~/^")
        mark = token[: len(token) - len(name)]
        for copy in self._copies(f"{name}."):
            copied = copy.removesuffix(".")
            if copied in self._modules:
                holder = copied.partition(f".{SAVED}")[0]
                around = [f"~{self.start}{holder}"] if holder == name and not mark else []
                return [*around, f"{mark}{self.start}{copied}"]
        if name == ".":
            return [token]
        return [f"{mark}{self.start}{name}"]

    def tied_bytes(self, of: Sizes) -> int:
        """The head's gradient of a tied weight, which waits for the embedding's; 0 where none."""
        if not self.spec.arch.tied_embeddings or not self.own:
            return 0
        name, tensor = next(iter(self.own.items()))
        if self.rows.get(name) is not None and self.rows[name].trainable:
            return 0
        return round_up(num_bytes(tensor.numel, of.held), _BLOCK)

    def scratch(self, tokens: list[str], of: Sizes) -> int:
        """Bytes of what the largest packed product takes for a moment where these modules run."""
        if self.spec.quantization is None:
            return 0
        how, found = self.spec.quantization, 0
        for token in tokens:
            if not token.startswith(("~", "/", "^~")):
                name = token.lstrip("^").removeprefix(self.start)
                tensor = self.rows.get(f"{name}.weight")
                if tensor is not None and tensor.unpacked is not None:
                    if len(tensor.unpacked) != 2:  # numbers tell no widths
                        size = num_bytes(prod(tensor.unpacked), of.dtype)
                    elif how.bits == 4:
                        size = _in_4_bits(tensor, of, how, is_backward=token.startswith("^"))
                    elif token.startswith("^"):
                        size = num_bytes(prod(tensor.unpacked), of.dtype)
                    else:
                        size = _in_8_bits(tensor, of)
                    found = max(found, size)
        return found

    def shared_gradient(self, token: str, of: Sizes) -> int:
        """Bytes that a tied head's backward makes in the base, and not here."""
        return self.tied_bytes(of) if token.startswith("^") and self.tied(token[1:]) else 0

    def is_first(self, name: str, run: list[str]) -> bool:
        """True if the layer's backward is the first of those with its input.

        Args:
            name: of the layer.
            run: modules in the order in which they run forward.
        """
        together = self.group(name)
        group = [other for other in run if other in together]
        return not group or group[-1] == name

    def group(self, name: str) -> tuple[str, ...]:
        """Linear layers that are handed the same input, by name."""
        around, _, end = name.rpartition(".")
        of_t5 = _OF_T5.get(around.rpartition(".")[2], ()) if self._family == "t5" else ()
        for ends in (*_PARALLEL.get(self._family, ()), *_TOGETHER, of_t5):
            if end in ends:
                if ends not in self._groups:
                    self._groups[ends] = self._named(ends)
                return tuple(self._groups[ends].get("" if ends in _APART else around, ()))
        return (name,)

    def _named(self, ends: tuple[str, ...]) -> dict[str, list[str]]:
        """Modules that end so, by the one around them but for layers that run in parallel."""
        found: dict[str, list[str]] = {}
        for tensor in self.own:
            module, _, kind = tensor.rpartition(".")
            around, _, end = module.rpartition(".")
            if end in ends and kind == "weight":
                found.setdefault("" if ends in _APART else around, []).append(module)
        return found

    def tied(self, name: str) -> Tensor | None:
        """The embedding's tensor, where the module is the head that shares it."""
        is_head = self.spec.arch.tied_embeddings and name in _HEADS
        return next(iter(self.own.values())) if is_head else None

    def is_linear(self, name: str) -> bool:
        """True if the layer calls torch's linear, which ZeRO-3 replaces; Falcon's does not."""
        tensor = self.own.get(f"{name}.weight") or self.tied(name)
        return tensor is not None and tensor.module_type in ("Linear", "Embedding")

    def is_product(self, name: str) -> bool:
        """True if the module multiplies by its weight: an embedding does as a tied head only."""
        tied = self.tied(name)
        tensor = self.own.get(f"{name}.weight") or tied
        if tensor is None:
            return False
        is_table = tensor.module_type.endswith("Embedding") and tensor is not tied
        return tensor.module_type.endswith(_LINEAR) and not is_table

    def is_packed(self, name: str) -> bool:
        """True if the layer's weight is quantized."""
        rows = (self.rows.get(n) for n in self._candidates(f"{name}.weight"))
        return any(tensor is not None and tensor.unpacked is not None for tensor in rows)


def _in_4_bits(tensor: Tensor, of: Sizes, how: Quantization, *, is_backward: bool) -> int:
    """Bytes of the unpacked weights beyond the output, which is made where less lies beside them.

    bitsandbytes 0.50.2: weights are unpacked to the dtype they were packed from
    (functional.py:992, beside their statistics in fp32 where those are packed, too), then cast to
    the product's (autograd/_functions.py, MatMul4Bit).
    """
    out, into = tensor.unpacked or tensor.shape
    found = num_bytes(out * into, of.built)
    cast = num_bytes(out * into, how.compute) if how.compute is not of.built else 0
    statistics = num_bytes(ceil_div(out * into, BLOCK), DType.FP32) if how.double else 0
    made = num_bytes(of.tokens * (into if is_backward else out), how.compute)
    return max(found + max(cast, statistics) - made, cast or found)


def _in_8_bits(tensor: Tensor, of: Sizes) -> int:
    """Bytes of LLM.int8's forward product beyond its output: codes of the input, sums in int32.

    bitsandbytes 0.50.2, autograd/_functions.py (MatMul8bitLt.forward): the input is cast to fp16
    and looked through for outliers before its product, which is made in int32, then in fp16.
    """
    out, into = tensor.unpacked or tensor.shape
    half = 0 if of.dtype is DType.FP16 else DType.FP16.itemsize
    made = of.dtype.itemsize * out
    looked_through = (half + DType.INT8.itemsize + DType.FP16.itemsize + 1) * into - made
    multiplied = DType.INT8.itemsize * into + (DType.INT32.itemsize + DType.FP16.itemsize) * out
    return of.tokens * max(looked_through, multiplied - made)
