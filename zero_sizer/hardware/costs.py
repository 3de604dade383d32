"""Published prices of a GPU-hour, and the watts around a GPU: ``data/costs.json``."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from zero_sizer.util.records import dataclass

_TABLE = Path(__file__).parent / "data" / "costs.json"


@dataclass(frozen=True, kw_only=True)
class ListPrice:
    """A public list price on demand.

    Attributes:
        gpu: name in the GPU table.
        usd: a GPU-hour, of an instance's price.
        provider: who asks it.
        instance: for which machine.
        gpus: GPUs of one such machine.
        month: when the source saw it, ``2025-11``.
        source: where it was published.
    """

    gpu: str
    usd: float
    provider: str
    instance: str
    gpus: int
    month: str
    source: str

    @property
    def about(self) -> str:
        """Who asks it, for what and when."""
        plural = "" if self.gpus == 1 else "s"
        return (
            f"{self.provider}'s list for {self.instance} ({self.gpus} GPU{plural}), "
            f"seen in {self.month}"
        )


@dataclass(frozen=True, kw_only=True)
class Assumed:
    """A factor of the energy bill, with its source."""

    value: float
    source: str


def list_prices(gpu: str) -> tuple[ListPrice, ...]:
    """Every known price of a GPU, the lowest first."""
    found = (price for price in _prices() if price.gpu == gpu)
    return tuple(sorted(found, key=lambda price: price.usd))


def list_price(gpu: str, gpus_per_node: int) -> ListPrice | None:
    """The lowest price of a machine with that many GPUs; of the largest machine where none has."""
    known = list_prices(gpu)
    if not known:
        return None
    wanted = min(gpus_per_node, max(price.gpus for price in known))
    return next(price for price in known if price.gpus >= wanted)


def node_share() -> Assumed:
    """Watts of a whole node over those of its GPUs."""
    return _assumed("node_watts_over_gpus")


def pue() -> Assumed:
    """Power usage effectiveness: watts of a data center over those of its computers."""
    return _assumed("pue")


def _assumed(name: str) -> Assumed:
    row = _table()["energy"][name]
    return Assumed(value=row["value"], source=_title(row["source"]))


@cache
def _prices() -> tuple[ListPrice, ...]:
    rows = _table()["prices"]
    return tuple(ListPrice(**{**row, "source": _title(row["source"])}) for row in rows)


def _title(key: str) -> str:
    title: str = _table()["sources"][key]["title"]
    return title


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(_TABLE.read_text(encoding="utf-8"))
    return table
