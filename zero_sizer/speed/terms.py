"""The parts of a step's time, each declared with its formula and source."""

from zero_sizer.activations import loss, select
from zero_sizer.config.workload import FUSED_LINEAR, LIGER, LIGER_KERNELS, NON_REENTRANT
from zero_sizer.hardware.device import Device
from zero_sizer.plan import sizes
from zero_sizer.speed import muon
from zero_sizer.speed.step import Kind, Per, Step, Term, offloads_params
from zero_sizer.speed.work import gathers

_KORTHIKANTI = "arXiv:2205.05198 appendix A"
_ZERO_PAPER = "arXiv:1910.02054 section 7"
_SCORE_BYTES = 28  # scores written, masked, softmax in fp32, cast, read for the values
BACKWARD_SHARE = 0.86  # backward's rate of a fused kernel's forward: 63 and 73 % of the peak
_GRADIENT_CAST_BYTES = 6  # 16-bit gradient read, fp32 copy written


def _passes(step: Step) -> tuple[float, float, float]:
    """Passes over the products inside and outside blocks, and those that stop before the last.

    Torch's own checkpoint stops where nothing more is kept, so before the last product of a block.
    """
    outside = 3.0 - step.work.frozen_share  # a frozen weight has no gradient product
    again = step.recompute
    stops_early = step.plan.checkpointing_how.by == NON_REENTRANT
    return outside + again, outside, again if stops_early else 0.0


def _matmul(step: Step) -> float:
    inside, outside, stopped = _passes(step)
    flops = step.work.block_flops * inside + step.work.head_flops * outside
    flops -= step.work.last_flops * stopped
    return step.tokens * flops / step.rates.matmul


def _operands(step: Step) -> float:
    inside, outside, stopped = _passes(step)
    work = step.work
    per_token = work.operand_elements * inside + work.head_operand_elements * outside
    per_token -= work.last_operand_elements * stopped
    elements = step.tokens * per_token + work.weight_elements * inside
    num_bytes = elements * step.plan.itemsize
    if step.plan.loss == FUSED_LINEAR:
        num_bytes += loss.repeated(step.plan.loss, select.loss_sizes(step.plan))
    return num_bytes / step.rates.memory


def _attention(step: Step) -> float:
    work, plan = step.work, step.plan
    square = step.tokens * work.attention_flops * plan.seq_len
    if plan.attention == "eager":
        return square * (3 + step.recompute) / step.rates.eager_attention
    passes = 1 + step.recompute + 2.5 / BACKWARD_SHARE
    return square * work.attention_share * passes / step.rates.attention


def _scores(step: Step) -> float:
    elements = step.tokens * step.work.score_width * step.plan.seq_len
    return elements * _SCORE_BYTES * (2 + step.recompute) / step.rates.memory


def _elementwise(step: Step) -> float:
    work = step.work
    per_token = work.elementwise_forward * (1 + step.recompute) + work.elementwise_backward
    elements = per_token * step.rates.elementwise_passes
    if not _is_fused(step):
        eager = work.eager_forward * (1 + step.recompute) + work.eager_backward
        elements += eager * step.rates.eager_share
    return step.tokens * elements * step.plan.itemsize / step.rates.memory


def _is_fused(step: Step) -> bool:
    """True if norms and rotation are Liger's kernels."""
    plan = step.plan
    return plan.kernels == LIGER_KERNELS and plan.model.arch.family in LIGER


def _loss(step: Step) -> float:
    return loss.moved(step.plan.loss, select.loss_sizes(step.plan)) / step.rates.memory


def _is_eager(step: Step) -> bool:
    return step.plan.attention == "eager"


def _stage(*stages: int) -> "_In":
    return _In(frozenset(stages))


class _In:
    """Whether the job is at one of these stages and has peers."""

    def __init__(self, stages: frozenset[int]) -> None:
        self._stages = stages

    def __call__(self, step: Step) -> bool:
        return step.plan.stage in self._stages and step.plan.dp_world_size > 1


def _overlaps(step: Step) -> bool:
    return step.plan.overlap_comm


def _kept_share(step: Step) -> float:
    """Share of the weights that backward finds still gathered.

    The last weights of forward are the first of backward: those within half of
    ``stage3_max_reuse_distance`` elements stay, while ``stage3_max_live_parameters`` allows it.
    """
    plan = step.plan
    near = min(plan.max_reuse_distance / 2, plan.max_live_parameters)
    total = plan.model.num_params
    return min(1.0, near / total) if total else 0.0


def _gather_calls(step: Step) -> int:
    """Gathers of one pass: a block each, or more where prefetch buckets are smaller."""
    plan = step.plan
    layers = (plan.model.arch.num_layers or 1) + (plan.model.arch.decoder_layers or 0)
    return max(layers, gathers(plan.model, plan.prefetch_bucket_size))


def _weight_bytes(step: Step) -> float:
    return float(step.plan.model.num_params * step.plan.itemsize)


def _gradient_bytes(step: Step) -> float:
    return float(sizes.num_trainable(step.plan) * step.plan.comm_dtype.itemsize)


def _gather_forward(step: Step) -> float:
    return step.gather_seconds(_weight_bytes(step), _gather_calls(step))


def _gather_backward(step: Step) -> float:
    size = _weight_bytes(step) * (1 - _kept_share(step))
    calls = _gather_calls(step) * (1 - _kept_share(step))
    if step.plan.hpz_partition_size > 1:
        return step.node_gather_seconds(size, calls)
    return step.gather_seconds(size, calls)


def _reduce_scatter(step: Step) -> float:
    seconds = step.gather_seconds(_gradient_bytes(step), step.buckets)
    return seconds if step.plan.reduce_scatter else 2 * seconds


def _all_reduce(step: Step) -> float:
    return step.reduce_seconds(_gradient_bytes(step), step.buckets)


def _gather_updated(step: Step) -> float:
    size = sizes.num_trainable(step.plan) * step.plan.itemsize
    return step.gather_seconds(float(size), len(sizes.groups(step.plan)))


def _state_bytes(step: Step) -> int:
    """Bytes of master weight, gradient and states of one element."""
    return step.plan.master_dtype.itemsize * (2 + len(step.plan.optimizer.states))


def _update_bytes(step: Step) -> int:
    """Bytes moved to update one element: all states read, all but the gradient written."""
    state = _state_bytes(step)
    written = state - step.plan.master_dtype.itemsize + step.plan.itemsize
    return state + written + _GRADIENT_CAST_BYTES


def _update(step: Step) -> float:
    here = sizes.partition_numel(step.plan) - step.offloaded
    return here * _update_bytes(step) / step.rates.memory


def _host_update(step: Step) -> float:
    return step.offloaded * _update_bytes(step) / step.host_share


def _gradients_to_host(step: Step) -> float:
    return step.offloaded * step.plan.itemsize / step.rates.pcie


def _weights_to_gpu(step: Step) -> float:
    return step.offloaded * step.plan.itemsize / step.rates.pcie


def _swap_optimizer(step: Step) -> float:
    state = _state_bytes(step)
    return step.offloaded * (2 * state - step.plan.master_dtype.itemsize) / step.nvme_share


def _fetch_weights(step: Step) -> float:
    plan = step.plan
    size = plan.model.num_params * plan.itemsize / plan.dp_world_size * (2 - _kept_share(step))
    nvme = size / step.nvme_share if plan.param_device is Device.NVME else 0.0
    return max(size / step.rates.pcie, nvme)


TERMS = (
    Term(
        name="matrix_products",
        kind=Kind.COMPUTE,
        about="weights times activations: forward, backward, and forward again if checkpointed",
        seconds=_matmul,
        per=Per.MICRO_STEP,
        formula="2 FLOPs x elements x tokens x passes / matmul rate",
        source=_KORTHIKANTI,
    ),
    Term(
        name="product_operands",
        kind=Kind.COMPUTE,
        about="their inputs, outputs and weights moved through GPU memory",
        seconds=_operands,
        per=Per.MICRO_STEP,
        formula="(tokens x (in + out) + in x out) x passes x bytes / memory rate",
        source="NVIDIA, Matrix Multiplication Background User's Guide: arithmetic intensity",
    ),
    Term(
        name="attention",
        kind=Kind.COMPUTE,
        about="scores and values; a fused kernel computes the causal half, and scores again",
        seconds=_attention,
        per=Per.MICRO_STEP,
        formula="4 x layers x width x sequence x tokens x (1/2 if causal) "
        "x (1 + recomputed + 2.5 / 0.86) / attention rate",
        source="arXiv:2307.08691 section 4.1",
    ),
    Term(
        name="attention_matrices",
        kind=Kind.COMPUTE,
        about="scores written to and read from GPU memory",
        seconds=_scores,
        per=Per.MICRO_STEP,
        when=_is_eager,
        formula="28 bytes x heads x sequence x tokens x passes / memory rate",
        source="transformers integrations: eager_attention_forward",
    ),
    Term(
        name="elementwise",
        kind=Kind.COMPUTE,
        about="norms, activations, residuals and rotation, bound by GPU memory",
        seconds=_elementwise,
        per=Per.MICRO_STEP,
        formula="(elements of fused kernels x passes + eager kernels' beyond those) x bytes "
        "/ memory rate",
        source="arXiv:2205.05198 section 4; transformers models/llama/modeling_llama.py",
    ),
    Term(
        name="loss",
        kind=Kind.COMPUTE,
        about="logits copied, normalized and their gradients made, bound by GPU memory",
        seconds=_loss,
        per=Per.MICRO_STEP,
        formula="bytes that this loss reads and writes / memory rate",
        source="activations/loss.py, by who computes it",
    ),
    Term(
        name="gather_for_forward",
        kind=Kind.COMMUNICATION,
        about="weights gathered from all ranks",
        seconds=_gather_forward,
        per=Per.MICRO_STEP,
        when=_stage(3),
        overlaps=_overlaps,
        formula="bytes of the weights x (N-1)/N / link",
        source=_ZERO_PAPER,
    ),
    Term(
        name="gather_for_backward",
        kind=Kind.COMMUNICATION,
        about="weights gathered again; inside the node only with hpZ",
        seconds=_gather_backward,
        per=Per.MICRO_STEP,
        when=_stage(3),
        overlaps=_overlaps,
        formula="bytes of the weights not kept x (N-1)/N / link",
        source=_ZERO_PAPER + "; hpZ: arXiv:2306.10209 section 3.2",
    ),
    Term(
        name="reduce_scatter_gradients",
        kind=Kind.COMMUNICATION,
        about="gradients summed, each rank keeps its part",
        seconds=_reduce_scatter,
        per=Per.MICRO_STEP,
        when=_stage(3),
        overlaps=_overlaps,
        formula="bytes of the gradients x (N-1)/N / link",
        source=_ZERO_PAPER,
    ),
    Term(
        name="all_reduce_every_micro_step",
        kind=Kind.COMMUNICATION,
        about="buckets summed on every rank, though each keeps only its part",
        seconds=_all_reduce,
        per=Per.MICRO_STEP,
        when=_stage(2),
        overlaps=_overlaps,
        formula="2 x bytes of the gradients x (N-1)/N / link",
        source="runtime/zero/stage_1_and_2.py:1695 (use_multi_rank_bucket_allreduce)",
    ),
    Term(
        name="all_reduce",
        kind=Kind.COMMUNICATION,
        about="gradients summed on every rank",
        seconds=_all_reduce,
        per=Per.STEP,
        when=_stage(0, 1),
        overlaps=lambda s: s.plan.stage == 1 and s.plan.overlap_comm,
        formula="2 x bytes of the gradients x (N-1)/N / link",
        source=_ZERO_PAPER + "; runtime/engine.py:3795",
    ),
    Term(
        name="gather_updated_weights",
        kind=Kind.COMMUNICATION,
        about="each rank's updated part sent to all",
        seconds=_gather_updated,
        per=Per.STEP,
        when=_stage(1, 2),
        formula="bytes of the weights x (N-1)/N / link",
        source=_ZERO_PAPER,
    ),
    Term(
        name="fetch_offloaded_weights",
        kind=Kind.TRANSFER,
        about="each rank's part of the weights from host or NVMe, for every gather",
        seconds=_fetch_weights,
        per=Per.MICRO_STEP,
        when=offloads_params,
        overlaps=_overlaps,
        formula="bytes of the partition x gathers / (PCIe or the rank's share of NVMe)",
        source="arXiv:2104.07857 section 5",
    ),
    Term(
        name="gradients_to_host",
        kind=Kind.TRANSFER,
        about="this rank's part of the gradients",
        seconds=_gradients_to_host,
        per=Per.MICRO_STEP,
        when=lambda s: s.offloaded > 0,
        overlaps=_overlaps,
        formula="bytes of the partition / PCIe",
        source="arXiv:2101.06840 section 4",
    ),
    Term(
        name="weights_to_gpu",
        kind=Kind.TRANSFER,
        about="updated weights back to the GPU",
        seconds=_weights_to_gpu,
        per=Per.STEP,
        when=lambda s: s.offloaded > 0 and not offloads_params(s),
        formula="bytes of the partition / PCIe",
        source="arXiv:2101.06840 section 4",
    ),
    Term(
        name="optimizer_update",
        kind=Kind.UPDATE,
        about="states read and written in GPU memory",
        seconds=_update,
        per=Per.STEP,
        formula="bytes of master weight, gradient and states, read and written / memory rate",
        source="runtime/zero/stage3.py:2683, runtime/zero/stage_1_and_2.py:2184",
    ),
    Term(
        name="newton_schulz",
        kind=Kind.UPDATE,
        about="Muon orthogonalises whole matrices, which ranks share",
        seconds=muon.seconds,
        per=Per.STEP,
        when=muon.runs,
        formula="FLOPs of five iterations / ranks / matrix rate",
        source="runtime/zero/muon/original_muon.py:51-150",
    ),
    Term(
        name="host_update",
        kind=Kind.UPDATE,
        about="CPU-Adam, bound by the memory that the node's ranks share",
        seconds=_host_update,
        per=Per.STEP,
        when=lambda s: s.offloaded > 0,
        formula="bytes of the states, read and written / (host memory rate / ranks of the node)",
        source="arXiv:2101.06840 section 5.1",
    ),
    Term(
        name="swap_optimizer",
        kind=Kind.TRANSFER,
        about="optimizer states read from and written to NVMe",
        seconds=_swap_optimizer,
        per=Per.STEP,
        when=lambda s: s.offloaded > 0 and s.plan.optimizer_device is Device.NVME,
        formula="bytes of the states, read and written / the rank's share of NVMe",
        source="arXiv:2104.07857 section 5",
    ),
)
