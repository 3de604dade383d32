"""The GPU table: figures that agree with their sources, and names as people type them."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zero_sizer.errors import InputError
from zero_sizer.hardware import catalog
from zero_sizer.units import GIB, parse_size

TABLE = json.loads((Path(catalog.__file__).parent / "data" / "gpus.json").read_text())
ROWS = {row["name"]: row for row in TABLE["gpus"]}
GPUS = {gpu.name: gpu for gpu in catalog.all_gpus()}
CONTRACT = {
    *("h100-80gb", "a100-40gb", "a100-80gb", "h200-141gb", "b200-180gb", "v100-16gb", "v100-32gb"),
    *("rtx-3090", "rtx-4090", "rtx-5090", "l4", "l40s", "t4", "mi250x", "mi300x"),
}


def test_the_names_of_the_contract_are_in_the_table():
    assert set(GPUS) >= CONTRACT
    assert len(ROWS) == len(TABLE["gpus"]) == len(GPUS)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("h100-80gb", 79.1, 79.2),
        ("a100-40gb", 39.38, 39.6),
        ("a100-80gb", 79.1, 79.36),
        ("v100-32gb", 31.7, 31.76),
        ("v100-16gb", 15.75, 15.79),
        ("h200-141gb", 139.7, 140.0),
        ("mi300x", 191.9, 192.0),
    ],
)
def test_pytorch_sees_less_than_the_box_says(name, low, high):
    """The bands users report; the box says 80, 40, 80, 32, 16, 141 and 192 GiB."""
    gpu = GPUS[name]
    assert (
        low <= round(gpu.visible_bytes / GIB, 2) <= round(gpu.visible_high_bytes / GIB, 2) <= high
    )
    assert gpu.visible_high_bytes < gpu.marketing_bytes


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_each_visible_figure_is_the_one_published(row):
    for figure in row["visible"]:
        assert figure["bytes"] == parse_size(figure["as"])
        assert 0.9 * row["marketing_bytes"] < figure["bytes"] <= row["marketing_bytes"]
    assert bool(row["visible"]) != bool(row.get("visible_note")), "measured, or says that it is not"


def test_every_figure_has_a_source_and_every_source_is_used():
    used = {
        key
        for row in ROWS.values()
        for key in (
            *row["sources"],
            *row["context"]["sources"],
            *(figure["source"] for figure in row["visible"]),
        )
    }
    assert used == set(TABLE["sources"])
    assert all(row["sources"] and row["context"]["sources"] for row in ROWS.values())
    for source in TABLE["sources"].values():
        assert source["title"]
        assert source["url"].startswith("https://")


@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)
def test_peaks_are_dense_and_consistent(gpu):
    """A sparse figure copied by mistake would be twice its neighbours."""
    peaks = gpu.peak_tflops
    if "bf16" in peaks:
        assert peaks["bf16"] == peaks["fp16"]
    if "fp8" in peaks:
        assert peaks["fp8"] / peaks["bf16"] == pytest.approx(2, rel=0.03)
    if "tf32" in peaks:
        assert peaks["bf16"] / peaks["tf32"] == pytest.approx(2, rel=0.03)
    assert peaks["fp32"] <= peaks["fp16"]
    assert gpu.pcie_gb_per_s <= gpu.intra_node_gb_per_s <= gpu.memory_gb_per_s
    assert 0 < gpu.context_bytes[0] <= gpu.context_bytes[1] < gpu.visible_bytes // 10


@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)
def test_the_generation_is_the_one_whose_tensor_cores_the_peaks_show(gpu):
    """NVIDIA's bf16 and tf32 tensor cores begin with 8.0 (Ampere), fp8 with 8.9 (Ada)."""
    if gpu.name.startswith("mi"):
        assert gpu.compute_capability is None
    else:
        assert (gpu.compute_capability >= (8, 0)) == ("bf16" in gpu.peak_tflops)
        assert (gpu.compute_capability >= (8, 9)) == ("fp8" in gpu.peak_tflops)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("H100", "h100-80gb"),
        ("h100_80gb", "h100-80gb"),
        ("NVIDIA H100 80GB HBM3", "h100-80gb"),
        ("A100 80GB", "a100-80gb"),
        ("a100-80", "a100-80gb"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("V100-SXM2-32GB", "v100-32gb"),
        ("rtx3090", "rtx-3090"),
        ("GeForce RTX 4090", "rtx-4090"),
        ("4090", "rtx-4090"),
        ("Tesla T4", "t4"),
        ("a10", "a10-24gb"),
        ("L40", "l40"),
        ("AMD Instinct MI300X", "mi300x"),
    ],
)
def test_spellings_are_forgiven(text, name):
    assert catalog.find(text).name == name


def test_every_name_label_and_alias_means_its_own_row():
    for row in ROWS.values():
        for text in (row["name"], row["label"], row["name"].upper(), *row["aliases"]):
            assert catalog.find(text).name == row["name"], text


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("a100", ["a100-40gb", "a100-80gb", "a100-pcie-40gb"]),
        ("v100", ["v100-16gb", "v100-32gb"]),
        ("h1000", ["did you mean", "h100-80gb", "zero-sizer gpus"]),
        ("rtx-3091", ["did you mean", "rtx-3090"]),
        ("abacus", ["zero-sizer gpus", "--gpu-memory"]),
    ],
)
def test_a_name_that_is_not_one_gpu_names_the_choices(text, needed):
    with pytest.raises(InputError) as caught:
        catalog.find(text)
    for word in needed:
        assert word in str(caught.value)


@given(st.text(max_size=200))
def test_any_text_is_a_gpu_or_one_line(text):
    try:
        found = catalog.find(text)
    except InputError as error:
        line = str(error)
    else:
        line = found.label
        assert found in catalog.all_gpus()
    assert len(line) < 1000
    assert line.isprintable()
