"""The optimizer a config names: whether it exists, what it takes, whether ZeRO takes it."""

from collections.abc import Iterator

from zero_sizer.config import engine
from zero_sizer.config.context import ZERO, Context, Rule, nearest
from zero_sizer.config.keys import table
from zero_sizer.config.values import shown
from zero_sizer.findings import Finding
from zero_sizer.optimizers import selection

TYPE = "optimizer.type"
_REMOVED = ("onebitadam", "onebitlamb", "zerooneadam", "1bitadam", "1bitlamb")
_SUPPORTED = (  # runtime/zero/utils.py:45; mup's MuAdam and MuAdamW are torch's classes
    "Adam",
    "AdamW",
    "FusedAdam",
    "DeepSpeedCPUAdam",
    "ZenFlowCPUAdam",
    "Adagrad",
    "DeepSpeedCPUAdagrad",
    "DeepSpeedCPULion",
    "FusedLion",
    "MuonWithAuxAdam",
    "MuAdam",
    "MuAdamW",
)
_POPPED = ("torch_adam", "adam_w_mode", "fp32_optimizer_states")  # engine.py:2395, 2485
_NUMBERS = ("lr", "eps", "weight_decay", "momentum")
_NO_AMSGRAD = ("FusedAdam", "DeepSpeedCPUAdam", "ZenFlowCPUAdam", "FusedLamb")


def exists(context: Context) -> Iterator[Finding]:
    """engine.py:2010."""
    if not isinstance(context.document.get(TYPE), str) or engine.optimizer_class(context):
        return
    name = context.text(TYPE)
    message = f"AssertionError: DeepSpeed and torch.optim have no optimizer {name!r}"
    if name.lower() in _REMOVED:
        message = (
            f"AssertionError: {name} was removed from DeepSpeed; 0.19.8 has no 1-bit optimizer"
        )
        yield context.error("removed-optimizer", TYPE, message, "use AdamW, or an older DeepSpeed")
        return
    near = nearest(name, (*engine.TORCH_OPTIMIZERS, *table().optimizers))
    known_as = selection.type_of_class(name)
    if known_as:
        remedy = f"{name} is the class that DeepSpeed makes of type {known_as!r}: write that"
    else:
        remedy = f"did you mean {near}?" if near else "build it in the training script"
    yield context.error("unknown-optimizer", TYPE, message, remedy)


def supported_by_zero(context: Context) -> Iterator[Finding]:
    """engine.py:2298."""
    optimizer = engine.optimizer_class(context)
    if not context.stage or not optimizer or optimizer in _SUPPORTED:
        return
    if context.flag("zero_allow_untested_optimizer"):
        message = f"{optimizer} is not among the optimizers ZeRO is tested with"
        yield context.note("untested-optimizer", TYPE, message)
    else:
        yield context.error(
            "untested-optimizer",
            TYPE,
            f"AssertionError: ZeRO takes {optimizer} only when asked to",
            'add "zero_allow_untested_optimizer": true at the top level',
        )


def arguments(context: Context) -> Iterator[Finding]:
    """engine.py:2476-2550: optimizer.params become keyword arguments."""
    optimizer = engine.optimizer_class(context)
    known = _arguments(optimizer)
    if not known:
        return
    for name in context.mapping("optimizer.params"):
        if name != "max_grad_norm" and name not in known:
            near = nearest(name, known)
            yield context.error(
                "optimizer-argument",
                f"optimizer.params.{name}",
                f"TypeError: {optimizer} knows no such argument",
                f"did you mean {near}?" if near else "delete it",
            )


def _arguments(optimizer: str) -> list[str]:
    """Names that optimizer.params may hold; none when the class is not in the table."""
    base = "DeepSpeedCPUAdam" if optimizer == "ZenFlowCPUAdam" else optimizer
    by_class = {
        path.rpartition(".")[2]: set(names) for path, names in table().optimizer_classes.items()
    }
    names = by_class.get(base, set())
    if names and optimizer in ("FusedAdam", "DeepSpeedCPUAdam", "ZenFlowCPUAdam", "AdamW"):
        names = (names - {"adamw_mode"}) | set(_POPPED)
    return sorted(names)


def amsgrad(context: Context) -> Iterator[Finding]:
    """ops/adam/fused_adam.py, cpu_adam.py, ops/lamb/fused_lamb.py."""
    optimizer = engine.optimizer_class(context)
    if optimizer in _NO_AMSGRAD and context.mapping("optimizer.params").get("amsgrad"):
        yield context.error(
            "amsgrad",
            "optimizer.params.amsgrad",
            f"RuntimeError: {optimizer} has no AMSGrad variant",
            'delete it, or add "torch_adam": true',
        )


def numbers(context: Context) -> Iterator[Finding]:
    """torch/optim compares them in the constructor; DeepSpeed's hand them to a kernel."""
    optimizer = engine.optimizer_class(context)
    known = _arguments(optimizer)
    is_torchs = optimizer in engine.TORCH_OPTIMIZERS
    say = context.error if is_torchs else context.warning
    for name in _NUMBERS:
        value = context.mapping("optimizer.params").get(name)
        if name in known and isinstance(value, str) and value != "auto":
            yield say(
                "optimizer-number",
                f"optimizer.params.{name}",
                f"TypeError{'' if is_torchs else ' in the first step'}: {optimizer} is handed the "
                f"text {shown(value)} where a number belongs",
                "write the number without quotes",
            )


def foreach_and_fused(context: Context) -> Iterator[Finding]:
    """torch/optim: adam.py, sgd.py, adagrad.py, in the constructor."""
    params = context.mapping("optimizer.params")
    known = _arguments(engine.optimizer_class(context))
    if all(name in known and params.get(name) for name in ("foreach", "fused")):
        yield context.error(
            "foreach-and-fused",
            "optimizer.params.fused",
            "RuntimeError: torch's optimizers take one of foreach and fused, not both",
            "delete one of them",
        )


def can_step(context: Context) -> Iterator[Finding]:
    """Every wrapper calls ``step()`` alone; torch/optim/lbfgs.py, sparse_adam.py."""
    optimizer = engine.optimizer_class(context)
    reason = {
        "LBFGS": "TypeError: LBFGS.step() needs a closure, and DeepSpeed gives none",
        "SparseAdam": "RuntimeError: SparseAdam takes sparse gradients only, and DeepSpeed's are "
        "dense",
    }.get(optimizer)
    if reason:
        yield context.error("optimizer-step", TYPE, reason, "use AdamW")


def clipping_in_params(context: Context) -> Iterator[Finding]:
    """engine.py:2481; the parser only warns."""
    if "max_grad_norm" in context.mapping("optimizer.params") and context.text(TYPE):
        yield context.error(
            "max-grad-norm",
            "optimizer.params.max_grad_norm",
            "ValueError: no optimizer takes it",
            "use gradient_clipping at the top level",
        )


def lamb_loss_scale(context: Context) -> Iterator[Finding]:
    """engine.py:2015."""
    if context.text(TYPE).lower() == "lamb" and context.number("fp16.loss_scale"):
        yield context.error(
            "lamb-loss-scale",
            "fp16.loss_scale",
            "AssertionError: Lamb needs dynamic loss scaling",
            "set it to 0",
        )


def lamb_on_host(context: Context) -> Iterator[Finding]:
    """ops/csrc/lamb/fused_lamb_cuda.cpp:29,53; there is no Lamb for host memory."""
    is_lamb = engine.optimizer_class(context) == "FusedLamb"
    if is_lamb and engine.uses_zero(context) and engine.offloads_optimizer(context):
        yield context.warning(
            "lamb-offload",
            TYPE,
            "RuntimeError in the first step: FusedLamb's kernel takes tensors of a GPU, and "
            "offloading puts its weights into host memory",
            "use AdamW, or do without offload_optimizer",
        )


def muon_at_stage_3(context: Context) -> Iterator[Finding]:
    """stage3.py:360-363."""
    if context.stage != 3 or engine.optimizer_class(context) != "MuonWithAuxAdam":
        return
    if context.flag(ZERO + "reduce_scatter"):
        yield context.error(
            "muon-stage-3",
            ZERO + "reduce_scatter",
            "ValueError: Muon at stage 3 does without reduce_scatter, which is on"
            + (" by default" if context.settings.is_default(ZERO + "reduce_scatter") else ""),
            f"set {ZERO}reduce_scatter to false",
        )
    elif context.flag(ZERO + "zero_quantized_gradients"):
        yield context.error(
            "muon-stage-3",
            ZERO + "zero_quantized_gradients",
            "ValueError: Muon at stage 3 does without quantized gradients",
            "delete it",
        )


def needs_mup(context: Context) -> Iterator[Finding]:
    """engine.py:2511-2530."""
    if engine.optimizer_class(context).startswith("Mu") and context.text(TYPE).lower() != "muon":
        yield context.note(
            "needs-mup", TYPE, "needs the mup package; without it, UnboundLocalError is raised"
        )


RULES: tuple[Rule, ...] = (
    exists,
    supported_by_zero,
    arguments,
    amsgrad,
    numbers,
    foreach_and_fused,
    can_step,
    clipping_in_params,
    lamb_loss_scale,
    lamb_on_host,
    muon_at_stage_3,
    needs_mup,
)
