"""A training run as wanted: how much, from when, at which price, and what it may take.

A rates file (``--rates``) is a YAML::

    usd_per_gpu_hour: {h100-80gb: 2.49, a100-80gb: 1.35}    # or one number for all
    pue: 1.2                      # of the data center
    node_watts_over_gpus: 1.6     # of a whole node
"""

from collections.abc import Mapping
from datetime import date
from typing import Any

from zero_sizer.config.document import Document
from zero_sizer.config.workload import Workload
from zero_sizer.errors import InputError
from zero_sizer.hardware import catalog, costs
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.job import fields as stated
from zero_sizer.job import sections
from zero_sizer.job.fields import Field, Flags
from zero_sizer.job.values import Number
from zero_sizer.util.records import dataclass

_PRICE = "usd_per_gpu_hour"
_PUE, _NODE = (
    Field(name=n, check=Number(100.0, lowest=1.0)) for n in ("pue", "node_watts_over_gpus")
)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Price and energy that a run is charged with.

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


def goal_of(workload: Workload, cluster: Cluster, flags: Flags | None = None) -> Goal | None:
    """The run that a job and its asker describe; None where nobody says how much is trained.

    Raises:
        InputError: a wish without an amount, or a value that makes no sense.
    """
    flags = flags or Flags()
    if workload.tokens is None and workload.samples is None:
        _refuse_wishes(flags)
        return None
    start = _stated(stated.START, flags)
    found = _costs(cluster, flags)
    budget = _stated(stated.BUDGET, flags)
    if budget is not None and found.usd_per_gpu_hour is None:
        raise InputError(found.price_origin, where=stated.BUDGET.flag)
    name = "tokens" if workload.tokens is not None else "samples"
    return Goal(
        tokens=workload.tokens,
        samples=workload.samples,
        epochs=workload.epochs or 1.0,
        origin=workload.origins.get(name, f"--{name}"),
        start=start or date.today(),
        start_origin=stated.START.flag if start else "today",
        costs=found,
        target_days=_stated(stated.TARGET_DAYS, flags),
        budget=budget,
    )


def _refuse_wishes(flags: Flags) -> None:
    """Stops at what says nothing without an amount.

    Raises:
        InputError: there is such.
    """
    for option in stated.RUN:
        if not option.section and getattr(flags, option.name) is not None:
            raise InputError(
                "says nothing without how much is trained",
                remedy="add --tokens 300B, or tokens: 300B under workload:",
                where=option.flag,
            )


def _stated(option: Field, flags: Flags) -> Any:
    """The typed value of an option; None where it was not given."""
    value = getattr(flags, option.name)
    return None if value is None else option.parse(value, option.flag)


def short(number: int) -> str:
    """``300B`` of 300,000,000,000."""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6)):
        if number >= size:
            return f"{number / size:.4g}{unit}"
    return f"{number:,}"


def _costs(cluster: Cluster, flags: Flags) -> Costs:
    if flags.rate is not None and flags.rates is not None:
        raise InputError("two prices", remedy="give this or --rates", where="--rate")
    file = _read(flags.rates)
    price, price_origin = _price(cluster, flags, file)
    node, pue = costs.node_share(), costs.pue()
    values = {_NODE.name: (node.value, node.source), _PUE.name: (pue.value, pue.source)}
    for option in (_NODE, _PUE):
        if file is not None and file.values.get(option.name) is not None:
            where = file.where(option.name)
            values[option.name] = (option.parse(file.values[option.name], where), where)
    return Costs(
        usd_per_gpu_hour=price,
        price_origin=price_origin,
        node_share=values[_NODE.name][0],
        node_origin=values[_NODE.name][1],
        pue=values[_PUE.name][0],
        pue_origin=values[_PUE.name][1],
    )


def _price(cluster: Cluster, flags: Flags, file: Document | None) -> tuple[float | None, str]:
    """The price of a GPU-hour: as stated, else by the published lists."""
    if flags.rate is not None:
        return _stated(stated.RATE, flags), stated.RATE.flag
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
            price = _usd(str(key), item, where)
            try:
                prices[catalog.find(str(key)).name] = (price, where)
            except InputError as error:
                raise InputError(error.message, remedy=error.remedy, where=where) from None
        return prices.get(gpu)
    if value is None:
        return None
    where = file.where(_PRICE)
    return _usd(_PRICE, value, where), where


def _usd(key: str, value: Any, where: str) -> float:
    """The price of a GPU-hour that a rates file states under a key."""
    price: float = Field(name=key, check=stated.RATE.check).parse(value, where)
    return price


def _read(path: str | None) -> Document | None:
    if path is None:
        return None
    from zero_sizer.job import yaml_lines

    file = yaml_lines.load(path)
    sections.refuse_unknown(file, "", (_PRICE, _PUE.name, _NODE.name), kind="in a rates file")
    return file
