"""What a training run is to be: how much, from when, at which price, and what it may take.

A rates file (``--rates``) is a YAML::

    usd_per_gpu_hour: {h100-80gb: 2.49, a100-80gb: 1.35}    # or one number for all
    pue: 1.2                      # of the data center
    node_watts_over_gpus: 1.6     # of a whole node
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from math import isfinite
from typing import Any

from zero_sizer.config.document import Document
from zero_sizer.config.workload import Workload
from zero_sizer.errors import InputError
from zero_sizer.hardware import catalog, costs
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.job import fields as stated
from zero_sizer.util.spelling import shown

_MOST_USD = 1e4  # a GPU-hour
_PRICE, _PUE, _NODE = "usd_per_gpu_hour", "pue", "node_watts_over_gpus"


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a run is charged with.

    Attributes:
        usd_per_gpu_hour: None where no price is known.
        price_origin: who says so; where none is known, what to do about it.
        node_share: watts of a whole node over those of its GPUs.
        node_origin: who says so.
        pue: watts of the data center over those of its computers.
        pue_origin: who says so.
    """

    usd_per_gpu_hour: float | None
    price_origin: str
    node_share: float
    node_origin: str
    pue: float
    pue_origin: str


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A training run.

    Attributes:
        tokens: of the data; None where ``samples`` says how much it is.
        samples: of the data, each of the job's sequence length.
        epochs: times that the data is gone through.
        origin: who says how much.
        start: the first day.
        start_origin: who says so.
        costs: price and energy.
        target_days: the most days that it may take, or None.
        budget: the most USD that it may cost, or None; a price is known where there is one.
    """

    tokens: int | None
    samples: int | None
    epochs: float
    origin: str
    start: date
    start_origin: str
    costs: Costs
    target_days: float | None = None
    budget: float | None = None

    def total_tokens(self, seq_len: int) -> int:
        """Tokens that pass through the model, for samples of ``seq_len``."""
        data = self.tokens if self.tokens is not None else (self.samples or 0) * seq_len
        return max(1, round(data * self.epochs))

    @property
    def about(self) -> str:
        """How much was asked for, in the asker's words."""
        number = self.tokens if self.tokens is not None else self.samples or 0
        what = "tokens" if self.tokens is not None else "samples"
        times = "" if self.epochs == 1 else f" x {self.epochs:g} epochs"
        return f"{short(number)} {what}{times}"


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the command line or a caller adds to the job; None is "not given".

    Attributes:
        start: ``2026-11-30`` or a date.
        rate: USD a GPU-hour.
        rates: path of a rates file.
        target_days: the most days.
        budget: the most USD.
    """

    start: str | date | None = None
    rate: float | str | None = None
    rates: str | None = None
    target_days: float | str | None = None
    budget: float | str | None = None

    @property
    def given(self) -> str:
        """The option that was given first, or ""."""
        for name in ("target_days", "budget", "rate", "rates", "start"):
            if getattr(self, name) is not None:
                return "--" + name.replace("_", "-")
        return ""


def goal_of(workload: Workload, cluster: Cluster, wishes: Wishes | None = None) -> Goal | None:
    """The run that a job and its asker describe; None where nobody says how much is trained.

    Raises:
        InputError: a wish without an amount, or a value that makes no sense.
    """
    wishes = wishes or Wishes()
    if workload.tokens is None and workload.samples is None:
        if wishes.given:
            raise InputError(
                "says nothing without how much is trained",
                remedy="add --tokens 300B, or tokens: 300B under workload:",
                where=wishes.given,
            )
        return None
    start, origin = _start(wishes.start)
    found = _costs(cluster, wishes)
    budget = _number(wishes.budget, "--budget", 1e15)
    if budget is not None and found.usd_per_gpu_hour is None:
        raise InputError(found.price_origin, where="--budget")
    name = "tokens" if workload.tokens is not None else "samples"
    return Goal(
        tokens=workload.tokens,
        samples=workload.samples,
        epochs=workload.epochs or 1.0,
        origin=workload.origins.get(name, f"--{name}"),
        start=start,
        start_origin=origin,
        costs=found,
        target_days=_number(wishes.target_days, "--target-days", 1e6),
        budget=budget,
    )


def short(number: int) -> str:
    """``300B`` of 300,000,000,000."""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6)):
        if number >= size:
            return f"{number / size:.4g}{unit}"
    return f"{number:,}"


def _start(value: str | date | None) -> tuple[date, str]:
    if value is None:
        return date.today(), "today"
    if isinstance(value, date):
        return value, "stated"
    try:
        found = date.fromisoformat(value.strip())
        if len(value.strip()) != len("2026-01-31") or not 1970 <= found.year <= 2999:
            raise ValueError
    except ValueError:
        raise InputError(
            f"{shown(value)} is not a day", remedy="write it as 2026-01-31", where="--start"
        ) from None
    return found, "--start"


def _number(value: Any, where: str, most: float, least: float = 0.0) -> float | None:
    """A number above ``least``."""
    if value is None:
        return None
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{shown(value)} is not a number", where=where) from None
    if not isfinite(number) or not (least < number or number == least > 0) or number > most:
        bounds = f"from {least:g}" if least else "above 0 and"
        raise InputError(f"{shown(value)} is not a number {bounds} up to {most:g}", where=where)
    return number


def _costs(cluster: Cluster, wishes: Wishes) -> Costs:
    if wishes.rate is not None and wishes.rates is not None:
        raise InputError("two prices", remedy="give this or --rates", where="--rate")
    file = _read(wishes.rates)
    price, price_origin = _price(cluster, wishes, file)
    node, pue = costs.node_share(), costs.pue()
    values: dict[str, tuple[float, str]] = {
        _NODE: (node.value, node.source),
        _PUE: (pue.value, pue.source),
    }
    for name in (_NODE, _PUE):
        if file is not None and file.values.get(name) is not None:
            where = file.where(name)
            found = _number(file.values[name], f"{where}: {name}", 100.0, least=1.0)
            values[name] = (found or 1.0, where)
    return Costs(
        usd_per_gpu_hour=price,
        price_origin=price_origin,
        node_share=values[_NODE][0],
        node_origin=values[_NODE][1],
        pue=values[_PUE][0],
        pue_origin=values[_PUE][1],
    )


def _price(cluster: Cluster, wishes: Wishes, file: Document | None) -> tuple[float | None, str]:
    """The price of a GPU-hour: as stated, else by the published lists."""
    if wishes.rate is not None:
        return _number(wishes.rate, "--rate", _MOST_USD), "--rate"
    name = cluster.gpu.name if cluster.gpu else ""
    if file is not None:
        found = _in_file(file, name)
        if found is not None:
            return found
    listed = costs.list_price(name, cluster.gpus_per_node)
    if listed is None:
        return None, f"no rate known for {name or 'this GPU'}: give --rate"
    return listed.usd, listed.about


def _in_file(file: Document, gpu: str) -> tuple[float, str] | None:
    value = file.values.get(_PRICE)
    if isinstance(value, Mapping):
        prices = {}
        for key, item in value.items():
            where = file.where(f"{_PRICE}.{key}")
            price = _number(item, f"{where}: {key}", _MOST_USD)
            try:
                prices[catalog.find(str(key)).name] = (price, where)
            except InputError as error:
                raise InputError(error.message, remedy=error.remedy, where=where) from None
        found = prices.get(gpu)
        return (found[0], found[1]) if found and found[0] else None
    if value is None:
        return None
    where = file.where(_PRICE)
    number = _number(value, f"{where}: {_PRICE}", _MOST_USD)
    return (number, where) if number else None


def _read(path: str | None) -> Document | None:
    if path is None:
        return None
    from zero_sizer.job import yaml_lines

    file = yaml_lines.load(path)
    stated.refuse_unknown(file, "", (_PRICE, _PUE, _NODE), kind="in a rates file")
    return file
