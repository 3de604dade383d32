"""Plans of the search as changes of a user's config: where no single change makes a job fit."""

from collections.abc import Iterator
from dataclasses import replace

from zero_sizer.advise.batch import with_batch
from zero_sizer.advise.candidate import Candidate
from zero_sizer.advise.choose import Options, search_of
from zero_sizer.advise.config import ZERO, strategy_config
from zero_sizer.advise.ladder import with_keys
from zero_sizer.advise.moves import Change, Move
from zero_sizer.advise.strategy import Strategy
from zero_sizer.config import batch, document
from zero_sizer.config.document import Document, from_mapping
from zero_sizer.errors import InputError
from zero_sizer.job.read import Job
from zero_sizer.plan.plan import Plan


def searched(job: Job, plan: Plan) -> Iterator[Move]:
    """A plan of each strategy that fits at the train batch of a job, the job's own first.

    Each keeps the job's micro batch where it can, and says no more keys than it takes to fit.
    """
    on = job.workload.checkpointing or None  # that it is off is not held, as in other fixes
    workload = replace(job.workload, micro_batch=None, grad_accum=None, checkpointing=on)
    free = replace(job, workload=workload)
    train_batch = plan.micro_batch * plan.grad_accum * plan.dp_world_size
    options = Options(margin=0.0, train_batch=train_batch, is_thorough=True)
    try:
        search = search_of(free, options)
    except InputError:  # no GPU is named: nothing is searched by speed
        return
    kept = search.at_batch(replace(search.batch, micro_batch=plan.micro_batch))
    nodes = job.cluster.nodes
    for strategy in sorted(search.usable, key=lambda s: not _is_own(s, plan)):
        found = kept.best(strategy, nodes) or search.best(strategy, nodes)
        if found is not None:
            yield _move(job, plan, search.simplest(found, as_fast=False))


def _is_own(strategy: Strategy, plan: Plan) -> bool:
    devices = (plan.optimizer_device.value, plan.param_device.value)
    names = {"": "gpu", "cpu": "host", "nvme": "nvme"}
    is_hpz = "zero_hpz_partition_size" in strategy.zero
    same = (names[strategy.optimizer_on], names[strategy.weights_on]) == devices
    return same and strategy.stage == plan.stage and is_hpz == (plan.hpz_partition_size > 1)


def _move(job: Job, plan: Plan, found: Candidate) -> Move:
    """The changes that make a user's job that plan."""
    values = dict(job.document.values)
    if not _is_own(found.strategy, plan):
        kept = {key: values[key] for key in batch.KEYS if key in values}
        values = {**strategy_config(values, found.strategy), **kept}
    values[ZERO] = with_keys(values.get(ZERO, {}), found.setting)
    text = from_mapping(values)
    changes = _differences(job.document, text)
    is_batch_kept = (found.micro_batch, found.grad_accum) == (plan.micro_batch, plan.grad_accum)
    if not is_batch_kept:
        changes += [
            Change(key=batch.MICRO, value=found.micro_batch),
            Change(key=batch.ACCUM, value=found.grad_accum),
        ]
    if found.checkpointing and not plan.checkpointing:
        changes.append(Change(key="--checkpointing", value=True))

    def apply(before: Job) -> Job:
        new = document.from_mapping(values, source=before.document.source)
        workload = replace(before.workload, checkpointing=found.checkpointing)
        after = replace(before, document=new, workload=workload)
        if is_batch_kept:
            return after
        return with_batch(after, found.micro_batch, found.grad_accum)

    return Move(name=found.strategy.name, changes=tuple(changes), apply=apply)


def _differences(before: Document, after: Document) -> list[Change]:
    old, new = dict(before.leaves()), dict(after.leaves())
    changed = [Change(key=k, value=v) for k, v in new.items() if old.get(k) != v]
    gone = dict.fromkeys(_removed(key, after) for key in old if key not in new)
    return changed + [Change(key=key, value=None) for key in gone]


def _removed(key: str, after: Document) -> str:
    """The key, or the section that is gone with all its keys."""
    parts = key.split(".")
    sections = (".".join(parts[:count]) for count in range(1, len(parts)))
    return next((name for name in sections if after.get(name) is None), key)
