"""A model under a LoRA adapter: frozen tensors and adapters, in peft's order and by peft's names.

Follows peft 0.21.2: tuners/tuners_utils.py (which modules are matched), tuners/lora/layer.py (what
an adapted module owns, in which order) and utils/other.py (modules_to_save). Held equal to peft's
own models by tests/models/test_models_adapter.py.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace

from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.models.changes.records import ALL_LINEAR, Adapter
from zero_sizer.models.spec import ModelSpec, Tensor
from zero_sizer.units import DType
from zero_sizer.util.patterns import Budget, Pattern, PatternError
from zero_sizer.util.records import dataclass
from zero_sizer.util.spelling import shown

PREFIX = "base_model.model."
_NAME = "default"  # of the adapter, where get_peft_model is not told another
_SAVED = f"modules_to_save.{_NAME}"
_HEADS = ("lm_head", "embed_out", "output", "cls.predictions.decoder", "score", "classifier")
_T5_COPIES = ("encoder.embed_tokens", "decoder.embed_tokens")
_OTHER_HEADS = {"bert": "cls.predictions.decoder", "gpt_neox": "embed_out"}
# peft's choice where target_modules is left out (utils/constants.py), for the families known here.
_CHOICE = {
    **dict.fromkeys(("llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "gemma2", "opt",
                     "gemma3_text", "llama4", "bart", "gptj", "gpt_neo", "stablelm"),
                    ("q_proj", "v_proj")),
    **dict.fromkeys(("bloom", "falcon", "gpt_neox"), ("query_key_value",)),
    **dict.fromkeys(("gpt2", "gpt_bigcode"), ("c_attn",)),
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "electra"), ("query", "value")),
    "deberta-v2": ("query_proj", "value_proj"),
    "phi": ("q_proj", "v_proj", "fc1", "fc2"),
    **dict.fromkeys(("t5", "mt5"), ("q", "v")),
}  # fmt: skip
_LINEAR = ("Linear", "Conv1D")
_EXPERT_NAMES = frozenset(
    {"w1", "w2", "w3", "gate", "gate_proj", "up_proj", "down_proj", "gate_up_proj", "experts"}
)


@dataclass(frozen=True, slots=True)
class _Module:
    """A module that owns parameters, or shares the embedding's."""

    name: str
    kind: str
    tensors: tuple[Tensor, ...]

    @property
    def weight(self) -> Tensor | None:
        """Its matrix; None where that is tied to another module's."""
        return next((t for t in self.tensors if t.name.endswith("weight")), None)


def with_adapter(spec: ModelSpec, adapter: Adapter) -> ModelSpec:
    """``spec`` as ``peft.get_peft_model`` returns it.

    Raises:
        InputError: the adapter matches nothing, or what cannot be adapted.
        UnsupportedError: experts, or tensors of unknown modules.
    """
    try:
        tensors = _adapted_tensors(spec, adapter)
    except PatternError as error:
        raise InputError(f"a pattern {error}", where=adapter.origin) from None
    named = [replace(tensor, name=PREFIX + tensor.name) for tensor in tensors]
    buffers = tuple(replace(buffer, name=PREFIX + buffer.name) for buffer in spec.buffers)
    name = f"{spec.name} with {adapter.describe()}"
    return replace(
        spec,
        name=name,
        parameters=tuple(named),
        buffers=buffers,
        adapter=adapter,
        base=spec.base or spec,
    )


def _adapted_tensors(spec: ModelSpec, adapter: Adapter) -> list[Tensor]:
    matching = _Matching(spec, adapter)
    modules = list(_modules(spec))
    adapted = {m.name for m in modules if matching.takes(m.name)}
    _check(spec, adapter, modules, adapted, matching)
    tensors: list[Tensor] = []
    for module in modules:
        tensors += _frozen(module, adapter, is_adapted=module.name in adapted)
        if module.name in adapted:
            tensors += _matrices(spec, module, adapter, matching.rank(module.name))
    return _with_copies(spec, tensors, modules, adapter)


def _modules(spec: ModelSpec) -> Iterator[_Module]:
    groups: dict[str, list[Tensor]] = {}
    for tensor in spec.parameters:
        groups.setdefault(tensor.module, []).append(tensor)
    for name, tensors in groups.items():
        yield _Module(name, _kind(tensors[0]), tuple(tensors))
    head = _tied_head(spec)
    if head and head not in groups:
        yield _Module(head, "Linear", ())


def tied_modules(spec: ModelSpec) -> dict[str, str]:
    """Modules that run with a parameter that stands under another name, and that name.

    Of layouts that do not say, it is the first parameter, whose name is left empty.
    """
    base = spec.base or spec
    start = PREFIX if spec.adapter is not None else ""
    head = _tied_head(base)
    found = {start + head: ""} if head else {}
    found |= dict.fromkeys(_tied_lookups(spec), "")
    return found | {start + module: start + name for module, name in base.shared.items()}


def lookups(spec: ModelSpec) -> frozenset[str]:
    """Modules that are handed indices and look up rows of a table, tied ones included."""
    tables = (t.module for t in spec.parameters if t.module_type.endswith("Embedding"))
    return frozenset(tables) | _tied_lookups(spec)


def _tied_lookups(spec: ModelSpec) -> frozenset[str]:
    """Those that have no table of their own: the embeddings of T5's stacks."""
    start = PREFIX if spec.adapter is not None else ""
    is_t5 = (spec.base or spec).arch.family == "t5"
    return frozenset(start + name for name in _T5_COPIES if is_t5)


def _tied_head(spec: ModelSpec) -> str:
    """Name of the output layer that owns nothing, empty where there is none."""
    classes = spec.hf_config.get("architectures") or ("",)
    is_headless = str(classes[0]).endswith("Model") and not str(classes[0]).endswith("LMHeadModel")
    if not spec.arch.tied_embeddings or is_headless:
        return ""
    if not spec.exact_tensors:
        return "output"
    return _OTHER_HEADS.get(spec.arch.family, "lm_head")


def _kind(tensor: Tensor) -> str:
    """``Linear``, ``Conv1D``, ``Embedding`` or the class itself; subclasses count as these."""
    if tensor.module_type in ("Linear4bit", "Linear8bitLt"):
        return "Linear"
    for kind in ("Linear", "Conv1D", "Embedding"):
        if tensor.module_type.endswith(kind):
            return kind
    return tensor.module_type


class _Matching:
    """Which modules an adapter takes (``check_target_module_exists``)."""

    def __init__(self, spec: ModelSpec, adapter: Adapter) -> None:
        self._adapter = adapter
        budget = Budget()
        self._targets = _Names(_targets(spec, adapter), budget)
        self._excluded = _Names(adapter.exclude_modules, budget)
        self._saved = [Pattern(rf"(^|.*\.){n}($|\..*)", budget) for n in adapter.modules_to_save]
        self._layers = frozenset(adapter.layers_to_transform)
        named = [rf"(?:^|.*?\.){p}\.(\d+)\." for p in adapter.layers_pattern]
        self._numbered = [Pattern(p, budget) for p in named or [r".*?\.[^.]*\.(\d+)\."]]
        self._ranks = [(Pattern(rf"(.*\.)?({p})$", budget), _ending(p), rank)
                       for p, rank in adapter.rank_pattern.items()]  # fmt: skip
        self._taken: dict[str, bool] = {}

    def takes(self, name: str) -> bool:
        """True if the module ``name`` (or one that holds modules) is adapted."""
        if name not in self._taken:
            self._taken[name] = self._takes(name)
        return self._taken[name]

    def _takes(self, name: str) -> bool:
        if name in self._excluded or any(saved.matches(name) for saved in self._saved):
            return False
        if self._targets.is_pattern:
            return name in self._targets
        return name in self._targets and self._in_layer(name)

    def names(self, name: str) -> bool:
        """True if the module is adapted or saved."""
        saved = self._adapter.modules_to_save
        return self.takes(name) or bool(saved and name.endswith(saved))

    def rank(self, name: str) -> int:
        """The rank of an adapted module."""
        for pattern, ending, rank in self._ranks:
            if name.endswith(ending) and pattern.matches(name):
                return rank
        return self._adapter.r

    def _in_layer(self, name: str) -> bool:
        if not self._layers:
            return True
        for pattern in self._numbered:
            found = pattern.groups(name)
            if found:
                return _layer(found[0], pattern) in self._layers
        return False


class _Names:
    """Names, each of which means the modules it is the end of; or a regular expression."""

    def __init__(self, wanted: tuple[str, ...] | str, budget: Budget) -> None:
        self.is_pattern = isinstance(wanted, str)
        self._pattern = Pattern(wanted, budget) if isinstance(wanted, str) else None
        self._ends = frozenset(wanted)

    def __contains__(self, name: str) -> bool:
        if self._pattern is not None:
            return self._pattern.matches_all(name)
        starts = [0, *(at + 1 for at, char in enumerate(name) if char == ".")]
        return any(name[start:] in self._ends for start in starts)


def _ending(pattern: str) -> str:
    """What every name that matches a plain pattern ends with; nothing of any other."""
    last = pattern.rpartition(".")[2]
    return last if pattern.replace(".", "_").isidentifier() else ""


def _layer(group: str | None, pattern: Pattern) -> int:
    """peft takes the first group for the number, the user's own as well."""
    try:
        return int(group or "")
    except ValueError:
        raise PatternError(f"has a group of its own in {shown(pattern.text)}: peft takes it for "
                           "the number of the layer") from None  # fmt: skip


def _targets(spec: ModelSpec, adapter: Adapter) -> tuple[str, ...] | str:
    targets = adapter.target_modules
    if targets is None:
        choice = _CHOICE.get(str(spec.hf_config.get("model_type", "")))
        if choice is None:
            raise InputError(
                "target_modules is missing, and peft has no choice for this model's family",
                remedy="name some, or all-linear",
                where=adapter.origin,
            )
        return choice
    if targets == ALL_LINEAR:
        kinds = _LINEAR
        return tuple(m.name for m in _modules(spec) if m.kind in kinds and m.name not in _HEADS)
    return targets


def _check(
    spec: ModelSpec,
    adapter: Adapter,
    modules: list[_Module],
    adapted: Collection[str],
    matching: _Matching,
) -> None:
    where = adapter.origin
    if spec.arch.num_experts and _reaches_experts(adapter):
        raise UnsupportedError(
            "adapters of experts are not modelled",
            remedy="name attention projections in target_modules, or let a module:factory return "
            "the peft model",
            where=where,
        )
    if spec.arch.family == "t5" and any(matching.names(end) for end in _T5_COPIES):
        raise UnsupportedError(
            "the embeddings that T5's stacks share are not modelled under an adapter",
            remedy="name shared instead of embed_tokens",
            where=where,
        )
    if not adapted:
        ends = dict.fromkeys(m.name.rpartition(".")[2] for m in modules if m.kind in _LINEAR)
        known = f"this model's linear modules end in {', '.join(ends)}" if ends else ""
        raise InputError("the adapter matches no module of the model", remedy=known, where=where)
    holders = {h for m in modules for h in _holders(m.name)} - {m.name for m in modules}
    wrong = sorted(name for name in holders if matching.takes(name))
    if wrong:
        raise InputError(f"{wrong[0]} is no layer that LoRA can adapt", where=where)


def _reaches_experts(adapter: Adapter) -> bool:
    """transformers 5 stacks experts in one tensor; peft turns their old names into that."""
    targets = adapter.target_modules
    if targets is None:
        return False
    if isinstance(targets, str):
        return True
    return any(_EXPERT_NAMES & set(target.split(".")) for target in targets)


def _holders(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:depth]) for depth in range(1, len(parts)))


def _frozen(module: _Module, adapter: Adapter, *, is_adapted: bool) -> list[Tensor]:
    """The module's own tensors, as peft leaves them."""
    rows = []
    for tensor in module.tensors:
        key = tensor.name.rpartition(".")[2]
        name = f"{module.name}.base_layer.{key}" if is_adapted else tensor.name
        trains = key == "bias" and (
            adapter.bias == "all" or (adapter.bias == "lora_only" and is_adapted)
        )
        rows.append(replace(tensor, name=name, trainable=trains))
    return rows


def _matrices(spec: ModelSpec, module: _Module, adapter: Adapter, rank: int) -> Iterator[Tensor]:
    into, out = _widths(spec, module, adapter)
    if module.kind == "Embedding":
        yield _trained(f"{module.name}.lora_embedding_A.{_NAME}", (rank, into), "ParameterDict")
        yield _trained(f"{module.name}.lora_embedding_B.{_NAME}", (out, rank), "ParameterDict")
        return
    yield _trained(f"{module.name}.lora_A.{_NAME}.weight", (rank, into))
    yield _trained(f"{module.name}.lora_B.{_NAME}.weight", (out, rank))
    if adapter.lora_bias:
        yield _trained(f"{module.name}.lora_B.{_NAME}.bias", (out,))
    if adapter.use_dora:
        magnitude = f"{module.name}.lora_magnitude_vector.{_NAME}.weight"
        yield _trained(magnitude, (out,), "DoraLinearLayer")


def _widths(spec: ModelSpec, module: _Module, adapter: Adapter) -> tuple[int, int]:
    """Input and output features (of an embedding: rows and columns).

    Raises:
        InputError: LoRA cannot adapt such a module.
        UnsupportedError: it could, but that is not modelled.
    """
    if module.kind not in ("Linear", "Conv1D", "Embedding", ""):
        raise InputError(
            f"{module.name} is a {module.kind}, which LoRA cannot adapt", where=adapter.origin
        )
    if module.kind == "Embedding" and (adapter.use_dora or adapter.lora_bias):
        raise UnsupportedError(
            "use_dora and lora_bias on an embedding are not modelled", where=adapter.origin
        )
    shape = _shape(spec, module)
    if len(shape) != 2:
        raise UnsupportedError(
            f"{module.name} is no matrix, so its adapter's size is not known", where=adapter.origin
        )
    rows, columns = shape
    return (rows, columns) if module.kind in ("Conv1D", "Embedding") else (columns, rows)


def _shape(spec: ModelSpec, module: _Module) -> tuple[int, ...]:
    if module.weight is None:  # tied to the embedding
        return spec.arch.vocab or 0, spec.arch.hidden or 0
    return spec.matrix_of(module.weight)


def _trained(name: str, shape: tuple[int, ...], module_type: str = "Linear") -> Tensor:
    """peft makes adapters in fp32 whatever the base's dtype (``autocast_adapter_dtype``)."""
    return Tensor(name, shape, DType.FP32, True, module_type)


def _with_copies(
    spec: ModelSpec, tensors: list[Tensor], modules: list[_Module], adapter: Adapter
) -> list[Tensor]:
    """With a trained copy of each module that ``modules_to_save`` names, after the module."""
    found = {n for m in modules for n in (m.name, *_holders(m.name))}
    saved = {n for n in found if adapter.modules_to_save and n.endswith(adapter.modules_to_save)}
    outer = [name for name in saved if not any(h in saved for h in _holders(name))]
    tied = [m for m in modules if m.name in outer and not m.tensors]
    result: list[Tensor] = []
    waiting: dict[str, list[Tensor]] = {}
    for tensor in tensors:
        owner = next((name for name in outer if tensor.name.startswith(f"{name}.")), None)
        for name in [name for name in waiting if name != owner]:
            result += waiting.pop(name)
        if owner is None:
            result.append(tensor)
            continue
        rest = tensor.name.removeprefix(f"{owner}.")
        result.append(replace(tensor, name=f"{owner}.original_module.{rest}", trainable=False))
        copy = replace(tensor, name=f"{owner}.{_SAVED}.{rest}", trainable=True)
        waiting.setdefault(owner, []).append(copy)
    result += [tensor for copies in waiting.values() for tensor in copies]
    for module in tied:
        shape = _shape(spec, module)
        result.append(Tensor(f"{module.name}.{_SAVED}.weight", shape, module_type=module.kind))
    return result
