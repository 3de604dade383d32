import pytest

from zero_sizer.dryrun.simulated.workspaces import (
    AttentionShape,
    cublaslt_workspace_bytes,
    flash_backward_bytes,
    workspaces_of,
)
from zero_sizer.errors import InputError
from zero_sizer.hardware import catalog, outside
from zero_sizer.hardware.workspaces import blas_bytes
from zero_sizer.units import GIB, MIB, DType


@pytest.mark.parametrize("name", ["v100-32gb", "a100-80gb", "rtx-3090", "rtx-4090"])
def test_cublas_takes_the_8519680_bytes_that_users_see_in_snapshots(name):
    # https://discuss.pytorch.org/t/178671: an allocation of 8519680 bytes at the first product
    assert blas_bytes(catalog.find(name)) == 8_519_680


@pytest.mark.parametrize("name", ["h100-80gb", "h200-141gb", "b200-180gb", "rtx-5090", "mi250x"])
def test_cublas_takes_32_mib_from_hopper_on_and_so_does_hipblas(name):
    assert blas_bytes(catalog.find(name)) == 32 * MIB


@pytest.mark.parametrize("name", ["mi300x", "mi325x", "mi355x"])
def test_hipblas_takes_128_mib_on_gfx94_and_gfx95(name):
    assert blas_bytes(catalog.find(name)) == 128 * MIB


def test_a_gpu_that_nobody_named_is_taken_to_be_older():
    assert blas_bytes(None) == 8_519_680


def test_cublas_config_adds_up_size_times_count():
    gpu = catalog.find("h100-80gb")
    assert blas_bytes(gpu, ":4096:8") == 32 * MIB
    assert blas_bytes(gpu, ":16:8") == 128 * 1024
    assert blas_bytes(gpu, ":4096:2:16:8") == 8_519_680  # two pairs
    with pytest.raises(InputError, match="CUBLAS_WORKSPACE_CONFIG"):
        blas_bytes(gpu, "4096")


def test_cublaslt_shares_cublas_workspace_unless_told_otherwise():
    assert cublaslt_workspace_bytes() == 0
    assert cublaslt_workspace_bytes(unified=False) == MIB
    assert cublaslt_workspace_bytes(unified=False, size_kib=4096) == 4 * MIB


def llama_7b_attention(**changes):
    shape = {"batch": 1, "seq_len_q": 4096, "seq_len_k": 4096, "heads": 32, "kv_heads": 32}
    return AttentionShape(**{**shape, "head_dim": 128, **changes})


def test_flash_backward_of_llama_2_7b():
    # dq_accum 1 x 4096 x 32 x 128 x 4 B = 64 MiB, softmax_d 1 x 32 x 4096 x 4 B = 0.5 MiB
    assert flash_backward_bytes(llama_7b_attention()) == 64 * MIB + MIB // 2


def test_flash_backward_rounds_rows_to_128_and_heads_to_32_or_64():
    # 100 rows -> 128; 72 -> 96 (multiples of 32 up to 128), 160 -> 192 (multiples of 64 above)
    for head_dim, rounded in ((72, 96), (160, 192), (60, 64)):
        shape = llama_7b_attention(seq_len_q=100, seq_len_k=100, head_dim=head_dim)
        assert flash_backward_bytes(shape) == 32 * 128 * (rounded + 1) * 4


def test_flash_backward_expands_grouped_key_heads():
    # dk and dv in bf16 for all 32 heads: 2 x 4096 x 32 x 128 x 2 B = 64 MiB on top
    grouped = flash_backward_bytes(llama_7b_attention(kv_heads=8))
    assert grouped - flash_backward_bytes(llama_7b_attention()) == 64 * MIB
    double = flash_backward_bytes(llama_7b_attention(kv_heads=8, dtype=DType.FP32))
    assert double - grouped == 64 * MIB


def test_deterministic_backward_keeps_one_accumulator_per_split():
    # 132 multiprocessors over 1 x 32 heads: 5 splits of 64 MiB
    shape = llama_7b_attention()
    assert flash_backward_bytes(shape, deterministic_sms=132) == 5 * 64 * MIB + MIB // 2


def test_measured_ranges_hold_the_published_figures():
    # stas00/ml-engineering: 0.47 GiB lazy, 0.92 eager; nccl#864: 1.6 GB; barrier 0.55 -> 2.00 GiB
    assert outside.CONTEXT.low <= 0.47 * GIB < 0.92 * GIB <= outside.CONTEXT.high
    assert outside.NCCL.low < (2.00 - 0.55) * GIB < 1.6e9 <= outside.NCCL.high
    assert outside.PROCESS.low < 438_632 * 1024 < 2_056_600 * 1024 < outside.PROCESS.high
    ranges = (outside.CONTEXT, outside.NCCL, outside.PROCESS, outside.WORKER)
    assert all(r.sources for r in ranges)


def test_a_context_is_that_of_the_gpu_table():
    for gpu in catalog.all_gpus():
        assert (outside.context(gpu).low, outside.context(gpu).high) == gpu.context_bytes
        assert outside.of_gpu(gpu, 1) == outside.context(gpu)
        low, high = outside.least_and_most(gpu, 8)
        assert low == gpu.context_bytes[0] + outside.NCCL.low
        assert high == gpu.context_bytes[1] + outside.NCCL.high


def simulated_job(**changes):
    job = {
        "gpu": "h100-80gb",
        "config": {"bf16": {"enabled": True}},
        "hf_config": {"hidden_size": 4096, "num_attention_heads": 32},
        "attention": "flash",
        "micro_batch": 1,
        "seq_len": 4096,
    }
    return {**job, **changes}


def test_a_jobs_workspaces_are_those_of_its_gpu_and_its_attention():
    found = {row.name: row.num_bytes for row in workspaces_of(simulated_job())}
    assert found == {
        "flash attention, backward": flash_backward_bytes(llama_7b_attention()),
    }
    (unknown, _) = workspaces_of(simulated_job(gpu=""))
    assert (unknown.name, unknown.num_bytes) == ("cuBLAS", 8_519_680)


@pytest.mark.parametrize(
    "changes",
    [{"attention": "eager"}, {"config": {}}, {"hf_config": {}}],
    ids=["eager", "fp32", "no heads known"],
)
def test_no_flash_scratch_where_no_flash_kernel_runs(changes):
    assert not workspaces_of(simulated_job(**changes))


def test_nvidias_kernels_are_not_on_amds_gpus():
    assert not workspaces_of(simulated_job(gpu="mi300x"))
