"""Rules about training, in reading order; what is said of weights is said of inference too."""

from collections.abc import Callable, Iterable

from zero_sizer.config.workload import INFERENCE, TRAINING
from zero_sizer.crosscheck.rules.record import (
    COMMON,
    Formula,
    Ledger,
    Rule,
    attention_bytes,
    korthikanti_bytes,
    layer_bytes,
    mlp_bytes,
    stores,
)
from zero_sizer.hardware.device import Device
from zero_sizer.ledger.entry import Allocation, Category
from zero_sizer.ledger.moments import STEPPING, Moment
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan
from zero_sizer.sizing import Sizing

_KORTHIKANTI = "arXiv:2205.05198 section 4.1"
_ZERO = "arXiv:1910.02054 section 5"
_STATES = (
    Category.PARAMETERS,
    Category.MASTER_WEIGHTS,
    Category.OPTIMIZER_STATES,
    Category.GRADIENTS,
)


_TRAINING = tuple(moment for moment in Moment if moment.phase in STEPPING[1:])


def _most(*categories: Category) -> Ledger:
    """The most bytes of these categories alive together after init, on any device, for one rank."""
    return lambda sizing: _highest(a for a in sizing.allocations if a.category in categories)


def _highest(found: Iterable[Allocation]) -> int:
    allocations = tuple(found)
    return max(sum(a.num_bytes for a in allocations if m in a.moments) for m in _TRAINING)


def _after_step(*categories: Category) -> Ledger:
    """Bytes of these categories between two steps, on any device, for one rank."""

    def ledger(sizing: Sizing) -> int:
        return sum(
            a.num_bytes
            for a in sizing.allocations
            if a.category in categories and Moment.DONE in a.moments
        )

    return ledger


def _states_on_gpu(sizing: Sizing) -> int:
    on_gpu = (a for a in sizing.allocations if a.device is Device.GPU)
    return _highest(a for a in on_gpu if a.category in _STATES)


def _peak(sizing: Sizing) -> int:
    return sizing.peaks[Device.GPU].num_bytes


def _context(sizing: Sizing) -> int:
    return sizing.capacities[Device.GPU].outside.low


def _per_param(num_bytes: float) -> Formula:
    return lambda n: num_bytes * n.params


def _times_weights(parts: float) -> Formula:
    return lambda n: parts * n.params * n.weight_bytes


def _all_layers(formula: Formula) -> Formula:
    return lambda n: n.layers * formula(n)


def _is_16bit(plan: Plan) -> bool:
    return plan.is_16bit


def _has_widths(plan: Plan) -> bool:
    arch = plan.model.arch
    return bool(arch.hidden and arch.heads and arch.num_layers)


def _keeps_all(plan: Plan) -> bool:
    return _has_widths(plan) and not plan.checkpointing


def _recomputes_all(plan: Plan) -> bool:
    return plan.checkpointing and plan.checkpointing_how.takes_all and _has_widths(plan)


def _is_adam(plan: Plan) -> bool:
    return len(plan.optimizer.states) == 2


def _stage(stage: int) -> Callable[[Plan], bool]:
    return lambda plan: plan.stage == stage and plan.is_16bit


_ONE_COPY = (
    "one whole copy: so it is below stage 3, which keeps 1/N and gathers the rest layer by layer; "
    "of packed weights, embeddings and head stay in 16 bits, and scales come on top"
)
_NO_GELU = (
    "no flash attention, grouped queries, gated MLP, logits or loss, and what a block's "
    "implementation keeps in fp32"
)


def _weights(sizing: Sizing) -> int:
    """Bytes of the weights between two steps, or before the first request."""
    is_inference = sizing.plan is not None and sizing.plan.task == INFERENCE
    moment = Moment.READY if is_inference else Moment.DONE
    found = (a for a in sizing.allocations if a.category is Category.PARAMETERS)
    return sum(a.num_bytes for a in found if moment in a.moments)


TRAINING_RULES = (
    *(
        Rule(
            name=f"weights in {label}",
            text=f"{num_bytes:g} bytes x P",
            quantity="weights",
            formula=_per_param(num_bytes),
            ledger=_weights,
            why=_ONE_COPY,
            when=stores(bits),
            tasks=(TRAINING, INFERENCE),
        )
        for label, num_bytes, bits in (
            ("fp32", 4, 32),
            ("fp16 or bf16", 2, 16),
            ("int8", 1, 8),
            ("int4", 0.5, 4),
        )
    ),
    Rule(
        name="gradients like weights",
        text="bytes of a weight x P",
        quantity="gradients",
        formula=_times_weights(1),
        ledger=_most(Category.GRADIENTS),
        why="stages 2 and 3 keep a part; whole tensors that straddle it, fp32 copies and the "
        "micro step being added come on top",
    ),
    Rule(
        name="Adam states",
        text="12 bytes x P: fp32 weights, momentum, variance",
        quantity="optimizer states",
        formula=_per_param(12),
        ledger=_after_step(Category.MASTER_WEIGHTS, Category.OPTIMIZER_STATES),
        why="ZeRO divides it by N and pads; another optimizer keeps other states; frozen weights "
        "have none",
        when=_is_adam,
    ),
    *(
        Rule(
            name=f"ratio 1:1:{optimizer}",
            text=f"weights : gradients : optimizer = 1:1:{optimizer}, of P weights",
            quantity="model states",
            formula=_times_weights(2 + optimizer),
            ledger=_most(*_STATES),
            why="one dtype for everything, where mixed precision keeps the optimizer in fp32, and "
            "nothing divided by N",
            when=when,
        )
        for optimizer, when in (
            (0, lambda p: not p.optimizer.states),
            (1, lambda p: len(p.optimizer.states) == 1),
            (2, _is_adam),
            (3, _is_adam),
        )
    ),
    *(
        Rule(
            name=f"{num_bytes} bytes a parameter",
            text=text,
            quantity="model states",
            formula=_per_param(num_bytes),
            ledger=_most(*_STATES),
            why=why,
            when=when,
        )
        for num_bytes, text, why, when in (
            (
                16,
                "2 weights + 2 gradients + 12 optimizer",
                "one instant of one GPU; ZeRO divides parts of it, and fp32 gradients exist at "
                "the step",
                _is_16bit,
            ),
            (
                20,
                "(2 + 4) weights + (2 + 4) gradients + 8 moments",
                "fp32 gradients exist only while a partition is updated; ZeRO divides parts of it",
                _is_16bit,
            ),
            (
                24,
                "(4 + 4) weights + (4 + 4) gradients + 8 moments",
                "torch alone holds 16; ZeRO in fp32 keeps a second copy of the weights, divided",
                lambda p: not p.is_16bit,
            ),
        )
    ),
    *(
        Rule(
            name=f"ZeRO-{stage}: {label}",
            text=f"16 bytes x P {label}",
            quantity="model states on a GPU",
            formula=formula,
            ledger=_states_on_gpu,
            why=why,
            when=_stage(stage),
            source=_ZERO,
        )
        for stage, label, formula, why in (
            (
                1,
                "/ 4",
                _per_param(4),
                "the limit for many GPUs; every gradient is whole until it is reduced",
            ),
            (
                2,
                "/ 8",
                _per_param(2),
                "the limit for many GPUs, where no gradient is left; gradients that straddle a "
                "partition stay whole",
            ),
            (
                3,
                "/ N",
                lambda n: 16 * n.params / n.ranks,
                "gathered layers, persistent tensors and the padding of each tensor come on top",
            ),
        )
    ),
    Rule(
        name="full fine-tuning, 12 GB per billion",
        text="12 bytes x P",
        quantity="everything",
        formula=_per_param(12),
        ledger=_peak,
        why="below the 16 bytes that Adam with fp32 master weights needs; no activations",
    ),
    Rule(
        name="LoRA",
        text="14B: 50 to 60 GB, scaled by P",
        quantity="everything",
        formula=lambda n: 50e9 * n.params / 14e9,
        highest=lambda n: 60e9 * n.params / 14e9,
        ledger=_peak,
        why="frozen weights in 16 bits are 2 bytes a parameter; the rest is activations, which "
        "depend on batch and sequence",
        when=lambda p: bool(sizes.frozen(p)),
    ),
    Rule(
        name="fp32 pre-training total",
        text="(P + b A + P + 2 P) x 4 bytes, A = activation elements of a sample",
        quantity="everything",
        formula=lambda n: 16 * n.params + 4 * n.layers * korthikanti_bytes(n) / 2,
        ledger=_peak,
        why="one GPU without DeepSpeed: no second copy of the weights, no buckets, no logits",
        when=lambda p: not p.is_16bit and _has_widths(p),
    ),
    *(
        Rule(
            name=name,
            text=text,
            quantity="activations",
            formula=_all_layers(formula),
            ledger=_most(Category.ACTIVATIONS),
            why=why,
            when=_keeps_all,
            source=source,
        )
        for name, text, formula, why, source in (
            (
                "attention of all layers",
                "L (11bsd + 5bhs^2) bytes",
                attention_bytes,
                "attention alone; the ledger's are all activations and the logits",
                COMMON,
            ),
            (
                "MLP of all layers",
                "L 19bsd bytes",
                mlp_bytes,
                "feed-forward blocks alone, 4d wide, one GELU; the ledger's are all activations",
                COMMON,
            ),
            (
                "attention and MLP of all layers",
                "L (30bsd + 5bhs^2) bytes",
                layer_bytes,
                "no norms; " + _NO_GELU,
                COMMON,
            ),
            (
                "sbh(34 + 5as/h)",
                "L (34bsd + 5bhs^2) bytes",
                korthikanti_bytes,
                _NO_GELU,
                _KORTHIKANTI,
            ),
        )
    ),
    Rule(
        name="full recomputation, 2sbh",
        text="2 L bsd bytes",
        quantity="activations",
        formula=_all_layers(lambda n: 2 * n.bsd),
        ledger=_most(Category.ACTIVATIONS),
        why="inputs of the blocks alone: the block being computed again, logits and loss come on "
        "top",
        when=_recomputes_all,
        source="arXiv:2205.05198 section 5",
    ),
    Rule(
        name="activation checkpointing saves 30 to 50 %",
        text="0.5 to 0.7 of L (34bsd + 5bhs^2) bytes",
        quantity="activations",
        formula=_all_layers(lambda n: 0.5 * korthikanti_bytes(n)),
        highest=_all_layers(lambda n: 0.7 * korthikanti_bytes(n)),
        ledger=_most(Category.ACTIVATIONS),
        why="recomputing every block leaves one input a block: far less, the more so the longer "
        "the sequence",
        when=_recomputes_all,
    ),
    Rule(
        name="CUDA context",
        text="a few hundred MB: 200 to 900",
        quantity="outside PyTorch",
        formula=lambda n: 200e6,
        highest=lambda n: 900e6,
        ledger=_context,
        tasks=(TRAINING, INFERENCE),
        why="with several GPUs NCCL's buffers come on top; the ledger's is its lower end",
    ),
)
