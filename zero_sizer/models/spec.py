"""Model specifications: tensors by shape, and widths. No DeepSpeed words."""

from collections.abc import Mapping
from dataclasses import field
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

from zero_sizer.units import DType
from zero_sizer.util.records import dataclass

if TYPE_CHECKING:
    from zero_sizer.models.changes.records import Adapter, Freeze, GroupCodes, Quantization

MAX_LAYERS = 1_024
"""Blocks of one stack that are read: eight times those of the deepest model in use."""
MAX_TENSORS = 100_000
"""Tensors of a model that are read."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One parameter or buffer.

    Attributes:
        name: qualified name as in ``named_parameters()`` (tied tensors once, under the first name).
        shape: elements per dimension.
        dtype: dtype it is constructed with; None where the model's own default holds.
        trainable: ``requires_grad``.
        module_type: class name of the module that owns it (``Linear``, ``LlamaRMSNorm``, ...).
        unpacked: the matrix's shape where ``shape`` is that of packed codes, else None.
    """

    name: str
    shape: tuple[int, ...]
    dtype: DType | None = None
    trainable: bool = True
    module_type: str = ""
    unpacked: tuple[int, ...] | None = None

    @property
    def numel(self) -> int:
        """Number of elements, as stored."""
        return prod(self.shape)

    @property
    def is_matrix(self) -> bool:
        """True if the tensor has two dimensions or more."""
        return len(self.shape) > 1

    @property
    def matrix(self) -> tuple[int, ...]:
        """Shape, as a product meets it."""
        return self.unpacked or self.shape

    @property
    def is_stacked(self) -> bool:
        """True if the tensor holds all experts of a block: (experts, rows, columns)."""
        return "expert" in self.module and len(self.shape) == 3

    @property
    def module(self) -> str:
        """Qualified name of the owning module."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Widths that closed forms and "auto" values need; None where a model has no such thing."""

    family: str = ""
    num_layers: int | None = None
    hidden: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    ffn: int | None = None
    vocab: int | None = None
    gated_mlp: bool = False
    num_experts: int = 0
    experts_per_token: int = 0
    expert_ffn: int | None = None
    decoder_layers: int | None = None  # encoder-decoder models: num_layers counts the encoder's
    max_positions: int | None = None
    tied_embeddings: bool = False
    dropout: float = 0.0


def widths_of(tensor: Tensor, arch: Architecture) -> tuple[int, int]:
    """Widths of a linear layer's input and output.

    A model that is numbers alone has feed-forward weights without a shape, where its parameters
    are not those of its widths: the widths are meant.
    """
    if tensor.is_matrix:
        into, out = tensor.shape[-1], tensor.shape[0]
        return (out, into) if tensor.module_type == "Conv1D" else (into, out)
    hidden, ffn = arch.hidden or 0, arch.ffn or 0
    return (ffn, hidden) if "down" in tensor.module else (hidden, ffn)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model, resolved.

    Attributes:
        name: what to call it in reports.
        origin: where the numbers come from, e.g. ``bundled model llama-3-8b`` or a path.
        parameters: in ``named_parameters()`` order, tied tensors once.
        buffers: in ``named_buffers()`` order, non-persistent ones included.
        arch: widths.
        hf_config: the Hugging Face config's fields where there is one ("auto" reads hidden sizes
            from it exactly as transformers does), else empty.
        exact_tensors: False when only totals are known (numbers on the command line) and
            ``parameters`` is a plausible layout.
        adapter: the LoRA adapter that ``parameters`` have already, None without one.
        quantization: how the linear layers are stored, None where they are not quantized.
        base: the model with every weight trained, without adapter and quantization.
        codes: DeepSpeed's own codes of the weights, which ``zero.Init`` makes; None without.
        whole: the model of which ``parameters`` are one rank's slice; None where it is whole.
        shared: modules that run with a parameter that stands under another module's name, and
            that name, where the source says so.
        freeze: what was stated as not trained, in ``parameters`` already.
        has_own_code: the model comes with classes of its own, for which transformers' of equal
            sizes stand.
    """

    name: str
    origin: str
    parameters: tuple[Tensor, ...]
    buffers: tuple[Tensor, ...] = ()
    arch: Architecture = field(default_factory=Architecture)
    hf_config: Mapping[str, Any] = field(default_factory=dict)
    exact_tensors: bool = True
    adapter: "Adapter | None" = None
    quantization: "Quantization | None" = None
    base: "ModelSpec | None" = None
    codes: "GroupCodes | None" = None
    whole: "ModelSpec | None" = None
    shared: Mapping[str, str] = field(default_factory=dict)
    freeze: "Freeze | None" = None
    has_own_code: bool = False

    def matrix_of(self, tensor: Tensor) -> tuple[int, ...]:
        """Shape, as a product meets it; of numbers, what is laid out flat stands for a matrix."""
        shape, hidden = tensor.matrix, self.arch.hidden
        is_weight = tensor.module_type.startswith("Linear") and tensor.name.endswith(".weight")
        if self.exact_tensors or not hidden or len(shape) != 1 or not is_weight:
            return shape
        return max(shape[0] // hidden, 1), hidden

    @cached_property
    def numels(self) -> tuple[int, ...]:
        """Elements of each parameter."""
        return tuple(tensor.numel for tensor in self.parameters)

    @cached_property
    def dtypes(self) -> tuple[DType | None, ...]:
        """Dtype that each parameter is constructed with."""
        return tuple(tensor.dtype for tensor in self.parameters)

    @cached_property
    def num_params(self) -> int:
        """Elements of all parameters, tied ones once, packed ones as they unpack."""
        if self.quantization is None:
            return sum(self.numels)
        return sum(prod(tensor.matrix) for tensor in self.parameters)

    @cached_property
    def num_trainable(self) -> int:
        """Elements of the parameters with ``requires_grad``."""
        return sum(tensor.numel for tensor in self.parameters if tensor.trainable)
