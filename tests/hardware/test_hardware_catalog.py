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
    assert row["visible"] or row.get("visible_note"), "measured, or says that it is not"


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_figure_of_nvidia_smi_says_that_pytorch_sees_less(row):
    """nvidia-smi counts what the driver keeps: 143,771 MiB of an H200, PyTorch 143,155."""
    of_driver = [f["source"] for f in row["visible"] if f["source"].startswith("smi-")]
    assert not of_driver or "nvidia-smi" in row["visible_note"]


def test_every_figure_has_a_source_and_every_source_is_used():
    used = {
        key
        for row in ROWS.values()
        for key in (
            *row["sources"],
            *TABLE["contexts"][row["context"]]["sources"],
            *(figure["source"] for figure in row["visible"]),
            *([row["board_power"]["source"]] if "board_power" in row else []),
        )
    }
    used |= {row["source"] for row in TABLE["elsewhere"] if "memory" in row}
    assert used == set(TABLE["sources"])
    assert {row["context"] for row in ROWS.values()} == set(TABLE["contexts"])
    assert all(row["sources"] for row in ROWS.values())
    assert all(context["sources"] for context in TABLE["contexts"].values())
    for source in TABLE["sources"].values():
        assert source["title"]
        assert source["url"].startswith("https://")


@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)
def test_peaks_are_dense_and_consistent(gpu):
    """A sparse figure copied by mistake would be twice its neighbours."""
    peaks = gpu.peak_tflops
    if "bf16" in peaks:
        assert peaks["bf16"] == peaks["fp16"] or gpu.gfx == "gfx908"  # AMD: 92.3 and 184.6
    if "fp8" in peaks:
        assert peaks["fp8"] / peaks["bf16"] == pytest.approx(2, rel=0.03)
    if "tf32" in peaks:
        assert peaks["bf16"] / peaks["tf32"] == pytest.approx(2, rel=0.03)
    assert peaks["fp32"] <= peaks.get("fp16", peaks["fp32"])
    assert "fp16" in peaks or gpu.compute_capability == (6, 1)  # its fp16 is 1/64 of fp32
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
        ("a5000", "rtx-a5000-24gb"),
        ("3060", "rtx-3060-12gb"),
        ("4060ti-16gb", "rtx-4060-ti-16gb"),
        ("4090D", "rtx-4090-d"),
        ("4090 48gb", "rtx-4090-48gb"),
        ("rtx 8000", "quadro-rtx-8000-48gb"),
        ("h20-3e", "h20-141gb"),
        ("H800 PCIe", "h800-pcie-80gb"),
        ("quadro a6000", "rtx-a6000-48gb"),
        ("p40", "p40-24gb"),
        ("mi250", "mi250"),
        ("4060", "rtx-4060"),
        ("5060", "rtx-5060"),
        ("3060 Ti", "rtx-3060-ti"),
        ("RTX 4070 Super", "rtx-4070-super"),
        ("GTX 1080", "gtx-1080"),
    ],
)
def test_spellings_are_forgiven(text, name):
    assert catalog.find(text).name == name


PASTED = {  # as nvidia-smi and torch.cuda.get_device_name() print them
    "NVIDIA A100-SXM4-40GB": "a100-40gb",
    "NVIDIA A100-SXM4-80GB": "a100-80gb",
    "NVIDIA A100-PCIE-40GB": "a100-pcie-40gb",
    "NVIDIA A100 80GB PCIe": "a100-pcie-80gb",
    "NVIDIA A800-SXM4-80GB": "a800-80gb",
    "NVIDIA A800 80GB PCIe": "a800-pcie-80gb",
    "NVIDIA H100 80GB HBM3": "h100-80gb",
    "NVIDIA H100 PCIe": "h100-pcie-80gb",
    "NVIDIA H100 NVL": "h100-nvl-94gb",
    "NVIDIA H200": "h200-141gb",
    "NVIDIA H200 NVL": "h200-nvl-141gb",
    "NVIDIA H20": "h20-96gb",
    "NVIDIA H20-3e": "h20-141gb",
    "NVIDIA H800": "h800-80gb",
    "NVIDIA B200": "b200-180gb",
    "NVIDIA B300 SXM6 AC": "b300-288gb",
    "NVIDIA GB200": "gb200-186gb",
    "NVIDIA GB300": "gb300-288gb",
    "NVIDIA GH200 480GB": "gh200-96gb",
    "NVIDIA GH200 120GB": "gh200-96gb",
    "NVIDIA GH200 144G HBM3e": "gh200-144gb",
    "Tesla V100-SXM2-16GB": "v100-16gb",
    "Tesla V100-SXM2-32GB": "v100-32gb",
    "Tesla V100-PCIE-16GB": "v100-pcie-16gb",
    "Tesla V100-PCIE-32GB": "v100-pcie-32gb",
    "Tesla V100S-PCIE-32GB": "v100s-32gb",
    "Tesla P100-PCIE-16GB": "p100-pcie-16gb",
    "Tesla P40": "p40-24gb",
    "Tesla T4": "t4",
    "NVIDIA A10G": "a10g-24gb",
    "NVIDIA L40S": "l40s",
    "NVIDIA RTX A4000": "rtx-a4000-16gb",
    "NVIDIA RTX A6000": "rtx-a6000-48gb",
    "NVIDIA RTX 6000 Ada Generation": "rtx-6000-ada-48gb",
    "NVIDIA RTX 5000 Ada Generation": "rtx-5000-ada-32gb",
    "Quadro RTX 6000": "quadro-rtx-6000-24gb",
    "NVIDIA Quadro RTX 8000": "quadro-rtx-8000-48gb",
    "NVIDIA TITAN RTX": "titan-rtx",
    "TITAN Xp": "titan-xp",
    "GeForce GTX 1080 Ti": "gtx-1080-ti",
    "NVIDIA GeForce RTX 3060": "rtx-3060-12gb",
    "NVIDIA GeForce RTX 3090 Ti": "rtx-3090-ti",
    "NVIDIA GeForce RTX 4080 SUPER": "rtx-4080-super",
    "NVIDIA GeForce RTX 4090": "rtx-4090",
    "NVIDIA GeForce RTX 4090 D": "rtx-4090-d",
    "NVIDIA GeForce RTX 5070 Ti": "rtx-5070-ti",
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition": "rtx-pro-6000-96gb",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": "rtx-pro-6000-server-96gb",
    "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition": "rtx-pro-6000-max-q-96gb",
    "AMD Instinct MI250X": "mi250x",
    "AMD Instinct MI250X/MI250": "mi250",
    "AMD Instinct MI300X VF": "mi300x",
}


@pytest.mark.parametrize(("text", "name"), PASTED.items(), ids=PASTED)
def test_names_pasted_from_a_driver_are_read(text, name):
    for written in (text, text.lower(), text.upper()):
        assert catalog.find(written).name == name


def test_no_two_rows_share_a_spelling():
    """``_by_spelling`` leaves a shared one out: it would be an alias that nobody can use."""
    meant: dict[str, str] = {}
    for row in TABLE["gpus"]:
        for text in (row["name"], row["label"], *row["aliases"]):
            assert meant.setdefault(catalog._squeeze(text), row["name"]) == row["name"], text


@pytest.mark.parametrize("row", TABLE["elsewhere"], ids=lambda row: row["label"])
def test_an_accelerator_elsewhere_says_why_and_which_flag_still_sizes_a_job(row):
    for text in row["names"]:
        with pytest.raises(InputError) as caught:
            catalog.find(text)
        assert row["why"] in caught.value.message
        assert "--gpu-memory" in caught.value.remedy
    assert row.get("like", "a100-80gb") in GPUS
    if "memory" in row:
        assert parse_size(row["memory"]) > 0


def test_every_name_label_and_alias_means_its_own_row():
    for row in ROWS.values():
        for text in (row["name"], row["label"], row["name"].upper(), *row["aliases"]):
            assert catalog.find(text).name == row["name"], text


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("a100", ["a100-40gb", "a100-80gb", "a100-pcie-40gb"]),
        ("v100", ["v100-16gb", "v100-32gb", "v100-pcie-16gb", "v100s-32gb"]),
        ("gh200", ["gh200-96gb", "gh200-144gb"]),
        ("4060 Ti", ["rtx-4060-ti-8gb", "rtx-4060-ti-16gb"]),
        ("NVIDIA GeForce RTX 5060 Ti", ["rtx-5060-ti-8gb", "rtx-5060-ti-16gb"]),
        ("rtx 6000", ["rtx-6000-ada-48gb", "quadro-rtx-6000-24gb"]),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", ["slice", "--gpu a100-40gb", "20GiB"]),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", ["slice", "--gpu h100-80gb", "10GiB"]),
        ("H200 MIG 1g.18gb", ["slice", "--gpu h200-141gb", "18GiB"]),
        ("A100 MIG 3g.20gb", ["slice", "--gpu a100-40gb or a100-pcie-40gb "]),
        ("A100 MIG 1g.10gb", ["slice", "--gpu a100-80gb or a100-pcie-80gb "]),
        ("A30 MIG", ["slice", "--gpu a30-24gb", "SIZE"]),
        ("h1000", ["did you mean", "h100-80gb", "zero-sizer gpus"]),
        ("NVIDIA GeForce GTX 1070", ["no GPU", "--gpu-memory"]),
        ("P4", ["no GPU"]),  # 8 GB, and no P40
        ("L2", ["no GPU"]),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", ["no GPU"]),
        ("Radeon RX 7900 XTX", ["AMD Radeon", "not measured"]),
        ("M3 Ultra", ["an Apple GPU", "the host's as well"]),
        ("Quadro RTX 5000", ["no GPU"]),  # 16 GB; the RTX 5000 Ada has 32
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
