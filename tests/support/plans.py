"""Short ways from a config to a plan and a ledger, for tests."""

from collections.abc import Mapping
from typing import Any

from zero_sizer.config import document, resolve
from zero_sizer.config.workload import Workload
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.job.read import Job
from zero_sizer.ledger import entries
from zero_sizer.ledger.entry import Allocation, evaluate
from zero_sizer.models.spec import Architecture, ModelSpec, Tensor
from zero_sizer.plan.plan import Plan
from zero_sizer.plan.resolve import plan_of


def spec_of(shapes: Mapping[str, tuple[int, ...]], frozen: frozenset[str] = frozenset()):
    """A model of these parameters and nothing else."""
    tensors = tuple(Tensor(n, s, trainable=n not in frozen) for n, s in shapes.items())
    return ModelSpec(name="test", origin="test", parameters=tensors, arch=Architecture())


def equal_tensors(num_params: int, count: int) -> ModelSpec:
    """A model of ``count`` equal 1-D tensors."""
    size, rest = divmod(num_params, count)
    assert rest == 0
    return spec_of({f"layers.{i}.weight": (size,) for i in range(count)})


def make_job(config: Mapping[str, Any], spec: ModelSpec, ranks: int, **workload: Any) -> Job:
    stated = {"micro_batch": 1, "seq_len": 1, "zero_init": False, **workload}
    return Job(
        document=document.from_mapping(config),
        model=spec,
        cluster=Cluster(nodes=1, gpus_per_node=ranks, origins={}),
        workload=Workload(**stated),
        origins={},
    )


def make_plan(config: Mapping[str, Any], spec: ModelSpec, ranks: int, **workload: Any) -> Plan:
    job = make_job(config, spec, ranks, **workload)
    settings, _ = resolve.resolve(job.document, job.workload, world_size=ranks, model=spec)
    plan = plan_of(job, settings).plan
    assert plan is not None
    return plan


def ledger_of(plan: Plan, rank: int = 0) -> list[Allocation]:
    return evaluate(entries.ENTRIES, plan.at_rank(rank))
