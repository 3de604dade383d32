"""From what a user states about the machines to a cluster."""

import pytest

from zero_sizer.errors import InputError
from zero_sizer.hardware import catalog
from zero_sizer.hardware.assemble import DEFAULT, Stated, assemble
from zero_sizer.units import GIB


def stated(**values) -> dict[str, Stated]:
    return {name: Stated(value, "--" + name) for name, value in values.items()}


@pytest.fixture
def hosts(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("a slots=8\nb slots=8\nc slots=4\n")
    return str(path)


def test_nothing_stated_is_one_rank_of_unknown_capacity_and_says_so():
    cluster = assemble({})
    assert (cluster.nodes, cluster.gpus_per_node, cluster.world_size) == (1, 1, 1)
    assert cluster.gpu is cluster.gpu_memory is cluster.host_memory is cluster.nvme is None
    assert cluster.origins["nodes"] == cluster.origins["gpus_per_node"] == DEFAULT


def test_several_nodes_need_their_gpus_stated():
    with pytest.raises(InputError, match="--gpus-per-node"):
        assemble(stated(nodes=4))
    assert assemble(stated(nodes=4, gpus_per_node=8)).world_size == 32
    assert assemble(stated(nodes=4, gpus_per_node=8)).layout == "4 x 8"
    assert assemble(stated(gpus_per_node=8)).world_size == 8


def test_a_gpu_brings_the_memory_that_pytorch_sees():
    cluster = assemble(stated(gpu="a100-80gb"))
    assert cluster.gpu_memory == catalog.find("a100-80gb").visible_bytes < 80 * GIB
    assert cluster.origins["gpu_memory"] == "GPU table: a100-80gb"


def test_a_capacity_that_nobody_measured_says_so_in_its_origin():
    unmeasured = [gpu for gpu in catalog.all_gpus() if gpu.visible_note]
    assert unmeasured, "then this rule has no case left: delete it"
    for gpu in unmeasured:
        assert gpu.visible_note in assemble(stated(gpu=gpu.name)).origins["gpu_memory"]


def test_stated_memory_wins_over_the_table_and_needs_no_gpu():
    assert assemble(stated(gpu="t4", gpu_memory=GIB)).gpu_memory == GIB
    alone = assemble(stated(gpu_memory=GIB))
    assert (alone.gpu, alone.gpu_memory, alone.origins["gpu_memory"]) == (None, GIB, "--gpu_memory")


def test_unequal_hosts_add_up_as_deepspeed_launches_them(hosts):
    cluster = assemble(stated(hostfile=hosts))
    assert (cluster.nodes, cluster.gpus_per_node, cluster.world_size) == (3, 8, 20)
    assert cluster.slots == (8, 8, 4)
    assert not cluster.has_equal_nodes
    assert cluster.layout == "8 + 8 + 4"
    assert cluster.origins["nodes"] == f"hostfile {hosts}"


def test_nodes_and_gpus_cut_a_hostfile_as_the_launchers_flags_do(hosts):
    two = assemble(stated(hostfile=hosts, nodes=2))
    assert (two.world_size, two.slots, two.origins["nodes"]) == (16, (), "--nodes")
    assert assemble(stated(hostfile=hosts, gpus_per_node=4)).world_size == 12


@pytest.mark.parametrize(("name", "value"), [("nodes", 4), ("gpus_per_node", 8)])
def test_a_hostfile_cannot_give_what_it_does_not_list(hosts, name, value):
    with pytest.raises(InputError) as caught:
        assemble(stated(hostfile=hosts, **{name: value}))
    assert caught.value.where == f"--{name}"
    assert hosts in str(caught.value)


def test_an_unknown_gpu_is_reported_where_it_was_named():
    with pytest.raises(InputError) as caught:
        assemble({"gpu": Stated("h1000", "job.yaml:7")})
    assert str(caught.value).startswith("job.yaml:7: no GPU 'h1000'")
