"""The batch triangle: train_batch_size = micro batch x accumulation x data-parallel ranks.

Follows deepspeed/runtime/config.py ``_set_batch_related_parameters`` and ``_batch_assertion``;
"auto" and the flags are put in as transformers' ``trainer_config_process`` and accelerate's
``DeepSpeedPlugin.__post_init__`` do.
"""

from collections.abc import Iterable
from dataclasses import replace
from math import ceil, inf, isfinite
from typing import Any

from zero_sizer.config.document import Document
from zero_sizer.config.settings import Setting
from zero_sizer.config.values import shown
from zero_sizer.config.workload import Workload
from zero_sizer.findings import Finding, Severity
from zero_sizer.parallel import DATA, SEQUENCE, ParallelDims
from zero_sizer.units import ceil_div
from zero_sizer.util.records import dataclass

TRAIN = "train_batch_size"
MICRO = "train_micro_batch_size_per_gpu"
ACCUM = "gradient_accumulation_steps"
KEYS = (TRAIN, MICRO, ACCUM)
_LARGEST = 2**31


@dataclass(frozen=True)
class Corner:
    """One corner: a value (None: to be computed), its origin, whether nothing decides it."""

    value: Any = None
    origin: str = ""
    unknown: bool = False


@dataclass(frozen=True, kw_only=True)
class Triangle:
    """The three corners, or what is wrong with them."""

    train: Corner
    micro: Corner
    accum: Corner
    error: str = ""
    key: str = ""


def resolve_batch(
    document: Document, workload: Workload, world_size: int
) -> tuple[dict[str, Setting], list[Finding]]:
    """The three batch settings and what is wrong with them.

    Args:
        document: the config.
        workload: the flags.
        world_size: ranks of the job.

    Returns:
        Settings by key (value None where nothing decides it), and findings.
    """
    findings: list[Finding] = []
    world = data_parallel(document, world_size)
    hugging_face = any(document.get(key) == "auto" for key in KEYS)
    micro = _micro(document, workload, findings)
    accum = _accum(document, workload, hugging_face, findings)
    train = _train(document, micro, accum, world)
    if MICRO in (finding.key for finding in findings) and micro.unknown:
        micro = _implied(document, train, accum, world, findings)
    triangle = Triangle(train=train, micro=micro, accum=accum)
    huge = _beyond_use(triangle)
    if huge[0]:
        nothing = Corner(unknown=True)
        triangle = Triangle(train=nothing, micro=nothing, accum=nothing, error=huge[1], key=huge[0])
    elif not (micro.unknown or train.unknown or accum.unknown):
        triangle = solve(triangle, world)
    if triangle.error:
        findings.append(_refused(document, triangle, world))
    corners = {TRAIN: triangle.train, MICRO: triangle.micro, ACCUM: triangle.accum}
    return {key: _setting(document, key, corner) for key, corner in corners.items()}, findings


def _beyond_use(triangle: Triangle) -> tuple[str, str]:
    """The first corner that is larger than any batch, and what to say of it; nothing if none is."""
    values = (triangle.train.value, triangle.micro.value, triangle.accum.value)
    for key, value in zip(KEYS, values, strict=True):
        if isinstance(value, int | float) and _LARGEST < value < inf:
            return key, f"{key} is {value:g}, above {_LARGEST:,}: more than any batch"
    return "", ""


def data_parallel(document: Document, world_size: int) -> float:
    """Ranks that the batch is divided over (config.py:470-480): sequence parallel ranks share."""
    sequence, data = document.get(SEQUENCE), document.get(DATA)
    if not _is_count(sequence):
        return world_size
    ranks = ParallelDims(
        world_size=world_size, sp=int(sequence), dp=int(data) if _is_count(data) else None
    )
    return ranks.batch_ranks


def accumulation_for(samples: int, micro_batch: int, ranks: int) -> int:
    """Accumulation steps with which a step takes at least ``samples`` over all ranks."""
    return ceil_div(samples, micro_batch * ranks)


def solve(triangle: Triangle, world: float) -> Triangle:
    """Compute the missing corners as DeepSpeed does, then check them as it does."""
    values = (triangle.train.value, triangle.micro.value, triangle.accum.value)
    if None in values and values[:2] != (None, None):  # DeepSpeed computes before it checks
        odd = _first_odd(zip(KEYS, values, strict=True))
        if odd:
            return replace(triangle, error=odd, key=odd.split()[1])
    try:
        train, micro, accum = _complete(*values, world)
        error = _violated(train, micro, accum, world)
    except (ZeroDivisionError, OverflowError, ValueError) as problem:
        return replace(triangle, error=f"{type(problem).__name__}: {problem}", key=TRAIN)
    if train is None:
        return replace(triangle, error=error, key=TRAIN)
    return Triangle(
        train=_computed(triangle.train, train, f"micro batch x accumulation x {world:g} ranks"),
        micro=_computed(
            triangle.micro, micro, f"train_batch_size / accumulation / {world:g} ranks"
        ),
        accum=_computed(triangle.accum, accum, _accum_reason(values, world)),
        error=error,
        key=_first_given(triangle),
    )


def _complete(train: Any, micro: Any, accum: Any, world: float) -> tuple[Any, Any, Any]:
    if train is not None and micro is not None:
        return train, micro, train // micro // world if accum is None else accum
    if train is not None:
        share = train // world
        return train, share if accum is None else share // accum, 1 if accum is None else accum
    if micro is not None:
        steps = 1 if accum is None else accum
        return micro * steps * world, micro, steps
    return None, None, accum


def _first_odd(corners: Iterable[tuple[str, Any]]) -> str:
    """The TypeError of the first corner that is no number; "" if all are."""
    for key, value in corners:
        if value is not None and not isinstance(value, int | float):
            return f"TypeError: {key} is {shown(value)}, not a number"
    return ""


def _violated(train: Any, micro: Any, accum: Any, world: float) -> str:
    if train is None:
        return (
            "AssertionError: Either train_batch_size or train_micro_batch_size_per_gpu needs to be "
            "provided"
        )
    for name, value in ((TRAIN, train), (MICRO, micro), (ACCUM, accum)):
        odd = _first_odd([(name, value)])
        if odd:
            return odd
        if not value > 0:
            return f"AssertionError: {name} is {value:g}, and has to be greater than 0"
    if train != micro * accum * world:
        return (
            f"AssertionError: train_batch_size {train:g} is not micro batch {micro:g} x "
            f"accumulation {accum:g} x {world:g} ranks"
        )
    return ""


def _micro(document: Document, workload: Workload, findings: list[Finding]) -> Corner:
    value, flag = document.get(MICRO), workload.micro_batch
    origin = workload.origins.get("micro_batch", "--micro-batch")
    if value == "auto":
        if flag is not None:
            return Corner(
                flag, f'"auto" ({document.where(MICRO)}) -> {origin} (Hugging Face Trainer)'
            )
        findings.append(_unresolved(document, MICRO, "give --micro-batch"))
        return Corner(unknown=True)
    if value is None and flag is not None:
        if document.get(TRAIN) is None:
            findings.append(_supplied_by_script(flag, origin))
        return Corner(flag, origin)
    _mismatch(document, MICRO, value, flag, origin, findings)
    return Corner(value, document.where(MICRO))


def _accum(
    document: Document, workload: Workload, hugging_face: bool, findings: list[Finding]
) -> Corner:
    value, flag = document.get(ACCUM), workload.grad_accum
    origin = workload.origins.get("grad_accum", "--grad-accum")
    auto = f'"auto" ({document.where(ACCUM)}) -> '
    if value == "auto":
        if flag is not None:
            return Corner(flag, f"{auto}{origin} (Hugging Face Trainer)")
        findings.append(_accum_default(document))
        return Corner(1, f"{auto}1, the Trainer's default (no --grad-accum given)")
    if value is None and flag is not None:
        return Corner(flag, origin)
    if value is None and hugging_face:
        return Corner(1, "accelerate's default when the config leaves it out")
    _mismatch(document, ACCUM, value, flag, origin, findings)
    return Corner(value, document.where(ACCUM))


def _train(document: Document, micro: Corner, accum: Corner, world: float) -> Corner:
    value = document.get(TRAIN)
    if value != "auto":
        return Corner(value, document.where(TRAIN))
    if micro.unknown or not (_is_count(micro.value) and _is_count(accum.value)):
        return Corner(unknown=micro.unknown, origin=f'"auto" ({document.where(TRAIN)})')
    total = micro.value * accum.value * world
    origin = f'"auto" ({document.where(TRAIN)}) -> micro batch x accumulation x {world:g} ranks'
    return Corner(total, f"{origin} (Hugging Face Trainer)")


def _implied(
    document: Document, train: Corner, accum: Corner, world: float, findings: list[Finding]
) -> Corner:
    """A literal train_batch_size leaves only one micro batch that the Trainer does not refuse."""
    if not (_is_count(train.value) and _is_count(accum.value)):
        return Corner(unknown=True, origin=f'"auto" ({document.where(MICRO)}): not resolved')
    micro, rest = divmod(train.value, accum.value * world)
    if rest or micro < 1:
        return Corner(unknown=True, origin=f'"auto" ({document.where(MICRO)}): not resolved')
    findings[:] = [finding for finding in findings if finding.key != MICRO]
    origin = f'"auto" ({document.where(MICRO)}) -> the only value that goes with train_batch_size'
    return Corner(int(micro), origin)


def _mismatch(
    document: Document, key: str, value: Any, flag: int | None, origin: str, out: list[Finding]
) -> None:
    if value is None or flag is None or value == flag:
        return
    out.append(
        Finding(
            code="auto-mismatch",
            severity=Severity.ERROR,
            key=key,
            line=document.line(key),
            message=f"the config says {shown(value)}, {origin} says {flag}: the Hugging Face "
            "Trainer raises ValueError; the config's value is used here",
            remedy=f'set "{key}" to "auto", or leave {origin} out',
        )
    )


def _unresolved(document: Document, key: str, remedy: str) -> Finding:
    return Finding(
        code="auto-unresolved",
        severity=Severity.WARNING,
        key=key,
        line=document.line(key),
        message='"auto" is filled from the training script, which is not known here',
        remedy=remedy,
    )


def _accum_default(document: Document) -> Finding:
    return Finding(
        code="auto-default",
        severity=Severity.NOTE,
        key=ACCUM,
        line=document.line(ACCUM),
        message='"auto" is taken as 1, the default of TrainingArguments and of Accelerator',
        remedy="give --grad-accum if the training script sets another",
    )


def _supplied_by_script(flag: int, origin: str) -> Finding:
    return Finding(
        code="batch-not-in-config",
        severity=Severity.WARNING,
        key=MICRO,
        message="the config has neither train_batch_size nor train_micro_batch_size_per_gpu, which "
        f"DeepSpeed alone refuses (AssertionError); {flag} from {origin} is used, as if the "
        "training script put it in",
        remedy=f'add "{MICRO}": {flag}',
    )


def _refused(document: Document, triangle: Triangle, world: float) -> Finding:
    train, micro, accum = triangle.train.value, triangle.micro.value, triangle.accum.value
    remedy = f'add "{MICRO}": 1 or give --micro-batch'
    if all(_is_count(value) for value in (train, micro, accum)):
        remedy = f"set train_batch_size to {micro * accum * world:g}"
        if train % (micro * accum) == 0:
            remedy += f", or run on {train // (micro * accum)} data-parallel ranks"
    elif train is not None or triangle.train.unknown:
        remedy = f"give whole numbers from 1 to {_LARGEST:,}"
    return Finding(
        code="batch-triangle",
        severity=Severity.ERROR,
        key=triangle.key,
        line=document.line(triangle.key),
        message=triangle.error,
        remedy=remedy,
    )


def _computed(corner: Corner, value: Any, reason: str) -> Corner:
    return corner if corner.value is not None else Corner(value, f"computed: {reason}")


def _accum_reason(values: tuple[Any, Any, Any], world: float) -> str:
    if values[0] is not None and values[1] is not None:
        return f"train_batch_size / micro batch / {world:g} ranks"
    return "1, as neither side of the triangle asks for more"


def _first_given(triangle: Triangle) -> str:
    corners = zip(KEYS, (triangle.train, triangle.micro, triangle.accum), strict=True)
    return next((key for key, corner in corners if corner.value is not None), TRAIN)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _setting(document: Document, key: str, corner: Corner) -> Setting:
    value = corner.value
    is_whole = isinstance(value, float) and value.is_integer()
    if is_whole or (key == ACCUM and isinstance(value, float) and isfinite(value)):
        value = ceil(value)  # 1.5 accumulation steps: two at times
    elif value is True:
        value = 1
    usable = value if _is_count(value) else None
    return Setting(usable, corner.origin or "not decided", is_default=not document.has(key))
