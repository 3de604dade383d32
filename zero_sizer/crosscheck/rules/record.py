"""Rules of thumb: the few numbers that they read, and the closed forms they may be made of."""

from collections.abc import Callable, Iterable
from math import prod

from zero_sizer.config.workload import TRAINING
from zero_sizer.plan.plan import Plan
from zero_sizer.sizing import Sizing
from zero_sizer.util.records import dataclass

COMMON = "common in articles and blogs"


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """All that a rule of thumb knows of a job.

    Attributes:
        params: elements of the model (P).
        micro_batch: samples a GPU takes at once (b).
        seq_len: tokens of a sample (s), of inference with those that are generated.
        hidden: width (d).
        heads: attention heads (h).
        layers: layers, encoder and decoder together (L).
        ranks: GPUs (N).
        weight_bytes: bytes of one weight.
    """

    params: int
    micro_batch: int = 1
    seq_len: int = 1
    hidden: int = 0
    heads: int = 0
    layers: int = 0
    ranks: int = 1
    weight_bytes: int = 2

    @property
    def bsd(self) -> int:
        """Elements of one activation as wide as the model."""
        return self.micro_batch * self.seq_len * self.hidden

    @property
    def bhs2(self) -> int:
        """Elements of one layer's attention matrices."""
        return self.micro_batch * self.heads * self.seq_len**2


Formula = Callable[[Numbers], float]
Ledger = Callable[[Sizing], int]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule of thumb or closed form.

    Attributes:
        name: what people call it.
        text: the formula as it is written, in P, b, s, d, h, L, N and bytes.
        quantity: what it is about.
        formula: bytes.
        highest: bytes at the upper end, where the rule is a range.
        ledger: the ledger's bytes of that quantity, per GPU.
        why: why the ledger's number is another one, in one line.
        when: the jobs it is about.
        tasks: training, inference, or both.
        source: where it is from.
    """

    name: str
    text: str
    quantity: str
    formula: Formula
    highest: Formula | None = None
    ledger: Ledger
    why: str
    when: Callable[[Plan], bool] = lambda plan: True
    tasks: tuple[str, ...] = (TRAINING,)
    source: str = COMMON


def numbers_of(plan: Plan) -> Numbers:
    """The few numbers of a plan that rules read."""
    arch = plan.model.arch
    return Numbers(
        params=plan.model.num_params,
        micro_batch=plan.micro_batch,
        seq_len=plan.seq_len + plan.new_tokens,
        hidden=arch.hidden or 0,
        heads=arch.heads or 0,
        layers=(arch.num_layers or 0) + (arch.decoder_layers or 0),
        ranks=plan.dp_world_size,
        weight_bytes=plan.itemsize,
    )


def stored_bits(plan: Plan) -> int:
    """Bits in which the weights are stored."""
    how = plan.model.quantization
    return how.bits if how is not None else 8 * plan.model_dtype.itemsize


def stores(bits: int) -> Callable[[Plan], bool]:
    """A question of a plan: are its weights stored in so many bits."""
    return lambda plan: stored_bits(plan) == bits


def attention_bytes(n: Numbers) -> float:
    """One layer's attention, 16-bit with dropout: 11bsd + 5bhs^2."""
    return 11 * n.bsd + 5 * n.bhs2


def mlp_bytes(n: Numbers) -> float:
    """One layer's feed-forward block, 16-bit, width 4d, one GELU: 19bsd."""
    return 19 * n.bsd


def layer_bytes(n: Numbers) -> float:
    """One layer without its two norms: 30bsd + 5bhs^2."""
    return attention_bytes(n) + mlp_bytes(n)


def korthikanti_bytes(n: Numbers) -> float:
    """One layer with its norms: sbh(34 + 5as/h) = 34bsd + 5bhs^2."""
    return 4 * n.bsd + layer_bytes(n)


def sample_bytes(shape: Iterable[int], samples: int = 1) -> int:
    """One byte an element: the rule for a single activation tensor."""
    return samples * prod(shape)
