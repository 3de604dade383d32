"""Remarks on the activations of a plan: in closed form, not modelled, not as it seems."""

from __future__ import annotations

from collections.abc import Iterator

from zero_sizer.activations import select
from zero_sizer.activations.block_sizes import num_layers
from zero_sizer.activations.execution import block_of
from zero_sizer.activations.masks import EQUAL, PADDED
from zero_sizer.config import workload
from zero_sizer.config.settings import MODELS_DEEPSPEED
from zero_sizer.config.workload import DEEPSPEED, LIGER_KERNELS
from zero_sizer.findings import (
    ACTIVATIONS_UNKNOWN,
    CLOSED_FORM,
    INPUTS_NOT_MODELLED,
    Direction,
    Finding,
    Severity,
)
from zero_sizer.models.inputs import besides_tokens
from zero_sizer.models.recurrence import beyond_closed_form
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan
from zero_sizer.timeline import compose, swap_remarks, zero_rules
from zero_sizer.units import format_gib, num_bytes

_COORDINATOR = (0, 6)  # rewritten there: github.com/deepspeedai/DeepSpeed/pull/1453
_SECTION = "activation_checkpointing."
_TRACED = (
    "with torch and the model's package installed (pip install zero-sizer[deepspeed]; diffusers "
    "for its own models) check traces it"
)
_OWN_INPUTS = (
    "`zero-sizer dryrun --how simulated -- train.py` runs the training script with its own inputs"
)


def remarks(plan: Plan) -> Iterator[Finding]:
    """Where they are in closed form, not modelled, or not what the config seems to say."""
    if plan.model.has_own_code:
        yield _about_own_code(plan)
    fed = besides_tokens(plan.model)
    if fed and (plan.feed is None or select.is_closed_form(plan)):
        yield _about_other_inputs(plan, fed)
    yield from _about_model(plan)
    yield from _about_sequences(plan)
    if not select.knows_loss(plan):
        yield _about_loss(plan)
    yield from _about_kernels(plan)
    if select.inputs_of(plan) is not None:
        yield from _about_inputs(plan)
    yield from _about_leaves(plan)
    yield from _about_version(plan)
    yield from swap_remarks.remarks(plan)


def _about_model(plan: Plan) -> Iterator[Finding]:
    if select.traced_activations(plan) is not None:
        if not plan.model.exact_tensors:
            yield Finding(
                code="activations-of-a-llama",
                severity=Severity.NOTE,
                message="numbers name no model: activations are those of a Llama of these widths",
                remedy="name a bundled model or a config.json if it is another",
            )
    elif select.adapted_activations(plan) is not None:
        yield _of_the_base(plan)
    elif not plan.model.arch.hidden:
        yield _unknown(plan, "nothing is counted for activations: the width is")
    elif beyond_closed_form(plan.model):
        yield _beyond_closed_form(plan)
    else:
        error = select.closed_form_error(plan)
        yield Finding(
            code=CLOSED_FORM,
            severity=Severity.NOTE,
            message=f"no activation profile of {plan.model.name} fits this job: activations are in "
            "closed form (arXiv:2205.05198), which leaves out what an implementation adds",
            remedy=_better(plan),
            direction=Direction.EITHER,
            num_bytes=error.above,
            less_bytes=error.below,
        )
        yield from _about_widths(plan)


def _beyond_closed_form(plan: Plan) -> Finding:
    """Layers that the closed form leaves out: of states it was 30 to 42 % below the engine."""
    return Finding(
        code=CLOSED_FORM,
        severity=Severity.WARNING,
        key="--model",
        message=f"layers of {plan.model.name} {beyond_closed_form(plan.model)}: what they keep is "
        "not in the closed form of activations",
        remedy=_TRACED,
        direction=Direction.EITHER,
    )


def _about_own_code(plan: Plan) -> Finding:
    """Layers that are joined are gathered together, and keep the same for backward."""
    return Finding(
        code="model-of-own-code",
        severity=Severity.NOTE,
        key="--model",
        message=f"{plan.model.name} comes with code of its own (trust_remote_code), which is not "
        f"run: layers of its sizes are counted as transformers' {plan.model.arch.family} has them",
        remedy=_OWN_INPUTS,
    )


def _about_other_inputs(plan: Plan, fed: str) -> Finding:
    """A sequence length says nothing of frames, patches or latents."""
    what = f"{plan.model.name} is fed {fed}, which --seq-len and --micro-batch do not measure"
    if plan.feed is not None:
        what = f"each sample brings {plan.model.name} {plan.feed.about}"
    is_text = plan.feed is not None and plan.feed.taken == 0 and plan.feed.has_tokens
    return Finding(
        code=INPUTS_NOT_MODELLED,
        severity=Severity.WARNING,
        key="--model",
        message=f"{what}: what it keeps {'' if is_text else 'of them '}is not counted",
        remedy=_OWN_INPUTS if plan.feed is None else _TRACED,
        direction=Direction.EITHER,
    )


def _about_kernels(plan: Plan) -> Iterator[Finding]:
    """Liger's kernels beside its loss: what they save is bounded by all that passes hold."""
    stated, has_loss = plan.kernels, plan.loss == workload.FUSED_LINEAR
    patches = plan.model.arch.family in workload.LIGER
    if stated == LIGER_KERNELS and not patches:
        yield Finding(
            code="kernels-unknown",
            severity=Severity.WARNING,
            key="--kernels",
            message=f"Liger 0.8.5 patches no model of {plan.model.arch.family or 'this'} kind: "
            "transformers' own kernels are counted",
            remedy="leave it out",
        )
    elif stated == LIGER_KERNELS or (stated is None and has_loss and patches):
        held = (
            compose.timeline_of(plan).forward.activations,
            compose.timeline_of(plan).backward.activations,
        )
        yield Finding(
            code="liger-not-modelled",
            severity=Severity.NOTE,
            key="--kernels",
            message="Liger's RMSNorm, SwiGLU and rotary embedding hold less than transformers' "
            "own, which are counted beside Liger's loss"
            + ("" if stated else "; whether they run was not stated"),
            remedy="give --kernels transformers if the loss alone is Liger's"
            if stated is None
            else "ask the simulated dry run of the training script",
            direction=Direction.SAVE,
            num_bytes=max(held),
        )


def _of_the_base(plan: Plan) -> Finding:
    adapter = plan.model.adapter
    is_dora = adapter is not None and adapter.use_dora
    more = "; what DoRA computes beside LoRA is not counted" if is_dora else ""
    return Finding(
        code="activations-of-the-base",
        severity=Severity.NOTE,
        message=f"no activation profile of {plan.model.name} was traced: activations are its "
        "base's, without what frozen layers do not keep and with what adapter and packed weights "
        f"take{more}",
        remedy="`zero-sizer models --profile MODEL`, with the same --adapter and --quantization, "
        "traces one"
        if plan.model.freeze is None
        else "",
        direction=Direction.COST if is_dora else None,
    )


def _about_widths(plan: Plan) -> Iterator[Finding]:
    """What the closed form counts too little for want of a number."""
    model, arch = plan.model, plan.model.arch
    if not num_layers(arch) and not any(block_of(t.name) for t in model.parameters):
        yield _unknown(plan, "activations of one layer are counted: how many there are is")
    if not model.exact_tensors and not arch.vocab:
        yield _unknown(plan, "nothing is counted for logits: the vocabulary is")
    if plan.attention == "eager" and not arch.heads:
        yield _unknown(plan, "nothing is counted for attention scores: how many heads is")


def _unknown(plan: Plan, what: str) -> Finding:
    return Finding(
        code=ACTIVATIONS_UNKNOWN,
        severity=Severity.WARNING,
        key="--model",
        message=f"{what} not known of {plan.model.name}, so passes take more than is shown",
        remedy=_better(plan),
        direction=Direction.COST,
    )


def _about_sequences(plan: Plan) -> Iterator[Finding]:
    if select.mask_of(plan) is None:
        yield Finding(
            code="sequences-not-modelled",
            severity=Severity.WARNING,
            key="--sequences",
            message=f"what {plan.sequences} sequences add to {plan.attention} attention of "
            f"{plan.model.name} is not known here: its masks or copies are not counted",
            remedy="ask the simulated dry run"
            if plan.attention != "flash"
            else "pack them, or take sdpa",
            direction=Direction.COST,
        )
    elif (plan.sequences, plan.attention) == (PADDED, "flash"):
        yield Finding(
            code="padding-counted-in-full",
            severity=Severity.NOTE,
            key="--sequences",
            message="flash attention works on copies without the padding; they are counted as if "
            "no token were padding",
        )


def _about_loss(plan: Plan) -> Finding:
    return Finding(
        code="loss-not-modelled",
        severity=Severity.WARNING,
        key="--loss",
        message=f"what the {plan.loss} loss holds is not known of {plan.model.name} here: "
        "transformers' own is counted",
        remedy="leave --loss out, or `zero-sizer dryrun --how simulated -- train.py` the training "
        "script",
        # under torch_autocast Liger casts the head's weight, torch logits beside their shifted copy
        direction=Direction.EITHER if plan.loss in workload.CASTS else Direction.SAVE,
    )


def _about_leaves(plan: Plan) -> Iterator[Finding]:
    for name in zero_rules.leaves_of(plan).missing:
        yield Finding(
            code="leaf-module-unknown",
            severity=Severity.WARNING,
            key="zero_optimization.leaf_module",
            message=f"{name!r} names no module that is known here: nothing is counted for it",
            remedy="name modules under names or name_suffixes, or ask the simulated dry run",
        )


def _about_version(plan: Plan) -> Iterator[Finding]:
    """An engine that is not the modelled one, where what it does otherwise is known."""
    version = plan.deepspeed_version
    if version is None or _release(version) == _release(MODELS_DEEPSPEED):
        return
    if plan.stage == 3 and _release(version) < _COORDINATOR:
        counted = compose.timeline_of(plan).backward.gathered
        yield Finding(
            code="old-gathering",
            severity=Severity.NOTE,
            key="--deepspeed-version",
            message=f"stage 3 of DeepSpeed {version} gathers and releases weights by other rules "
            f"than 0.6 and later, which are counted: {format_gib(counted)} in backward",
            remedy="",
            direction=Direction.EITHER,
            num_bytes=max(_most_gathered(plan) - counted, 0),
            less_bytes=counted,
        )
        return
    yield Finding(
        code="other-deepspeed",
        severity=Severity.NOTE,
        key="--deepspeed-version",
        message=f"figures are those of DeepSpeed {MODELS_DEEPSPEED}: {version} was not compared",
        remedy="a simulated dry run follows the version that is installed",
    )


def _release(version: str) -> tuple[int, ...]:
    """The parts that say what an engine does: 0.15 of 0.15.1."""
    return tuple(map(int, version.split(".")[:2]))


def _most_gathered(plan: Plan) -> int:
    """Weights kept for reuse or fetched ahead, and a tensor that is fetched beside them.

    deepspeed 0.5.9 runtime/zero/stage3.py:351-520, ``PartitionedParameterCoordinator``.
    """
    numels = sizes.numels(plan)
    kept = max(plan.max_live_parameters, plan.max_reuse_distance) + plan.prefetch_bucket_size
    return num_bytes(min(sum(numels), kept + max(numels, default=0)), plan.model_dtype)


def _better(plan: Plan) -> str:
    """What tells more than the closed form, of such a model."""
    if plan.feed is not None:
        return _TRACED
    if besides_tokens(plan.model):
        return _OWN_INPUTS
    if not plan.model.exact_tensors:
        return "give heads, ffn and vocab too, or name a bundled model or a config.json"
    if plan.model.hf_config.get("model_type") and plan.model.arch.hidden:
        return "`zero-sizer models --profile MODEL` traces one"
    return (
        "name a bundled model or a config.json, let module:factory return a transformers model, or "
        "`zero-sizer dryrun --how simulated -- train.py` the training script"
    )


def _about_inputs(plan: Plan) -> Iterator[Finding]:
    inputs = select.inputs_of(plan)
    if inputs is not None and inputs.leave and _hands_over_more(plan):
        yield Finding(
            code="checkpointing-not-modelled",
            severity=Severity.WARNING,
            key="--checkpointing-how",
            message=f"blocks of {plan.model.name} are handed more than their hidden states (masks, "
            "an encoder's output): it leaves with every block and is not counted here",
            remedy="ask the simulated dry run",
            direction=Direction.COST,
            device="",
        )
    if plan.checkpointing_how.by == DEEPSPEED and plan.partition_activations:
        yield from _about_partitions(plan)


def _hands_over_more(plan: Plan) -> bool:
    """transformers hands some blocks their mask by position, so that it counts as an input."""
    has_mask = plan.attention == "eager" or plan.sequences != EQUAL
    by_position = plan.model.arch.family in ("gpt2", "bert")
    return bool(plan.model.arch.decoder_layers) or (has_mask and by_position)


def _about_partitions(plan: Plan) -> Iterator[Finding]:
    yield Finding(
        code="partitions-nothing",
        severity=Severity.NOTE,
        key=_SECTION + "partition_activations",
        message="divides inputs among model-parallel ranks; without them each is copied and kept "
        "whole",
        remedy="delete it",
    )
    room = plan.contiguous_checkpoints
    recomputed = select.num_recomputed(plan)
    if 0 < room < recomputed:
        yield Finding(
            code="number-checkpoints",
            severity=Severity.ERROR,
            key=_SECTION + "number_checkpoints",
            message=f"IndexError in the forward: {recomputed} blocks are checkpointed, "
            f"and there is room for {room}",
            remedy=f"make it {recomputed}",
        )
