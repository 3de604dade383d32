"""Machines of clouds: rows that agree with the GPU table, and what they bring to a cluster."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zero_sizer.errors import InputError
from zero_sizer.hardware import catalog, instances
from zero_sizer.hardware.assemble import Stated, assemble
from zero_sizer.hardware.costs import list_prices
from zero_sizer.units import GIB, parse_size

TABLE = json.loads((Path(instances.__file__).parent / "data" / "instances.json").read_text())
GPUS = {gpu.name: gpu for gpu in catalog.all_gpus()}


def stated(**values) -> dict[str, Stated]:
    return {name: Stated(value, "--" + name) for name, value in values.items()}


@pytest.mark.parametrize("row", TABLE["instances"], ids=lambda row: row["name"])
def test_a_row_is_cited_and_has_gpus_that_are_known(row):
    assert row["gpu"] in GPUS
    assert row["gpus"] in (1, 2, 4, 8, 16)
    assert row["sources"]
    assert set(row["sources"]) <= set(TABLE["sources"])
    if "host_memory" in row:  # clouds give a GPU 4 GiB and more, and none two TiB
        assert 4 * GIB <= parse_size(row["host_memory"]) / row["gpus"] <= 1024 * GIB
    if "network_gbit_per_s" in row:
        assert 10 <= row["network_gbit_per_s"] <= 6400


def test_every_source_is_used_and_has_an_address():
    used = {key for row in TABLE["instances"] for key in row["sources"]}
    assert used == set(TABLE["sources"])
    assert all(source["url"].startswith("https://") for source in TABLE["sources"].values())


def test_no_two_rows_share_a_name():
    names = [instances._plain(row["name"]) for row in TABLE["instances"]]
    assert len(set(names)) == len(names)


def test_prices_and_instances_agree_on_the_gpus():
    """Two tables, each with its own sources, name the same machines."""
    priced = {price.instance: price for gpu in GPUS for price in list_prices(gpu)}
    both = [row for row in instances.all_instances() if row.name in priced]
    assert len(both) >= 8
    for row in both:
        assert (row.gpu, row.gpus) == (priced[row.name].gpu, priced[row.name].gpus)


@pytest.mark.parametrize(
    ("text", "gpu", "gpus", "memory"),
    [
        ("p4d.24xlarge", "a100-40gb", 8, "1152GiB"),
        ("P5.48xlarge", "h100-80gb", 8, "2048GiB"),
        ("ml.g5.12xlarge", "a10g-24gb", 4, "192GiB"),
        ("a2-highgpu-8g", "a100-40gb", 8, "680GiB"),
        ("Standard_ND96asr_v4", "a100-40gb", 8, "900GiB"),
        ("nd96amsr_a100_v4", "a100-80gb", 8, "1900GiB"),
        ("p4d", "a100-40gb", 8, "1152GiB"),
        ("p5en", "h200-141gb", 8, "2048GiB"),
        ("a3-ultragpu", "h200-141gb", 8, "2952GiB"),
        ("a3-mega", "h100-80gb", 8, "1872GiB"),
        ("a4", "b200-180gb", 8, "3968GiB"),
        ("BM.GPU.H100", "h100-80gb", 8, "2048GiB"),
    ],
)
def test_names_as_people_type_them(text, gpu, gpus, memory):
    found = instances.find(text)
    assert (found.gpu, found.gpus, found.host_memory) == (gpu, gpus, parse_size(memory))


def test_an_instance_fills_what_nobody_stated_and_says_so():
    cluster = assemble(stated(instance="p4d.24xlarge", nodes=2))
    assert (cluster.gpu.name, cluster.layout) == ("a100-40gb", "2 x 8")
    assert cluster.host_memory == 1152 * GIB
    assert cluster.nvme == parse_size("8TB")
    assert cluster.rates["inter_node_gb_per_s"] == 50  # 400 Gb/s
    for name in ("gpu", "gpus_per_node", "host_memory", "nvme", "inter_node_gb_per_s"):
        assert cluster.origins[name] == "--instance p4d.24xlarge"
    assert cluster.origins["nodes"] == "--nodes"


def test_what_stands_beside_it_wins():
    beside = stated(gpus_per_node=4, host_memory=GIB, inter_node_gb_per_s=25.0, gpu="A100 40GB")
    cluster = assemble(stated(instance="p4d.24xlarge") | beside)
    assert (cluster.gpus_per_node, cluster.host_memory) == (4, GIB)
    assert cluster.rates["inter_node_gb_per_s"] == 25
    assert cluster.origins["host_memory"] == "--host_memory"


def test_a_figure_that_was_not_found_stays_open():
    cluster = assemble(stated(instance="g5.xlarge"))
    assert cluster.nvme is None
    assert "inter_node_gb_per_s" not in cluster.rates
    assert cluster.origins["nvme"] == "not stated"


def test_a_hostfile_says_itself_how_many_gpus_are_used(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("a slots=4\nb slots=4\n")
    cluster = assemble(stated(instance="p4d.24xlarge", hostfile=str(path)))
    assert cluster.layout == "2 x 4"
    assert cluster.gpu.name == "a100-40gb"


@pytest.mark.parametrize(
    ("values", "needed"),
    [
        ({"instance": "p4d.24xlarge", "gpu": "h100"}, "a100-40gb, not h100-80gb"),
        ({"instance": "p4d.24xlarge", "gpus_per_node": 16}, "8 GPUs, not 16"),
        ({"instance": "p4dx.24xlarge"}, "did you mean p4d.24xlarge"),
        ({"instance": "abacus"}, "--gpus-per-node"),
        ({"instance": "h100"}, "it is a GPU: --gpu h100-80gb"),
        ({"instance": "g6"}, "could be any of g6.xlarge, g6.2xlarge, g6.4xlarge, "),
        ({"instance": "p5"}, "could be any of p5.4xlarge, p5.48xlarge"),
        ({"instance": "trn1.32xlarge"}, "AWS Trainium or Inferentia: DeepSpeed does not run on"),
        ({"instance": "p4"}, "could be any of p4d.24xlarge, p4de.24xlarge"),
        ({"instance": "nd96"}, "Standard_ND96isr_H100_v5"),
    ],
)
def test_a_machine_that_is_none_is_one_line(values, needed):
    with pytest.raises(InputError) as caught:
        assemble(stated(**values))
    assert needed in str(caught.value)
    assert str(caught.value).startswith("--instance: ")


def test_a_gpu_that_is_unknown_is_told_where_it_stands():
    with pytest.raises(InputError) as caught:
        assemble(stated(instance="p4d.24xlarge", gpu="910b"))
    assert str(caught.value).startswith("--gpu: Huawei")


def test_a_machine_in_place_of_a_gpu_names_the_flag():
    with pytest.raises(InputError) as caught:
        assemble(stated(gpu="p4d.24xlarge"))
    assert "--instance p4d.24xlarge" in caught.value.remedy


@given(st.text(max_size=200))
def test_any_text_is_an_instance_or_one_line(text):
    try:
        line = instances.find(text).name
    except InputError as error:
        line = str(error)
    assert len(line) < 500
    assert line.isprintable()
