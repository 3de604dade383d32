"""Every price has a source, a month and a GPU that is known; energy figures have sources."""

import json
import re
from pathlib import Path

import pytest

from zero_sizer.hardware import catalog, costs

TABLE = json.loads((Path(costs.__file__).parent / "data" / "costs.json").read_text())
GPUS = {gpu.name: gpu for gpu in catalog.all_gpus()}
UNRATED = {  # rated with the CPU beside it; sources differ (250 and 300 W); built by others
    *("gh200-96gb", "gh200-144gb", "a800-pcie-80gb", "a800-40gb", "rtx-4090-48gb"),
}


@pytest.mark.parametrize("row", TABLE["prices"], ids=lambda row: f"{row['gpu']}-{row['provider']}")
def test_a_price_is_cited_and_dated(row):
    assert row["gpu"] in GPUS
    assert row["source"] in TABLE["sources"]
    assert re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", row["month"])
    assert 0.1 < row["usd"] < 30
    assert row["gpus"] in (1, 2, 4, 8)
    assert row["provider"]
    assert row["instance"]


def test_every_source_is_used_and_has_an_address():
    used = {row["source"] for row in TABLE["prices"]}
    used |= {row["source"] for row in TABLE["energy"].values()}
    assert used == set(TABLE["sources"])
    for source in TABLE["sources"].values():
        assert source["title"]
        assert source["url"].startswith("https://")


def test_the_lowest_price_of_a_machine_that_holds_the_node_is_taken():
    assert costs.list_price("mi300x", 8).provider == "Vultr"
    assert costs.list_price("l4", 8).gpus == 1
    assert costs.list_price("rtx-3090", 1) is None
    for gpu in GPUS:
        listed = [price.usd for price in costs.list_prices(gpu)]
        assert listed == sorted(listed)


def test_energy_is_more_than_the_boards():
    assert costs.node_share().value == pytest.approx(
        10.2e3 / (8 * GPUS["h100-80gb"].board_watts), 1e-2
    )
    assert 1 < costs.pue().value < 2


@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)
def test_board_power_is_of_its_generation(gpu):
    """A watt computes no more than the newest cards do, and no less than the oldest."""
    if gpu.board_watts is None:
        assert gpu.name in UNRATED
        return
    assert gpu.board_watts_source
    assert 60 <= gpu.board_watts <= 1400
    per_watt = max(gpu.peak_tflops.values()) * 1e12 / gpu.board_watts
    oldest = 4e10 if gpu.compute_capability == (6, 1) else 5e10  # Pascal without fast fp16
    assert oldest < per_watt < 6e12
