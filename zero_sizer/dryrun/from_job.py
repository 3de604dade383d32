"""From a job to the task that every rank runs."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from zero_sizer.config.settings import Setting, Settings
from zero_sizer.config.workload import INFERENCE
from zero_sizer.dryrun.engine_config import engine_config
from zero_sizer.dryrun.task import DEFAULT_OPTIMIZER, Task
from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.job.read import Job
from zero_sizer.models.changes import freeze
from zero_sizer.models.changes.quantization import converted
from zero_sizer.models.changes.records import BITSANDBYTES
from zero_sizer.models.positions import longest_sequence
from zero_sizer.models.sources.diffusers_class import is_diffusers
from zero_sizer.models.spec import ModelSpec
from zero_sizer.plan.plan import Plan
from zero_sizer.plan.resolve import plan_of, settings_of


def refuse_packed(job: Job) -> None:
    """Stops a run that computes with values, of weights that stand in for packed ones.

    Raises:
        UnsupportedError: the model is quantized.
    """
    if job.model.quantization is not None:
        raise UnsupportedError(
            "packed weights are run by the simulated dry run only", remedy="take --how simulated"
        )


def rank_task(job: Job, *, steps: int = 2, nvme_path: str | None = None) -> Task:
    """The task every rank runs for a job.

    Args:
        job: as read, its model cut where that is wanted.
        steps: optimizer steps, or requests of inference.
        nvme_path: where swap files go.
    """
    if job.workload.task == INFERENCE:
        return _inference_task(job, requests=steps, nvme_path=nvme_path)
    settings, _ = settings_of(job)
    _refuse_sequence_parallel(settings)
    _refuse_unmatched(job.model)
    plan = _plan(job, settings)
    config, notes = engine_config(
        job.document,
        settings,
        job.workload,
        job.model,
        micro_batch=plan.micro_batch,
        nvme_path=nvme_path,
    )
    source, model_notes = model_source(job.model)
    _refuse_loss(plan, source)
    longest = longest_sequence(job.model)
    if longest is not None and plan.seq_len > longest:
        model_notes.append(
            f"{plan.seq_len:,} tokens are more than the {longest:,} positions of the model's "
            "table: an embedding with values refuses them, a simulated one may not"
        )
    return Task(
        **source,
        config=config,
        micro_batch=plan.micro_batch,
        grad_accum=int(config.get("gradient_accumulation_steps", 1)),
        seq_len=plan.seq_len,
        feed=_feed(plan, source),
        checkpointing=plan.checkpointing,
        checkpointing_how=asdict(plan.checkpointing_how),
        attention=plan.attention,
        sequences=plan.sequences,
        zero_init=plan.zero_init,
        built_dtype=plan.built_dtype.value,
        optimizer=job.workload.optim or DEFAULT_OPTIMIZER,
        steps=steps,
        notes=(*model_notes, *notes),
    )


def _refuse_unmatched(model: ModelSpec) -> None:
    """Stops a run that would train what was meant to be frozen."""
    patterns = freeze.unmatched(model)
    if model.freeze is None or model.freeze.is_of_a_tool or not patterns:
        return
    near = freeze.near(model, patterns[0])
    raise InputError(
        f"{patterns[0]!r} names no parameter of {model.name}, so nothing would be frozen by it",
        remedy=f"is it {' or '.join(near)}?" if near else freeze.HOW,
        where=model.freeze.origin,
    )


def _feed(plan: Plan, source: Mapping[str, Any]) -> dict[str, Any] | None:
    """The feed of a model that is built from its config; a factory's has the usual convention."""
    return plan.feed.to_json() if plan.feed is not None and "hf_config" in source else None


def _inference_task(job: Job, *, requests: int, nvme_path: str | None) -> Task:
    """Forward and generate; no optimizer, and DeepSpeed where the config has a stage."""
    from zero_sizer.config.inference import is_inference_config
    from zero_sizer.plan.inference import plan_inference

    plan = plan_inference(job).plan
    if plan is None:
        raise UnsupportedError("the job cannot be planned, so it cannot be run")
    notes: list[str] = []
    config: dict[str, Any] = {}
    if plan.tp_size > 1:
        config = _init_inference(job, plan)
    elif is_inference_config(job.document.values):
        notes.append("init_inference is not run: the model moves to the GPU in its dtype")
    elif job.document.values:
        settings, _ = settings_of(job)
        config, notes = engine_config(
            job.document,
            settings,
            job.workload,
            job.model,
            micro_batch=plan.micro_batch,
            nvme_path=nvme_path,
        )
        if config.pop("optimizer", None) is not None:
            notes.append("optimizer left out: inference has none")
    source, model_notes = model_source(job.model)
    how = job.model.quantization
    if how is not None and how.method != BITSANDBYTES:
        raise UnsupportedError(
            f"kernels of weights {how.describe()} are not simulated",
            remedy="check counts their weights; take nf4 or int8 to simulate",
        )
    return Task(
        **source,
        config=config,
        micro_batch=plan.micro_batch,
        seq_len=plan.seq_len,
        new_tokens=plan.new_tokens,
        cache=plan.cache,
        attention=plan.attention,
        sequences=plan.sequences,
        zero_init=plan.zero_init,
        built_dtype=plan.model_dtype.value,
        steps=requests if plan.stage == 3 else 1,  # elsewhere each is like the first
        notes=(*model_notes, *notes),
    )


def _init_inference(job: Job, plan: Plan) -> dict[str, Any]:
    """The config that ``deepspeed.init_inference`` gets: AutoTP alone.

    Raises:
        UnsupportedError: the config asks for kernels, or there are not as many ranks.
    """
    if job.document.get("replace_with_kernel_inject") or job.document.get("kernel_inject"):
        raise UnsupportedError("DeepSpeed's own kernels do not run on a GPU that does not exist")
    ranks, world_size = plan.tp_size, job.cluster.world_size
    if ranks != world_size:
        raise UnsupportedError(
            f"init_inference makes one group of {ranks} ranks, and the job has {world_size}",
            remedy=f"give --gpus-per-node {ranks}",
        )
    stated = job.document.get("tensor_parallel")
    parallel = dict(stated) if isinstance(stated, Mapping) else {}
    return {
        "tensor_parallel": {**parallel, "tp_size": ranks},
        "dtype": plan.model_dtype.value,
    }


def _refuse_sequence_parallel(settings: Settings) -> None:
    """Stops where sequences would be split, which the training script does and no config.

    Alone the key splits nothing, in a dry run as in a real one.
    """
    size, data = settings["sequence_parallel_size"], settings["data_parallel_size"]
    if isinstance(size, int | float) and size > 1 and data is not None:
        raise UnsupportedError(
            f"sequence parallelism (Ulysses, sequence_parallel_size {size:g}) is set up by the "
            "training script, so a dry run of the config alone cannot show it",
            remedy="run the script: zero-sizer dryrun --how simulated -- train.py ..., or take "
            "sequence_parallel_size out to see the job without it",
        )


def _refuse_loss(plan: Plan, source: Mapping[str, Any]) -> None:
    """Stops where transformers' class would compute another loss than the job's."""
    if "hf_config" in source and plan.loss != "transformers":
        raise UnsupportedError(
            f"transformers' {plan.model.name} computes transformers' loss, not the {plan.loss} one",
            remedy="leave --loss out, name a module:factory, or dryrun the training script",
        )


def _plan(job: Job, settings: Settings) -> Plan:
    """The job's workload, resolved; an optimizer the ledger does not know can still be run."""
    plan = plan_of(job, settings).plan
    if plan is None:
        known = Setting("AdamW", "stands in: only the workload is read")
        settings = Settings(by_key={**settings.by_key, "optimizer.type": known})
        plan = plan_of(job, settings).plan
    if plan is None:
        raise UnsupportedError("the job cannot be planned, so it cannot be run")
    return plan


def model_source(model: ModelSpec) -> tuple[dict[str, Any], list[str]]:
    """How a rank builds a model, as fields of a ``Task``, and what the reader must know of it."""
    about: dict[str, Any] = {"vocab": model.arch.vocab or 0}
    if model.adapter is not None:
        about["lora"] = model.adapter.to_peft()
        if model.adapter.use_dora and model.quantization is not None:
            raise UnsupportedError(
                "DoRA on packed weights cannot be run: it unpacks them, which only their own "
                "kernels do",
                remedy="leave out use_dora or --quantization to see the rest of the job",
            )
    if model.freeze is not None:
        about["freeze"] = tuple(model.freeze.patterns)
    if model.quantization is not None:
        names = converted(model)
        about["quantization"] = {**model.quantization.to_json(), "modules": names}
    if model.origin.startswith("factory "):
        return {"factory": model.origin.removeprefix("factory "), **about}, []
    if model.hf_config.get("model_type") or is_diffusers(model.hf_config):
        return {"hf_config": dict(model.hf_config), **about}, []
    if model.quantization is not None:
        raise UnsupportedError(
            "packed weights of a model of which only shapes are known cannot be run",
            remedy="name a bundled model, its config.json or module:factory, or leave out "
            "--quantization",
        )
    note = "a stand-in with the model's tensors and no activations: only shapes are known"
    return {"parameters": _shapes(model), **about}, [note]


def _shapes(model: ModelSpec) -> list[dict[str, Any]]:
    return [
        {
            "name": tensor.name,
            "shape": list(tensor.shape),
            "dtype": tensor.dtype.value if tensor.dtype is not None else None,
            "trainable": tensor.trainable,
        }
        for tensor in model.parameters
    ]
