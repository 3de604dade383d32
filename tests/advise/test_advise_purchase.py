"""Hosts that `size` says to buy carry what it says, and smaller ones do not."""

from dataclasses import replace

import pytest
from support.advise_jobs import job_on

from zero_sizer.advise.choose import Options, choose, search_of
from zero_sizer.advise.fleet import fleet
from zero_sizer.hardware.device import Device


@pytest.fixture(scope="module")
def asked():
    job = job_on("llama-3-8b", "rtx-3090", gpus=4, host_memory=None, seq_len=2048)
    return job, fleet(job, max_nodes=2)


@pytest.mark.slow
def test_what_is_to_be_bought_is_enough_and_little_less_is_not(asked):
    job, found = asked
    assert found.to_buy
    for buy in found.to_buy:
        enough, less = (
            replace(job.cluster, host_memory=size, nvme=buy.nvme_bytes or None)
            for size in (buy.host_bytes, int(0.99 * buy.host_bytes))
        )
        fits = []
        for cluster in (enough, less):
            search = search_of(replace(job, cluster=cluster), Options())
            same = [s for s in search.usable if s.name == buy.strategy.name]
            plans = [c for s in same for c in search.smallest(s, buy.plan.nodes)]
            fits.append(any(map(search.fits, plans)))
        assert fits == [True, False], buy.strategy.name


@pytest.mark.slow
def test_choose_asks_for_the_same_hosts(asked):
    """One number for one plan: what it needs alone is no size of a host."""
    job, found = asked
    losses = {loss.strategy.name: loss for loss in choose(job).losses}
    both = [buy for buy in found.to_buy if buy.plan.nodes == 1 and buy.strategy.name in losses]
    hosts = [buy for buy in both if not buy.nvme_bytes]
    assert hosts
    for buy in hosts:
        short = losses[buy.strategy.name].shortfalls
        assert [s.size_for() for s in short if s.device is Device.HOST] == [buy.host_bytes]


@pytest.mark.slow
def test_each_is_on_the_fewest_nodes_of_its_strategy(asked):
    _, found = asked
    nodes = {buy.strategy.name: buy.plan.nodes for buy in found.to_buy}
    assert nodes["ZeRO-3, all on host"] == 1
    assert all(buy.plan.uses[Device.NVME].num_bytes <= buy.nvme_bytes for buy in found.to_buy)


def test_nothing_is_to_be_bought_where_it_is_stated():
    job = job_on("llama-3-8b", "rtx-3090", gpus=4, host_memory="64GiB", seq_len=2048)
    assert fleet(job, max_nodes=1).to_buy == ()
