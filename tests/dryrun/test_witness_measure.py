"""Counting storages: each once, for its first owner, where DeepSpeed would have put it."""

import gc

import pytest

torch = pytest.importorskip("torch")
measuring = pytest.importorskip("zero_sizer.dryrun.measure")

from zero_sizer.dryrun.launched.watch import StorageWatch, activations  # noqa: E402
from zero_sizer.dryrun.owners import GPU, WITH_OPTIMIZER, Owner  # noqa: E402

pytestmark = pytest.mark.slow  # importing torch takes seconds


class NoPins(measuring.PinnedStorages):
    """As on the CPU accelerator, with nothing pinned yet."""


class Accelerator:
    """The two calls of DeepSpeed's CPU accelerator that pin."""

    def pin_memory(self, tensor, make_copy=True):
        return tensor

    def _torch_empty_pinned(self, tensor, shape):
        return tensor.new_empty(shape)


class Engine:
    """An engine whose optimizer is a bare object with the given attributes."""

    def __init__(self, **attributes):
        self.module = torch.nn.Module()
        self.optimizer = type("Wrapper", (), attributes)()


def owner(name, value, place=GPU):
    return Owner(name=name, category="parameters", place=place, value=value)


def test_views_count_once_for_the_first_owner():
    flat = torch.zeros(100)
    tally = measuring.Tally(measuring.Placement(None, NoPins()))
    tally.add(owner("flat", [flat]))
    tally.add(owner("views", {"a": flat[:10], "b": (flat[10:].view(9, 10),)}))
    assert [(row.name, row.num_bytes) for row in tally.rows()] == [("flat", 400)]


def test_a_view_keeps_its_whole_storage():
    view = torch.zeros(100)[:1]
    tally = measuring.Tally(measuring.Placement(None, NoPins()))
    tally.add(owner("view", view))
    assert [row.num_bytes for row in tally.rows()] == [400]


def test_what_was_asked_to_be_pinned_is_pinned_host_memory_until_it_dies():
    accelerator, pins = Accelerator(), NoPins()
    pins.install(accelerator)
    pinned = accelerator.pin_memory(torch.zeros(8))
    empty = accelerator._torch_empty_pinned(pinned, (4,))
    place = measuring.Placement(None, pins)
    assert place(pinned.untyped_storage(), GPU) == ("host", True)
    assert place(empty.untyped_storage(), GPU) == ("host", True)
    assert place(torch.zeros(8).untyped_storage(), GPU) == ("gpu", False)
    del pinned
    gc.collect()
    assert len(pins._by_address) == 1


@pytest.mark.parametrize(
    ("attributes", "device"),
    [({}, "gpu"), ({"cpu_offload": True}, "host"), ({"offload_optimizer": True}, "host")],
)
def test_optimizer_data_lies_on_the_host_exactly_with_offload(attributes, device):
    place = measuring.Placement(Engine(**attributes), NoPins())
    assert place(torch.zeros(1).untyped_storage(), WITH_OPTIMIZER) == (device, False)
    assert place(torch.zeros(1).untyped_storage(), GPU) == ("gpu", False)


def test_a_ratio_keeps_the_first_sub_groups_on_the_gpu():
    groups = [torch.zeros(10) for _ in range(4)]
    engine = Engine(
        offload_optimizer=True,
        partial_offload=0.25,
        fp16_partitioned_groups_flat=groups,
        fp32_partitioned_groups_flat=groups,
    )
    rows = measuring.measure(engine, pinned=NoPins(), walk=False).rows()
    assert {(row.device, row.num_storages) for row in rows} == {("gpu", 3), ("host", 1)}


def test_the_watch_sees_peak_and_what_backward_still_needs():
    weight = torch.ones(1000, requires_grad=True)
    with StorageWatch() as watch:
        watch.adopt([weight])
        watch.begin("forward")
        hidden = (weight * 2).exp()  # exp keeps its result, not its input
        loss = hidden.sum()
        del hidden
        held = {name: s.nbytes() for s, name, _ in activations(watch) if s.nbytes() > 8}
    assert held == {"saved for backward": 4000, "created in ": 4000}
    assert watch.peak(set())["gpu"] == 4000 + 2 * 4000  # the weight, 2w and its exponential
    assert loss.requires_grad


def test_the_watch_tells_host_from_gpu_at_the_peak():
    with StorageWatch() as watch:
        watch.begin("init")
        kept = torch.empty(100)
        passing = torch.empty(1000)
        del passing
    on_host = {kept.untyped_storage()._cdata}
    assert watch.peak(on_host) == {"gpu": 4000, "host": 400}
